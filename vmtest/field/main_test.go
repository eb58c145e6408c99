// SPDX-License-Identifier: Apache-2.0

// Package field_test runs services as they are in the field, each in a unit of a real
// systemd and behind real container runtimes, under capture, and holds what was seen
// against what testdata and docs/field-guide.md say.
package field_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sdtrace/sdtrace/vmtest"
	"github.com/sdtrace/sdtrace/vmtest/pid1"
)

func TestMain(m *testing.M) {
	pid1.Play()
	if role := roles[filepath.Base(os.Args[0])]; role != nil {
		if err := role(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(101)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// roles are what this binary does instead of running tests, by its name.
var roles = map[string]func() error{"web": playWeb}

// suites are Debian's, in the order of their age.
var suites = []string{"bookworm", "trixie"}

// inVM says that this is an emulated machine, where everything takes ten times longer.
var inVM = !vmtest.Native()

func init() {
	if inVM {
		suites = suites[1:]
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("not declared: needs root")
	}
	if testing.Short() {
		t.Skip("not declared: minutes")
	}
}

// bootAll boots the systemd of each suite, with all runtimes, for as long as the test runs.
func bootAll(t *testing.T) (stages []*stage, sdtrace string) {
	t.Helper()
	base, err := os.MkdirTemp("", "sdt") //nolint:usetesting // sun_path holds 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	sdtrace = os.Getenv("SDTRACE_BINARY") // of the machine that runs virtual ones
	if sdtrace == "" {
		sdtrace = filepath.Join(base, "sdtrace")
		build := exec.Command("go", "build", "-o", sdtrace, "github.com/sdtrace/sdtrace/cmd/sdtrace")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if output, err := build.CombinedOutput(); err != nil {
			t.Fatalf("building sdtrace: %v\n%s", err, output)
		}
	}
	var names []string
	for _, suite := range suites {
		names = append(names, suite+"-runtimes")
	}
	booted, err := pid1.BootAll(base, sdtrace, names...)
	t.Cleanup(func() {
		for _, m := range booted {
			if err := m.Stop(); err != nil {
				t.Errorf("stopping systemd of %s: %v", m.Name, err)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range booted {
		s, err := newStage(m, suites[i])
		if err != nil {
			t.Fatalf("setting the stage in %s: %v", m.Name, err)
		}
		t.Cleanup(s.close)
		stages = append(stages, s)
	}
	return stages, sdtrace
}

// versions are the upstream versions of programs beside a systemd.
func versions(m *pid1.Systemd, packages ...string) ([]string, error) {
	text, err := os.ReadFile(filepath.Join(m.Root(), "versions"))
	if err != nil {
		return nil, err
	}
	var found []string
	for _, name := range packages {
		_, after, ok := strings.Cut("\n"+string(text), "\n"+name+" ")
		if !ok {
			return nil, errors.New("no package " + name)
		}
		version, _, _ := strings.Cut(after, "\n")
		if _, rest, ok := strings.Cut(version, ":"); ok {
			version = rest
		}
		found = append(found, version[:strings.IndexFunc(version+"~", func(r rune) bool { return strings.ContainsRune("+~-", r) })])
	}
	return found, nil
}
