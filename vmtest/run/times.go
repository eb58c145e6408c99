// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/sdtrace/sdtrace/vmtest"
)

// packageTime is how long a package's tests took.
type packageTime struct {
	pkg  string
	took time.Duration
}

// shown is how long a package takes that stands in the table by itself.
const shown = 5 * time.Second

// timeTable is the time of each job and of each package in it, the longest first.
func timeTable(results []*result, whole time.Duration) string {
	var cpu time.Duration
	table := [][]string{{"what", "seconds", "of a processor"}}
	seconds := func(d time.Duration) string { return fmt.Sprintf("%.0f", d.Seconds()) }
	sorted := slices.SortedFunc(slices.Values(results), func(a, b *result) int { return cmp.Compare(b.took, a.took) })
	for _, r := range sorted {
		cpu += r.cpu
		table = append(table, []string{"**" + r.name + "**", seconds(r.took), seconds(r.cpu)})
		rest := time.Duration(0)
		longest := func(a, b packageTime) int { return cmp.Compare(b.took, a.took) }
		for _, p := range slices.SortedFunc(slices.Values(r.packages), longest) {
			if p.took < shown {
				rest += p.took
				continue
			}
			name := strings.TrimPrefix(p.pkg, "github.com/sdtrace/sdtrace/")
			table = append(table, []string{"– " + name, seconds(p.took), ""})
		}
		if rest >= shown {
			table = append(table, []string{"– other packages", seconds(rest), ""})
		}
	}
	table = append(table, []string{"**all**", seconds(whole), seconds(cpu)})
	return "# Times\n\n" + vmtest.Markdown(table)
}

// cpuTime is what a process and those it has waited for have used.
func cpuTime(state *os.ProcessState) time.Duration {
	if state == nil {
		return 0
	}
	return state.UserTime() + state.SystemTime()
}
