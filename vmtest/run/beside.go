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
	"strings"
	"time"

	"github.com/sdtrace/sdtrace/vmtest"
)

// tailLines are as many of the last lines of a command that failed as are shown.
const tailLines = 40

// runMake makes a target of the Makefile.
func runMake(ctx context.Context, opts *options, target string) (*result, error) {
	cmd := exec.CommandContext(ctx, "make", "--no-print-directory", target)
	return runCommand(ctx, cmd, opts, "make-"+target)
}

// runBoot is tier boot, in which a test boots the machine.
func runBoot(ctx context.Context, opts *options, kernel vmtest.Kernel) (*result, error) {
	cmd := exec.CommandContext(ctx, "go", "test", "-count=1", "-timeout", opts.timeout.String(), "./vmtest/boot")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	r, err := runCommand(ctx, cmd, opts, "boot-"+kernel.Name)
	if err == nil {
		r.tier, r.kernel = "boot", kernel
	}
	return r, err
}

// runCommand runs a command whose exit status says whether all is well, with a log of that name.
func runCommand(ctx context.Context, cmd *exec.Cmd, opts *options, name string) (*result, error) {
	cmd.Dir = opts.root
	r := &result{log: filepath.Join(opts.results, name+".log")}
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
