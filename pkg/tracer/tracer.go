// SPDX-License-Identifier: Apache-2.0

// Package tracer captures datagrams in the kernel: it loads and attaches the
// programs of package bpf, sets their filters, reads their ring buffer and counts
// what was lost.
package tracer

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"

	"github.com/sdtrace/sdtrace/pkg/events"
)

// Options says what to capture and how. The zero value captures every datagram to
// any notify socket with the first backend that works.
type Options struct {
	// Backend is "fentry", "tracepoint", or "auto" (also when empty): the first of
	// them that loads and attaches.
	Backend string
	// Filter narrows the capture down.
	Filter Filter
	// All captures every AF_UNIX datagram, not only those to notify sockets.
	All bool
	// RingSize is the size of the ring buffer in bytes, a power of two and a
	// multiple of the page size; 0 means DefaultRingSize.
	RingSize uint32
	// InFlight is how many sends can be under way at a time, and InFlight/8
	// (but not less than 1024, or InFlight if that is less) how many of them
	// with a payload; 0 means DefaultInFlight. Only the fentry backend needs it.
	InFlight uint32
}

const (
	// DefaultRingSize is Options.RingSize where that is 0, in bytes: more of them would
	// cost senders more, as what they write to would not stay in the cache.
	DefaultRingSize = 4 << 20
	// DefaultInFlight is Options.InFlight where that is 0, in sends.
	DefaultInFlight = 8192

	minCopies = 1024
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
)

// ErrFlushed is returned by [Tracer.Read] once after [Tracer.Flush], when all that
// was captured before it has been read.
var ErrFlushed = ringbuf.ErrFlushed

// OptionError is the error of [Open] for options that make no sense anywhere.
type OptionError struct{ reason string }

// Error says which option and what would be right.
func (e *OptionError) Error() string { return e.reason }

func badOption(format string, args ...any) error {
	return &OptionError{fmt.Sprintf(format, args...)}
}

// Item is one thing read from a capture: exactly one field is set.
type Item struct {
	Event *events.Event
	// Receipt comes after its Event.
	Receipt *events.Receipt
	Lost    *events.Lost

	buffer *buffer // Event's, if nobody else looks at it
}

// buffer is the memory of an event and what it points to.
type buffer struct {
	events.SendBuffer
	sender, receiver events.Container
}

// Tracer is a capture under way. Read and Unread must not be called concurrently with
// one another; the other methods can be called at any time.
type Tracer struct {
	flavour    flavour
	collection *ebpf.Collection
	links      []link.Link
	reader     *ringbuf.Reader
	filter     *matcher
	patterns   int // globs in the kernel, spare ones included
	spare      int // of these, at the end
	nameBits   nameBits

	stop      chan struct{}
	stopOnce  sync.Once
	scanner   sync.WaitGroup
	closeOnce sync.Once

	// What Read alone touches.
	record   ringbuf.Record
	decoder  events.Decoder
	free     []*buffer
	deadline time.Time
	quiet    int    // intervals without a record, quietIntervals+1 at most
	ready    []Item // to be returned, but for the first returned ones
	returned int
	follow   follower
	seq      uint64
	reported events.Lost
	pending  error
	clock    bootClock
	exes     exeCache
	cgroups  cgroupPaths

	identities identities
}

// Open loads the programs, sets the filters and attaches. When it returns, every
// datagram sent from then on is captured or counted as lost.
//
// The error tells what a person can do about it. It is an [*UnavailableError] when no
// backend works and an [*OptionError] when opts are wrong.
func Open(opts Options) (*Tracer, error) {
	candidates, err := flavoursOf(opts.Backend)
	if err != nil {
		return nil, err
	}
	settings, err := newSettings(opts)
	if err != nil {
		return nil, err
	}
	if err := preflight(); err != nil {
		return nil, err
	}
	allowMemory()

	var refused []Refusal
	for _, flavour := range candidates {
		t, err := open(flavour, settings)
		if err == nil {
			return t, nil
		}
		refused = append(refused, Refusal{Backend: flavour.backend, Hook: flavour.hook, Err: err})
	}
	return nil, &UnavailableError{Refusals: refused}
}

func open(flavour flavour, settings *settings) (_ *Tracer, err error) {
	t := &Tracer{
		flavour: flavour, filter: settings.matcher, stop: make(chan struct{}),
		decoder:  events.Decoder{Controllers: settings.hierarchies.controllers},
		patterns: len(settings.patterns),
	}
	if settings.hasComponents() {
		t.spare = spareComponents
	}
	defer func() {
		if err != nil {
			_ = t.Close()
		}
	}()
	if err := flavour.possible(settings.types); err != nil {
		return nil, err
	}
	if t.collection, err = load(flavour, settings); err != nil {
		return nil, err
	}
	if err := settings.fill(t.collection.Maps); err != nil {
		return nil, err
	}
	if t.reader, err = ringbuf.NewReader(t.collection.Maps["ring"]); err != nil {
		return nil, fmt.Errorf("opening the ring buffer: %w", err)
	}
	for _, p := range flavour.programs {
		l, err := p.attach(t.collection.Programs[p.name])
		if err != nil {
			return nil, fmt.Errorf("attaching %s: %w", p.hook, err)
		}
		t.links = append(t.links, l)
	}
	if settings.byName {
		t.watchEnvironments()
	}
	return t, nil
}

// Receipts says whether the capture tells what becomes of a datagram.
func (t *Tracer) Receipts() bool { return t.flavour.receipts }

// Backend is the backend in use: "fentry" or "tracepoint".
func (t *Tracer) Backend() string { return t.flavour.backend }

// Hook names the kernel functions or the tracepoint the backend is attached to.
func (t *Tracer) Hook() string { return t.flavour.hook }

// Read waits for the next datagram and returns it, or what became of one, or a report
// of losses. Events come in kernel order. A datagram is returned within a fifth of a
// second after it was sent, and at once if it is the first for a second.
//
// The error is [ErrFlushed] after Flush or Stop, when all that was captured before
// was returned, and wraps [os.ErrClosed] after Close.
func (t *Tracer) Read() (Item, error) {
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
			if err := t.deliver(t.follow.giveUp(t.pending != nil)); err != nil {
				return Item{}, err
			}
		}
		lost, err := t.lost()
		if err != nil {
			return Item{}, err
		}
		if lost != nil {
			t.ready = append(t.ready, Item{Lost: lost})
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
		return t.deadline
	}
	return until
}

// doze takes note that nothing came for a while.
func (t *Tracer) doze() error {
	t.quiet = min(t.quiet+1, quietIntervals+1)
	if t.quiet != quietIntervals {
		return nil
	}
	return t.tellPrograms(1)
}

func (t *Tracer) wakeUp() error {
	asleep := t.quiet >= quietIntervals
	t.quiet = 0
	if !asleep {
		return nil
	}
	return t.tellPrograms(0)
}

func (t *Tracer) tellPrograms(sleeps uint32) error {
	if err := t.collection.Variables["reader_sleeps"].Set(sleeps); err != nil {
		return fmt.Errorf("telling the programs whether to wake us up: %w", err)
	}
	return nil
}

// take decodes a record and makes ready what comes of it.
func (t *Tracer) take(record []byte) error {
	kind, err := events.TypeOf(record)
	if err != nil {
		return fmt.Errorf("decoding a record: %w", err)
	}
	var r happening
	if kind == events.RecordSend {
		r.send = t.newBuffer()
		r.id, err = t.decoder.Send(&r.send.SendBuffer, record, t.clock.clock)
	} else {
		r.receipt = new(events.Receipt)
		r.id, err = t.decoder.Receipt(r.receipt, record, t.clock.clock)
	}
	if err != nil {
		return fmt.Errorf("decoding a record: %w", err)
	}
	if r.send != nil && !t.filter.matches(&r.send.Event) {
		t.Release(Item{buffer: r.send})
		r.send = nil
	}
	return t.deliver(t.follow.order(r))
}

// deliver makes ready what is to be shown of what happened, in its order.
func (t *Tracer) deliver(all []happening) error {
	for _, r := range all {
		if r.receipt != nil {
			r.receipt.Seq = r.receipt.Send.Seq
			t.identifyReader(&r.receipt.By)
			t.ready = append(t.ready, Item{Receipt: r.receipt})
			continue
		}
		if err := t.complete(r.send); err != nil {
			return err
		}
		item := Item{Event: &r.send.Event}
		// Receipts point to the events that they are for.
		if r.id == (events.DatagramID{}) {
			item.buffer = r.send
		}
		t.ready = append(t.ready, item)
	}
	return nil
}

// freeMax is how many buffers are kept for later events.
const freeMax = 64

func (t *Tracer) newBuffer() *buffer {
	n := len(t.free)
	if n == 0 {
		return new(buffer)
	}
	b := t.free[n-1]
	t.free = t.free[:n-1]
	return b
}

// Release gives the memory of what Read returned back, to be used again. Nothing of it may
// be looked at any more. Who does not call it leaves that to the garbage collector.
func (t *Tracer) Release(item Item) {
	if item.buffer != nil && len(t.free) < freeMax {
		t.free = append(t.free, item.buffer)
	}
}

// complete adds to an event what the kernel did not say.
func (t *Tracer) complete(b *buffer) error {
	event := &b.Event
	if err := t.doubtDelivery(&event.Result); err != nil {
		return err
	}
	t.seq++
	event.Seq = t.seq
	event.Backend = t.flavour.backend
	t.identify(&event.Sender, &b.sender)
	t.identifyReceiver(event.Receiver, &b.receiver)
	event.Sender.Exe = t.exes.lookup(&event.Sender)
	return nil
}

func load(flavour flavour, settings *settings) (*ebpf.Collection, error) {
	spec, err := flavour.spec()
	if err != nil {
		return nil, err
	}
	if err := settings.applyTo(spec, flavour.variables); err != nil {
		return nil, err
	}
	collection, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Cache: settings.types})
	if err != nil {
		return nil, fmt.Errorf("loading programs: %w", err)
	}
	return collection, nil
}

// identify fills in what the cgroup of a sender says. c is room for its container.
func (t *Tracer) identify(s *events.Sender, c *events.Container) {
	id := t.identities.of(s.Cgroup)
	s.Unit, s.UserUnit, s.Slice = id.Unit, id.UserUnit, id.Slice
	s.Container = container(id, c)
}

// lost reports what was lost since the last report, nil if nothing was.
func (t *Tracer) lost() (*events.Lost, error) {
	stats, err := t.Stats()
	if err != nil {
		return nil, err
	}
	now := events.Lost{
		RingFull: stats.RingFull, InFlightFull: stats.InFlightFull, Missed: stats.Missed, Receipts: stats.Receipts,
	}
	delta := events.Lost{
		Time:         time.Now(),
		RingFull:     now.RingFull - t.reported.RingFull,
		InFlightFull: now.InFlightFull - t.reported.InFlightFull,
		Missed:       now.Missed - t.reported.Missed,
		Receipts:     now.Receipts - t.reported.Receipts,
	}
	if delta.Count() == 0 && delta.Receipts == 0 {
		return nil, nil
	}
	t.reported = now
	return &delta, nil
}

// Stats are totals since the start of the capture, in datagrams.
type Stats struct {
	// Ignored is how many AF_UNIX datagrams do not count as notifications.
	Ignored uint64
	// Filtered is how many a filter rejected; whether they count was not asked
	// where the filter was cheaper to ask.
	Filtered uint64
	// Captured is how many were handed to user space.
	Captured uint64
	// RingFull, InFlightFull and Missed are the losses, as in [events.Lost].
	RingFull, InFlightFull, Missed uint64
	// Receipts is how many receipts are missing at most, as in [events.Lost].
	Receipts uint64
}

// Seen is how many AF_UNIX datagrams were sent on the host: each is in one of the others.
func (s Stats) Seen() uint64 { return s.Ignored + s.Filtered + s.Captured + s.Lost() }

// Lost is the number of datagrams lost, all reasons together.
func (s Stats) Lost() uint64 { return s.RingFull + s.InFlightFull + s.Missed }

// Stats reads the kernel's counters. The error says which could not be read.
func (t *Tracer) Stats() (Stats, error) {
	var s Stats
	// In the order of enum counter in bpf/counters.h.
	for i, to := range []*uint64{
		&s.Ignored, &s.Filtered, &s.Captured, &s.RingFull, &s.InFlightFull, &s.Missed, &s.Missed,
		&s.Receipts,
	} {
		var perCPU []uint64
		if err := t.collection.Maps["counters"].Lookup(uint32(i), &perCPU); err != nil {
			return Stats{}, fmt.Errorf("reading the counters: %w", err)
		}
		for _, n := range perCPU {
			*to += n
		}
	}
	// Of a datagram without a place in the in-flight table, only payload_copied may
	// know that it counts.
	var refused uint64
	if v := t.collection.Variables["in_flight_refused"]; v != nil {
		if err := v.Get(&refused); err != nil {
			return Stats{}, fmt.Errorf("reading the counters: %w", err)
		}
	}
	for _, p := range t.flavour.programs {
		if !p.counted && (refused == 0 || p.name != payloadCopied) {
			continue
		}
		missed, err := t.missed(p.name)
		if err != nil {
			return Stats{}, err
		}
		s.Missed += missed
	}
	if t.flavour.receipts {
		for _, name := range []string{datagramTaken, datagramRead} {
			missed, err := t.missed(name)
			if err != nil {
				return Stats{}, err
			}
			s.Receipts += missed
		}
	}
	return s, nil
}

// missed is how many runs of a program the kernel skipped. Kernels before 5.12 say 0,
// and never skip one.
func (t *Tracer) missed(program string) (uint64, error) {
	stats, err := t.collection.Programs[program].Stats()
	if err != nil {
		return 0, fmt.Errorf("reading the program statistics: %w", err)
	}
	return stats.RecursionMisses, nil
}

// doubtDelivery takes back that a datagram was dropped by the receiver's socket filter
// when the receiver may just not have been seen.
func (t *Tracer) doubtDelivery(r *events.Result) error {
	if r.Errno != "" || !r.Failed() || t.collection.Programs[receiverFound] == nil {
		return nil
	}
	missed, err := t.missed(receiverFound)
	if missed > 0 {
		r.Delivered = nil
	}
	return err
}

// Stop detaches from the kernel, so that nothing more is captured, and makes Read
// return [ErrFlushed] after what was.
func (t *Tracer) Stop() error {
	err := t.detach()
	return errors.Join(err, t.Flush())
}

// Flush makes Read return [ErrFlushed] after all that is captured by now.
func (t *Tracer) Flush() error { return t.reader.Flush() }

func (t *Tracer) detach() (err error) {
	t.stopOnce.Do(func() {
		close(t.stop)
		t.scanner.Wait()
		// What was attached last goes first, so that no send is left in the middle.
		for _, l := range slices.Backward(t.links) {
			err = errors.Join(err, l.Close())
		}
	})
	return err
}

// Close ends the capture and releases what it holds. A Read under way returns an
// error that wraps [os.ErrClosed].
func (t *Tracer) Close() (err error) {
	t.closeOnce.Do(func() {
		err = t.detach()
		if t.reader != nil {
			err = errors.Join(err, t.reader.Close())
		}
		if t.collection != nil {
			t.collection.Close()
		}
	})
	return err
}

// Unread is how many of the datagrams that Read returned are in their receiver's queue
// still, as far as is known.
func (t *Tracer) Unread() int { return t.follow.unread() }
