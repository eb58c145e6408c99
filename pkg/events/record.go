// SPDX-License-Identifier: Apache-2.0

package events

import (
	"bytes"
	"slices"
	"time"
)

// Record is one thing that a capture yields, and one line of output: exactly one field is
// set. It is valid until the next one is asked for; [Record.Clone] makes one to keep.
type Record struct {
	// Event is a datagram that was sent.
	Event *Event
	// Receipt is what became of one; it comes after its Event.
	Receipt *Receipt
	// Withheld is what a relay kept to itself of one.
	Withheld *Withheld
	// Verdict is what the service manager makes of one.
	Verdict *Verdict
	// Unit is what a service manager tells of a unit without a message.
	Unit *Unit
	// Hang is a send that does not return.
	Hang *Hang
	// Lost says what was not captured.
	Lost *Lost
}

// Time is when it happened, by the wall clock.
func (r Record) Time() time.Time {
	switch {
	case r.Event != nil:
		return r.Event.Time
	case r.Receipt != nil:
		return r.Receipt.Time
	case r.Withheld != nil:
		return r.Withheld.Time
	case r.Verdict != nil:
		return r.Verdict.Time
	case r.Unit != nil:
		return r.Unit.Time
	case r.Hang != nil:
		return r.Hang.Time
	case r.Lost != nil:
		return r.Lost.Time
	}
	return time.Time{}
}

// Clone returns a copy that stays as it is. Receipt.Send and the like are shared with r:
// they are not changed any more.
func (r Record) Clone() Record {
	switch {
	case r.Event != nil:
		r.Event = r.Event.Clone()
	case r.Receipt != nil:
		c := *r.Receipt
		c.By.Container = clone(c.By.Container)
		r.Receipt = &c
	case r.Withheld != nil:
		c := *r.Withheld
		c.Relay.Container = clone(c.Relay.Container)
		c.Message = slices.Clone(c.Message)
		r.Withheld = &c
	case r.Verdict != nil:
		c := *r.Verdict
		c.Named, c.MainBefore, c.MainAfter = clone(c.Named), clone(c.MainBefore), clone(c.MainAfter)
		c.Lines = slices.Clone(c.Lines)
		for i := range c.Lines {
			c.Lines[i].Confirmed = clone(c.Lines[i].Confirmed)
		}
		r.Verdict = &c
	case r.Unit != nil:
		c := *r.Unit
		c.Container, c.Last, c.Main, c.Restarts = clone(c.Container), clone(c.Last), clone(c.Main), clone(c.Restarts)
		r.Unit = &c
	case r.Hang != nil:
		c := *r.Hang
		c.Sender.Container, c.Queued, c.MaxQueued = clone(c.Sender.Container), clone(c.Queued), clone(c.MaxQueued)
		r.Hang = &c
	case r.Lost != nil:
		r.Lost = clone(r.Lost)
	}
	return r
}

// Clone returns a copy of the event that shares nothing with it but HopOf.
func (e *Event) Clone() *Event {
	c := *e
	c.Sender.Container = clone(c.Sender.Container)
	if c.Claimed = clone(c.Claimed); c.Claimed != nil {
		c.Claimed.UID, c.Claimed.GID = clone(c.Claimed.UID), clone(c.Claimed.GID)
	}
	if c.Refused = clone(c.Refused); c.Refused != nil {
		c.Refused.UID, c.Refused.GID = clone(c.Refused.UID), clone(c.Refused.GID)
	}
	if c.Receiver = clone(c.Receiver); c.Receiver != nil {
		c.Receiver.UID, c.Receiver.Container = clone(c.Receiver.UID), clone(c.Receiver.Container)
	}
	c.Result.Bytes, c.Result.Delivered = clone(c.Result.Bytes), clone(c.Result.Delivered)
	c.Size = clone(c.Size)
	c.Payload = bytes.Clone(c.Payload)
	c.FDs = slices.Clone(c.FDs)
	c.Text = nil // its lines were in the other payload
	c.TextOf()
	return &c
}

func clone[T any](v *T) *T {
	if v == nil {
		return nil
	}
	c := *v
	return &c
}
