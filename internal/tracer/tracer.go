// SPDX-License-Identifier: Apache-2.0

// Package tracer captures datagrams in the kernel: it loads and attaches the
// programs of package bpf, sets their filters, reads their ring buffer and counts
// what was lost.
package tracer

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"

	"github.com/sdtrace/sdtrace/internal/wire"
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
	// Accept decides on what passed Filter, before it is numbered; nil accepts all. It is
	// called by Read, with what the kernel said of a datagram and nothing else.
	Accept func(*events.Event) bool
	// All captures every AF_UNIX datagram, not only those to notify sockets.
	All bool
	// RingSize is the size of the ring buffer in bytes, a power of two and a
	// multiple of the page size; 0 means DefaultRingSize.
	RingSize uint32
	// Latency has the fentry backend tell of each datagram how long its send took until it was queued, and not only of
	// those that waited for room. It costs each AF_UNIX datagram of the host a tenth of a microsecond.
	Latency bool
	// Denied has the fentry backend see sends that a security module refuses before the socket does. It costs each send of
	// the host a tenth of a microsecond, TCP's too.
	Denied bool
}

const (
	// DefaultRingSize is Options.RingSize where that is 0, in bytes: room for a quarter of a second of the fastest single
	// sender, as long as a machine that hiccups stands still.
	DefaultRingSize = 8 << 20
)

// ErrFlushed is returned by [Tracer.Read] once after [Tracer.Flush], when all that
// was captured before it has been read.
var ErrFlushed = ringbuf.ErrFlushed

// OptionError is the error of [Open] for options that make no sense anywhere.
type OptionError struct {
	// Option is the field of [Filter] or [Options] that is wrong, "" if it is several together.
	Option string
	reason string
}

// Error says which option and what would be right.
func (e *OptionError) Error() string { return e.reason }

func badOption(option, format string, args ...any) error {
	return &OptionError{option, fmt.Sprintf(format, args...)}
}

// Item is a record read from a capture, never a Withheld one.
type Item struct {
	events.Record

	buffer *wire.SendBuffer // Event's, if nobody else looks at it
}

// Tracer is a capture under way. Read and Unread must not be called concurrently with
// one another; the other methods can be called at any time.
type Tracer struct {
	plan       attachPlan
	byThread   bool
	refused    []Refusal // plans that were tried before
	collection *ebpf.Collection
	links      []link.Link
	reader     *ringbuf.Reader
	filter     *matcher
	accept     func(*events.Event) bool
	rejected   atomic.Uint64 // captured in the kernel, but not accepted here
	unseenMost atomic.Uint64 // see unseen
	patterns   int           // globs in the kernel, spare ones included
	spare      int           // of these, at the end
	nameBits   nameBits

	stopOnce  sync.Once
	scanner   sync.WaitGroup
	execs     *ringbuf.Reader // nil if nobody looks at environments
	forgotten atomic.Uint64   // addresses of notify sockets for which there was no room
	closeOnce sync.Once

	// What Read alone touches.
	record   ringbuf.Record
	decoder  wire.Decoder
	free     []*wire.SendBuffer
	deadline time.Time
	quiet    int    // intervals without a record, quietIntervals+1 at most
	idle     bool   // what was read last, with nothing behind it, is not returned
	ready    []Item // to be returned, but for the first returned ones
	returned int
	follow   follower
	retries  retries
	seq      uint64
	reported events.Lost
	// lostBefore is what each owner of a share had lost when that was asked for last.
	lostBefore map[uint64]uint64
	counted    time.Time // when it was looked for losses last
	pending    error
	untried    error
	clock      bootClock
	exes       exeCache
	cgroups    cgroupPaths

	identities identities
}

// Open loads the programs, sets the filters and attaches. When it returns, every
// datagram sent from then on is captured or counted as lost.
//
// The error tells what a person can do about it. It is an [*UnavailableError] when no
// backend works and an [*OptionError] when opts are wrong.
func Open(opts Options) (*Tracer, error) {
	plans, err := plansFor(opts.Backend)
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
	for _, plan := range plans {
		t, err := open(plan, settings, opts.Accept)
		if err == nil {
			t.refused = refused
			return t, nil
		}
		refused = append(refused, Refusal{Backend: plan.backend, Hook: plan.hook, Err: err, plan: plan})
	}
	return nil, &UnavailableError{Refusals: refused}
}

func open(plan attachPlan, settings *settings, accept func(*events.Event) bool) (_ *Tracer, err error) {
	plan = plan.with(settings)
	t := &Tracer{
		plan: plan, byThread: settings.byThread, filter: settings.matcher, accept: accept,
		retries:    retries{onlyFailed: settings.onlyFailed},
		decoder:    wire.Decoder{Controllers: settings.hierarchies.controllers},
		patterns:   len(settings.patterns),
		exes:       exeCache{newLRU[exeKey, string]()},
		cgroups:    cgroupPaths{newLRU[uint64, cgroupPath]()},
		identities: identities{newLRU[string, events.Identity]()},
	}
	if settings.hasComponents() {
		t.spare = spareComponents
	}
	defer func() {
		if err != nil {
			_ = t.Close()
		}
	}()
	if err := plan.possible(settings.types); err != nil {
		return nil, err
	}
	if t.collection, err = load(plan, settings); err != nil {
		return nil, err
	}
	if err := settings.fill(t.collection.Maps); err != nil {
		return nil, err
	}
	if t.reader, err = ringbuf.NewReader(t.collection.Maps["ring"]); err != nil {
		return nil, fmt.Errorf("opening the ring buffer: %w", err)
	}
	if settings.byName {
		if err := t.setNameBits(); err != nil {
			return nil, err
		}
	}
	for _, p := range plan.programs {
		l, err := p.attach(t.collection.Programs[p.name])
		if err != nil {
			return nil, fmt.Errorf("attaching %s: %w", p.hook, err)
		}
		t.links = append(t.links, l)
	}
	if err := t.setAttached(true); err != nil {
		return nil, err
	}
	if err := t.try(); err != nil {
		return nil, err
	}
	if settings.byName {
		if err := t.watchEnvironments(); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// setAttached tells the programs of the fentry backend whether all of them are attached.
func (t *Tracer) setAttached(attached bool) error {
	if t.collection.Variables["attached"] == nil {
		return nil
	}
	return t.tell("attached", attached)
}

func load(plan attachPlan, settings *settings) (*ebpf.Collection, error) {
	spec, err := plan.spec()
	if err != nil {
		return nil, err
	}
	if err := settings.applyTo(spec, plan.variables); err != nil {
		return nil, err
	}
	collection, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Cache: settings.types})
	if err != nil {
		return nil, fmt.Errorf("loading programs: %w", err)
	}
	return collection, nil
}

// Knows says what the capture can tell; see [Knowledge].
func (t *Tracer) Knows() Knowledge { return t.plan.knows }

// Refused says which better backends do not work here, in the order in which they were tried.
func (t *Tracer) Refused() []Refusal { return t.refused }

// Backend is the backend in use: "fentry" or "tracepoint".
func (t *Tracer) Backend() string { return t.plan.backend }

// Hook names the kernel functions or the tracepoint the backend is attached to.
func (t *Tracer) Hook() string { return t.plan.hook }

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
		if t.execs != nil {
			err = t.execs.Close()
		}
		t.scanner.Wait()
		if t.collection != nil {
			err = errors.Join(err, t.setAttached(false))
		}
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
