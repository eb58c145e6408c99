// SPDX-License-Identifier: Apache-2.0

package tracer_test

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/await"
	"github.com/sdtrace/sdtrace/internal/proc"
	"github.com/sdtrace/sdtrace/internal/tracer"
	"github.com/sdtrace/sdtrace/pkg/events"
	"github.com/sdtrace/sdtrace/vmtest"
)

// sd_notify(3) sends as its parent, say, and again as itself when that is refused: that is one message,
// and no failure.
func TestASendThatRepeatsARefusedClaimIsOneMessage(t *testing.T) {
	vmtest.OnlyOn(t, "the same programs tell it on each", "sid-amd64", "prove:5.10-amd64", "prove:6.1-amd64", "prove:6.12-amd64",
		"prove:6.1-arm64", "prove:6.12-arm64", "prove:sid-arm64")
	eachBackend(t, func(t *testing.T, backend string) {
		user := startAgent(t, agentSpec{comm: "sdt-claims", uid: 1234, gid: 2345})
		r := listenPath(t, "claims/notify.sock")
		all := named(t, backend)
		failed := openCapture(t, tracer.Options{Backend: backend, Filter: tracer.Filter{
			Failed: true, PIDs: []uint32{user.pid}, Sockets: []string{root + "/claims/*"},
		}})
		user.must(t, step{Op: "socket", Sock: "s", Type: unix.SOCK_DGRAM})
		say := func(text string, claim *creds) {
			o := user.do(t, step{Op: "sendmsg", Sock: "s", Addr: r.addr, Parts: parts(text), Creds: claim})
			if want := claim != nil; (o.Errno == unix.EPERM) != want {
				t.Fatalf("%q: %v", text, o.Errno)
			}
		}
		init := &creds{PID: 1, UID: 1234, GID: 2345}
		say("READY=1", init)
		say("READY=1", nil)
		say("STATUS=refused", init)
		say("STATUS=another text", nil)
		say("STATUS=twice", init)
		say("STATUS=twice", init)
		say("STATUS=twice", nil)
		say("STATUS=not again", init)
		r.drain()

		type message struct{ text, errno, refused string }
		see := func(got []*events.Event) (seen []message) {
			for _, e := range from(got, user) {
				m := message{text: string(e.Payload), errno: e.Result.Errno}
				if e.Refused != nil {
					m.refused = e.Refused.Errno
					if e.Refused.PID != 1 || e.Claimed != nil {
						t.Errorf("1 was claimed, and then nobody: %+v, %+v", e.Refused, e.Claimed)
					}
				}
				seen = append(seen, m)
			}
			return seen
		}
		refused := message{"STATUS=refused", "EPERM", ""}
		first, last := message{"STATUS=twice", "EPERM", ""}, message{"STATUS=not again", "EPERM", ""}
		want := []message{{"READY=1", "", "EPERM"}, refused, {"STATUS=another text", "", ""}, first, {"STATUS=twice", "", "EPERM"}, last}
		expect(t, "all", see(all.buffered(t)), want)
		expect(t, "failed", see(failed.buffered(t)), []message{refused, first, last})

		// Nobody sends again, and nothing else comes.
		say("STATUS=alone", init)
		if item, err := failed.Read(); err != nil || item.Event == nil || string(item.Event.Payload) != "STATUS=alone" {
			t.Errorf("%+v, %v", item.Event, err)
		}
		all.buffered(t)
	})
}

// Whoever hides a claim behind other control messages claims it all the same.
func TestAClaimBehindManyControlMessagesIsTold(t *testing.T) {
	vmtest.OnlyOn(t, "where the datagram itself is looked at", "5.10-amd64", "sid-amd64")
	eachBackend(t, func(t *testing.T, backend string) {
		c := named(t, backend)
		if !c.Knows().Receivers {
			if vmtest.KernelAtLeast(6, 3) {
				t.Fatal("the capture sees no datagram")
			}
			t.Skip("not declared: this backend sees no datagram on this kernel")
		}
		r := listenPath(t, "behind/notify.sock")
		a := startAgent(t, agentSpec{comm: "sdt-behind"})
		a.must(t,
			step{Op: "socket", Sock: "s", Type: unix.SOCK_DGRAM},
			step{Op: "sendmsg", Sock: "s", Addr: r.addr, Parts: parts("READY=1"), Before: 40, Creds: &creds{PID: 1, UID: 7, GID: 8}})
		got := c.collect(t)
		if len(got) != 1 || got[0].Claimed == nil || got[0].Claimed.PID != 1 || *got[0].Claimed.UID != 7 || len(got[0].FDs) != 40 {
			t.Errorf("1 was claimed behind 40 descriptors, captured %+v", got)
		}
	})
}

func expect[T comparable](t *testing.T, what string, got, want []T) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %v, want %v", what, got, want)
		return
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%s: %v, want %v", what, got[i], want[i])
		}
	}
}

// A signal that comes while a send waits ends it, and the kernel makes it once more: the program has sent once.
func TestASendThatASignalInterruptsIsOneMessage(t *testing.T) {
	vmtest.OnlyOn(t, "what the hooks see of a call that is made once more, with and without preemption",
		"sid-amd64", "prove:6.12-amd64", "prove:5.10-amd64")
	eachBackend(t, func(t *testing.T, backend string) {
		for name, signals := range map[string][]unix.Signal{
			"handled":               {unix.SIGURG}, // by the Go runtime, with SA_RESTART
			"stopped and continued": {unix.SIGSTOP, unix.SIGCONT},
		} {
			for _, failed := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, only failed %v", name, failed), func(t *testing.T) {
					r := listenPath(t, "signals/notify.sock")
					a := startAgent(t, agentSpec{comm: "sdt-signals"})
					fill(t, a, r)
					c := openCapture(t, tracer.Options{Backend: backend, Filter: tracer.Filter{PIDs: []uint32{a.pid}, Failed: failed}})
					a.must(t, step{Op: "socket", Sock: "s", Type: unix.SOCK_DGRAM})
					o := a.must(t, step{Op: "blocked threads", Sock: "s", Addr: r.addr, Parts: parts("STATUS=once"), N: 1})
					blockedIn(t, a, o.PIDs)
					tid := o.PIDs[0]
					p, err := proc.Open(int(a.pid))
					if err != nil {
						t.Fatal(err)
					}
					defer p.Close()
					waits := func() uint64 {
						n, err := p.WaitsOf(tid)
						if err != nil {
							t.Fatal(err)
						}
						return n
					}
					before := waits()
					for _, signal := range signals {
						if err := unix.Tgkill(int(a.pid), tid, signal); err != nil {
							t.Fatal(err)
						}
						await.Until(t, "the signal has come", func() bool { return waits() > before })
					}
					blockedIn(t, a, o.PIDs)
					r.drain()
					a.must(t, step{Op: "join blocked threads"})
					got := from(c.buffered(t), a)
					if failed && len(got) == 0 {
						return
					}
					if len(got) != 1 || failed || got[0].Result.Failed() || string(got[0].Payload) != "STATUS=once" {
						t.Errorf("captured %d events: %+v", len(got), got)
					}
				})
			}
		}
	})
}
