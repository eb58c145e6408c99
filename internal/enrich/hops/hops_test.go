// SPDX-License-Identifier: Apache-2.0

package hops_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sdtrace/sdtrace/internal/enrich/hops"
	"github.com/sdtrace/sdtrace/pkg/events"
)

var start = time.Date(2026, 11, 23, 16, 0, 0, 0, time.UTC)

// story tells a tracker what processes do, a millisecond each.
type story struct {
	tracker hops.Tracker
	now     time.Time
	seq     uint64
}

func (s *story) event(pid uint32, payload string) *events.Event {
	s.now = s.now.Add(time.Millisecond)
	s.seq++
	return &events.Event{Seq: s.seq, Time: s.now, Sender: events.Sender{PID: pid, StartTime: uint64(pid)}, Payload: []byte(payload)}
}

// reads is a process reading a datagram that somebody sent.
func (s *story) reads(pid uint32, comm, payload string) *events.Event {
	e := s.event(7, payload)
	s.tracker.Read(&events.Receipt{
		Kind: events.ReceiptRead, Seq: e.Seq, Send: e, Time: s.now, By: events.Reader{PID: pid, StartTime: uint64(pid), Comm: comm},
	})
	return e
}

// sends is a process sending one.
func (s *story) sends(pid uint32, payload string) *events.Event {
	e := s.event(pid, payload)
	s.tracker.Sent(e)
	return e
}

// due is what was withheld, as text.
func (s *story) due(after time.Duration) (due []string) {
	for _, w := range s.tracker.Due(s.now.Add(after)) {
		text := fmt.Sprint(w.Seq)
		for _, a := range w.Message {
			text += " " + a.Key + "=" + a.Value
		}
		due = append(due, text)
	}
	return due
}

func newStory() *story { return &story{now: start} }

func hopOf(e *events.Event) uint64 {
	if e.HopOf == nil {
		return 0
	}
	return e.HopOf.Seq
}

func TestADatagramIsLinkedToTheOneItPassesOn(t *testing.T) {
	for _, tt := range []struct {
		name, read, sent string
		linked           bool
	}{
		{"the same", "READY=1\nSTATUS=up", "READY=1\nSTATUS=up", true},
		{"a part of it", "READY=1\nSTATUS=up", "READY=1\n", true},
		{"with the main process put in", "READY=1", "MAINPID=4711\nREADY=1", true},
		{"with the main process translated", "MAINPID=1\nREADY=1", "MAINPID=4711\nREADY=1", true},
		{"nothing but the main process", "MAINPID=1", "MAINPID=4711", false},
		{"a status with a word before it", "STATUS=up", "STATUS=Container running: up", true},
		{"a status that is but like it", "STATUS=up", "STATUS=wake-up", false},
		{"another value", "STATUS=up", "STATUS=down", false},
		{"something of its own too", "READY=1", "READY=1\nSTATUS=Startup finished in 2.1s.", false},
		{"nothing that can be read", "READY=1", "READY=1\x00\x00", false},
		{"empty", "READY=1", "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newStory()
			from := s.reads(50, "relay", tt.read)
			got, want := hopOf(s.sends(50, tt.sent)), uint64(0)
			if tt.linked {
				want = from.Seq
			}
			if got != want {
				t.Errorf("linked to %d, want %d", got, want)
			}
		})
	}
}

func TestOnlyTheProcessThatReadItPassesItOn(t *testing.T) {
	s := newStory()
	s.reads(50, "relay", "READY=1")
	if e := s.sends(51, "READY=1"); e.HopOf != nil {
		t.Errorf("another process: linked to %d", hopOf(e))
	}
	again := s.event(50, "READY=1")
	again.Sender.StartTime++
	if s.tracker.Sent(again); again.HopOf != nil {
		t.Errorf("another process of the same number: linked to %d", hopOf(again))
	}
}

func TestEqualDatagramsAreLinkedInOrder(t *testing.T) {
	s := newStory()
	first, second := s.reads(50, "relay", "WATCHDOG=1"), s.reads(50, "relay", "WATCHDOG=1")
	got := []uint64{hopOf(s.sends(50, "WATCHDOG=1")), hopOf(s.sends(50, "WATCHDOG=1")), hopOf(s.sends(50, "WATCHDOG=1"))}
	if diff := cmp.Diff([]uint64{first.Seq, second.Seq, 0}, got); diff != "" {
		t.Error(diff)
	}
}

func TestOneDatagramCanBePassedOnAsSeveral(t *testing.T) {
	s := newStory()
	from := s.reads(50, "relay", "READY=1\nSTATUS=up")
	got := []uint64{hopOf(s.sends(50, "STATUS=up")), hopOf(s.sends(50, "READY=1"))}
	if diff := cmp.Diff([]uint64{from.Seq, from.Seq}, got); diff != "" {
		t.Error(diff)
	}
	if due := s.due(hops.Grace); due != nil {
		t.Errorf("withheld %q", due)
	}
}

func TestFailedReadsAndOtherReceiptsAreNoEvidence(t *testing.T) {
	for _, r := range []events.Receipt{{Kind: events.ReceiptUnread}, {Kind: events.ReceiptBarrier}, {Kind: events.ReceiptRead, Errno: "EFAULT"}} {
		s := newStory()
		r.Send, r.Time, r.By = s.event(7, "READY=1"), s.now, events.Reader{PID: 50, StartTime: 50, Comm: "conmon"}
		s.tracker.Read(&r)
		if e := s.sends(50, "READY=1"); e.HopOf != nil {
			t.Errorf("%s %s: linked to %d", r.Kind, r.Errno, hopOf(e))
		}
	}
}

func TestWhatARelayKeepsToItselfIsWithheld(t *testing.T) {
	for _, tt := range []struct {
		name string
		tell func(s *story)
		want []string
	}{
		{"a part", func(s *story) {
			s.reads(50, "relay", "READY=1\nSTATUS=up\nX_A=1")
			s.sends(50, "READY=1")
		}, []string{"1 STATUS=up X_A=1"}},
		{"a whole datagram, of a process that passed on another", func(s *story) {
			s.reads(50, "relay", "STATUS=starting")
			s.reads(50, "relay", "READY=1")
			s.sends(50, "READY=1")
		}, []string{"1 STATUS=starting"}},
		{"all, of a relay by name", func(s *story) { s.reads(50, "runc", "STATUS=up") }, []string{"1 STATUS=up"}},
		{"all, of any process", func(s *story) { s.reads(50, "systemd", "STATUS=up") }, nil},
		{"what was translated", func(s *story) {
			s.reads(50, "relay", "MAINPID=1\nREADY=1")
			s.sends(50, "MAINPID=4711\nREADY=1")
		}, nil},
		{"one of several that became one", func(s *story) {
			s.reads(50, "relay", "WATCHDOG=1")
			s.reads(50, "relay", "WATCHDOG=1")
			s.sends(50, "WATCHDOG=1")
		}, nil},
		{"what was sent before it was read", func(s *story) {
			s.reads(50, "relay", "READY=1")
			s.sends(50, "READY=1")
			s.reads(50, "relay", "READY=1")
		}, []string{"3 READY=1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newStory()
			tt.tell(s)
			if due := s.due(hops.Grace / 2); due != nil {
				t.Errorf("too soon: %q", due)
			}
			if diff := cmp.Diff(tt.want, s.due(hops.Grace)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if due := s.due(2 * hops.Grace); due != nil {
				t.Errorf("told twice: %q", due)
			}
		})
	}
}

func TestNothingIsSaidToBeWithheldOnceDatagramsWereLost(t *testing.T) {
	s := newStory()
	s.reads(50, "conmon", "STATUS=lost, perhaps")
	s.tracker.Lost()
	later := s.reads(50, "conmon", "STATUS=later")
	if diff := cmp.Diff([]string{fmt.Sprint(later.Seq, " STATUS=later")}, s.due(hops.Grace)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	s := newStory()
	for pid := range uint32(5000) {
		s.reads(100+pid, "conmon", "STATUS=x")
	}
	if n := len(s.due(time.Minute)); n > 1024 {
		t.Errorf("%d processes are remembered", n)
	}
	for range 5000 {
		s.reads(50, "conmon", "STATUS=x")
	}
	if n := len(s.due(time.Minute)); n > 256 {
		t.Errorf("%d reads of a process are remembered", n)
	}
}

func TestAnAttemptThatFailsPassesNothingOn(t *testing.T) {
	s := newStory()
	from := s.reads(50, "relay", "STATUS=hop")
	failed := s.event(50, "STATUS=hop")
	failed.Result.Errno = "EAGAIN"
	if s.tracker.Sent(failed); failed.HopOf != nil {
		t.Errorf("the attempt that failed is linked to %d", hopOf(failed))
	}
	if got := hopOf(s.sends(50, "STATUS=hop")); got != from.Seq {
		t.Errorf("the one that arrived is linked to %d", got)
	}
	never := s.reads(50, "relay", "STATUS=never")
	only := s.event(50, "STATUS=never")
	only.Result.Errno = "ENOENT"
	s.tracker.Sent(only)
	if diff := cmp.Diff([]string{fmt.Sprint(never.Seq, " STATUS=never")}, s.due(2*time.Second)); diff != "" {
		t.Errorf("withheld: %s", diff)
	}
}

func TestWhoseAttemptsFailIsARelay(t *testing.T) {
	s := newStory()
	from := s.reads(50, "any", "READY=1")
	failed := s.event(50, "READY=1")
	failed.Result.Errno = "ENOENT"
	s.tracker.Sent(failed)
	if diff := cmp.Diff([]string{fmt.Sprint(from.Seq, " READY=1")}, s.due(2*time.Second)); diff != "" {
		t.Errorf("withheld: %s", diff)
	}
}

func TestOfEqualDatagramsThatAreDroppedEachIsWithheld(t *testing.T) {
	s := newStory()
	s.reads(50, "relay", "READY=1")
	s.sends(50, "READY=1")
	first, second := s.reads(50, "relay", "STATUS=a"), s.reads(50, "relay", "STATUS=a")
	if diff := cmp.Diff([]string{fmt.Sprint(first.Seq, " STATUS=a"), fmt.Sprint(second.Seq, " STATUS=a")}, s.due(2*time.Second)); diff != "" {
		t.Errorf("withheld: %s", diff)
	}
}
