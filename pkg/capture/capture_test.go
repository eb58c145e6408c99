// SPDX-License-Identifier: Apache-2.0

package capture_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sdtrace/sdtrace/internal/eventtest"
	"github.com/sdtrace/sdtrace/pkg/capture"
	"github.com/sdtrace/sdtrace/pkg/events"
)

// script is a source of records, with pauses between them.
type script struct {
	records []events.Record // an empty one is a pause: nothing comes until the time that is asked for
	clock   *clock
	failure error // at the end; nil is io.EOF
	closed  bool
}

func (s *script) Next(until time.Time) (events.Record, error) {
	if len(s.records) == 0 {
		if s.failure != nil {
			return events.Record{}, s.failure
		}
		return events.Record{}, io.EOF
	}
	r := s.records[0]
	if r == (events.Record{}) {
		if until.IsZero() {
			s.records = s.records[1:]
			return s.Next(until)
		}
		s.clock.now = until
		s.records = s.records[1:]
		return events.Record{}, os.ErrDeadlineExceeded
	}
	s.records = s.records[1:]
	return r, nil
}

func (s *script) Ready() bool {
	return len(s.records) > 0 && s.records[0] != (events.Record{})
}

func (s *script) Close() error { s.closed = true; return nil }

// clock stands still until it is set.
type clock struct{ now time.Time }

func (c *clock) Now() time.Time { return c.now }

// said is a record of an event.
func said(seq uint64, payload string) events.Record {
	e := eventtest.Plain(payload)
	e.Seq = seq
	return events.Record{Event: e}
}

// counter is a sink that counts what it was given.
type counter struct {
	got             []string
	flushed, closed int
	most            int // 0: any number
	failure         error
}

func (c *counter) Write(r *events.Record) error {
	switch {
	case r.Event != nil:
		c.got = append(c.got, fmt.Sprintf("%d %s by %s", r.Event.Seq, r.Event.Payload, r.Event.Sender.Comm))
	case r.Withheld != nil:
		c.got = append(c.got, "withheld "+r.Withheld.Message[0].Key)
	}
	if c.failure != nil {
		return c.failure
	}
	if len(c.got) == c.most {
		return capture.ErrStop
	}
	return nil
}

func (c *counter) Flush() error { c.flushed++; return nil }
func (c *counter) Close() error { c.closed++; return nil }

// reminder is a stage that tells something one second after each event.
type reminder struct {
	at  time.Time
	now func() time.Time
}

func (r *reminder) Do(record *events.Record) {
	if record.Event != nil {
		r.at = r.now().Add(time.Second)
	}
}

func (r *reminder) Wake() time.Time { return r.at }

func (r *reminder) Due(time.Time) []events.Record {
	r.at = time.Time{}
	return []events.Record{{Withheld: &events.Withheld{Message: events.Message{{Key: "REMINDER"}}}}}
}

// A new stage and a new sink take no change of what is between them.
func TestAStageAndASinkAreAddedFromOutside(t *testing.T) {
	at := &clock{now: eventtest.Time}
	source := &script{clock: at, records: []events.Record{said(1, "READY=1"), {}, {}, said(2, "STOPPING=1")}}
	renamed := capture.Do(func(r *events.Record) {
		if r.Event != nil {
			r.Event.Sender.Comm = strings.ToUpper(r.Event.Sender.Comm)
		} else {
			r.Withheld.Message[0].Key = "RENAMED"
		}
	})
	c := capture.New(source, at, &reminder{now: at.Now}, renamed)
	one, other := new(counter), &counter{most: 100}
	if err := c.Copy(one, other); err != nil {
		t.Fatal(err)
	}
	want := []string{"1 READY=1 by NGINX", "withheld RENAMED", "2 STOPPING=1 by NGINX"}
	for _, sink := range []*counter{one, other} {
		if diff := cmp.Diff(want, sink.got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if sink.closed != 1 || sink.flushed < 2 {
			t.Errorf("flushed %d times and closed %d times", sink.flushed, sink.closed)
		}
	}
	if at.now != eventtest.Time.Add(time.Second) {
		t.Errorf("the stage was asked at %v", at.now)
	}
	if err := c.Close(); err != nil || !source.closed {
		t.Errorf("closed the source: %v, %v", source.closed, err)
	}
}

// While there is more to read, the time of the stream is that of what was read.
func TestWithABacklogStagesLiveInTheTimeOfTheRecords(t *testing.T) {
	at := &clock{now: eventtest.Time.Add(time.Hour)} // the wall clock is far ahead
	source := &script{clock: at, records: []events.Record{said(1, "A=1"), said(2, "B=2"), said(3, "C=3")}}
	r := &reminder{now: func() time.Time { return eventtest.Time }}
	sink := new(counter)
	if err := capture.New(source, at, r).Copy(sink); err != nil {
		t.Fatal(err)
	}
	want := []string{"1 A=1 by nginx", "2 B=2 by nginx", "3 C=3 by nginx", "withheld REMINDER"}
	if diff := cmp.Diff(want, sink.got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A source that said that there is more, and then has nothing, is about to wait.
func TestWhatIsWrittenIsFlushedBeforeTheSourceWaits(t *testing.T) {
	source := &fickle{script: script{records: []events.Record{said(1, "A=1"), said(2, "B=2")}}}
	sink := new(counter)
	if err := capture.New(source, nil).Copy(sink); err != nil {
		t.Fatal(err)
	}
	if len(sink.got) != 2 || sink.flushed != 3 { // before each wait, and at the end
		t.Errorf("wrote %q, flushed %d times", sink.got, sink.flushed)
	}
}

// fickle always says that there is more, and has nothing every other time.
type fickle struct {
	script
	asked int
}

func (f *fickle) Ready() bool { return f.asked%2 == 1 }

func (f *fickle) Next(until time.Time) (events.Record, error) {
	if f.asked++; f.asked%2 == 0 {
		return events.Record{}, os.ErrDeadlineExceeded
	}
	return f.script.Next(until)
}

func TestASinkEndsTheCopyWhenItHasEnough(t *testing.T) {
	source := &script{records: []events.Record{said(1, "A=1"), said(2, "B=2"), said(3, "C=3")}}
	sink, other := &counter{most: 2}, new(counter)
	if err := capture.New(source, nil).Copy(sink, other); err != nil {
		t.Fatal(err)
	}
	if len(sink.got) != 2 || len(other.got) != 2 || sink.closed != 1 || other.closed != 1 {
		t.Errorf("got %q and %q", sink.got, other.got)
	}
}

func TestCopySaysWhatFailed(t *testing.T) {
	broken := errors.New("broken")
	sink := &counter{failure: broken}
	if err := capture.New(&script{records: []events.Record{said(1, "A=1")}}, nil).Copy(sink); !errors.Is(err, broken) {
		t.Errorf("of a sink: %v", err)
	}
	if sink.closed != 1 {
		t.Error("a sink that failed is not closed")
	}
	sink = new(counter)
	if err := capture.New(&script{records: []events.Record{said(1, "A=1")}, failure: broken}, nil).Copy(sink); !errors.Is(err, broken) {
		t.Errorf("of the source: %v", err)
	}
	if len(sink.got) != 1 {
		t.Errorf("before it failed: %q", sink.got)
	}
}

func TestAllYieldsAnErrorLast(t *testing.T) {
	broken := errors.New("broken")
	c := capture.New(&script{records: []events.Record{said(1, "A=1"), said(2, "A=2")}, failure: broken}, nil)
	var seen []uint64
	var failed error
	for r, err := range c.All() {
		if err != nil {
			failed = err
			continue
		}
		seen = append(seen, r.Event.Seq)
	}
	if len(seen) != 2 || !errors.Is(failed, broken) {
		t.Errorf("yielded %v and %v", seen, failed)
	}
	for _, err := range c.All() {
		if !errors.Is(err, broken) {
			t.Errorf("once more: %v", err)
		}
		break // ends without more
	}
}

func TestACloneStaysAsItIs(t *testing.T) {
	original := events.Record{Event: eventtest.Full()}
	encode := func(e *events.Event) string { return string(events.JSONEncoder{}.AppendEvent(nil, e)) }
	want := encode(original.Event)
	kept := original.Clone()
	e := original.Event
	e.Payload[0], *e.Size, *e.Result.Bytes, *e.Result.Delivered, e.FDs[0].Type = 'X', 1, 1, false, "x"
	e.Sender.Container.Name, *e.Claimed.UID, *e.Receiver.UID, e.Receiver.Container.Name, e.Receiver.Comm = "x", 77, 77, "x", "x"
	e.Claimed.PID, e.Sender.Comm = 78, "x"
	if got := encode(kept.Event); got != want {
		t.Errorf("it changed to\n%swas\n%s", got, want)
	}
}
