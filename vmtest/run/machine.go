// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sdtrace/sdtrace/vmtest"
)

// roots are the root file systems whose systemd a package's tests boot in a machine of tier 2.
var roots = map[string][]string{
	"vmtest/field":   {"trixie-runtimes"},
	"vmtest/systemd": {"bookworm", "trixie", "sid"},
}

// planMachines returns a job for each kernel of each tier. Tests are compiled, once for an
// architecture, when the first machine of it begins, while kernels are fetched.
func planMachines(opts *options) (jobs []job) {
	compilers := map[string]func(context.Context) (*built, error){} // by architecture
	for _, tier := range vmtest.Tiers {
		if !slices.Contains(opts.tiers, tier) {
			continue
		}
		for _, kernel := range opts.kernels {
			packages := packagesOn(opts, tier, kernel)
			if len(packages) == 0 {
				continue
			}
			j := job{name: "tier " + tier + " " + kernel.Name, needs: []string{kernel.Name}}
			if tier == "boot" {
				j.run = func(ctx context.Context, dir string) (*result, error) { return runBoot(ctx, opts, dir, kernel) }
				jobs = append(jobs, j)
				continue
			}
			if tier == "2" {
				j.needs = append(j.needs, "virtme-ng")
				for _, pkg := range packages {
					j.roots = append(j.roots, roots[strings.TrimPrefix(pkg, "./")]...)
				}
			}
			if compilers[kernel.Arch] == nil {
				compilers[kernel.Arch] = once(func(ctx context.Context) (*built, error) { return build(ctx, opts, kernel.Arch) })
			}
			j.run = func(ctx context.Context, dir string) (*result, error) {
				tests, err := compilers[kernel.Arch](ctx)
				if err != nil {
					return nil, err
				}
				if opts.packages == nil {
					tests = tests.only(packages)
				}
				return runMachine(ctx, opts, dir, tier, kernel, tests)
			}
			jobs = append(jobs, j)
		}
	}
	return jobs
}

// once is f, called by the first who asks; the others wait.
func once(f func(context.Context) (*built, error)) func(context.Context) (*built, error) {
	var called sync.Once
	var b *built
	var err error
	return func(ctx context.Context) (*built, error) {
		called.Do(func() { b, err = f(ctx) })
		return b, err
	}
}

// packagesOn are those to be tested on a kernel of a tier, as directories below the module or as asked for.
func packagesOn(opts *options, tier string, kernel vmtest.Kernel) (packages []string) {
	if !vmtest.Bootable(tier, kernel) {
		return nil
	}
	if opts.packages != nil {
		return opts.packages
	}
	for _, s := range vmtest.Suites() {
		on := s.Kernels
		if opts.all {
			on = slices.Concat(on, s.ProvedOn)
		}
		if s.Tier == tier && slices.ContainsFunc(on, func(k vmtest.Kernel) bool { return k.Name == kernel.Name }) {
			packages = append(packages, "./"+s.Package)
		}
	}
	return packages
}

// result is what a job came to: a kernel in a tier, or a target of make.
type result struct {
	name     string
	tier     string        // empty: a target of make
	kernel   vmtest.Kernel // of the tier
	report   vmtest.Report
	outcomes []vmtest.Outcome
	problems []string // beside those of report
	took     time.Duration
	cpu      time.Duration // used by the job's processes
	packages []packageTime
	log      string
	// stoppedEarly is set for a machine that has begun no test.
	stoppedEarly bool
}

func (r *result) failures() []string {
	list := append(slices.Clone(r.report.Problems), r.problems...)
	for _, run := range r.report.Runs {
		if run.Exit <= 0 {
			continue
		}
		what := fmt.Sprintf("%s: exit status %d", run.Package, run.Exit)
		if !slices.ContainsFunc(r.outcomes, func(o vmtest.Outcome) bool { return o.Package == run.Package && o.Verdict.Bad() }) {
			what += ", and none of its tests says why; the last lines:\n" + tail(run.Output)
		}
		list = append(list, what)
	}
	for _, o := range r.outcomes {
		if o.Verdict.Bad() {
			list = append(list, fmt.Sprintf("%s %s: %s\n%s", o.Package, o.Test, o.Verdict, indent(o.Output)))
		}
	}
	return list
}

// indent sets a test's output off, and leaves the rest of a long one, such as
// the stacks of a panic, to the log.
func indent(text string) string {
	const most = 30
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if rest := len(lines) - most; rest > 0 {
		lines = append(lines[:most], fmt.Sprintf("… %d more lines in the log", rest))
	}
	return "        " + strings.Join(lines, "\n        ")
}

// print writes a line, and what failed if something did.
func (r *result) print(w io.Writer) {
	failures := r.failures()
	verdict := "ok  "
	if len(failures) > 0 {
		verdict = "FAIL"
	}
	fmt.Fprintf(w, "%s %s: %.0f s", verdict, r.name, r.took.Seconds())
	if len(r.outcomes) > 0 {
		count := map[vmtest.Verdict]int{}
		for _, o := range r.outcomes {
			count[o.Verdict]++
		}
		fmt.Fprintf(w, ", Linux %s, %d tests, %d passed, %d not declared", r.report.Release, len(r.outcomes),
			count[vmtest.Passed], count[vmtest.NotDeclared])
	}
	fmt.Fprintln(w)
	for _, failure := range failures {
		fmt.Fprintln(w, "    "+failure)
	}
}

func runMachine(ctx context.Context, opts *options, results, tier string, kernel vmtest.Kernel, built *built) (*result, error) {
	dir := filepath.Join(results, "tier"+tier+"-"+kernel.Name)
	if err := os.RemoveAll(dir); err != nil {
		return nil, fmt.Errorf("clearing old results: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("making the results directory: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, opts.timeout)
	defer cancel()
	var boot booter = bootInitramfs
	switch tier {
	case "2":
		boot = bootVirtme
	case "cost":
		boot = bootCounting
	}
	r := &result{tier: tier, kernel: kernel, log: filepath.Join(dir, "console.log")}
	start := time.Now()
	err := r.boot(ctx, opts, boot, built, dir)
	if err == nil && r.stoppedEarly {
		fmt.Fprintf(os.Stderr, "     tier %s %s: the machine stopped before its first test, and is booted once more; "+
			"the last lines:\n%s\n", tier, kernel.Name, lastLines(dir))
		err = r.boot(ctx, opts, boot, built, dir)
	}
	if r.took = time.Since(start); err != nil {
		return nil, err
	}
	if r.stoppedEarly {
		r.problems = append(r.problems, "the last lines:\n"+lastLines(dir))
	}
	events := &bytes.Buffer{}
	for _, run := range r.report.Runs {
		r.packages = append(r.packages, packageTime{run.Package, run.Took})
		convert := exec.Command("go", "tool", "test2json", "-p", run.Package)
		convert.Stdin, convert.Stdout, convert.Stderr = strings.NewReader(run.Output), events, os.Stderr
		if err := convert.Run(); err != nil {
			return nil, fmt.Errorf("running test2json: %w", err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "test.json"), events.Bytes(), 0o644); err != nil {
		return nil, fmt.Errorf("writing the test events: %w", err)
	}
	if r.outcomes, err = vmtest.DecodeOutcomes(events); err != nil {
		return nil, err
	}
	if len(r.outcomes) == 0 {
		r.problems = append(r.problems, "no test ran")
	}
	return r, nil
}

// booter boots a machine that runs tests, and returns when it has ended.
type booter func(ctx context.Context, opts *options, kernel vmtest.Kernel, b *built, dir string) (*os.ProcessState, error)

// boot boots the machine, and reads what it has reported. A machine that stops before its first test says nothing about
// what is tested: an emulated kernel that panics while it boots, or an emulator for which memory was short.
func (r *result) boot(ctx context.Context, opts *options, boot booter, built *built, dir string) error {
	r.problems, r.stoppedEarly = nil, false
	state, bootErr := boot(ctx, opts, r.kernel, built, dir)
	r.cpu += cpuTime(state)
	var exit *exec.ExitError
	timedOut := errors.Is(context.Cause(ctx), context.DeadlineExceeded)
	switch {
	case timedOut:
		r.problems = append(r.problems, fmt.Sprintf("stopped after %s", opts.timeout))
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(bootErr, &exit):
		// A failed test makes tier 2's machine exit with 1 too.
	case bootErr != nil:
		return bootErr
	}
	console, err := os.ReadFile(r.log)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("reading the report: %w", err)
	}
	var want []string
	for _, t := range built.tests {
		want = append(want, t.pkg)
	}
	r.report = vmtest.ParseReport(string(console), want)
	r.stoppedEarly = len(r.report.Runs) == 0 && !timedOut
	if exit != nil && !slices.ContainsFunc(r.report.Runs, func(run vmtest.Run) bool { return run.Exit > 0 }) {
		r.problems = append(r.problems, bootErr.Error())
	}
	return nil
}

// lastLines are those of a machine's logs.
func lastLines(dir string) string {
	var text []byte
	for _, name := range []string{"virtme.log", "console.log"} {
		log, _ := os.ReadFile(filepath.Join(dir, name)) // one that is not there has no lines
		text = append(text, log...)
	}
	return tail(string(text))
}
