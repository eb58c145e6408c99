// SPDX-License-Identifier: Apache-2.0

package access_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/access"
	"github.com/sdtrace/sdtrace/internal/holdertest"
	"github.com/sdtrace/sdtrace/internal/proc"
)

// role has the test binary be a process that tries itself: it sends to the socket at the path, and says what the
// kernel made of that.
const role = "send-to"

// waitRole has it be a process with a root directory, "" for its own, that waits.
const waitRole = "wait-below"

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == waitRole {
		var err error
		if os.Args[2] != "" {
			err = unix.Chroot(os.Args[2])
		}
		fmt.Println(err)
		_, _ = io.Copy(io.Discard, os.Stdin) // until the test ends
		return
	}
	if len(os.Args) == 3 && os.Args[1] == role {
		s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.Connect(s, &unix.SockaddrUnix{Name: os.Args[2]})
		}
		fmt.Println(err == nil, err)
		_, _ = io.Copy(io.Discard, os.Stdin) // until the test ends
		return
	}
	os.Exit(m.Run())
}

// TestWhatIsTriedIsWhatTheProcessMeets compares it with a process that tries itself.
func TestWhatIsTriedIsWhatTheProcessMeets(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not declared: needs root")
	}
	const nobody, group = 65534, 12345
	for _, tc := range []struct {
		name    string
		prepare func(t *testing.T, base string)
		as      syscall.Credential
		userns  bool
		want    *access.Denied // its path below base
	}{
		{name: "everybody", prepare: func(*testing.T, string) {}, as: syscall.Credential{Uid: nobody, Gid: nobody}},
		{
			name: "closed directory", as: syscall.Credential{Uid: nobody, Gid: nobody},
			prepare: func(t *testing.T, base string) { mode(t, base+"/a", 0o700) },
			want:    &access.Denied{Path: "/a", Mode: 0o700},
		},
		{
			name: "closed directory, root", as: syscall.Credential{},
			prepare: func(t *testing.T, base string) { mode(t, base+"/a", 0) },
		},
		{
			name: "socket of another user", as: syscall.Credential{Uid: nobody, Gid: nobody},
			prepare: func(t *testing.T, base string) { mode(t, base+"/a/b/notify", 0o755) },
			want:    &access.Denied{Path: "/a/b/notify", IsSocket: true, Mode: 0o755},
		},
		{
			name: "group", as: syscall.Credential{Uid: nobody, Gid: nobody, Groups: []uint32{7, group}},
			prepare: func(t *testing.T, base string) {
				mode(t, base+"/a/b", 0o710)
				owner(t, base+"/a/b", 0, group)
			},
		},
		{
			name: "no group", as: syscall.Credential{Uid: nobody, Gid: nobody},
			prepare: func(t *testing.T, base string) {
				mode(t, base+"/a/b", 0o710)
				owner(t, base+"/a/b", 0, group)
			},
			want: &access.Denied{Path: "/a/b", Mode: 0o710, GID: group},
		},
		{
			name: "root of a user namespace, file of the host", userns: true,
			prepare: func(t *testing.T, base string) { mode(t, base+"/a", 0o700) },
			want:    &access.Denied{Path: "/a", Mode: 0o700},
		},
		{
			name: "root of a user namespace, file of its own", userns: true,
			prepare: func(t *testing.T, base string) {
				mode(t, base+"/a", 0)
				owner(t, base+"/a", mappedFrom+1, mappedFrom+1)
			},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			base := holdertest.Dir(t)
			mode(t, base, 0o755)
			for _, dir := range []string{"/a", "/a/b"} {
				if err := os.Mkdir(base+dir, 0o755); err != nil {
					t.Fatal(err)
				}
				mode(t, base+dir, 0o755)
			}
			path := filepath.Join(base, "a/b/notify")
			l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: path})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
			mode(t, path, 0o777)
			tc.prepare(t, base)

			cmd := exec.Command("/proc/self/exe", role, path)
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &tc.as}
			if tc.userns {
				maps := []syscall.SysProcIDMap{{ContainerID: 0, HostID: mappedFrom, Size: 100}}
				cmd.SysProcAttr = &syscall.SysProcAttr{
					Cloneflags: syscall.CLONE_NEWUSER, UidMappings: maps, GidMappings: maps, Credential: &syscall.Credential{NoSetGroups: true},
				}
			}
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { in.Close(); _ = cmd.Wait() })
			var reaches bool
			if _, err := fmt.Fscan(out, &reaches); err != nil {
				t.Fatal(err)
			}

			p, err := proc.Open(cmd.Process.Pid)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			got, err := access.Try(p, path)
			if err != nil {
				t.Fatal(err)
			}
			if tc.want != nil {
				tc.want.Path = base + tc.want.Path
			}
			if diff := cmp.Diff(tc.want, got); diff != "" || reaches != (got == nil) {
				t.Errorf("the process reaches it: %v; (-want +got):\n%s", reaches, diff)
			}
		})
	}
	if uid, err := unix.SetfsuidRetUid(-1); uid != 0 || err != nil {
		t.Errorf("this process uses files as %d now: %v", uid, err)
	}
}

// mappedFrom is the first user id of the user namespace.
const mappedFrom = 700_000

func mode(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func owner(t *testing.T, path string, uid, gid int) {
	t.Helper()
	if err := os.Chown(path, uid, gid); err != nil {
		t.Fatal(err)
	}
}
