// SPDX-License-Identifier: Apache-2.0

package relay_test

import (
	"errors"
	"testing"

	"github.com/sdtrace/sdtrace/pkg/relay"
)

func TestAStatusThatComesTooSoonHoldsUpNothingElse(t *testing.T) {
	r := newRig(t, withRule("STATUS allow every=1h"))
	a := startAgent(t)
	a.send(r.socket, "STATUS=1")
	r.host.expect("STATUS=1")
	a.send(r.socket, "STATUS=2")
	r.awaitDecision(relay.KeyStatus, relay.Held, relay.ReasonTooSoon)
	a.send(r.socket, "READY=1\nSTATUS=3")
	r.host.expect("READY=1")
	r.awaitDecision(relay.KeyStatus, relay.Coalesced, relay.ReasonNone)
	a.send(r.socket, "WATCHDOG=1")
	r.host.expect("WATCHDOG=1")
}

func TestTheLastStatusReachesTheHostWhenItsTimeHasCome(t *testing.T) {
	r := newWaitingRig(t, withRule("STATUS allow every=500ms"))
	a := startAgent(t)
	for _, text := range []string{"STATUS=1", "STATUS=2", "STATUS=3", "WATCHDOG=1"} {
		a.send(r.socket, text)
	}
	r.run()
	for _, text := range []string{"STATUS=1", "WATCHDOG=1", "STATUS=3"} {
		r.host.expect(text)
	}
	r.awaitDecision(relay.KeyStatus, relay.Released, relay.ReasonNone)
}

func TestAStatusThatIsHeldComesBeforeABarrier(t *testing.T) {
	r := newRig(t, withRule("STATUS allow every=1h"))
	a := startAgent(t)
	a.send(r.socket, "STATUS=1")
	a.send(r.socket, "STATUS=2")
	a.post(order{Do: "barrier", Socket: r.socket, Payload: []byte("BARRIER=1"), Block: true})
	r.host.expect("STATUS=1")
	r.host.expect("STATUS=2")
	r.host.expect("BARRIER=1").closeFDs()
	if got := a.answer(); !got.Released {
		t.Error("the barrier was not released")
	}
}

func TestAStatusThatIsHeldReachesTheHostAtTheEnd(t *testing.T) {
	r := newRig(t, withRule("STATUS allow every=1h"))
	a := startAgent(t)
	a.send(r.socket, "STATUS=1")
	r.host.expect("STATUS=1")
	a.send(r.socket, "STATUS=2")
	r.awaitDecision(relay.KeyStatus, relay.Held, relay.ReasonTooSoon)
	r.cancel()
	r.cancel = nil
	r.host.expect("STATUS=2")
	r.host.expect("BARRIER=1").closeFDs()
	if err := <-r.done; err != nil {
		t.Error(err)
	}
	if err := r.relay.Close(); err != nil {
		t.Error(err)
	}
}

func TestAStatusThatIsHeldForNobodyIsCountedAsLost(t *testing.T) {
	t.Parallel() // it waits for the host to come, for seconds
	r := newRig(t, withRule("STATUS allow every=1h"))
	a := startAgent(t)
	a.send(r.socket, "STATUS=1")
	r.host.expect("STATUS=1")
	r.host.close()
	a.send(r.socket, "STATUS=2")
	r.awaitDecision(relay.KeyStatus, relay.Held, relay.ReasonTooSoon)
	r.cancel()
	r.cancel = nil
	if err := <-r.done; !errors.Is(err, relay.ErrUndelivered) {
		t.Errorf("Run returned %v, want ErrUndelivered", err)
	}
	if err := r.relay.Close(); err != nil {
		t.Error(err)
	}
	r.awaitDecision(relay.KeyStatus, relay.Lost, relay.ReasonUpstream)
}

func TestTheStatusOfSeveralContainersIsPacedAsOne(t *testing.T) {
	r, web, db := newGroup(t, withRule("STATUS allow every=20ms"))
	a := startAgent(t)
	a.send(web, "STATUS=Serving")
	r.host.expect("STATUS=web: Serving")
	a.send(db, "STATUS=Loading")
	a.send(db, "STATUS=3 connections")
	// The second can come in time, on a slow machine.
	for m := r.host.next(); m.text != "STATUS=web: Serving; db: 3 connections"; m = r.host.next() {
		if m.text != "STATUS=web: Serving; db: Loading" {
			t.Fatalf("the host got %q", m.text)
		}
	}
}
