// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sdtrace/sdtrace/vmtest"
)

func TestWrongFlagsAreWrongUsage(t *testing.T) {
	for _, args := range [][]string{
		{"-tier", "3"},
		{"-tier", ""},
		{"-kernels", "6.1"},
		{"-kernels", ""},
		{"-no-such-flag"},
		{"argument"},
		{"-times", "0"},
		{"-beside", "lint*"},
		{"-beside", "lint*0"},
		{"-beside", "lint*x"},
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

func TestABinaryThatFailsOutsideItsTestsShowsItsLastLines(t *testing.T) {
	r := &result{report: vmtest.Report{Runs: []vmtest.Run{{Package: "p", Exit: 1, Output: "booting: not ready\n"}}}}
	if failures := r.failures(); len(failures) != 1 || !strings.Contains(failures[0], "booting: not ready") {
		t.Errorf("failures %q", failures)
	}
	r.outcomes = []vmtest.Outcome{{Package: "p", Test: "TestA", Verdict: vmtest.Failed}}
	if failures := r.failures(); strings.Contains(failures[0], "booting") {
		t.Errorf("failures %q, of which a test says why", failures)
	}
}

func TestJobsAreRepeatedAfterOneAnotherWithLogsOfTheirOwn(t *testing.T) {
	var got []string
	for _, j := range repeat([]job{{name: "a"}, {name: "b"}}, 2, "results") {
		got = append(got, j.name+" in "+j.dir)
	}
	want := []string{"a in results", "b in results", "a in results/run2", "b in results/run2"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestWhatFailedIsShownLastAndNotInFull(t *testing.T) {
	var all []string
	for i := range 100 {
		all = append(all, fmt.Sprintf("line %d", i))
	}
	var out strings.Builder
	problem := "exit status 2, the last lines:\n" + tail(strings.Join(all, "\n"))
	ok := printFailed(&out, []*result{
		{name: "make lint"}, {name: "make fuzz", problems: []string{problem}, log: "fuzz.log"},
	})
	text := out.String()
	if ok || strings.Contains(text, "lint") || !strings.Contains(text, "FAILED: make fuzz\n") ||
		!strings.Contains(text, "log: fuzz.log") {
		t.Errorf("well: %v\n%s", ok, text)
	}
	if strings.Contains(text, "line 59\n") || !strings.Contains(text, "line 60\n") || !strings.Contains(text, "line 99\n") {
		t.Errorf("not the last forty lines:\n%s", text)
	}
}

// A test that says it runs on another kernel has to have passed there.
func TestATestThatIsLeftOutEverywhereIsFound(t *testing.T) {
	at := func(kernel string, outcomes ...vmtest.Outcome) *result {
		return &result{tier: "1", kernel: vmtest.Kernel{Name: kernel}, outcomes: outcomes}
	}
	left := vmtest.Outcome{
		Package: "p", Test: "TestA", Verdict: vmtest.NotDeclared, Output: "a.go:1: not declared: runs on old,new: why",
	}
	passed := vmtest.Outcome{Package: "p", Test: "TestA", Verdict: vmtest.Passed}
	other := vmtest.Outcome{Package: "p", Test: "TestB", Verdict: vmtest.Passed}
	if missing := notRun([]*result{at("old", passed), at("mid", left), at("new", passed)}); missing != nil {
		t.Errorf("missing %q, though it passed", missing)
	}
	if missing := notRun([]*result{at("old", passed), at("mid", left)}); missing != nil {
		t.Errorf("missing %q, though the package is not for the other kernel", missing)
	}
	for name, results := range map[string][]*result{
		"on one of them":  {at("old", passed), at("mid", left), at("new", other)},
		"on none of them": {at("mid", left)},
	} {
		if missing := notRun(results); len(missing) != 1 {
			t.Errorf("%s: missing %q, want one", name, missing)
		}
	}
}

func TestTheTimesOfPackagesAreRead(t *testing.T) {
	got := packageTimes("ok  \texample.org/a\t1.500s\nok  \texample.org/b\t(cached)\n" +
		"?   \texample.org/c\t[no test files]\nFAIL\texample.org/d\t0.250s\n")
	want := []packageTime{{"example.org/a", 1500 * time.Millisecond}, {"example.org/d", 250 * time.Millisecond}}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// A machine has no network: what its tests boot has to be there before it begins.
func TestEachPackageThatBootsASystemdInAMachineHasItsRoots(t *testing.T) {
	for _, s := range vmtest.Suites() {
		files, err := filepath.Glob(filepath.Join("..", "..", s.Package, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if s.Tier == "2" && bytes.Contains(text, []byte("pid1.BootAll(")) && roots[s.Package] == nil {
				t.Errorf("%s boots a systemd, and roots does not say which", s.Package)
			}
		}
	}
}
