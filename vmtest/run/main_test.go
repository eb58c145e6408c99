// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"errors"
	"testing"

	"github.com/sdtrace/sdtrace/vmtest"
)

func TestWrongFlagsAreWrongUsage(t *testing.T) {
	for _, args := range [][]string{
		{"-tier", "3"}, {"-tier", ""}, {"-kernels", "6.1"}, {"-kernels", ""}, {"-no-such-flag"}, {"argument"},
	} {
		if _, err := parseFlags(args); !errors.Is(err, errUsage) {
			t.Errorf("%q: error %v, want %v", args, err, errUsage)
		}
	}
}

func TestMachineFailsForEveryReason(t *testing.T) {
	good := func() *result {
		return &result{
			report: vmtest.Report{Runs: []vmtest.Run{{Package: "p"}}},
			outcomes: []vmtest.Outcome{
				{Test: "TestA", Verdict: vmtest.Passed}, {Test: "TestB", Verdict: vmtest.NotDeclared},
			},
		}
	}
	if failures := good().failures(); failures != nil {
		t.Fatalf("a good result fails: %q", failures)
	}
	for name, spoil := range map[string]func(*result){
		"exit status": func(r *result) { r.report.Runs[0].Exit = 2 },
		"kernel":      func(r *result) { r.report.Problems = []string{"kernel: BUG: x"} },
		"time":        func(r *result) { r.problems = []string{"stopped after 1s"} },
		"test":        func(r *result) { r.outcomes[0].Verdict = vmtest.Failed },
		"skip":        func(r *result) { r.outcomes[1].Verdict = vmtest.Skipped },
		"unfinished":  func(r *result) { r.outcomes[1].Verdict = vmtest.Unfinished },
	} {
		t.Run(name, func(t *testing.T) {
			r := good()
			spoil(r)
			if len(r.failures()) != 1 {
				t.Errorf("failures %q, want one", r.failures())
			}
		})
	}
}
