// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// goPackage is what go list says of one.
type goPackage struct {
	ImportPath                         string
	Module                             struct{ Path string }
	Imports, TestGoFiles, XTestGoFiles []string
}

func listPackages(t *testing.T) (packages []goPackage) {
	t.Helper()
	list := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Module,Imports,TestGoFiles,XTestGoFiles", "../...")
	out, err := list.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := list.Start(); err != nil {
		t.Fatal(err)
	}
	for dec := json.NewDecoder(out); ; {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
	if err := list.Wait(); err != nil {
		t.Fatal(err)
	}
	return packages
}

// What runs nowhere but here is decided, not forgotten.
func TestEveryPackageSaysOnWhichKernelsItsTestsRun(t *testing.T) {
	suites := Suites()
	for _, p := range listPackages(t) {
		name := strings.TrimPrefix(p.ImportPath, p.Module.Path+"/")
		kernels, listed, measured := map[string]bool{}, false, false
		for _, s := range suites {
			if s.Package != name {
				continue
			}
			listed, measured = true, measured || s.Tier == "cost"
			for _, k := range s.Kernels {
				kernels[k.Name] = true
			}
		}
		if tested := len(p.TestGoFiles)+len(p.XTestGoFiles) > 0; tested != listed {
			t.Errorf("%s has tests: %v, stands in suites.txt: %v", name, tested, listed)
			continue
		}
		// Who attaches programs is told by the library's package for it.
		if listed && !measured && slices.Contains(p.Imports, "github.com/cilium/ebpf/link") && len(kernels) < len(Kernels()) {
			t.Errorf("%s attaches programs, but runs on %d kernels of %d", name, len(kernels), len(Kernels()))
		}
	}
}

func TestAMistakeInTheSuitesIsNamed(t *testing.T) {
	for line, want := range map[string]string{
		"a 1 all":                       "3 columns",
		"a 3 all why":                   `no tier "3"`,
		"a - all why":                   "kernels without a tier",
		"a 1 - why":                     "a tier without kernels",
		"a 1 4.19-amd64 why":            "boots no kernel 4.19-amd64",
		"a 2 6.1-arm64 why":             "boots no kernel 6.1-arm64",
		"a 1 6.1-amd64,6.1-amd64 why":   "boots no kernel 6.1-amd64",
		"a 1 all why\na 1 6.1-amd64 so": "line 2: a stands there twice",
	} {
		if _, err := parseSuites(line, Kernels()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want one with %q", line, err, want)
		}
	}
}
