// SPDX-License-Identifier: Apache-2.0

package clients_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sdtrace/sdtrace/internal/await"
	"github.com/sdtrace/sdtrace/vmtest"
)

// unitFiles are the examples.
const unitFiles = "../../docs/units"

// unitCommand is the ExecStart= of the example for a runtime, with words
// replaced. The examples quote nothing.
func unitCommand(t *testing.T, runtime string, replace map[string]string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(unitFiles, "notify-"+runtime+".service"))
	if err != nil {
		t.Fatal(err)
	}
	_, command, found := strings.Cut(strings.ReplaceAll(string(text), "\\\n", " "), "\nExecStart=")
	if !found {
		t.Fatalf("the unit file for %s has no ExecStart=", runtime)
	}
	command, _, _ = strings.Cut(command, "\n")
	for old, with := range replace {
		if !strings.Contains(command, old) {
			t.Fatalf("there is no %s in %q", old, command)
		}
		command = strings.ReplaceAll(command, old, with)
	}
	return strings.Fields(command)
}

func TestUnitFilesAreValid(t *testing.T) {
	vmtest.Natively(t, "no kernel is asked")
	root := t.TempDir()
	units := filepath.Join(root, "etc/systemd/system")
	bin := filepath.Join(root, "usr/bin")
	lib := filepath.Join(root, "usr/lib/systemd/system")
	for _, dir := range []string{units, bin, lib} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.CopyFS(lib, os.DirFS("/usr/lib/systemd/system")); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"sdtrace", "docker", "podman", "runc"} {
		if err := os.WriteFile(filepath.Join(bin, command), []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	names, err := filepath.Glob(filepath.Join(unitFiles, "*.s*"))
	if err != nil || len(names) == 0 {
		t.Fatalf("no unit files in %s: %v", unitFiles, err)
	}
	if err := os.CopyFS(units, os.DirFS(unitFiles)); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		t.Run(filepath.Base(name), func(t *testing.T) {
			cmd := exec.CommandContext(await.Context(t), "systemd-analyze", "--root="+root, "verify",
				"--man=no", "--generators=no", "--recursive-errors=one", filepath.Base(name))
			if output, err := cmd.CombinedOutput(); err != nil || len(output) > 0 {
				t.Errorf("systemd-analyze verify: %v\n%s", err, output)
			}
		})
	}
}
