// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCpioUnpacksWhatInitramfsPacked(t *testing.T) {
	source := t.TempDir()
	if err := os.MkdirAll(filepath.Join(source, "deep"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(source, "deep", "file"), []byte("five5"), 0o600); err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	a := NewInitramfs(&archive)
	for _, err := range []error{
		a.Add("/init", 0o755, []byte("#!binary\x00")),
		a.Add("tests/empty", 0o644, nil),
		a.Add("tests/four", 0o644, []byte("1234")),
		a.AddTree("/tests/data", source),
		a.Mkdir("/root"),
		a.Close(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}

	list := exec.Command("cpio", "--list", "--verbose", "--numeric-uid-gid", "--quiet")
	list.Stdin = bytes.NewReader(archive.Bytes())
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		got = append(got, f[0]+" "+f[len(f)-1])
	}
	want := []string{
		"drwxr-xr-x dev", "crw------- dev/console", "-rwxr-xr-x init", "drwxr-xr-x tests", "-rw-r--r-- tests/empty",
		"-rw-r--r-- tests/four", "drwxr-xr-x tests/data", "drwxr-xr-x tests/data/deep", "-rw------- tests/data/deep/file",
		"drwxr-xr-x root",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("listing (-want +got):\n%s", diff)
	}
	if !strings.Contains(string(out), "5,   1") {
		t.Errorf("/dev/console is not device 5,1:\n%s", out)
	}
	for name, want := range map[string]string{
		"init": "#!binary\x00", "tests/empty": "", "tests/four": "1234", "tests/data/deep/file": "five5",
	} {
		extract := exec.Command("cpio", "--extract", "--to-stdout", "--quiet", name)
		extract.Stdin = bytes.NewReader(archive.Bytes())
		got, err := extract.Output()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, string(got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestRootKeepsLinksAndLeavesOut(t *testing.T) {
	root := t.TempDir()
	for name, mode := range map[string]os.FileMode{"usr/bin/tool": 0o755, "usr/share/doc/text": 0o644, "usr/share/big": 0o644, "etc/conf": 0o600} {
		if err := os.MkdirAll(filepath.Join(root, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name), []byte(name), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Mkdir(filepath.Join(root, "empty"), 0o755), os.Symlink("usr/bin", filepath.Join(root, "bin"))); err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	a := NewInitramfs(&archive)
	leaveOut := func(name string) bool { return name == "usr/share/doc" || name == "usr/share/big" }
	if err := errors.Join(a.AddRoot(root, leaveOut), a.Close()); err != nil {
		t.Fatal(err)
	}
	list := exec.Command("cpio", "--list", "--verbose", "--numeric-uid-gid", "--quiet")
	list.Stdin = &archive
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); !strings.HasPrefix(line, "c") {
			got = append(got, f[0]+" "+strings.Join(f[8:], " "))
		}
	}
	want := []string{
		"drwxr-xr-x dev", "lrwxrwxrwx bin -> usr/bin", "drwxr-xr-x empty", "drwxr-xr-x etc", "-rw------- etc/conf",
		"drwxr-xr-x usr", "drwxr-xr-x usr/bin", "-rwxr-xr-x usr/bin/tool", "drwxr-xr-x usr/share",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("listing (-want +got):\n%s", diff)
	}
}

func TestInitramfsRefusesWhatItCannotPack(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("nowhere", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := NewInitramfs(&bytes.Buffer{}).AddTree("x", dir); err == nil {
		t.Error("a symbolic link was packed")
	}
}

type fullDisk struct{}

var errFull = errors.New("disk full")

func (fullDisk) Write([]byte) (int, error) { return 0, errFull }

func TestInitramfsReportsAFailedWrite(t *testing.T) {
	if err := NewInitramfs(fullDisk{}).Close(); !errors.Is(err, errFull) {
		t.Errorf("error %v, want %v", err, errFull)
	}
}
