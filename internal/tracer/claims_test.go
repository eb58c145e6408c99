// SPDX-License-Identifier: Apache-2.0

package tracer_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/tracer"
	"github.com/sdtrace/sdtrace/pkg/events"
	"github.com/sdtrace/sdtrace/vmtest"
)

// sd_notify(3) sends as its parent, say, and again as itself when that is refused: that is one message,
// and no failure.
func TestASendThatRepeatsARefusedClaimIsOneMessage(t *testing.T) {
	vmtest.OnlyOn(t, "the same programs tell it on each", "5.10-amd64", "sid-amd64", "prove:6.1-amd64", "prove:6.12-amd64",
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
