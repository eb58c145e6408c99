// SPDX-License-Identifier: Apache-2.0

package tracer_test

import (
	"errors"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/tracer"
	"github.com/sdtrace/sdtrace/vmtest"
)

// A kernel can have a function that others do the work of, as when it was inlined: that nothing is seen then is noticed.
func TestAProgramAtAFunctionThatIsNotCalledIsNoticed(t *testing.T) {
	vmtest.OnlyOn(t, "what sdtrace sends itself", "6.12-amd64", "prove:sid-amd64")
	for _, test := range []struct {
		backend, program string
		// elsewhere takes the same arguments.
		elsewhere string
		latency   bool
	}{
		{"tracepoint", "send_length", "sock_recv_length", false},
		{"tracepoint", "syscall_exit", "xdp_exception", false},
		{"fentry", "datagram_queued", "skb_queue_head", false},
		{"fentry", "datagram_queued_by_thread", "skb_queue_head", true},
		{"fentry", "send_exit", "sock_no_sendmsg", false},
		{"fentry", "send_exit_by_thread", "sock_no_sendmsg", true},
		{"fentry", "send_enter", "sock_no_sendmsg", true},
		{"fentry", "datagram_taken", "sock_queue_err_skb", true},
		{"fentry", "datagram_read", "sock_no_recvmsg", true},
		{"fentry", "connect_refused", "sock_no_connect", true},
	} {
		t.Run(test.program, func(t *testing.T) {
			needRoot(t)
			if !slices.Contains(backends(), test.backend) {
				t.Skip("not declared: this kernel has not this backend")
			}
			c, err := tracer.OpenElsewhere(tracer.Options{Backend: test.backend, Latency: test.latency}, test.program, test.elsewhere)
			switch {
			case errors.Is(err, tracer.ErrNoSuchProgram):
				t.Skip("not declared: where the kernel preempts itself, others are attached")
			case err == nil:
				_ = c.Close()
				t.Error("it is not noticed")
			case !errors.Is(err, tracer.ErrBlind):
				t.Error(err)
			}
		})
	}
}

// What sdtrace sends itself is not shown, and not counted.
func TestATrialLeavesNothing(t *testing.T) {
	vmtest.OnlyOn(t, "what user space closes", "sid-amd64", "sid-arm64", "prove:5.10-amd64", "prove:6.1-arm64")
	eachBackend(t, func(t *testing.T, backend string) {
		r := listen(t, pathAddr(filepath.Join(root, "trial")), unix.SOCK_DGRAM)
		c := openCapture(t, tracer.Options{Backend: backend, Filter: tracer.Filter{Sockets: []string{r.path()}}})
		if got := c.buffered(t); len(got) != 0 {
			t.Errorf("%d events", len(got))
		}
		if captured, lost, stats := lostIn(t, c); captured != 0 || lost != 0 && !mayMiss() {
			t.Errorf("%+v", stats)
		}
	})
}

// Who may not make sockets, as in a unit with RestrictAddressFamilies=, can capture all the same.
func TestATrialThatCannotBeMadeKeepsNobodyFromCapturing(t *testing.T) {
	vmtest.OnlyOn(t, "what sdtrace sends itself", "6.12-amd64", "prove:sid-amd64")
	defer tracer.FailTrial(unix.EAFNOSUPPORT)()
	eachBackend(t, func(t *testing.T, backend string) {
		r := listenPath(t, "untried/notify.sock")
		c := openCapture(t, tracer.Options{Backend: backend, Filter: tracer.Filter{Sockets: []string{r.path()}}})
		if err := c.Untried(); !errors.Is(err, unix.EAFNOSUPPORT) {
			t.Errorf("it says %v", err)
		}
		a := startAgent(t, agentSpec{comm: "sdt-untried"})
		a.must(t,
			step{Op: "socket", Sock: "s", Type: unix.SOCK_DGRAM},
			step{Op: "sendto", Sock: "s", Addr: r.addr, Parts: parts("READY=1")})
		if got := c.buffered(t); len(got) != 1 {
			t.Errorf("%d events", len(got))
		}
	})
}
