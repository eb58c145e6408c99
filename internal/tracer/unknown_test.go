// SPDX-License-Identifier: Apache-2.0

package tracer_test

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/tracer"
	"github.com/sdtrace/sdtrace/vmtest"
)

// Of the ways to send that a backend cannot look into, it counts what may have been a datagram.
func TestSendsThatABackendCannotTellAreCountedByTheirWay(t *testing.T) {
	needRoot(t)
	var c *capture
	switch {
	case !inVM:
		c = openCapture(t, tracer.Options{Backend: "tracepoint/sys_exit"})
	case vmtest.KernelAtLeast(6, 3):
		t.Skip("not declared: the backend that cannot tell is for older kernels; natively it is asked for")
	default:
		c = unfiltered(t, "tracepoint")
	}
	unknown := func() tracer.Unknown {
		stats, err := c.Stats()
		if err != nil {
			t.Fatal(err)
		}
		return stats.Unknown
	}
	r := listenPath(t, "unknown/notify.sock")
	stream := listen(t, pathAddr(root+"/unknown/stream.sock"), unix.SOCK_STREAM)
	a := startAgent(t, agentSpec{comm: "sdt-unknown"})
	a.must(t,
		step{Op: "socket", Sock: "datagram", Type: unix.SOCK_DGRAM}, step{Op: "connect", Sock: "datagram", Addr: r.addr},
		step{Op: "socket", Sock: "stream", Type: unix.SOCK_STREAM}, step{Op: "connect", Sock: "stream", Addr: stream.addr})
ways:
	for _, w := range ways {
		if !w.kernelSide || !w.connected {
			continue
		}
		before := unknown()
		for _, sock := range []string{"stream", "datagram"} {
			do := step{Op: w.op, Sock: sock, Parts: parts("READY=1")}
			if w.split != nil {
				do.Parts = w.split("READY=1")
			}
			if o := a.do(t, do); strings.HasPrefix(w.op, "io_uring") && (o.Errno == unix.ENOSYS || o.Errno == unix.EPERM) {
				continue ways // it is disabled on this kernel
			} else if o.Errno != 0 || o.N != len("READY=1") {
				t.Fatalf("%s: %+v", w.name, o)
			}
		}
		after := unknown()
		got := tracer.Unknown{
			IOUring: after.IOUring - before.IOUring, Splice: after.Splice - before.Splice, Compat: after.Compat - before.Compat,
		}
		want := tracer.Unknown{Splice: 1} // to the stream is no datagram
		switch {
		case strings.HasPrefix(w.op, "io_uring"): // nor is what others on this machine do with io_uring ours
			want = tracer.Unknown{IOUring: max(2, got.IOUring)}
		case strings.HasPrefix(w.op, "32-bit"):
			want = tracer.Unknown{Compat: 1}
		}
		if got != want {
			t.Errorf("%s: %+v, want %+v", w.name, got, want)
		}
	}
}
