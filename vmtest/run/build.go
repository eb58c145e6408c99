// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sdtrace/sdtrace/vmtest"
)

// built is what a machine of one architecture needs from this one.
type built struct {
	init    string // path of the static vmtest/init
	sdtrace string // path of the command, for tier 2
	tests   []builtTest
}

type builtTest struct {
	pkg    string // import path
	dir    string // of the package's source
	binary string
}

// only is what a machine needs that tests some of the packages.
func (b *built) only(packages []string) *built {
	some := *b
	some.tests = slices.DeleteFunc(slices.Clone(b.tests), func(t builtTest) bool {
		return !slices.ContainsFunc(packages, func(pkg string) bool {
			return strings.HasSuffix(t.pkg, strings.TrimPrefix(pkg, "."))
		})
	})
	return &some
}

// build compiles vmtest/init, sdtrace and all tests that machines of an architecture run.
// Packages without tests are left out.
func build(ctx context.Context, opts *options, arch string) (*built, error) {
	bin := filepath.Join(opts.results, "bin", arch)
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return nil, fmt.Errorf("making the directory for binaries: %w", err)
	}
	var packages []string
	for _, tier := range opts.tiers {
		for _, kernel := range opts.kernels {
			if kernel.Arch == arch && tier != "boot" {
				packages = append(packages, packagesOn(opts, tier, kernel)...)
			}
		}
	}
	slices.Sort(packages)
	packages = slices.Compact(packages)
	b := &built{init: filepath.Join(bin, "init"), sdtrace: filepath.Join(bin, "sdtrace")}
	if err := goTool(ctx, opts, arch, "build", "-o", bin+"/", "./vmtest/init", "./cmd/sdtrace"); err != nil {
		return nil, fmt.Errorf("building vmtest/init and sdtrace: %w", err)
	}
	if err := goTool(ctx, opts, arch, append([]string{"test", "-c", "-o", bin + "/"}, packages...)...); err != nil {
		return nil, fmt.Errorf("building the tests: %w", err)
	}
	args := append([]string{"list", "-json=ImportPath,Dir,TestGoFiles,XTestGoFiles"}, packages...)
	list := exec.CommandContext(ctx, "go", args...)
	list.Dir, list.Env, list.Stderr = opts.root, buildEnv(arch), os.Stderr
	out, err := list.Output()
	if err != nil {
		return nil, fmt.Errorf("listing packages: %w", err)
	}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			ImportPath, Dir           string
			TestGoFiles, XTestGoFiles []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return b, nil
		} else if err != nil {
			return nil, fmt.Errorf("listing packages: %w", err)
		}
		if len(p.TestGoFiles)+len(p.XTestGoFiles) > 0 {
			binary := filepath.Join(bin, path.Base(p.ImportPath)+".test")
			b.tests = append(b.tests, builtTest{pkg: p.ImportPath, dir: p.Dir, binary: binary})
		}
	}
}

func buildEnv(arch string) []string {
	return append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOFLAGS=")
}

func goTool(ctx context.Context, opts *options, arch string, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir, cmd.Env, cmd.Stderr = opts.root, buildEnv(arch), os.Stderr
	return cmd.Run()
}

// testArgs are the flags each test binary gets. Its own time limit ends before
// the machine's, so that a hanging test shows where it hangs.
func testArgs(opts *options) []string {
	args := []string{"-test.v=test2json", "-test.timeout=" + max(opts.timeout*3/4, time.Second).String()}
	if opts.run != "" {
		args = append(args, "-test.run="+opts.run)
	}
	return args
}

func encodeJob(job vmtest.Job) []byte {
	data, err := json.Marshal(job)
	if err != nil {
		panic(err) // strings only: cannot fail
	}
	return data
}
