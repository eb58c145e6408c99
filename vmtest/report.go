// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"fmt"
	"regexp"
	"strings"
	"time"
)

// Report is what one machine said.
type Report struct {
	// Release is the kernel's own name for itself (uname -r), empty when the
	// machine did not come far enough to tell.
	Release string
	// Runs holds one entry for each test binary that was started.
	Runs []Run
	// Problems are the reasons, one line each, why the machine as a whole
	// failed: it stopped early, or its kernel complained.
	Problems []string
}

// Run is one test binary's part of a [Report].
type Run struct {
	// Package is the import path of the tests.
	Package string
	// Output is what the binary wrote to both of its streams.
	Output string
	// Exit is the binary's exit status, 128 plus the signal that ended it, or
	// -1 when the machine stopped before the binary did.
	Exit int
	// Took is how long it ran, by the machine's clock.
	Took time.Duration
}

// splat matches the first lines of the kernel's complaints about itself:
// lib/bug.c, kernel/panic.c, kernel/watchdog.c, arch/*/kernel/dumpstack.c and
// traps.c. arm64 writes "Call trace:", x86 "Call Trace:".
var splat = regexp.MustCompile(`BUG:|WARNING:|Call [Tt]race:|Oops|Kernel panic|general protection fault|KASAN:|UBSAN:`)

// ParseReport reads the output of vmtest/init, which may be mixed with the
// firmware's and the kernel's own lines on the same console. want are the
// packages that had to run.
func ParseReport(console string, want []string) Report {
	var r Report
	var current *Run
	ended := false
	seen := map[string]bool{}
	for line := range strings.SplitSeq(console, "\n") {
		line = strings.TrimRight(line, "\r")
		// The firmware leaves escape sequences before the first line.
		_, rest, marked := strings.Cut(line, Mark)
		if !marked {
			if current != nil {
				current.Output += line + "\n"
			}
			if strings.Contains(line, "Kernel panic - not syncing") {
				r.Problems = append(r.Problems, "kernel: "+line)
			}
			continue
		}
		word, operands, _ := strings.Cut(rest, " ")
		switch word {
		case MarkKernel:
			r.Release = operands
		case MarkStart:
			seen[operands] = true
			r.Runs = append(r.Runs, Run{Package: operands, Exit: -1})
			current = &r.Runs[len(r.Runs)-1]
		case MarkExit:
			var pkg string
			var status int
			var seconds float64
			if _, err := fmt.Sscan(operands, &pkg, &status, &seconds); err != nil || current == nil {
				r.Problems = append(r.Problems, fmt.Sprintf("unreadable line %q", line))
				continue
			}
			current.Exit, current.Took = status, time.Duration(seconds*float64(time.Second))
			current = nil
		case MarkKmsg:
			_, text, _ := strings.Cut(operands, " ")
			if splat.MatchString(text) {
				r.Problems = append(r.Problems, "kernel: "+text)
			}
		case MarkEnd:
			ended = true
		}
	}
	for _, pkg := range want {
		if !seen[pkg] {
			r.Problems = append(r.Problems, pkg+" was not started")
		}
	}
	for _, run := range r.Runs {
		if run.Exit == -1 {
			r.Problems = append(r.Problems, run.Package+" did not end")
		}
	}
	if !ended {
		r.Problems = append(r.Problems, "the machine stopped before the end of the tests")
	}
	return r
}
