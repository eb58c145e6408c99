// SPDX-License-Identifier: Apache-2.0

package relay_test

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/pkg/relay"
)

// listenVsock listens as the host of a virtual machine does, and returns the port.
func listenVsock(t *testing.T, kind int) (fd int, port uint32) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_VSOCK, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_ANY, Port: unix.VMADDR_PORT_ANY}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 16); err != nil {
		t.Fatal(err)
	}
	address, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fd, address.(*unix.SockaddrVM).Port
}

// readVsock takes one message: all of one connection.
func readVsock(t *testing.T, fd int) string {
	t.Helper()
	conn, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(conn)
	var text []byte
	for {
		buf := make([]byte, 4096)
		n, err := unix.Read(conn, buf)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			return string(text)
		}
		text = append(text, buf[:n]...)
	}
}

func TestAHostBehindVsockIsReached(t *testing.T) {
	_ = exec.Command("modprobe", "vsock_loopback").Run()
	if _, err := os.Stat("/sys/module/vsock_loopback"); err != nil {
		t.Skip("not declared: no vsock_loopback in this kernel")
	}
	for _, test := range []struct {
		scheme string
		kind   int
	}{{"vsock-stream", unix.SOCK_STREAM}, {"vsock", unix.SOCK_STREAM}} {
		t.Run(test.scheme, func(t *testing.T) {
			fd, port := listenVsock(t, test.kind)
			r := newRig(t, func(c *relay.Config) {
				var err error
				c.Upstream, err = relay.ParseAddress(fmt.Sprintf("%s:%d:%d", test.scheme, unix.VMADDR_CID_LOCAL, port))
				if err != nil {
					t.Fatal(err)
				}
				if err := c.Policy.Set("FDSTORE allow"); err != nil {
					t.Fatal(err)
				}
			})
			a := startAgent(t)
			a.send(r.socket, "READY=1")
			a.send(r.socket, "STATUS=one\nFDSTORE=1", "memfd")
			released := make(chan answer, 1)
			go func() {
				released <- a.do(order{Do: "barrier", Socket: r.socket, Payload: []byte("BARRIER=1"), Block: true})
			}()
			for _, want := range []string{"READY=1", "STATUS=one"} {
				if got := readVsock(t, fd); got != want {
					t.Errorf("the host got %q, want %q", got, want)
				}
			}
			if got := <-released; !got.Released || got.Errno != 0 {
				t.Error("the barrier was not released")
			}
			r.awaitDecision(relay.KeyFDStore, relay.Denied, relay.ReasonUpstream)
		})
	}
}
