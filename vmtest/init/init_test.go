// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bytes"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/vmtest"
)

func TestOutputReachesTheReportInWholeLines(t *testing.T) {
	var got bytes.Buffer
	out := &report{w: &got}
	lines := &lineWriter{out: out}
	for _, part := range []string{"a", "b\nc", "\n\nlast"} {
		if _, err := io.WriteString(lines, part); err != nil {
			t.Fatal(err)
		}
		out.mark("between")
	}
	lines.flush()
	lines.flush()
	want := "@@vmtest between\nab\n@@vmtest between\nc\n\n@@vmtest between\nlast\n"
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
}

func TestExitStatusOfATestIsPassedOn(t *testing.T) {
	if code := os.Getenv("INIT_TEST_EXIT"); code == "signal" {
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
	} else if code != "" {
		os.Exit(3)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"-test.run=^" + t.Name() + "$"}
	for _, tt := range []struct {
		name string
		test vmtest.Test
		env  []string
		want int
	}{
		{"success", vmtest.Test{Binary: self, Args: []string{"-test.run=^$"}}, nil, 0},
		{"failure", vmtest.Test{Binary: self, Args: args}, []string{"INIT_TEST_EXIT=3"}, 3},
		{"killed", vmtest.Test{Binary: self, Args: args}, []string{"INIT_TEST_EXIT=signal"}, 128 + 9},
		{"not there", vmtest.Test{Binary: "/nonexistent"}, nil, 127},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := runTest(tt.test, tt.env, &report{w: io.Discard}); got != tt.want {
				t.Errorf("status %d, want %d", got, tt.want)
			}
		})
	}
}

// TestMachine holds both tiers' machines to what tests rely on.
func TestMachine(t *testing.T) {
	if vmtest.Native() {
		t.Skip("not declared: this is not a test machine")
	}
	t.Run("names its kernel", func(t *testing.T) {
		for _, k := range vmtest.Kernels() {
			if k.Name == os.Getenv("SDTRACE_KERNEL") && strings.Join(k.Backends, ",") == os.Getenv("SDTRACE_BACKENDS") {
				return
			}
		}
		t.Errorf("SDTRACE_KERNEL=%q SDTRACE_BACKENDS=%q is no line of kernels.txt",
			os.Getenv("SDTRACE_KERNEL"), os.Getenv("SDTRACE_BACKENDS"))
	})
	t.Run("runs tests as root", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Errorf("user id %d", os.Geteuid())
		}
	})
	t.Run("kernel has BTF", func(t *testing.T) {
		if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil {
			t.Error(err)
		}
	})
	for _, mount := range []struct {
		dir   string
		magic int64
	}{
		{"/proc", unix.PROC_SUPER_MAGIC},
		{"/sys", unix.SYSFS_MAGIC},
		{"/sys/fs/cgroup", unix.CGROUP2_SUPER_MAGIC},
		{"/sys/fs/bpf", unix.BPF_FS_MAGIC},
		{"/sys/kernel/debug", unix.DEBUGFS_MAGIC},
		{"/sys/kernel/tracing", unix.TRACEFS_MAGIC},
		{"/run", unix.TMPFS_MAGIC},
	} {
		t.Run("mounts "+strings.ReplaceAll(mount.dir[1:], "/", "-"), func(t *testing.T) {
			var fs unix.Statfs_t
			if err := unix.Statfs(mount.dir, &fs); err != nil {
				t.Fatal(err)
			}
			if fs.Type != mount.magic {
				t.Errorf("file system magic %#x, want %#x", fs.Type, mount.magic)
			}
		})
	}
	t.Run("temporary files are on tmpfs", func(t *testing.T) {
		var fs unix.Statfs_t
		if err := unix.Statfs(os.TempDir(), &fs); err != nil {
			t.Fatal(err)
		}
		if fs.Type != unix.TMPFS_MAGIC {
			t.Errorf("%s has file system magic %#x", os.TempDir(), fs.Type)
		}
	})
	t.Run("cgroups can be made", func(t *testing.T) {
		dir := "/sys/fs/cgroup/init-test"
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	t.Run("loopback is up", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
	})
	t.Run("unix sockets can be bound", func(t *testing.T) {
		c, err := net.ListenPacket("unixgram", filepath.Join(t.TempDir(), "notify"))
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
	})
}
