// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
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

// build compiles vmtest/init and the tier's tests for arch. Packages without
// tests are left out.
func build(ctx context.Context, opts *options, tier, arch string) (*built, error) {
	bin := filepath.Join(opts.results, "bin", arch)
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return nil, fmt.Errorf("making the directory for binaries: %w", err)
	}
	b := &built{init: filepath.Join(bin, "init")}
	if err := goTool(ctx, opts, arch, "build", "-o", b.init, "./vmtest/init"); err != nil {
		return nil, fmt.Errorf("building vmtest/init: %w", err)
	}
	if tier == "2" {
		b.sdtrace = filepath.Join(bin, "sdtrace")
		if err := goTool(ctx, opts, arch, "build", "-o", b.sdtrace, "./cmd/sdtrace"); err != nil {
			return nil, fmt.Errorf("building sdtrace: %w", err)
		}
	}
	packages := opts.packages
	if packages == nil {
		for _, pkg := range defaultPackages[tier] {
			if _, err := os.Stat(filepath.Join(opts.root, pkg)); err == nil {
				packages = append(packages, pkg)
			}
		}
	}
	for _, pattern := range packages {
		list := exec.CommandContext(ctx, "go", "list", "-json=ImportPath,Dir,TestGoFiles,XTestGoFiles", pattern)
		list.Dir, list.Env, list.Stderr = opts.root, buildEnv(arch), os.Stderr
		out, err := list.Output()
		if err != nil {
			return nil, fmt.Errorf("listing %s: %w", pattern, err)
		}
		for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
			var p struct {
				ImportPath, Dir           string
				TestGoFiles, XTestGoFiles []string
			}
			if err := dec.Decode(&p); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				return nil, fmt.Errorf("listing %s: %w", pattern, err)
			}
			if len(p.TestGoFiles)+len(p.XTestGoFiles) == 0 {
				continue
			}
			binary := filepath.Join(bin, strings.ReplaceAll(p.ImportPath, "/", "_")+".test")
			if err := goTool(ctx, opts, arch, "test", "-c", "-o", binary, p.ImportPath); err != nil {
				return nil, fmt.Errorf("building the tests of %s: %w", p.ImportPath, err)
			}
			b.tests = append(b.tests, builtTest{pkg: p.ImportPath, dir: p.Dir, binary: binary})
		}
	}
	return b, nil
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
