// SPDX-License-Identifier: Apache-2.0

package hops

import (
	"time"

	"github.com/sdtrace/sdtrace/pkg/events"
)

const (
	// judgeEvery is how often relays are asked what they have withheld.
	judgeEvery = 250 * time.Millisecond
	// readingLag is how long a datagram may be under way to here at most.
	readingLag = 500 * time.Millisecond
)

// Stage follows relays in the records of a stream, and tells what they have withheld.
type Stage struct {
	// SeesAll says that the stream has every datagram: else, what was passed on may be
	// what is missing, and nothing is said to be withheld.
	SeesAll bool
	// Now is the time by the stream's clock.
	Now func() time.Time

	tracker Tracker
	wake    time.Time // zero: there is nothing to judge
}

// Do ties an event to the one that it passes on.
func (s *Stage) Do(r *events.Record) {
	switch {
	case r.Event != nil:
		s.tracker.Sent(r.Event)
	case r.Receipt != nil:
		s.tracker.Read(r.Receipt)
		s.wakeLater()
	case r.Lost != nil:
		s.tracker.Lost()
	}
}

// Wake is when to judge, if there is anything to.
func (s *Stage) Wake() time.Time { return s.wake }

// Due returns what relays have withheld.
func (s *Stage) Due(now time.Time) []events.Record {
	s.wake = time.Time{}
	var due []events.Record
	for _, w := range s.tracker.Due(now.Add(-readingLag)) {
		if s.SeesAll {
			due = append(due, events.Record{Withheld: w})
		}
	}
	s.wakeLater()
	return due
}

// wakeLater asks to be woken up in a while, if that is not to come anyway.
func (s *Stage) wakeLater() {
	if s.wake.IsZero() && s.tracker.Waiting() {
		s.wake = s.Now().Add(judgeEvery)
	}
}
