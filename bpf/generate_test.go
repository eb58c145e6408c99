// SPDX-License-Identifier: Apache-2.0

package bpf_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Nothing builds without the objects: a compiler that fails must not take them away.
func TestAFailedGenerateLeavesTheObjectsAlone(t *testing.T) {
	tools, to := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(tools, "clang-14"), []byte("#!/bin/sh\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	object := filepath.Join(to, "fentry_x86_bpfel.o")
	if err := os.WriteFile(object, []byte("as it was"), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("./generate.sh", to)
	cmd.Env = append(os.Environ(), "PATH="+tools+":"+os.Getenv("PATH"))
	if out, err := cmd.CombinedOutput(); err == nil {
		t.Fatalf("it did not fail:\n%s", out)
	}
	if text, err := os.ReadFile(object); err != nil || string(text) != "as it was" {
		t.Errorf("the object holds %q, %v", text, err)
	}
	if left, err := filepath.Glob(filepath.Join(to, "*")); err != nil || len(left) != 1 {
		t.Errorf("there is %q, %v", left, err)
	}
}
