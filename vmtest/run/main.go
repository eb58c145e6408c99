// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Command run boots the kernels of kernels.txt in QEMU, runs tests on them and
// prints which test holds on which kernel. See vmtest/README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/vmtest"
)

var errUsage = errors.New("wrong usage")

type options struct {
	tiers    []string
	beside   [][]target // each list one after the other
	times    int        // each machine
	busy     bool
	all      bool   // the kernels that suites.txt leaves to make prove, too
	write    string // file for the proof
	budget   time.Duration
	kernels  []vmtest.Kernel
	packages []string
	run      string
	timeout  time.Duration
	verbose  bool

	root    string // of the module
	results string
	cache   string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	opts, err := parseFlags(os.Args[1:])
	ok := false
	if err == nil {
		ok, err = run(ctx, opts)
	}
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "vmtest:", err)
	}
	switch {
	case errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		os.Exit(2)
	case err != nil || !ok:
		os.Exit(1)
	}
}

func parseFlags(args []string) (*options, error) {
	fs := flag.NewFlagSet("run", flag.ContinueOnError)
	tiers := fs.String("tier", "1,2", "comma-separated `tiers`: 1 boots the tests as init, 2 boots this machine's file system"+
		" by virtme-ng, cost counts instructions, boot boots a whole Debian (all but 1: amd64 only)")
	kernels := fs.String("kernels", "all", "comma-separated kernel `names` of kernels.txt")
	packages := fs.String("packages", "", "comma-separated `packages` to test, in go's notation (default: those of suites.txt)")
	opts := &options{}
	fs.Func("beside", "comma-separated `targets` that make makes one after the other, while the machines run;"+
		" TARGET*N is made N times; given again, a second list beside the first", func(list string) error {
		targets, err := parseTargets(list)
		opts.beside = append(opts.beside, targets)
		return err
	})
	fs.IntVar(&opts.times, "times", 1, "run each machine that `many` times")
	fs.BoolVar(&opts.all, "all", false, "run packages also on the kernels that suites.txt leaves to make prove")
	fs.BoolVar(&opts.busy, "busy", false, "keep all processors busy meanwhile")
	fs.DurationVar(&opts.budget, "budget", 0, "say so when all takes longer than this `time`;"+
		" it is no failure, as a machine can be slow")
	fs.StringVar(&opts.write, "write", "", "`file` for what was run how often, and what failed")
	fs.StringVar(&opts.run, "run", "", "run only tests that match this `pattern`, as in go test")
	fs.DurationVar(&opts.timeout, "timeout", 30*time.Minute, "limit of wall-clock `time` for one machine, boot included")
	fs.BoolVar(&opts.verbose, "v", false, "show each machine's output as it comes")
	fs.StringVar(&opts.results, "results", "", "`directory` for logs and the table (default: vmtest/results)")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil, err
		}
		return nil, fmt.Errorf("%w: %w", errUsage, err)
	}
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("%w: unexpected argument %q", errUsage, fs.Arg(0))
	}
	opts.tiers = strings.Split(*tiers, ",")
	for _, tier := range opts.tiers {
		if !slices.Contains(vmtest.Tiers, tier) {
			return nil, fmt.Errorf("%w: there is no tier %q", errUsage, tier)
		}
	}
	if opts.times < 1 {
		return nil, fmt.Errorf("%w: -times %d", errUsage, opts.times)
	}
	if *packages != "" {
		opts.packages = strings.Split(*packages, ",")
	}
	all := vmtest.Kernels()
	if *kernels == "all" {
		opts.kernels = all
		return opts, nil
	}
	for name := range strings.SplitSeq(*kernels, ",") {
		i := slices.IndexFunc(all, func(k vmtest.Kernel) bool { return k.Name == name })
		if i < 0 {
			var names []string
			for _, k := range all {
				names = append(names, k.Name)
			}
			return nil, fmt.Errorf("%w: no kernel %q, only %s", errUsage, name, strings.Join(names, ", "))
		}
		opts.kernels = append(opts.kernels, all[i])
	}
	return opts, nil
}

func run(ctx context.Context, opts *options) (ok bool, err error) {
	mod, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return false, fmt.Errorf("finding the module: %w", err)
	}
	opts.root = filepath.Dir(strings.TrimSpace(string(mod)))
	if opts.results == "" {
		opts.results = filepath.Join(opts.root, "vmtest", "results")
	}
	if opts.results, err = filepath.Abs(opts.results); err != nil {
		return false, err
	}
	if err := os.MkdirAll(opts.results, 0o755); err != nil {
		return false, fmt.Errorf("making the results directory: %w", err)
	}
	unlock, err := lock(filepath.Join(opts.results, ".lock"))
	if err != nil {
		return false, err
	}
	defer unlock()
	if opts.cache, err = vmtest.CacheDir(); err != nil {
		return false, err
	}
	jobs, err := plan(opts)
	if err != nil {
		return false, err
	}
	if opts.busy {
		stop, err := keepBusy()
		if err != nil {
			return false, err
		}
		defer stop()
	}
	began := time.Now()
	results, err := runAll(ctx, opts, jobs)
	if err != nil {
		return false, err
	}
	table := matrix(opts.tiers, results)
	if err := os.WriteFile(filepath.Join(opts.results, "matrix.md"), []byte(table), 0o644); err != nil {
		return false, fmt.Errorf("writing the table: %w", err)
	}
	took := time.Since(began)
	times := timeTable(results, took)
	if err := os.WriteFile(filepath.Join(opts.results, "times.md"), []byte(times), 0o644); err != nil {
		return false, fmt.Errorf("writing the times: %w", err)
	}
	fmt.Printf("\n%s\nWhich test holds on which kernel: %s\n", times, filepath.Join(opts.results, "matrix.md"))
	if opts.packages == nil && opts.run == "" && len(opts.kernels) == len(vmtest.Kernels()) {
		if missing := notRun(results); len(missing) > 0 {
			results = append(results, &result{name: "tests left out everywhere", problems: missing})
		}
	}
	if opts.budget > 0 && took > opts.budget {
		fmt.Printf("This took %s, over the budget of %s: the table of times says where it went.\n",
			took.Round(time.Second), opts.budget)
	}
	if opts.write != "" {
		if err := os.WriteFile(opts.write, []byte(proof(ctx, opts, results)), 0o644); err != nil {
			return false, fmt.Errorf("writing the proof: %w", err)
		}
	}
	return printFailed(os.Stdout, results), nil
}

// matrix is the table of which test holds on which kernel.
func matrix(tiers []string, results []*result) string {
	var table strings.Builder
	table.WriteString("# Test × kernel\n\nn/d: below the feature's declared minimum, or for another kernel." +
		" Empty: no such test there.\n")
	for _, tier := range tiers {
		var columns []vmtest.Column
		for _, r := range results {
			if r.tier == tier && len(r.outcomes) > 0 {
				columns = append(columns, vmtest.Column{Name: r.kernel.Name, Outcomes: r.outcomes})
			}
		}
		if len(columns) > 0 {
			fmt.Fprintf(&table, "\n## Tier %s\n\n%s", tier, vmtest.Matrix(columns))
		}
	}
	return table.String()
}

// lock keeps two runs from sharing a results directory.
func lock(file string) (unlock func(), err error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("opening the lock: %w", err)
	}
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		fmt.Fprintln(os.Stderr, "vmtest: waiting for another run to end")
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
			return nil, fmt.Errorf("locking %s: %w", file, err)
		}
	}
	return func() { _ = f.Close() }, nil
}
