// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sdtrace/sdtrace/vmtest"
)

// tailLines are as many of the last lines of a command that failed as are shown.
const tailLines = 40

// target is one of the Makefile, and how many times it is to be made.
type target struct {
	name  string
	times int
}

func parseTargets(list string) (targets []target, err error) {
	for name := range strings.SplitSeq(list, ",") {
		if name == "" {
			continue
		}
		t := target{times: 1}
		var many string
		var repeated bool
		if t.name, many, repeated = strings.Cut(name, "*"); repeated {
			if t.times, err = strconv.Atoi(many); err != nil || t.times < 1 {
				return nil, fmt.Errorf("%q is not TARGET*N", name)
			}
		}
		targets = append(targets, t)
	}
	return targets, nil
}

// repeats reports whether anything is done more than once.
func (o *options) repeats() bool {
	return o.times > 1 || slices.ContainsFunc(slices.Concat(o.beside...), func(t target) bool { return t.times > 1 })
}

// runMake makes a target of the Makefile.
func runMake(ctx context.Context, opts *options, dir, target string) (*result, error) {
	cmd := exec.CommandContext(ctx, "make", "--no-print-directory", target)
	cmd.Env = os.Environ()
	if opts.repeats() {
		cmd.Env = append(cmd.Env, "GOFLAGS="+os.Getenv("GOFLAGS")+" -count=1") // no result of before counts
	}
	if opts.all {
		cmd.Env = append(cmd.Env, "SDTRACE_ALL=1")
	}
	return runCommand(ctx, cmd, opts, filepath.Join(dir, "make-"+target+".log"))
}

// runBoot is tier boot, in which a test boots the machine.
func runBoot(ctx context.Context, opts *options, dir string, kernel vmtest.Kernel) (*result, error) {
	cmd := exec.CommandContext(ctx, "go", "test", "-count=1", "-timeout", opts.timeout.String(), "./vmtest/boot")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	r, err := runCommand(ctx, cmd, opts, filepath.Join(dir, "boot-"+kernel.Name+".log"))
	if err == nil {
		r.tier, r.kernel = "boot", kernel
	}
	return r, err
}

// runCommand runs a command whose exit status says whether all is well.
func runCommand(ctx context.Context, cmd *exec.Cmd, opts *options, log string) (*result, error) {
	if err := os.MkdirAll(filepath.Dir(log), 0o755); err != nil {
		return nil, fmt.Errorf("making a directory for logs: %w", err)
	}
	cmd.Dir = opts.root
	r := &result{log: log}
	start := time.Now()
	state, err := runLogged(cmd, opts, r.log)
	r.took, r.cpu = time.Since(start), cpuTime(state)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	text, readErr := os.ReadFile(r.log)
	if readErr != nil {
		return nil, readErr
	}
	r.packages = packageTimes(string(text))
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		r.problems = append(r.problems, fmt.Sprintf("exit status %d, the last lines:\n%s", exit.ExitCode(), tail(string(text))))
	case err != nil:
		return nil, err
	}
	return r, nil
}

func tail(text string) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return "        " + strings.Join(lines[max(0, len(lines)-tailLines):], "\n        ")
}

// packageLine is how go test ends a package.
var packageLine = regexp.MustCompile(`(?m)^(?:ok  |FAIL)\t(\S+)\t([0-9.]+)s`)

// packageTimes reads how long go test has taken for packages.
func packageTimes(output string) (times []packageTime) {
	for _, m := range packageLine.FindAllStringSubmatch(output, -1) {
		if took, err := time.ParseDuration(m[2] + "s"); err == nil {
			times = append(times, packageTime{m[1], took})
		}
	}
	return times
}
