// SPDX-License-Identifier: Apache-2.0

//go:build linux

package history

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sdtrace/sdtrace/internal/eventtest"
	"github.com/sdtrace/sdtrace/pkg/events"
)

// event is one of a control group that says something.
func event(seq uint64, cgroup, payload string) *events.Event {
	e := eventtest.Full()
	e.Seq, e.Sender.Cgroup, e.Payload, e.HopOf, e.Text = seq, cgroup, []byte(payload), nil, nil
	e.Time = eventtest.Time.Add(time.Duration(seq) * time.Second)
	return e
}

func write(t *testing.T, r *Recorder, records ...events.Record) {
	t.Helper()
	for i := range records {
		if err := r.Write(&records[i]); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWhatACaptureHasShownIsToldInOrderWithWhatBecameOfIt(t *testing.T) {
	r := NewRecorder(About{PID: os.Getpid(), Filters: "--unit=web"})
	v := eventtest.Verdict()
	v.Seq, v.Pending = 2, false
	write(t, r,
		events.Record{Event: event(1, "/b", "READY=1")}, events.Record{Event: event(2, "/a", "READY=1")},
		events.Record{Verdict: v}, events.Record{Unit: eventtest.Unit()}, events.Record{Hang: eventtest.Hang()},
		events.Record{Lost: &events.Lost{Time: eventtest.Time, RingFull: 3}}, events.Record{Event: event(3, "/b", "STOPPING=1")},
	)
	all := r.Told("")
	if all.Lost != 3 || all.Filters != "--unit=web" {
		t.Errorf("told %+v", all.About)
	}
	var kinds []string
	for _, record := range all.Records {
		switch {
		case record.Event != nil:
			kinds = append(kinds, fmt.Sprintf("%s %s", record.Event.Sender.Cgroup, record.Event.Payload))
		case record.Verdict != nil:
			if record.Verdict.Send == nil || record.Verdict.Send.Seq != 2 {
				t.Errorf("the verdict is about %+v", record.Verdict.Send)
			}
			kinds = append(kinds, "verdict")
		case record.Unit != nil:
			kinds = append(kinds, "unit")
		case record.Hang != nil:
			kinds = append(kinds, "hang")
		}
	}
	if got, want := fmt.Sprint(kinds), "[/b READY=1 /a READY=1 verdict unit hang /b STOPPING=1]"; got != want {
		t.Errorf("told %s, want %s", got, want)
	}
}

// However much a unit says, what others have said stays, and so does what it has said of its state.
func TestAFloodPushesNothingElseOut(t *testing.T) {
	r := NewRecorder(About{PID: 1})
	write(t, r, events.Record{Event: event(1, "/quiet", "READY=1")}, events.Record{Event: event(2, "/loud", "READY=1")})
	for seq := uint64(3); seq < 20_000; seq++ {
		e := event(seq, "/loud", "STATUS=busy\nWATCHDOG=1")
		e.Time = eventtest.Time
		write(t, r, events.Record{Event: e})
	}
	count := map[string]int{}
	for _, record := range r.Told("").Records {
		count[record.Event.Sender.Cgroup+" "+record.Event.TextOf().Lines[0].Text]++
	}
	if count["/quiet READY=1"] != 1 || count["/loud READY=1"] != 1 || count["/loud STATUS=busy"] != routinePerSecond {
		t.Errorf("kept %v", count)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	r := NewRecorder(About{PID: 1})
	for seq := uint64(1); seq <= 3000; seq++ {
		write(t, r, events.Record{Event: event(seq, fmt.Sprintf("/group-%d", seq%40), "STATUS="+string(bytes.Repeat([]byte("x"), 4000))+"\nREADY=1")})
	}
	if r.bytes > bytesMax {
		t.Errorf("%d bytes are kept", r.bytes)
	}
	_, lines := r.lines([]string{""})
	if len(lines) != r.bytes {
		t.Errorf("%d bytes are counted, and %d kept", r.bytes, len(lines))
	}
	if len(r.bySeq) == 0 || len(r.bySeq) > 40*entriesMax {
		t.Errorf("%d datagrams are kept", len(r.bySeq))
	}
}

// Who answers first is chance.
func TestCapturesTellInTheOrderInWhichTheyBegan(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sdtrace")
	const captures = 8
	for i := range captures {
		r := NewRecorder(About{PID: captures - i, Began: eventtest.Time.Add(time.Duration(captures-i) * time.Second)})
		stop, err := r.Serve(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
	}
	for range 20 {
		for i, told := range Ask(t.Context(), dir, "READY=1") {
			if told.PID != i+1 {
				t.Fatalf("the capture %d is told at place %d", told.PID, i+1)
			}
		}
	}
}

func TestARunningCaptureIsAsked(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sdtrace")
	r := NewRecorder(About{PID: os.Getpid(), Began: eventtest.Time})
	write(t, r, events.Record{Event: event(1, "/a", "READY=1")})
	stop, err := r.Serve(dir)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		all := Ask(t.Context(), dir, "STOPPING", "READY=1")
		if len(all) != 1 || all[0].PID != os.Getpid() || len(all[0].Records) != 1 || !all[0].Began.Equal(eventtest.Time) {
			t.Fatalf("told %+v", all)
		}
	}
	if all := Ask(t.Context(), dir, "STOPPING"); len(all) != 1 || len(all[0].Records) != 0 {
		t.Errorf("of something else it told %+v", all)
	}
	if stop(); len(sockets(dir)) != 0 {
		t.Error("its socket is there still")
	}
	if all := Ask(t.Context(), dir); len(all) != 0 {
		t.Errorf("told %+v", all)
	}
}

func TestASocketThatACaptureHasLeftBehindIsRemoved(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sdtrace")
	if err := makeDir(dir); err != nil {
		t.Fatal(err)
	}
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "1"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	left.SetUnlinkOnClose(false)
	if err := left.Close(); err != nil {
		t.Fatal(err)
	}
	if all := Ask(t.Context(), dir); len(all) != 0 {
		t.Errorf("told %+v", all)
	}
	stop, err := NewRecorder(About{PID: 2}).Serve(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	if _, err := os.Lstat(filepath.Join(dir, "1")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is there still: %v", err)
	}
}

// Who can write to the directory could tell anything.
func TestADirectoryThatOthersCanWriteToIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := NewRecorder(About{PID: 1}).Serve(dir); err == nil {
		t.Error("it is served there")
	}
	if all := Ask(t.Context(), dir); len(all) != 0 {
		t.Errorf("told %+v", all)
	}
}

func TestACaptureCoversTheControlGroupsThatItWasAskedFor(t *testing.T) {
	for _, c := range []struct {
		about  About
		cgroup string
		want   bool
	}{
		{About{}, "/system.slice/web.service", true},
		{About{Filters: "--cgroup=/a", Cgroups: []string{"/a"}}, "/a/web.service", true},
		{About{Filters: "--cgroup=/a", Cgroups: []string{"/a"}}, "/ab/web.service", false},
		{About{Filters: "--key=READY"}, "/a", false},
	} {
		if got := c.about.Covers(c.cgroup); got != c.want {
			t.Errorf("%+v covers %s: %v", c.about, c.cgroup, got)
		}
	}
}
