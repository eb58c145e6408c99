// SPDX-License-Identifier: Apache-2.0

package proc_test

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/await"
	"github.com/sdtrace/sdtrace/internal/proc"
	"github.com/sdtrace/sdtrace/vmtest"
)

// mmsghdr is struct mmsghdr (sendmmsg(2)).
type mmsghdr struct {
	header unix.Msghdr
	sent   uint32
	_      [4]byte
}

func TestWhereAThreadSendsToThatWaits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	payload := []byte("READY=1")
	to := &unix.SockaddrUnix{Name: path}
	for name, send := range map[string]func(s int) error{
		"sendto":  func(s int) error { return unix.Sendto(s, payload, 0, to) },
		"sendmsg": func(s int) error { return unix.Sendmsg(s, payload, nil, to, 0) },
		"sendmmsg": func(s int) error {
			raw := unix.RawSockaddrUnix{Family: unix.AF_UNIX}
			for i, c := range []byte(path) {
				raw.Path[i] = int8(c)
			}
			vector := unix.Iovec{Base: &payload[0], Len: uint64(len(payload))}
			m := mmsghdr{header: unix.Msghdr{Name: (*byte)(unsafe.Pointer(&raw)), Namelen: unix.SizeofSockaddrUnix, Iov: &vector, Iovlen: 1}}
			if _, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(s), uintptr(unsafe.Pointer(&m)), 1, 0, 0, 0); errno != 0 {
				return errno
			}
			return nil
		},
		// Of a socket with little room in a buffer of its own.
		"large": func(s int) error {
			if err := unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_SNDBUF, 1); err != nil {
				return err
			}
			return unix.Sendto(s, payload, 0, to)
		},
		"write": func(s int) error {
			if err := unix.Connect(s, to); err != nil {
				return err
			}
			_, err := unix.Write(s, payload)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			receiver, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer os.Remove(path)
			if err := unix.Bind(receiver, to); err != nil {
				t.Fatal(err)
			}
			s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(s)
			for err == nil {
				err = unix.Sendto(s, payload, unix.MSG_DONTWAIT, to)
			}
			ended := make(chan error)
			go func() { ended <- send(s) }()
			self, err := proc.Open(unix.Getpid())
			if err != nil {
				t.Fatal(err)
			}
			defer self.Close()
			var tids []int
			await.Until(t, "a thread waits", func() bool {
				tids = self.ThreadsIn("unix_wait_for_peer", "sock_alloc_send_pskb")
				return len(tids) == 1
			})
			if got := string(self.Destination(tids[0])); got != path && got != path+string(make([]byte, len(got)-len(path))) {
				t.Errorf("sends to %q", got)
			}
			unix.Close(receiver) // which ends the send
			if err := <-ended; err == nil {
				t.Error("it was received")
			}
			if got := self.Destination(unix.Getpid()); got != nil {
				t.Errorf("the main thread sends to %q", got)
			}
		})
	}
}

func TestAThreadThatWaitsAgainIsToldFromOneThatGoesOnWaiting(t *testing.T) {
	vmtest.Natively(t, "a program that machines do not have")
	p, echo := startCat(t)
	waits := func() (n uint64) {
		await.Until(t, "it waits for more", func() bool {
			stat, err := p.Stat()
			if err != nil {
				t.Fatal(err)
			}
			if n, err = p.WaitsOf(p.PID); err != nil {
				t.Fatal(err)
			}
			return stat.State == 'S'
		})
		return n
	}
	before := waits()
	if again := waits(); again != before {
		t.Errorf("it has waited %d times, and then %d", before, again)
	}
	echo()
	await.Until(t, "it has waited again", func() bool { return waits() > before })
	if _, err := p.WaitsOf(1); err == nil {
		t.Error("of a thread that is another process's")
	}
}

// startCat starts cat, and returns it when it has loaded its libraries, and what has it echo a byte.
func startCat(t *testing.T) (cat proc.Process, echo func()) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
	echo = func() {
		t.Helper()
		if _, err := io.WriteString(in, "x"); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	echo()
	if cat, err = proc.Open(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cat.Close)
	return cat, echo
}
