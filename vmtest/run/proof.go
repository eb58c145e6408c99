// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"fmt"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/vmtest"
)

// keepBusy has a process for each processor do nothing as fast as it can, until stop is called
// or this process ends.
func keepBusy() (stop func(), err error) {
	var loops []*exec.Cmd
	stop = func() {
		for _, loop := range loops {
			_ = loop.Process.Kill()
			_ = loop.Wait()
		}
	}
	for range runtime.NumCPU() {
		loop := exec.Command("sh", "-c", "while :; do :; done")
		loop.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := loop.Start(); err != nil {
			stop()
			return nil, fmt.Errorf("starting a busy loop: %w", err)
		}
		loops = append(loops, loop)
	}
	return stop, nil
}

// proof is a document of what was run how often, and what failed.
func proof(ctx context.Context, opts *options, results []*result) string {
	var names []string
	runs := map[string][]*result{}
	for _, r := range results {
		if runs[r.name] == nil {
			names = append(names, r.name)
		}
		runs[r.name] = append(runs[r.name], r)
	}
	table := [][]string{{"what", "times", "failed", "seconds"}}
	var failed []string
	for _, name := range names {
		bad := 0
		var took []time.Duration
		for i, r := range runs[name] {
			took = append(took, r.took)
			if failures := r.failures(); len(failures) > 0 {
				bad++
				line, _, _ := strings.Cut(failures[0], "\n")
				failed = append(failed, fmt.Sprintf("* %s, run %d: %s", name, i+1, line))
			}
		}
		table = append(table, []string{
			name, fmt.Sprint(len(took)), fmt.Sprint(bad),
			fmt.Sprintf("%.0f to %.0f", slices.Min(took).Seconds(), slices.Max(took).Seconds()),
		})
	}
	var b strings.Builder
	b.WriteString("# What was repeated\n\n`make prove` writes this page.")
	if opts.busy {
		fmt.Fprintf(&b, " All of it ran beside %d busy loops on as many processors.", runtime.NumCPU())
	}
	describe := exec.CommandContext(ctx, "git", "describe", "--always", "--abbrev=12", "--exclude", "*", "--dirty")
	describe.Dir = opts.root
	commit, _ := describe.Output()
	var uts unix.Utsname
	_ = unix.Uname(&uts)
	fmt.Fprintf(&b, "\n\n%s, commit %s; Linux %s, %d processors.\n\n", time.Now().UTC().Format(time.DateOnly),
		strings.TrimSpace(string(commit)), unix.ByteSliceToString(uts.Release[:]), runtime.NumCPU())
	b.WriteString(vmtest.Markdown(table))
	if len(failed) > 0 {
		b.WriteString("\n## What failed\n\n" + strings.Join(failed, "\n") + "\n")
	}
	return b.String()
}
