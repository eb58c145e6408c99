// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestADirectoryIsClosedIfNobodyElseCanSearchIt(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not declared: needs root")
	}
	for name, test := range map[string]struct {
		mode  os.FileMode
		owner int
		want  bool
	}{
		"root's alone":          {0o700, 0, true},
		"to be read by a group": {0o740, 0, true},
		"open to a group":       {0o710, 0, false},
		"open to all":           {0o711, 0, false},
		"another user's":        {0o700, 65534, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for _, open := range []string{filepath.Dir(dir), dir} {
				if err := os.Chmod(open, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			closed := filepath.Join(dir, "closed")
			in := filepath.Join(closed, "notify")
			if err := os.MkdirAll(in, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(closed, test.mode); err != nil {
				t.Fatal(err)
			}
			if err := os.Chown(closed, test.owner, 0); err != nil {
				t.Fatal(err)
			}
			link := filepath.Join(dir, "link")
			if err := os.Symlink(in, link); err != nil {
				t.Fatal(err)
			}
			for _, path := range []string{in, link} {
				if got := isClosed(path); got != test.want {
					t.Errorf("%s is closed: %v", path, got)
				}
			}
		})
	}
}
