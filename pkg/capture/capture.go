// SPDX-License-Identifier: Apache-2.0

// Package capture yields every datagram that any process of a host sends to a systemd notify
// socket (sd_notify(3)), with all that is known about it: who sent it, from which unit or
// container, to which socket and whose, what it said, whether it arrived and what became of it.
//
// A capture is live ([Open], on Linux) or read from a file ([OpenFile], anywhere). Either yields
// the same records in order, by [Capture.Next], [Capture.All] or [Capture.Copy]:
//
//	source -> stages, each of which adds what it knows -> sinks
//
// What a capture cannot know is absent from its records, never guessed: [Capture.Has] tells what
// this one can know.
package capture

import (
	"errors"
	"io"
	"iter"
	"os"
	"time"

	"github.com/sdtrace/sdtrace/pkg/events"
)

// Source yields records in order. [Open] and [OpenFile] have their own; [New] takes any other.
type Source interface {
	// Next waits for the next record, which is valid until the following call. It returns
	// [os.ErrDeadlineExceeded] when nothing came until a time that is not zero, or before it
	// begins to wait although Ready said that it would not, and [io.EOF] at the end and from
	// then on.
	Next(until time.Time) (events.Record, error)
	// Ready reports whether Next has more to return without waiting.
	Ready() bool
	// Close releases what the source holds.
	Close() error
}

// Stage adds what it knows to the records that pass, each of which has been through the stages
// before it.
type Stage interface {
	// Do looks at a record and may add to it. It may keep no record without cloning it.
	Do(*events.Record)
	// Wake is when Due is to be asked next; the zero time is never.
	Wake() time.Time
	// Due returns what the stage itself has to tell at a time, which is Wake or later, and of
	// which all records have passed that were made before. It goes through the stages behind
	// this one, and must stay as it is until it was yielded.
	Due(now time.Time) []events.Record
}

// Do makes a stage of a function that looks at each record and has nothing to tell by itself.
func Do(f func(*events.Record)) Stage { return doer(f) }

type doer func(*events.Record)

func (d doer) Do(r *events.Record)             { d(r) }
func (doer) Wake() time.Time                   { return time.Time{} }
func (doer) Due(time.Time) (_ []events.Record) { return nil }

// Sink takes records, such as a file or a screen.
type Sink interface {
	// Write takes a record, which is valid until Write returns. [ErrStop] ends the copy.
	Write(*events.Record) error
	// Flush is called whenever nothing more is there to be written for now.
	Flush() error
	// Close is called at the end, after Flush.
	Close() error
}

// ErrStop is what a [Sink] returns for a record after which it wants no more. It is no failure.
var ErrStop = errors.New("enough was captured")

// Clock tells the time.
type Clock interface {
	// Now is the time.
	Now() time.Time
}

// Capability is something that not every capture can tell.
type Capability int

// The capabilities.
const (
	// Receipts: what becomes of a datagram once it is queued: who read it, when, and what
	// relays did with it.
	Receipts Capability = iota
	// Receivers: the receiving socket of every datagram that reached one. Without it the
	// receiving socket is known only where it can be proven (docs/events.md).
	Receivers
	// Delivery: whether each datagram was put into the receiver's queue, and how long the
	// sender's call took.
	Delivery
)

// Capture is a stream of records. Its methods must not be called concurrently.
type Capture struct {
	source Source
	stages []Stage
	clock  Clock

	has     func(Capability) bool // nil: nothing
	missing []string

	ready   []events.Record // told by stages, to be returned
	current events.Record
	seen    time.Time // when the latest record was made
}

// New returns a capture of another source. stages are in the order in which records pass them.
// clock is what tells them the time, nil for the wall clock. Call Close at the end.
func New(source Source, clock Clock, stages ...Stage) *Capture {
	if clock == nil {
		clock = wallClock{}
	}
	return &Capture{source: source, stages: stages, clock: clock}
}

type wallClock struct{}

func (wallClock) Now() time.Time { return time.Now() }

// Next waits for the next record. It is valid until the following call: [events.Record.Clone]
// makes one to keep. The error is [io.EOF] after the last record, when the context has ended, Stop
// was called, or the file is at its end. It is another one for a file with a line that is none, or
// when the kernel cannot be read.
func (c *Capture) Next() (*events.Record, error) {
	for {
		if r, err := c.next(); !errors.Is(err, os.ErrDeadlineExceeded) {
			return r, err
		}
	}
}

// next is Next, but returns [os.ErrDeadlineExceeded] when the source has.
func (c *Capture) next() (*events.Record, error) {
	for {
		if len(c.ready) > 0 {
			c.current, c.ready = c.ready[0], c.ready[1:]
			return &c.current, nil
		}
		wake := c.wake()
		if !wake.IsZero() && !c.seen.Before(wake) {
			c.askStages(c.seen)
			continue
		}
		// Taken before the source is found to have nothing: what a stage is asked at is a time of which it
		// has seen all.
		now := c.clock.Now()
		r, err := c.source.Next(wake)
		if isDry(err) && !wake.IsZero() && !now.Before(wake) {
			c.askStages(now)
			continue
		}
		if err != nil {
			return nil, err
		}
		c.seen = r.Time()
		c.current = r
		c.pass(&c.current, 0)
		return &c.current, nil
	}
}

// isDry reports whether the error says that a source has nothing, for now or any more.
func isDry(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, io.EOF) }

// pass takes a record through the stages from one on.
func (c *Capture) pass(r *events.Record, from int) {
	for _, stage := range c.stages[from:] {
		stage.Do(r)
	}
}

// wake is when a stage is to be asked next; the zero time is never.
func (c *Capture) wake() (first time.Time) {
	for _, stage := range c.stages {
		if at := stage.Wake(); !at.IsZero() && (first.IsZero() || at.Before(first)) {
			first = at
		}
	}
	return first
}

func (c *Capture) askStages(now time.Time) {
	for i, stage := range c.stages {
		if at := stage.Wake(); at.IsZero() || now.Before(at) {
			continue
		}
		for _, r := range stage.Due(now) {
			c.pass(&r, i+1)
			c.ready = append(c.ready, r)
		}
	}
}

// Ready reports whether Next has more to return without waiting.
func (c *Capture) Ready() bool { return len(c.ready) > 0 || c.source.Ready() }

// All yields the records until the end. Each is valid until the next one. An error is the last
// thing that is yielded; that the capture ended is none.
func (c *Capture) All() iter.Seq2[*events.Record, error] {
	return func(yield func(*events.Record, error) bool) {
		for {
			r, err := c.Next()
			if errors.Is(err, io.EOF) {
				return
			}
			if !yield(r, err) || err != nil {
				return
			}
		}
	}
}

// Copy writes all records to all of the sinks until the capture ends or a sink returns
// [ErrStop], flushes the sinks whenever nothing more is there for now, and closes them at the
// end. The error is the first one of the capture or of a sink.
func (c *Capture) Copy(sinks ...Sink) (err error) {
	defer func() {
		for _, sink := range sinks {
			for _, failed := range []error{sink.Flush(), sink.Close()} {
				if err == nil {
					err = failed
				}
			}
		}
	}()
	for {
		r, err := c.next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, os.ErrDeadlineExceeded):
		case err != nil:
			return err
		default:
			if stopped, err := writeTo(sinks, r); stopped || err != nil {
				return err
			}
		}
		if c.Ready() {
			continue
		}
		for _, sink := range sinks {
			if err := sink.Flush(); err != nil {
				return err
			}
		}
	}
}

// writeTo writes a record to all of the sinks, and says whether one of them has enough.
func writeTo(sinks []Sink, r *events.Record) (stopped bool, err error) {
	for _, sink := range sinks {
		switch err := sink.Write(r); {
		case errors.Is(err, ErrStop):
			stopped = true
		case err != nil:
			return false, err
		}
	}
	return stopped, nil
}

// Close ends the capture and releases what it holds. The error is that of closing the file or the
// programs.
func (c *Capture) Close() error { return c.source.Close() }

// Has reports whether the capture can tell something. Of a file it is not known beforehand what it
// holds: there it is false.
func (c *Capture) Has(what Capability) bool { return c.has != nil && c.has(what) }

// Missing says what is missing since the capture began, a line each: a privilege, without which some things
// cannot be known, or what was asked for and was not there: a unit that is not running, a container that no
// runtime knows. The capture waits for that.
func (c *Capture) Missing() []string { return c.missing }
