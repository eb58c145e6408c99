// SPDX-License-Identifier: Apache-2.0

// Package holdertest starts processes that hold sockets, for the tests of what looks for them.
// The test binary is the process: its TestMain calls [Main] first.
package holdertest

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/cgroupfs"
)

const (
	roleEnv = "SDTRACE_HOLDERTEST"
	rootEnv = "SDTRACE_HOLDERTEST_ROOT" // to call chroot(2) with, if set
)

// Main is the process that was started, and does not return in it: it binds datagram sockets to
// its arguments and waits until stdin is closed.
func Main() {
	if os.Getenv(roleEnv) != "" {
		hold(os.Args[1:])
		os.Exit(0)
	}
}

func hold(addresses []string) {
	if root := os.Getenv(rootEnv); root != "" {
		if err := unix.Chroot(root); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	for _, address := range addresses {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.Bind(fd, &unix.SockaddrUnix{Name: address})
		}
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	fmt.Println("ready")
	_, _ = bufio.NewReader(os.Stdin).ReadByte()
}

// Process is a running one.
type Process struct{ PID int }

// Start starts a process in new namespaces, by the options of unshare(1), that
// has notifySocket in its environment unless that is "", and binds addresses.
func Start(t testing.TB, notifySocket string, unshare []string, addresses ...string) *Process {
	t.Helper()
	return StartBy(t, notifySocket, slices.Concat([]string{"unshare"}, unshare, []string{os.Args[0]}, addresses)...)
}

// StartIn starts a process that has taken another root directory.
func StartIn(t testing.TB, notifySocket, root string) *Process {
	t.Helper()
	return StartBy(t, notifySocket, "env", rootEnv+"="+root, os.Args[0])
}

// StartBy is Start by another command than unshare(1), which ends in this test binary.
func StartBy(t testing.TB, notifySocket string, args ...string) *Process {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "NOTIFY_SOCKET=") })
	cmd.Env = append(cmd.Env, roleEnv+"=hold")
	if notifySocket != "" {
		cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+notifySocket)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "ready\n" {
		t.Fatalf("the process says %q, %v", line, err)
	}
	return &Process{PID: cmd.Process.Pid}
}

// StartInCgroup is StartBy in a control group, given by its path below the root of the hierarchy.
func StartInCgroup(t testing.TB, cgroup string, args ...string) *Process {
	t.Helper()
	// The shell is in the control group before it becomes the process.
	const enter = `echo $$ >"$1/cgroup.procs" && shift && exec "$@"`
	return StartBy(t, "", slices.Concat([]string{"sh", "-c", enter, "sh", cgroupfs.Dir(cgroup)}, args)...)
}

// Cgroup makes a control group at a path below one of this process's, removes it at the end, and
// returns its path below the root of the hierarchy.
func Cgroup(t testing.TB, path string) string {
	t.Helper()
	cgroup := fmt.Sprintf("/sdtrace-test-%d%s", os.Getpid(), path)
	dir := cgroupfs.Dir(cgroup)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil && !os.IsNotExist(err) {
			t.Error(err)
		}
		// Those above may hold another one still.
		for dir = filepath.Dir(dir); dir != cgroupfs.Mount(); dir = filepath.Dir(dir) {
			_ = os.Remove(dir)
		}
	})
	return cgroup
}

// RequireRoot skips a test that is run by an ordinary user.
func RequireRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("not declared: needs root")
	}
}

// Dir is a temporary directory of which the name leaves room in sun_path.
func Dir(t testing.TB) string {
	t.Helper()
	d, err := os.MkdirTemp("", "inventory") //nolint:usetesting // T.TempDir's name is too long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(d) })
	return d
}

// Inode is the inode number of a file.
func Inode(t testing.TB, path string) uint64 {
	t.Helper()
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); err != nil {
		t.Fatal(err)
	}
	return stat.Ino
}
