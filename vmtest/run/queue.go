// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/sdtrace/sdtrace/vmtest"
)

// job is a machine that is to run tests, or a target of make beside the machines.
type job struct {
	name string
	// needs are what fetch-kernels.sh has to fetch before, and roots what fetch-systemd.sh has to: a machine
	// has no network.
	needs, roots []string
	// run has its logs in the directory dir.
	run func(ctx context.Context, dir string) (*result, error)
	dir string
	// lane is 0 for a machine, which waits for a processor. Any other job waits for the one before it
	// in its lane.
	lane int
}

// plan returns what is to be done. The machines that take longest come first, for the
// last one to leave no processor without work for long.
func plan(opts *options) ([]job, error) {
	jobs := repeat(planMachines(opts), opts.times, opts.results)
	for i, targets := range opts.beside {
		for _, target := range targets {
			jobs = append(jobs, repeat([]job{{
				name: "make " + target.name, lane: i + 1,
				run: func(ctx context.Context, dir string) (*result, error) { return runMake(ctx, opts, dir, target.name) },
			}}, target.times, opts.results)...)
		}
	}
	if len(jobs) == 0 {
		return nil, errors.New("nothing to run: no suite of these tiers is for these kernels")
	}
	return jobs, nil
}

// repeat has each job done so many times, all of them before one again, with directories of
// their own below results.
func repeat(once []job, times int, results string) (jobs []job) {
	for n := range times {
		for _, j := range once {
			if j.dir = results; n > 0 {
				j.dir = filepath.Join(results, fmt.Sprintf("run%d", n+1))
			}
			jobs = append(jobs, j)
		}
	}
	return jobs
}

// runAll runs as many machines at a time as there are processors, and the lists beside them. When a list is done, one
// machine more runs in its place, as an emulated machine uses a processor but for a third of its time, in which its
// tests wait. With more at once each takes 10 to 15 % more of a processor, and nothing is won.
// A machine begins when its kernel, and what its tests boot, is there.
func runAll(ctx context.Context, opts *options, jobs []job) ([]*result, error) {
	results, errs := make([]*result, len(jobs)), make([]error, len(jobs)+1)
	var printing sync.Mutex
	run := func(i int) {
		printing.Lock()
		fmt.Fprintf(os.Stderr, "     %s begins\n", jobs[i].name)
		printing.Unlock()
		r, err := jobs[i].run(ctx, jobs[i].dir)
		if err != nil {
			errs[i] = fmt.Errorf("%s: %w", jobs[i].name, err)
			return
		}
		r.name = jobs[i].name
		results[i] = r
		printing.Lock()
		defer printing.Unlock()
		r.print(os.Stderr)
	}
	var running sync.WaitGroup
	fetched := make(chan int, len(jobs))
	for lane := range opts.beside {
		running.Go(func() {
			for i, job := range jobs {
				if job.lane == lane+1 && ctx.Err() == nil {
					run(i)
				}
			}
			for i := range fetched {
				run(i)
			}
		})
	}
	running.Go(func() {
		defer close(fetched)
		there := map[string]bool{}
		for i, job := range jobs {
			if job.lane != 0 || ctx.Err() != nil {
				continue
			}
			for script, names := range map[string][]string{"fetch-kernels.sh": job.needs, "fetch-systemd.sh": job.roots} {
				missing := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return there[name] })
				if err := fetch(ctx, opts, script, missing); err != nil {
					errs[len(jobs)] = err
					return
				}
				for _, name := range missing {
					there[name] = true
				}
			}
			fetched <- i
		}
	})
	for range runtime.NumCPU() {
		running.Go(func() {
			for i := range fetched {
				run(i)
			}
		})
	}
	running.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, errors.New("interrupted")
	}
	return results, nil
}

func fetch(ctx context.Context, opts *options, script string, names []string) error {
	if len(names) == 0 {
		return nil
	}
	cmd := exec.CommandContext(ctx, filepath.Join(opts.root, "vmtest", script), names...)
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("fetching %s: %w", strings.Join(names, ", "), err)
	}
	return nil
}

// notRun names each test that says where it runs and did not pass there, though its package ran.
func notRun(results []*result) (missing []string) {
	type place struct{ tier, kernel, pkg, test string }
	outcomes := map[place]vmtest.Verdict{}
	ran := map[place]bool{} // without a test
	for _, r := range results {
		for _, o := range r.outcomes {
			outcomes[place{r.tier, r.kernel.Name, o.Package, o.Test}] = o.Verdict
			ran[place{r.tier, r.kernel.Name, o.Package, ""}] = true
		}
	}
	for _, r := range results {
		for _, o := range r.outcomes {
			elsewhere := o.Elsewhere()
			if elsewhere == nil {
				continue
			}
			passed := false
			name := o.Package + " " + o.Test
			for _, kernel := range elsewhere {
				verdict, there := outcomes[place{r.tier, kernel, o.Package, o.Test}]
				passed = passed || verdict == vmtest.Passed
				if ran[place{r.tier, kernel, o.Package, ""}] && (!there || verdict == vmtest.NotDeclared) {
					missing = append(missing, fmt.Sprintf("%s says on %s that it runs on %s, where it did not", name, r.kernel.Name, kernel))
				}
			}
			if !passed {
				missing = append(missing, fmt.Sprintf("%s runs on none of %s", name, strings.Join(elsewhere, ", ")))
			}
		}
	}
	slices.Sort(missing)
	return slices.Compact(missing)
}

// failedLines are as many lines as the end of the output has for one job.
const failedLines = tailLines + 1

// printFailed ends the output with what failed, if anything did, and reports whether all is well.
func printFailed(w io.Writer, results []*result) bool {
	ok := true
	for _, r := range results {
		if failures := r.failures(); len(failures) > 0 {
			ok = false
			fmt.Fprintf(w, "\nFAILED: %s\n", r.name)
			lines := strings.Split(strings.Join(failures, "\n"), "\n")
			for _, line := range lines[:min(len(lines), failedLines)] {
				fmt.Fprintln(w, "    "+line)
			}
			if rest := len(lines) - failedLines; rest > 0 {
				fmt.Fprintf(w, "    … %d more lines\n", rest)
			}
			if r.log != "" {
				fmt.Fprintln(w, "    log:", r.log)
			}
		}
	}
	return ok
}
