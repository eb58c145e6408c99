// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/await"
	"github.com/sdtrace/sdtrace/vmtest"
)

// bindSocket binds a socket as a host or a container has one, in a directory, until the end of the test.
func bindSocket(t *testing.T, dir string) (address string, conn *net.UnixConn) {
	t.Helper()
	address = filepath.Join(dir, "notify.sock")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return address, conn
}

// A log that nobody reads holds up neither what is forwarded nor the end.
func TestARelayEndsThoughNobodyReadsItsLog(t *testing.T) {
	vmtest.Natively(t, "pipes alone")
	address, conn := bindSocket(t, t.TempDir())
	go func() { _, _ = io.Copy(io.Discard, conn) }()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if _, err := unix.FcntlInt(writer.Fd(), unix.F_SETPIPE_SZ, os.Getpagesize()); err != nil {
		t.Fatal(err)
	}
	args := []string{"relay", "--log", "--directory", filepath.Join(t.TempDir(), "n"), "--", "sd-send-notify"}
	for i := range 1000 {
		args = append(args, fmt.Sprintf("BOGUS=%d %s", i, strings.Repeat("x", 50)))
	}
	cmd := exec.Command("sdtrace", append(args, "READY=1")...)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+address)
	cmd.Stderr = writer
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	writer.Close()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	await.Until(t, "the relay ends", func() bool {
		select {
		case err = <-ended:
			return true
		default:
			return false
		}
	})
	if err != nil {
		t.Errorf("it ends with %v", err)
	}
}

// What a host that is slow has not read at the end is said, and is no failure of a unit that was ready.
func TestARelayOfAReadyCommandEndsAsTheCommandDoes(t *testing.T) {
	vmtest.Natively(t, "an exit status")
	address, _ := bindSocket(t, t.TempDir()) // which nobody reads
	args := []string{"relay", "--directory", filepath.Join(t.TempDir(), "n"), "--", "sd-send-notify", "READY=1"}
	for i := range 1000 {
		args = append(args, fmt.Sprint("ERRNO=", i), "X=1", "READY=1")
	}
	cmd := exec.Command("sdtrace", args...)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+address)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "the host did not take every notification: ") {
		t.Errorf("it ends with %v and says\n%s", err, out)
	}
}

// A socket unit passes no credentials unless it is told to: who sent what has started the relay is not known then, and it says so.
func TestARelayThatIsActivatedWithoutCredentialsSaysSo(t *testing.T) {
	vmtest.Natively(t, "an option of a socket")
	for _, passes := range []int{0, 1} {
		host, _ := bindSocket(t, t.TempDir())
		address, conn := bindSocket(t, t.TempDir())
		file, err := conn.File()
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		if err := unix.SetsockoptInt(int(file.Fd()), unix.SOL_SOCKET, unix.SO_PASSCRED, passes); err != nil {
			t.Fatal(err)
		}
		sender, err := net.Dial("unixgram", address)
		if err != nil {
			t.Fatal(err)
		}
		defer sender.Close()
		if _, err := sender.Write([]byte("READY=1")); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("sdtrace", "relay", "--log", "--listen", "fd:3", "--upstream", host)
		cmd.ExtraFiles = []*os.File{file}
		stderr, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		want := []string{"READY forwarded"}
		if passes == 0 {
			want = []string{"a .socket unit needs PassCredentials=yes", "denied: no credentials"}
		}
		lines := bufio.NewScanner(stderr)
		for _, text := range want {
			for lines.Scan() && !strings.Contains(lines.Text(), text) {
			}
			if !strings.Contains(lines.Text(), text) {
				t.Errorf("with SO_PASSCRED %d it does not say %q", passes, text)
			}
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

// A relay that was killed leaves its directory behind, which the next one removes.
func TestWhatKilledRelaysHaveLeftIsRemoved(t *testing.T) {
	vmtest.Natively(t, "files alone")
	base := t.TempDir()
	for name, lives := range map[string]bool{"relay-1": false, "relay-2": true} {
		dir := filepath.Join(base, name, "notify")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		_, conn := bindSocket(t, dir)
		if !lives {
			conn.Close()
		}
	}
	removeLeftovers(base)
	if left, _ := filepath.Glob(base + "/*"); len(left) != 1 || filepath.Base(left[0]) != "relay-2" {
		t.Errorf("there is left %q", left)
	}
}
