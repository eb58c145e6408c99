// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/tools/go/packages"

	"github.com/sdtrace/sdtrace/vmtest"
)

const module = "github.com/sdtrace/sdtrace/"

// listed is a package as go list has it.
type listed struct {
	ImportPath string
	Standard   bool
	Imports    []string
	Deps       []string
	Doc        string
	GoFiles    []string
	Dir        string

	TestGoFiles, XTestGoFiles []string
}

// known is this module's packages, and all that they depend on, by path. It is asked for once: go
// list takes seconds.
var known = sync.OnceValues(func() (map[string]listed, error) {
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Standard,Imports,Deps,Doc,GoFiles,TestGoFiles,XTestGoFiles,Dir", "./...")
	cmd.Dir, cmd.Env, cmd.Stderr = "../..", append(os.Environ(), "GOOS=linux"), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, err
	}
	all := map[string]listed{}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		all[p.ImportPath] = p
	}
})

// packagesHere returns this module's packages by path.
func packagesHere(t *testing.T) map[string]listed {
	t.Helper()
	all, err := known()
	if err != nil {
		t.Fatal(err)
	}
	here := map[string]listed{}
	for path, p := range all {
		if strings.HasPrefix(path, module) {
			here[path] = p
		}
	}
	return here
}

// dependencies returns all packages that one of this module's depends on.
func dependencies(t *testing.T, name string) []listed {
	t.Helper()
	p, ok := packagesHere(t)[module+name]
	if !ok {
		t.Fatalf("there is no package %s", name)
	}
	all, _ := known()
	var on []listed
	for _, path := range p.Deps {
		on = append(on, all[path])
	}
	return on
}

// What packages may depend on beside the standard library, by whatever way. "x/" is any package
// of that module.
func TestPackagesDependOnNothingElse(t *testing.T) {
	for name, may := range map[string][]string{
		"pkg/events":  {},
		"pkg/verdict": {module + "pkg/events"},
		"pkg/relay": {
			"golang.org/x/sys/", "github.com/moby/sys/mountinfo", module + "pkg/events", module + "internal/proc", module + "internal/osthread",
			module + "internal/timespan", module + "internal/cgroupfs",
		},
		"internal/proc":     {"golang.org/x/sys/", "github.com/moby/sys/mountinfo"},
		"internal/glob":     {},
		"internal/field":    {},
		"internal/osthread": {"golang.org/x/sys/"},
		"internal/identity": {module + "pkg/events"},
		"internal/render": {
			"golang.org/x/sys/", "github.com/", module + "pkg/events", module + "pkg/inventory", module + "bpf", module + "internal/",
		},
		"internal/wire": {"golang.org/x/sys/", "github.com/cilium/ebpf", module + "bpf", module + "pkg/events"},
	} {
		for _, p := range dependencies(t, name) {
			if p.Standard {
				continue
			}
			if !slices.ContainsFunc(may, func(prefix string) bool {
				return p.ImportPath == prefix || strings.HasPrefix(p.ImportPath, strings.TrimSuffix(prefix, "/")+"/")
			}) {
				t.Errorf("%s depends on %s", name, p.ImportPath)
			}
		}
	}
}

// Data flows one way: what captures knows nothing of what shows, and the relay nothing of either.
func TestNoPackageKnowsTwoEnds(t *testing.T) {
	for name, never := range map[string][]string{
		"internal/tracer": {"internal/render", "pkg/capture", "pkg/inventory", "pkg/relay", "internal/enrich"},
		"pkg/capture":     {"internal/render", "pkg/relay", "pkg/inventory"},
		"pkg/inventory":   {"internal/render", "pkg/capture", "pkg/relay", "internal/tracer"},
		"pkg/relay":       {"pkg/capture", "pkg/inventory", "internal/tracer", "bpf"},
	} {
		for _, p := range dependencies(t, name) {
			for _, other := range never {
				if p.ImportPath == module+other || strings.HasPrefix(p.ImportPath, module+other+"/") {
					t.Errorf("%s depends on %s", name, p.ImportPath)
				}
			}
		}
	}
}

// A library is one package's concern.
func TestLibrariesAreImportedWhereTheyBelong(t *testing.T) {
	for library, where := range map[string][]string{
		"github.com/opencontainers/runtime-spec": {"pkg/relay/oci"},
		"github.com/cilium/ebpf":                 {"bench", "bpf", "bpf/pair", "bpf/unit", "internal/tracer", "internal/sockdiag", "cmd/sdtrace"},
		"github.com/spf13/cobra":                 {"cmd/sdtrace"},
		"github.com/vishvananda/netlink":         {"internal/sockdiag"},
		"github.com/klauspost/compress":          {"pkg/capture"},
		"github.com/coreos/go-systemd/v22/dbus":  {"internal/systemd1"},
		"github.com/godbus/dbus":                 {"internal/systemd1"},
	} {
		for _, p := range packagesHere(t) {
			for _, imported := range p.Imports {
				if imported != library && !strings.HasPrefix(imported, library+"/") {
					continue
				}
				if name := strings.TrimPrefix(p.ImportPath, module); !slices.Contains(where, name) {
					t.Errorf("%s imports %s, which is for %s", name, imported, strings.Join(where, ", "))
				}
			}
		}
	}
}

func TestEveryPackageHasOneCommentOfItsOwn(t *testing.T) {
	for _, p := range packagesHere(t) {
		if p.Doc == "" && len(p.GoFiles) > 0 {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
		commented := 0
		for _, name := range p.GoFiles {
			text, err := os.ReadFile(p.Dir + "/" + name)
			if err != nil {
				t.Fatal(err)
			}
			before, _, _ := bytes.Cut(text, []byte("\npackage "))
			if lines := bytes.Split(before, []byte("\n")); bytes.HasPrefix(lines[len(lines)-1], []byte("// ")) {
				commented++
			}
		}
		if commented > 1 {
			t.Errorf("%s has %d package comments", p.ImportPath, commented)
		}
	}
}

// Elsewhere a capture can only be read, but that it can. Types are checked only: to build the
// standard library for two more systems takes a minute of a processor.
func TestOtherSystemsCanReadCaptures(t *testing.T) {
	for _, system := range []string{"darwin", "windows"} {
		found, err := packages.Load(&packages.Config{
			Mode: packages.NeedName | packages.NeedImports | packages.NeedDeps | packages.NeedTypes | packages.NeedSyntax,
			Dir:  "../..", Env: append(os.Environ(), "GOOS="+system, "CGO_ENABLED=0"),
		}, "./pkg/events", "./pkg/capture", "./pkg/verdict", "./cmd/sdtrace")
		if err != nil {
			t.Fatal(err)
		}
		packages.Visit(found, nil, func(p *packages.Package) {
			for _, err := range p.Errors {
				t.Errorf("on %s: %v", system, err)
			}
		})
	}
}

// What runs nowhere but here is decided, not forgotten.
func TestEveryPackageSaysOnWhichKernelsItsTestsRun(t *testing.T) {
	suites, all := vmtest.Suites(), vmtest.Kernels()
	for _, p := range packagesHere(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
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
		if listed && !measured && slices.Contains(p.Imports, "github.com/cilium/ebpf/link") && len(kernels) < len(all) {
			t.Errorf("%s attaches programs, but runs on %d kernels of %d", name, len(kernels), len(all))
		}
	}
}

// Behind each promise of docs/security.md stands a test, which is there.
func TestTheTestsThatKeepThePromisesAreThere(t *testing.T) {
	root := filepath.Join("..", "..")
	text, err := os.ReadFile(filepath.Join(root, "docs", "security.md"))
	if err != nil {
		t.Fatal(err)
	}
	var source []byte
	err = filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := os.ReadFile(path)
		source = append(source, file...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`(Test[A-Za-z0-9]+)`").FindAllSubmatch(text, -1)
	if len(named) == 0 {
		t.Error("it names none")
	}
	for _, match := range named {
		if !bytes.Contains(source, []byte("\nfunc "+string(match[1])+"(t *testing.T)")) {
			t.Errorf("there is no %s", match[1])
		}
	}
}
