// SPDX-License-Identifier: Apache-2.0

package relay_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/sdtrace/sdtrace/internal/await"
	"github.com/sdtrace/sdtrace/pkg/relay"
)

// newGroup is a rig with two containers behind one unit.
func newGroup(t *testing.T, options ...option) (r *rig, web, db string) {
	t.Helper()
	dir := shortDir(t)
	web, db = filepath.Join(dir, "web"), filepath.Join(dir, "db")
	r = newRig(t, append(options, func(c *relay.Config) {
		c.Members = []relay.Member{{Name: "web", Listen: web}, {Name: "db", Listen: db}}
	})...)
	return r, web, db
}

func TestAUnitOfTwoContainersIsReadyWhenBothAre(t *testing.T) {
	r, web, db := newGroup(t)
	a := startAgent(t)
	a.send(web, "READY=1\nSTATUS=up")
	r.host.expect("STATUS=web: up")
	a.send(web, "READY=1")
	select {
	case <-r.relay.Ready():
		t.Fatal("ready with one of two")
	default:
	}
	a.send(db, "STATUS=recovering")
	r.host.expect("STATUS=web: up; db: recovering")
	a.send(db, "READY=1")
	r.host.expect("READY=1")
}

func TestAUnitOfTwoContainersReloadsUntilBothHave(t *testing.T) {
	r, web, db := newGroup(t)
	a := startAgent(t)
	a.send(web, "READY=1")
	a.send(db, "READY=1")
	r.host.expect("READY=1")
	a.send(web, "RELOADING=1\nMONOTONIC_USEC=1")
	if m := r.host.next(); !strings.HasPrefix(m.text, "RELOADING=1\n") {
		t.Fatalf("the host got %q, want RELOADING=1", m.text)
	}
	a.send(db, "RELOADING=1\nMONOTONIC_USEC=2")
	r.awaitDecision(relay.KeyReloading, relay.Held, relay.ReasonGroup)
	a.send(web, "READY=1")
	r.awaitDecision(relay.KeyReady, relay.Held, relay.ReasonGroup)
	a.send(db, "READY=1\nSTATUS=done")
	r.host.expect("READY=1\nSTATUS=db: done")
}

func TestTheWatchdogIsFedWhenBothContainersAreAlive(t *testing.T) {
	r, web, db := newGroup(t)
	a := startAgent(t)
	for range 3 {
		a.send(web, "WATCHDOG=1")
		a.send(web, "WATCHDOG=1")
		r.awaitDecision(relay.KeyWatchdog, relay.Held, relay.ReasonGroup)
		r.awaitDecision(relay.KeyWatchdog, relay.Held, relay.ReasonGroup)
		a.send(db, "WATCHDOG=1\nSTATUS=x")
		r.host.expect("WATCHDOG=1\nSTATUS=db: x")
	}
}

func TestOneOfTwoContainersCannotStopOrMoveTheUnit(t *testing.T) {
	r, web, db := newGroup(t)
	a := startAgent(t, ownNamespaces...)
	a.send(web, "STOPPING=1")
	if m := r.host.next(); !strings.HasPrefix(m.text, "STATUS=web: ") {
		t.Fatalf("the host got %q, want a status", m.text)
	}
	a.send(web, "MAINPID=1\nSTATUS=a")
	r.host.expect("STATUS=web: a")
	a.send(db, "STOPPING=1")
	r.host.expect("STOPPING=1")
}

// What counts is what the host was told of the unit: one of two containers that goes from ready to reloading and back
// has no more time for that.
func TestOneOfTwoContainersDoesNotRenewItsBudget(t *testing.T) {
	r, web, _ := newGroup(t, withRule("EXTEND_TIMEOUT_USEC clamp budget=1ms"))
	a := startAgent(t)
	denied := func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, d := range r.decisions {
			if d.Key == relay.KeyExtendTimeout && d.Verdict == relay.Denied && d.Reason == relay.ReasonQuota {
				return true
			}
		}
		return false
	}
	await.Until(t, "the budget is used up", func() bool {
		a.sendWaiting(web, "READY=1")
		a.sendWaiting(web, "RELOADING=1\nMONOTONIC_USEC=1\nEXTEND_TIMEOUT_USEC=1000000")
		for {
			if _, ok := r.host.receive(1); !ok {
				return denied()
			}
		}
	})
}
