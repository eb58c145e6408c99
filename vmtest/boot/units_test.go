// SPDX-License-Identifier: Apache-2.0

//go:build linux

package boot_test

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// units is what systemctl says of the units that systemd has loaded, by name.
type units map[string]map[string]string

// showUnits is the command that shows them.
const showUnits = "systemctl show '*' -p Id,Type,ActiveState,MainPID,After"

func parseUnits(t *testing.T, output string) units {
	t.Helper()
	all := units{}
	for block := range strings.SplitSeq(strings.TrimSpace(output), "\n\n") {
		unit := map[string]string{}
		for line := range strings.Lines(block) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			unit[key] = value
		}
		all[unit["Id"]] = unit
	}
	return all
}

// notifying are the active services that systemd has waited for to say READY=1.
func (u units) notifying() []string {
	var names []string
	for name, unit := range u {
		if strings.HasPrefix(unit["Type"], "notify") && unit["ActiveState"] == "active" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// mainPID is the number of a service's main process.
func (u units) mainPID(t *testing.T, name string) uint32 {
	t.Helper()
	pid, err := strconv.ParseUint(u[name]["MainPID"], 10, 32)
	if err != nil {
		t.Fatalf("the main process of %s: %v", name, err)
	}
	return uint32(pid)
}

// after are those of some units that a unit is started after, directly or
// because of units in between.
func (u units) after(name string, of []string) []string {
	seen := map[string]bool{}
	for todo := []string{name}; len(todo) > 0; {
		next := todo[0]
		todo = todo[1:]
		for a := range strings.FieldsSeq(u[next]["After"]) {
			if !seen[a] {
				seen[a] = true
				todo = append(todo, a)
			}
		}
	}
	return slices.DeleteFunc(slices.Clone(of), func(other string) bool { return !seen[other] })
}

// ranks sorts units into ranks: those of one rank need not wait for one another.
func (u units) ranks(names []string) [][]string {
	var ranks [][]string
	left := slices.Clone(names)
	for len(left) > 0 {
		var rank []string
		for _, name := range left {
			if len(u.after(name, left)) == 0 {
				rank = append(rank, name)
			}
		}
		if rank == nil {
			return append(ranks, left) // not with units that systemd could start
		}
		left = slices.DeleteFunc(left, func(name string) bool { return slices.Contains(rank, name) })
		ranks = append(ranks, rank)
	}
	return ranks
}

// diagram is a sequence diagram of who says READY=1, for Mermaid.
func (u units) diagram() string {
	names := u.notifying()
	var b strings.Builder
	b.WriteString("sequenceDiagram\n    participant s as systemd\n")
	ids := map[string]string{}
	var ranks [][]string
	for _, rank := range u.ranks(names) {
		ranks = append(ranks, rank)
		for _, name := range rank {
			ids[name] = fmt.Sprintf("u%d", len(ids))
			fmt.Fprintf(&b, "    participant %s as %s\n", ids[name], name)
		}
	}
	for _, rank := range ranks {
		for i, name := range rank {
			indent := ""
			if len(rank) > 1 {
				indent = "    "
				fmt.Fprintf(&b, "    %s\n", map[bool]string{true: "par", false: "and"}[i == 0])
			}
			fmt.Fprintf(&b, "    %ss->>%s: start\n    %s%s->>s: READY=1\n", indent, ids[name], indent, ids[name])
		}
		if len(rank) > 1 {
			b.WriteString("    end\n")
		}
	}
	return b.String()
}

// table lists the services that say READY=1, and for which others each of them waits.
func (u units) table() string {
	var b strings.Builder
	b.WriteString("| service | `Type=` | is started after |\n|---|---|---|\n")
	names := u.notifying()
	for _, name := range slices.Concat(u.ranks(names)...) {
		after := u.after(name, names)
		fmt.Fprintf(&b, "| %s | %s | %s |\n", name, u[name]["Type"], cmp.Or(strings.Join(after, ", "), "–"))
	}
	return b.String()
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
