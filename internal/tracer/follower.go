// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"slices"
	"time"

	"github.com/sdtrace/sdtrace/internal/wire"
	"github.com/sdtrace/sdtrace/pkg/events"
)

const (
	// A receipt comes before the send it is for when the reader is faster than the
	// sender's own return from the kernel. It waits for that so long at most, and
	// no more than so many records with it.
	heldFor = 100 * time.Millisecond
	heldMax = 4096
	// followedMax is how many datagrams are followed at a time, in each of two
	// generations; the kernel follows no more in all.
	followedMax = 8192
)

// item is a record from the ring buffer: a send or a receipt. Neither is set for a
// send that is not to be shown.
type item struct {
	id      wire.DatagramID
	send    *wire.SendBuffer
	receipt *events.Receipt
}

// settles reports whether it says what is to be done with receipts for a datagram.
func (h item) settles(id wire.DatagramID) bool {
	return h.id == id && (h.receipt == nil || h.receipt.Kind == forgotten)
}

// forgotten is the kind of the receipt which says that no send will come.
const forgotten events.ReceiptKind = ""

// follower ties receipts to their sends, and brings them into an order in which the
// send comes first.
type follower struct {
	// By id. Those that are asked for no more go with their generation.
	datagrams, older map[wire.DatagramID]*followed
	// held are in the order in which they came; the first waits for its send.
	held      []item
	heldSince time.Time
	out       []item // reused
}

// followed is a datagram of which more is to come.
type followed struct {
	event   *events.Event // nil if it is not shown
	left    bool          // it left its queue
	barrier bool
}

// order takes the next record, and returns what can be shown now. What it returns
// holds until the next call.
func (f *follower) order(h item) []item {
	f.out = f.out[:0]
	switch {
	case len(f.held) == 0 && !f.waits(h):
		f.apply(h)
		return f.out
	case len(f.held) == 0:
		f.held = append(f.held, h)
	case h.settles(f.held[0].id):
		f.apply(h)
	case len(f.held) == heldMax:
		f.held = append(f.held[1:], h)
	default:
		f.held = append(f.held, h)
		return nil
	}
	f.release()
	return f.out
}

// waitedLong says that it is time to give up what is held.
func (f *follower) waitedLong() bool {
	return len(f.held) > 0 && time.Since(f.heldSince) > heldFor
}

// giveUp drops a receipt whose send does not come: it was lost, and so counted. With all,
// nothing is held any more.
func (f *follower) giveUp(all bool) []item {
	f.out = f.out[:0]
	for len(f.held) > 0 {
		f.held = f.held[1:]
		f.release()
		if !all {
			break
		}
	}
	return f.out
}

// release applies what is held, up to what has to wait for its send still.
func (f *follower) release() {
	for len(f.held) > 0 {
		h := f.held[0]
		if f.waits(h) {
			at := slices.IndexFunc(f.held, func(other item) bool { return other.settles(h.id) })
			if at < 0 {
				f.heldSince = time.Now()
				return
			}
			h = f.held[at]
			f.held = slices.Delete(f.held, at, at+1)
		} else {
			f.held = f.held[1:]
		}
		f.apply(h)
	}
	f.held = nil
}

// waits reports whether the send of a receipt is still to come. That of a barrier is
// not: the kernel begins to wait for the pipe when it has told of the send.
func (f *follower) waits(h item) bool {
	return h.receipt != nil && h.receipt.Kind != forgotten && h.receipt.Kind != events.ReceiptBarrier && f.find(h.id) == nil
}

// apply appends to out what can be shown.
func (f *follower) apply(h item) {
	switch {
	case h.receipt == nil:
		if h.id != (wire.DatagramID{}) {
			f.add(h.id, newFollowed(h.send))
		}
		if h.send != nil {
			f.out = append(f.out, h)
		}
		return
	case h.receipt.Kind == forgotten:
		f.add(h.id, &followed{})
		return
	}
	d := f.find(h.id)
	if d == nil {
		return
	}
	if h.receipt.Kind == events.ReceiptBarrier || !d.barrier {
		f.remove(h.id)
	}
	d.left = true
	if d.event == nil || h.receipt.Kind == events.ReceiptBarrier && !d.barrier {
		return
	}
	h.receipt.Send = d.event
	f.out = append(f.out, h)
}

func newFollowed(b *wire.SendBuffer) *followed {
	if b == nil {
		return &followed{}
	}
	return &followed{event: &b.Event, barrier: isBarrier(&b.Event)}
}

func (f *follower) add(id wire.DatagramID, d *followed) {
	if f.datagrams == nil || len(f.datagrams) >= followedMax {
		f.datagrams, f.older = make(map[wire.DatagramID]*followed), f.datagrams
	}
	f.datagrams[id] = d
}

func (f *follower) find(id wire.DatagramID) *followed {
	if d := f.datagrams[id]; d != nil {
		return d
	}
	return f.older[id]
}

func (f *follower) remove(id wire.DatagramID) {
	delete(f.datagrams, id)
	delete(f.older, id)
}

func (f *follower) unread() (n int) {
	for _, generation := range []map[wire.DatagramID]*followed{f.datagrams, f.older} {
		for _, d := range generation {
			if d.event != nil && !d.left {
				n++
			}
		}
	}
	return n
}

// isBarrier reports whether a message is one that sd_notify_barrier(3) sends: systemd
// heeds nothing else in it.
func isBarrier(e *events.Event) bool {
	if len(e.FDs) != 1 || e.Payload == nil {
		return false
	}
	value, ok := e.TextOf().Lookup("BARRIER")
	return ok && value == "1"
}
