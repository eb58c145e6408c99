// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/sdtrace/sdtrace/internal/proc"
	"github.com/sdtrace/sdtrace/internal/wire"
	"github.com/sdtrace/sdtrace/pkg/events"
)

const (
	// readInterval is how long a datagram may lie in a ring buffer that is not full
	// enough to wake the reader up, while there is something to read now and then.
	readInterval = 40 * time.Millisecond
	// After so many intervals without anything the reader is woken up by the next
	// datagram, and looks by itself as often as sleepInterval: for what is lost, and in
	// case that a program was preempted in the very moment before.
	quietIntervals = 25
	sleepInterval  = time.Second
	// countInterval is how often it is looked for losses at most, which takes several system calls.
	countInterval = 100 * time.Millisecond
)

// Read waits for the next datagram and returns it, or what became of one, or a report
// of losses. Events come in kernel order, but for sends that are made once more (see retries). A datagram is returned within a fifth of a
// second after it was sent, and at once if it is the first for a second.
//
// The error is [ErrFlushed] after Flush or Stop, when all that was captured before
// was returned, and wraps [os.ErrClosed] after Close. It is [os.ErrDeadlineExceeded] at the time
// of SetDeadline.
func (t *Tracer) Read() (Item, error) {
	for {
		if item, err := t.ReadOrIdle(); !errors.Is(err, ErrIdle) {
			return item, err
		}
	}
}

// ErrIdle is returned by [Tracer.ReadOrIdle].
var ErrIdle = errors.New("nothing more is there to read for now")

// ReadOrIdle is Read, but returns [ErrIdle] before it begins to wait although
// [Tracer.Buffered] said that there is more: that was not to be returned, or not yet.
func (t *Tracer) ReadOrIdle() (Item, error) {
	for {
		if t.returned < len(t.ready) {
			t.returned++
			return t.ready[t.returned-1], nil
		}
		t.ready, t.returned = t.ready[:0], 0
		if err := t.pending; err != nil {
			t.pending = nil
			return Item{}, err
		}
		if err := t.await(); err != nil {
			return Item{}, err
		}
		if len(t.ready) > 0 || errors.Is(t.pending, os.ErrClosed) {
			continue
		}
		if t.pending != nil || t.follow.waitedLong() {
			if err := t.passRetries(t.retries.pass(t.follow.giveUp(t.pending != nil))); err != nil {
				return Item{}, err
			}
		}
		if err := t.deliver(t.retries.giveUp(t.pending != nil)); err != nil {
			return Item{}, err
		}
		if t.idle {
			t.idle = false
			if len(t.ready) == 0 {
				return Item{}, ErrIdle
			}
			continue
		}
		lost, err := t.lost()
		if err != nil {
			return Item{}, err
		}
		if lost != nil {
			t.ready = append(t.ready, Item{Record: events.Record{Lost: lost}})
		} else if !t.deadline.IsZero() && len(t.ready) == 0 && !time.Now().Before(t.deadline) {
			return Item{}, os.ErrDeadlineExceeded
		}
	}
}

// await reads records until something is ready, or for a while.
func (t *Tracer) await() error {
	for len(t.ready) == 0 {
		if !t.Buffered() {
			t.reader.SetDeadline(t.patience())
		}
		// Asked now and then only: it costs as much as the rest.
		if !t.Buffered() || t.seq%256 == 0 {
			t.clock.check()
		}
		if err := t.reader.ReadInto(&t.record); err != nil {
			t.record.Remaining = 0
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.pending = err
			}
			return t.doze()
		}
		if err := t.wakeUp(); err != nil {
			return err
		}
		if err := t.take(t.record.RawSample); err != nil {
			return err
		}
		// Whoever was told that there is more to read does not expect to wait now.
		if len(t.ready) == 0 && !t.Buffered() {
			t.idle = true
			return nil
		}
	}
	return nil
}

// SetDeadline makes Read return [os.ErrDeadlineExceeded] when there is nothing to read at
// that time; the zero time takes it back.
func (t *Tracer) SetDeadline(at time.Time) { t.deadline = at }

// Backlog is how many bytes wait in the ring buffer at least.
func (t *Tracer) Backlog() int { return t.record.Remaining }

// Buffered reports whether Read has more to return without waiting.
func (t *Tracer) Buffered() bool { return t.returned < len(t.ready) || t.record.Remaining > 0 }

// patience is until when to wait for the next record. Once more it is the short time when the
// programs have been told to wake the reader up: one of them may not have seen that.
func (t *Tracer) patience() time.Time {
	patience := readInterval
	if t.quiet > quietIntervals {
		patience = sleepInterval
	}
	until := time.Now().Add(patience)
	if !t.deadline.IsZero() && t.deadline.Before(until) {
		return t.deadline.Add(time.Millisecond) // the reader waits for whole ones, rounded down
	}
	return until
}

// doze takes note that nothing came for a while.
func (t *Tracer) doze() error {
	t.quiet = min(t.quiet+1, quietIntervals+1)
	if t.quiet != quietIntervals {
		return nil
	}
	return t.tell("reader_sleeps", uint32(1))
}

func (t *Tracer) wakeUp() error {
	asleep := t.quiet >= quietIntervals
	t.quiet = 0
	if !asleep {
		return nil
	}
	return t.tell("reader_sleeps", uint32(0))
}

// tell sets a variable of the programs, which has to be one of theirs.
func (t *Tracer) tell(variable string, value any) error {
	if err := t.collection.Variables[variable].Set(value); err != nil {
		return fmt.Errorf("setting %s: %w", variable, err)
	}
	return nil
}

// take decodes a record and makes ready what comes of it.
func (t *Tracer) take(record []byte) error {
	kind, err := wire.TypeOf(record)
	if err != nil {
		return fmt.Errorf("decoding a record: %w", err)
	}
	var r item
	if kind == wire.RecordSend {
		r.send = t.newBuffer()
		r.id, err = t.decoder.Send(r.send, record, t.clock.clock)
	} else {
		r.receipt = new(events.Receipt)
		r.id, err = t.decoder.Receipt(r.receipt, record, t.clock.clock)
	}
	if err != nil {
		return fmt.Errorf("decoding a record: %w", err)
	}
	if r.send != nil && r.send.Event.Sender.Cgroup == "" && r.send.Event.Sender.CgroupController == "" {
		r.send.Event.Sender.Cgroup = t.cgroups.path(r.send.Event.Sender.CgroupID) // too long for the kernel's record
	}
	if r.send != nil && !t.accepts(r.send) {
		t.rejected.Add(1)
		t.Release(Item{buffer: r.send})
		r.send = nil
	}
	return t.passRetries(t.retries.pass(t.follow.order(r)))
}

// passRetries delivers what is shown of sends, and counts those that are not.
func (t *Tracer) passRetries(shown []item, dropped uint64) error {
	t.rejected.Add(dropped)
	return t.deliver(shown)
}

// accepts decides on a datagram that the kernel let pass.
func (t *Tracer) accepts(b *wire.SendBuffer) bool {
	switch e := &b.Event; {
	case e.Call == events.CallSocket && !t.meantToNotify(e):
		return false
	case b.UnsureNames && !t.filter.matches(e):
		return false
	case b.UnsureKey && !beginsWithKey(e):
		return false
	default:
		return t.accept == nil || t.accept(e)
	}
}

// meantToNotify finds out where a process would have sent to that was refused a socket: to what NOTIFY_SOCKET
// holds in the environment that it was executed with or, if it is over, in its parent's, which it has most likely got. It
// reports whether that is asked for.
func (t *Tracer) meantToNotify(e *events.Event) bool {
	value, ok := toldToNotify(int(e.Sender.PID), func(stat proc.Stat) bool { return stat.StartedAt(e.Sender.StartTime) })
	if !ok && e.Sender.PPID > 1 && isOver(e.Sender.PID) {
		value, ok = toldToNotify(int(e.Sender.PPID), func(stat proc.Stat) bool { return stat.StartedBy(e.Sender.StartTime) })
	}
	e.Socket.Address = events.Address(value)
	return ok && t.filter.matches(e)
}

// toldToNotify is NOTIFY_SOCKET in the environment of a process that is the one meant.
func toldToNotify(pid int, isMeant func(proc.Stat) bool) (value string, ok bool) {
	p, err := proc.Open(pid)
	if err != nil {
		return "", false
	}
	defer p.Close()
	if stat, err := p.Stat(); err != nil || !isMeant(stat) {
		return "", false
	}
	value, ok, err = p.NotifySocket()
	return value, ok && err == nil
}

// isOver reports whether a process cannot be looked at any more, as one that waits for its parent cannot.
func isOver(pid uint32) bool {
	p, err := proc.Open(int(pid))
	if err != nil {
		return true
	}
	defer p.Close()
	stat, err := p.Stat()
	return err != nil || stat.State == 'Z'
}

// beginsWithKey reports whether the first line of a message is an assignment to a key of the
// protocol, or to a private one.
func beginsWithKey(e *events.Event) bool {
	text := e.TextOf()
	if text == nil || len(text.Lines) == 0 {
		return false
	}
	a, ok := text.Lines[0].Assignment()
	return ok && (strings.HasPrefix(a.Key, "X_") || slices.Contains(events.Keys(), a.Key))
}

// deliver makes ready what is to be shown of what happened, in its order.
func (t *Tracer) deliver(all []item) error {
	for _, r := range all {
		if r.receipt != nil {
			r.receipt.Seq = r.receipt.Send.Seq
			by := &r.receipt.By
			by.Identity = t.identities.of(t.cgroups.path(by.CgroupID))
			t.ready = append(t.ready, Item{Record: events.Record{Receipt: r.receipt}})
			continue
		}
		if err := t.complete(r.send); err != nil {
			return err
		}
		item := Item{Record: events.Record{Event: &r.send.Event}}
		// Receipts point to the events that they are for.
		if r.id == (wire.DatagramID{}) {
			item.buffer = r.send
		}
		t.ready = append(t.ready, item)
	}
	return nil
}

// freeMax is how many buffers are kept for later events.
const freeMax = 64

func (t *Tracer) newBuffer() *wire.SendBuffer {
	n := len(t.free)
	if n == 0 {
		return new(wire.SendBuffer)
	}
	b := t.free[n-1]
	t.free = t.free[:n-1]
	return b
}

// Release returns an Item's memory for reuse; the Item must not be used afterwards. Calling it
// is optional.
func (t *Tracer) Release(item Item) {
	if item.buffer != nil && len(t.free) < freeMax {
		t.free = append(t.free, item.buffer)
	}
}

// complete adds to an event what the kernel did not say.
func (t *Tracer) complete(b *wire.SendBuffer) error {
	event := &b.Event
	if err := t.doubtDelivery(&event.Result); err != nil {
		return err
	}
	t.seq++
	event.Seq = t.seq
	event.Backend = t.plan.backend
	t.identify(&event.Sender)
	t.identifyReceiver(event.Receiver)
	event.Sender.Exe = t.exes.lookup(&event.Sender)
	return nil
}

// Unread is how many of the datagrams that Read returned are in their receiver's queue
// still, as far as is known.
func (t *Tracer) Unread() int { return t.follow.unread() }
