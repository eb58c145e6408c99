// SPDX-License-Identifier: Apache-2.0

// Package verdict says what a systemd service manager makes of a datagram at its notify socket,
// assignment by assignment: whether it is heeded, ignored, or has no effect, by which rule, and
// what to change.
//
// It is a model of systemd's notify_recv_with_fds, manager_dispatch_notify_fd and
// service_notify_message as of versions 247 to 262: a table of rules, each with the versions for
// which it holds and the function that it stands in. It looks at nothing by itself and guesses
// nothing: what a rule asks for and was not given makes the verdict unknown.
package verdict

import (
	"fmt"
	"os"

	"github.com/sdtrace/sdtrace/pkg/events"
)

// Newest is the newest version of systemd that the rules were tried with. What they say of a newer
// one is marked likely.
const Newest = 262

// Outcome says what a service manager makes of an assignment.
type Outcome uint8

// The outcomes.
const (
	// Unknown: what decides about it is not known.
	Unknown Outcome = iota
	// Heeded: the service manager acts on it.
	Heeded
	// Ignored: it would count, but not from this sender, in this datagram, or now.
	Ignored
	// NoEffect: the service manager takes it and nothing changes: it is so already, the unit is
	// in another state, or the assignment is none that the service manager reads.
	NoEffect
)

var outcomeNames = [...]string{Unknown: "unknown", Heeded: "heeded", Ignored: "ignored", NoEffect: "no effect"}

// String is "unknown", "heeded", "ignored" or "no effect".
func (o Outcome) String() string { return outcomeNames[o] }

// Verdict is what a service manager makes of one assignment.
type Verdict struct {
	// Assignment is what the verdict is about. It has neither key nor value when the datagram has
	// no assignment at all.
	Assignment events.Assignment
	// Outcome is what becomes of it.
	Outcome Outcome
	// Rule is the rule's name, as in docs/verdict.md; "" when the outcome is unknown.
	Rule string
	// Reason says why in one sentence without a full stop.
	Reason string
	// Cure says what to change, "" if there is nothing.
	Cure string
	// Likely is set for a version of systemd newer than [Newest].
	Likely bool
}

// Manager is the service manager that receives the datagram.
type Manager struct {
	// Version is the first number of systemd's version, such as 257; 0 when unknown.
	Version int
	// PID is the service manager itself, in the initial pid namespace; 0 when unknown.
	PID uint32
}

// Judge returns the verdict on each line of a datagram in the order of the lines, and the unit as it
// is afterwards as far as the datagram decides that. The unit is the one that the sender belongs to,
// as it was when the service manager read the datagram; nil when that is not known, and one without
// a name for a sender in none.
func Judge(d *Datagram, m Manager, u *Unit) ([]Verdict, *Unit) {
	s := &scene{datagram: d, manager: m, version: m.Version}
	if u != nil {
		after := *u
		s.unit = &after
	}
	lines := d.Lines()
	verdicts := make([]Verdict, len(lines))
	if whole, ok := s.decide(reception); ok {
		for i, line := range lines {
			verdicts[i] = whole
			verdicts[i].Assignment = line
			if whole.Outcome == Unknown {
				s.forget(line.Key)
			}
		}
		return verdicts, s.unit
	}
	// The order is service_notify_message's, not the sender's.
	for _, keys := range order {
		for i, line := range lines {
			if !keys(s, line.Key) {
				continue
			}
			s.line, s.index = line, i
			v, ok := s.decide(assignments)
			if !ok {
				panic(fmt.Sprintf("no rule for %q", line))
			}
			v.Assignment = line
			verdicts[i] = v
			if v.Outcome == Unknown {
				s.forget(line.Key)
			}
		}
	}
	return verdicts, s.unit
}

// decide returns what the first rule that holds says; ok is false if none does.
func (s *scene) decide(rules []rule) (v Verdict, ok bool) {
	if s.version == 0 {
		return Verdict{Reason: "the version of the service manager is not known"}, true
	}
	for i := range rules {
		r := &rules[i]
		if s.version < r.since || r.before != 0 && s.version >= r.before {
			continue
		}
		if !r.about(s.line.Key) {
			continue
		}
		s.missing = ""
		holds := r.when == nil || r.when(s)
		if s.missing != "" {
			return Verdict{Reason: s.missing + " is not known"}, true
		}
		if !holds {
			continue
		}
		v = Verdict{Outcome: r.outcome, Rule: r.id, Reason: os.Expand(r.reason, s.word), Cure: r.cure, Likely: s.version > Newest}
		if r.then != nil && s.unit != nil {
			r.then(s)
		}
		return v, true
	}
	return Verdict{}, false
}
