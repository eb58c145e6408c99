// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// Native reports whether this is the machine itself, and none that a runner of tests has booted.
func Native() bool { return os.Getenv("SDTRACE_VM") != "1" }

// Long reports whether make prove runs the tests: floods are of millions then.
func Long() bool { return os.Getenv("SDTRACE_LONG") == "1" }

// All reports whether make prove runs the tests, natively or in a machine: what is left to it runs.
func All() bool { return os.Getenv("SDTRACE_ALL") == "1" }

// KernelName is the name of a booted machine's kernel in kernels.txt, empty natively.
func KernelName() string { return os.Getenv("SDTRACE_KERNEL") }

const (
	onlyOn   = "not declared: runs on "
	natively = "not declared: runs natively: "
)

// Natively leaves out, in machines that are booted, a test for which no kernel makes a
// difference. why says what the test is about.
func Natively(t testing.TB, why string) {
	t.Helper()
	if !Native() {
		t.Skip(natively + why)
	}
}

// OnlyOn leaves a test out on other kernels than those named, which are enough for what it is
// about; natively it runs. The runner fails when the test did not pass on each of them, if the
// package is to run there. On kernels with "prove:" before the name it runs only when make prove does. It panics for
// a name that is not in kernels.txt.
func OnlyOn(t testing.TB, why string, names ...string) {
	t.Helper()
	all := Kernels()
	var kernels []string
	for _, name := range names {
		name, proved := strings.CutPrefix(name, "prove:")
		if !slices.ContainsFunc(all, func(k Kernel) bool { return k.Name == name }) {
			panic("no kernel " + name)
		}
		if !proved || All() {
			kernels = append(kernels, name)
		}
	}
	if !Native() && !slices.Contains(kernels, KernelName()) {
		t.Skip(onlyOn + strings.Join(kernels, ",") + ": " + why)
	}
}

// Elsewhere are the kernels on which a test that was left out says that it runs: none where it
// was not left out by [OnlyOn].
func (o Outcome) Elsewhere() []string {
	if o.Verdict != NotDeclared {
		return nil
	}
	_, rest, found := strings.Cut(o.Output, onlyOn)
	if !found {
		return nil
	}
	names, _, _ := strings.Cut(rest, ":")
	return strings.Split(names, ",")
}
