// SPDX-License-Identifier: Apache-2.0

// Package hops finds the datagrams that a relay sends because of others that it read,
// and what it has kept to itself of these.
//
// The evidence is what a capture shows: the same process read the one and then sent the
// other, which says nothing that the first does not say. How a relay works inside is
// not known to it.
package hops

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/sdtrace/sdtrace/internal/field"
	"github.com/sdtrace/sdtrace/pkg/events"
)

const (
	// Grace is how long a relay has to pass on what it read, until it is said to have
	// withheld it.
	Grace = time.Second
	// linkable is how long a datagram can be what another one passes on.
	linkable = 10 * time.Second
	// At most readsMax reads per process and processesMax processes are kept; the oldest
	// are dropped.
	readsMax     = 256
	processesMax = 1024
)

// translated are the keys whose values hold in the sender's namespaces alone, or that a
// relay names anew, so that what is passed on differs.
var translated = []string{"MAINPID", "MAINPIDFD", "MAINPIDFDID", "MONOTONIC_USEC", "FDNAME"}

// Tracker follows processes that read datagrams. The zero value is ready to use; it must
// not be used concurrently.
type Tracker struct {
	processes map[process]*reader
}

type process struct {
	pid       uint32
	startTime uint64
}

// reader is a process that has read datagrams.
type reader struct {
	reads []*read // in order
	relay bool    // it passes on
	last  time.Time
}

// read is a datagram that was read.
type read struct {
	receipt *events.Receipt
	message events.Message
	// unlinked are the assignments that no datagram was linked to this one for, rest
	// those that none sent afterwards holds.
	unlinked, rest events.Message
	judged         bool
}

// Read takes note that a datagram was read. Receipts of other kinds, and of reads that
// failed, say nothing.
func (t *Tracker) Read(r *events.Receipt) {
	if r.Kind != events.ReceiptRead || r.Errno != "" || r.Send == nil {
		return
	}
	message, err := r.Send.Message()
	if err != nil || len(message) == 0 {
		return
	}
	p := t.reader(process{r.By.PID, r.By.StartTime})
	p.relay = p.relay || slices.Contains(field.Relays, r.By.Comm)
	p.last = r.Time
	p.forget(r.Time)
	if len(p.reads) == readsMax {
		p.reads = slices.Delete(p.reads, 0, 1)
	}
	p.reads = append(p.reads, &read{
		receipt: r, message: message, unlinked: slices.Clone(message), rest: slices.Clone(message),
	})
}

// Sent sets HopOf of a datagram that was sent, if it passes on one that was read. One that did not arrive passes nothing
// on, but shows that its sender means to.
func (t *Tracker) Sent(e *events.Event) {
	p := t.processes[process{e.Sender.PID, e.Sender.StartTime}]
	if p == nil {
		return
	}
	message, err := e.Message()
	if err != nil || len(message) == 0 {
		return
	}
	p.forget(e.Time)
	if e.Result.Failed() {
		p.relay = p.relay || slices.ContainsFunc(p.reads, func(r *read) bool { return passesOn(message, r) })
		return
	}
	for _, r := range p.reads {
		if e.HopOf == nil && passesOn(message, r) {
			e.HopOf, p.relay = r.receipt.Send, true
			r.unlinked = without(r.unlinked, message)
		}
		r.rest = without(r.rest, message)
	}
}

// Lost takes note that datagrams were lost: they may have been what was passed on, so
// that nothing can be said to be withheld of what was read until now.
func (t *Tracker) Lost() {
	for _, p := range t.processes {
		for _, r := range p.reads {
			r.judged = true
		}
	}
}

// Waiting reports whether Due may have something to say later on.
func (t *Tracker) Waiting() bool {
	for _, p := range t.processes {
		// What came last is judged last.
		if n := len(p.reads); n > 0 && !p.reads[n-1].judged {
			return true
		}
	}
	return false
}

// Due returns what relays have withheld of the datagrams that they read [Grace] before
// now or longer ago, each once and in the order of Seq.
func (t *Tracker) Due(now time.Time) (due []*events.Withheld) {
	for _, p := range t.processes {
		for _, r := range p.reads {
			if r.judged || now.Sub(r.receipt.Time) < Grace {
				continue
			}
			r.judged = true
			if p.relay && len(r.rest) > 0 {
				due = append(due, &events.Withheld{
					Seq: r.receipt.Seq, Send: r.receipt.Send, Time: now, Relay: r.receipt.By, Message: r.rest,
				})
			}
		}
		p.forget(now)
	}
	slices.SortFunc(due, func(a, b *events.Withheld) int { return cmp.Compare(a.Seq, b.Seq) })
	return due
}

// reader returns what is known of a process, and forgets that which was quiet for the
// longest time if there are too many.
func (t *Tracker) reader(p process) *reader {
	if r := t.processes[p]; r != nil {
		return r
	}
	if t.processes == nil {
		t.processes = make(map[process]*reader)
	}
	if len(t.processes) >= processesMax {
		var oldest process
		for p, r := range t.processes {
			if o := t.processes[oldest]; o == nil || r.last.Before(o.last) {
				oldest = p
			}
		}
		delete(t.processes, oldest)
	}
	r := new(reader)
	t.processes[p] = r
	return r
}

// forget drops the reads that nothing more can come of.
func (p *reader) forget(now time.Time) {
	n := 0
	for n < len(p.reads) && p.reads[n].judged && now.Sub(p.reads[n].receipt.Time) > linkable {
		n++
	}
	p.reads = slices.Delete(p.reads, 0, n)
}

// passesOn reports whether a message may be what becomes of one that was read: it says
// nothing else, but for what is translated, and something that no other message stands
// for yet.
func passesOn(message events.Message, r *read) bool {
	something := false
	for _, a := range message {
		if slices.Contains(translated, a.Key) {
			continue
		}
		if !slices.ContainsFunc(r.message, func(said events.Assignment) bool { return standsFor(a, said) }) {
			return false
		}
		something = something || slices.ContainsFunc(r.unlinked, func(said events.Assignment) bool { return standsFor(a, said) })
	}
	return something
}

// without returns the assignments of m that a message does not stand for.
func without(m, message events.Message) events.Message {
	return slices.DeleteFunc(m, func(said events.Assignment) bool {
		return slices.ContainsFunc(message, func(a events.Assignment) bool {
			return standsFor(a, said) || a.Key == said.Key && slices.Contains(translated, a.Key)
		})
	})
}

// standsFor reports whether an assignment is another one, passed on. systemd-nspawn
// puts "Container running: " before a status.
func standsFor(a, said events.Assignment) bool {
	return a == said || a.Key == "STATUS" && said.Key == "STATUS" && strings.HasSuffix(a.Value, ": "+said.Value)
}
