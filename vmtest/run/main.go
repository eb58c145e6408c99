// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Command run boots the kernels of kernels.txt in QEMU, runs tests on them and
// prints which test holds on which kernel. See vmtest/README.md.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/vmtest"
)

// defaultPackages are the tests each tier runs when -packages does not say. A
// package that does not exist or has no tests is left out.
var defaultPackages = map[string][]string{
	"1":    {"./vmtest/init", "./internal/tracer", "./internal/sockdiag"},
	"cost": {"./bench"},
	"2": {
		"./vmtest/init", "./cmd/sdtrace", "./pkg/inventory", "./pkg/capture", "./internal/enrich/holders",
		"./internal/enrich/destinations", "./pkg/relay", "./vmtest/clients", "./vmtest/systemd", "./vmtest/field",
	},
}

// atTheEnds are those of tier 2 of which only the oldest and the newest kernel are asked: they
// have no programs in the kernel, and use what it has since some version or do without, or send
// in ways of which tier 1 has all on each kernel.
var atTheEnds = []string{
	"/pkg/inventory", "/pkg/capture", "/internal/enrich/holders", "/internal/enrich/destinations", "/pkg/relay", "/vmtest/clients",
}

var errUsage = errors.New("wrong usage")

type options struct {
	tiers    []string
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
	tiers := fs.String("tier", "1,2", "comma-separated `tiers`: 1 boots the tests as init, 2 boots this machine's file system by virtme-ng (amd64 only), cost counts instructions (amd64 only)")
	kernels := fs.String("kernels", "all", "comma-separated kernel `names` of kernels.txt")
	packages := fs.String("packages", "", "comma-separated `packages` to test, in go's notation (default: those of each tier)")
	opts := &options{}
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
		if defaultPackages[tier] == nil {
			return nil, fmt.Errorf("%w: there is no tier %q", errUsage, tier)
		}
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
	if err := fetch(ctx, opts); err != nil {
		return false, err
	}

	results, err := runMachines(ctx, opts)
	if err != nil {
		return false, err
	}
	ok = true
	var table strings.Builder
	for _, tier := range opts.tiers {
		var columns []vmtest.Column
		for _, result := range results {
			if result.tier != tier {
				continue
			}
			ok = ok && len(result.failures()) == 0
			columns = append(columns, vmtest.Column{Name: result.kernel.Name, Outcomes: result.outcomes})
		}
		if len(columns) > 0 {
			fmt.Fprintf(&table, "## Tier %s\n\n%s\n", tier, vmtest.Matrix(columns))
		}
	}
	if table.Len() == 0 {
		return false, errors.New("nothing was run")
	}
	text := "# Test × kernel\n\nn/d: below the feature's declared minimum. Empty: no such test there.\n\n" + table.String()
	if err := os.WriteFile(filepath.Join(opts.results, "matrix.md"), []byte(text), 0o644); err != nil {
		return false, fmt.Errorf("writing the table: %w", err)
	}
	fmt.Print("\n" + table.String())
	return ok, nil
}

// machine is a kernel that is to run a tier's tests.
type machine struct {
	tier   string
	kernel vmtest.Kernel
	built  *built
}

func planMachines(ctx context.Context, opts *options) ([]machine, error) {
	var machines []machine
	for _, tier := range opts.tiers {
		kernels := slices.DeleteFunc(slices.Clone(opts.kernels), func(k vmtest.Kernel) bool { return !bootable(tier, k) })
		for i, kernel := range kernels {
			built, err := build(ctx, opts, tier, kernel.Arch)
			if err != nil {
				return nil, err
			}
			if inBetween := i > 0 && i < len(kernels)-1; inBetween && opts.packages == nil {
				built.tests = slices.DeleteFunc(built.tests, func(t builtTest) bool {
					return slices.ContainsFunc(atTheEnds, func(pkg string) bool { return strings.HasSuffix(t.pkg, pkg) })
				})
			}
			if len(built.tests) == 0 {
				fmt.Fprintf(os.Stderr, "tier %s: no package has tests\n", tier)
				break
			}
			machines = append(machines, machine{tier, kernel, built})
		}
	}
	return machines, nil
}

// runMachines runs the tests of each tier on each kernel, as many machines at a time as
// there are processors: an emulated machine uses one. Those of the last tier take longest
// and start first.
func runMachines(ctx context.Context, opts *options) ([]*machineResult, error) {
	machines, err := planMachines(ctx, opts)
	if err != nil {
		return nil, err
	}
	results := make([]*machineResult, len(machines))
	errs := make([]error, len(machines))
	slots := make(chan struct{}, runtime.NumCPU())
	var running sync.WaitGroup
	var printing sync.Mutex
	for i, m := range slices.Backward(machines) {
		slots <- struct{}{}
		running.Go(func() {
			defer func() { <-slots }()
			result, err := runMachine(ctx, opts, m.tier, m.kernel, m.built)
			if err != nil {
				errs[i] = err
				return
			}
			printing.Lock()
			defer printing.Unlock()
			result.print(os.Stderr)
			results[i] = result
		})
	}
	running.Wait()
	return results, errors.Join(errs...)
}

func bootable(tier string, kernel vmtest.Kernel) bool {
	return tier == "1" || kernel.Arch == "amd64"
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

func fetch(ctx context.Context, opts *options) error {
	var args []string
	for _, kernel := range opts.kernels {
		if slices.ContainsFunc(opts.tiers, func(tier string) bool { return bootable(tier, kernel) }) {
			args = append(args, kernel.Name)
		}
	}
	if slices.Contains(opts.tiers, "2") {
		args = append(args, "virtme-ng")
	}
	if len(args) == 0 {
		return errors.New("only tier 1 boots other kernels than those of amd64")
	}
	cmd := exec.CommandContext(ctx, filepath.Join(opts.root, "vmtest", "fetch-kernels.sh"), args...)
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("fetching kernels: %w", err)
	}
	return nil
}

// machineResult is what one kernel in one tier came to.
type machineResult struct {
	tier     string
	kernel   vmtest.Kernel
	report   vmtest.Report
	outcomes []vmtest.Outcome
	problems []string // beside those of report
	took     time.Duration
	log      string
}

func (r *machineResult) failures() []string {
	list := append(slices.Clone(r.report.Problems), r.problems...)
	for _, run := range r.report.Runs {
		if run.Exit > 0 {
			list = append(list, fmt.Sprintf("%s: exit status %d", run.Package, run.Exit))
		}
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

func (r *machineResult) print(w *os.File) {
	count := map[vmtest.Verdict]int{}
	for _, o := range r.outcomes {
		count[o.Verdict]++
	}
	failures := r.failures()
	verdict := "ok  "
	if len(failures) > 0 {
		verdict = "FAIL"
	}
	fmt.Fprintf(w, "%s tier %s %s (%s): %d tests, %d passed, %d not declared, %.0f s\n", verdict, r.tier,
		r.kernel.Name, r.report.Release, len(r.outcomes), count[vmtest.Passed], count[vmtest.NotDeclared], r.took.Seconds())
	for _, failure := range failures {
		fmt.Fprintln(w, "    "+failure)
	}
	if len(failures) > 0 {
		fmt.Fprintln(w, "    logs:", filepath.Dir(r.log))
	}
}

func runMachine(ctx context.Context, opts *options, tier string, kernel vmtest.Kernel, built *built) (*machineResult, error) {
	dir := filepath.Join(opts.results, "tier"+tier+"-"+kernel.Name)
	if err := os.RemoveAll(dir); err != nil {
		return nil, fmt.Errorf("clearing old results: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("making the results directory: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, opts.timeout)
	defer cancel()
	boot := bootInitramfs
	switch tier {
	case "2":
		boot = bootVirtme
	case "cost":
		boot = bootCounting
	}
	r := &machineResult{tier: tier, kernel: kernel, log: filepath.Join(dir, "console.log")}
	start := time.Now()
	bootErr := boot(ctx, opts, kernel, built, dir)
	r.took = time.Since(start)
	var exit *exec.ExitError
	switch {
	case errors.Is(context.Cause(ctx), context.DeadlineExceeded):
		r.problems = append(r.problems, fmt.Sprintf("stopped after %s", opts.timeout))
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.As(bootErr, &exit):
		// A failed test makes tier 2's machine exit with 1 too.
	case bootErr != nil:
		return nil, bootErr
	}

	console, err := os.ReadFile(r.log)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("reading the report: %w", err)
	}
	var want []string
	for _, t := range built.tests {
		want = append(want, t.pkg)
	}
	r.report = vmtest.ParseReport(string(console), want)
	if exit != nil && !slices.ContainsFunc(r.report.Runs, func(run vmtest.Run) bool { return run.Exit > 0 }) {
		r.problems = append(r.problems, bootErr.Error())
	}
	events := &bytes.Buffer{}
	for _, run := range r.report.Runs {
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
