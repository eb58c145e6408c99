// SPDX-License-Identifier: Apache-2.0

package verdict_test

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sdtrace/sdtrace/internal/await"
	"github.com/sdtrace/sdtrace/pkg/capture"
	"github.com/sdtrace/sdtrace/pkg/events"
	"github.com/sdtrace/sdtrace/pkg/verdict"
)

// live is a capture of all that is said to the systemds, as sdtrace makes one.
var live recording

// recording holds the latest verdicts of a capture.
type recording struct {
	capture *capture.Live
	done    chan error

	mu       sync.Mutex
	verdicts map[said][]*events.Verdict // in order
	// contradicted is of how many lines the properties have shown something else.
	contradicted int
}

// said is a text that was said to a systemd.
type said struct {
	manager uint32
	payload string
}

// begin begins the capture of what is in the systemds' control groups.
func (r *recording) begin() error {
	var cgroups []string
	for _, m := range managers {
		cgroups = append(cgroups, m.Cgroup)
	}
	c, err := capture.Open(context.Background(), capture.Options{Match: capture.Match{Cgroups: cgroups}})
	if err != nil {
		return err
	}
	r.capture, r.done, r.verdicts = c, make(chan error, 1), make(map[said][]*events.Verdict)
	go func() { r.done <- r.follow() }()
	return nil
}

func (r *recording) follow() error {
	for record, err := range r.capture.All() {
		if err != nil {
			return err
		}
		v := record.Verdict
		switch {
		case record.Lost != nil:
			return fmt.Errorf("lost %+v", record.Lost)
		case v == nil || v.Pending:
			continue
		}
		v = record.Clone().Verdict
		key := said{v.Manager.PID, string(v.Send.Payload)}
		r.mu.Lock()
		r.verdicts[key] = append(r.verdicts[key], v)
		for _, l := range v.Lines {
			if l.Confirmed != nil && !*l.Confirmed {
				r.contradicted++
				fmt.Fprintf(os.Stderr, "contradicted: %q of process %d to systemd %d\n", v.Send.Payload, v.From.PID, v.Manager.Version)
			}
		}
		r.mu.Unlock()
	}
	return nil
}

// end ends the capture.
func (r *recording) end() error {
	if r.capture == nil {
		return nil
	}
	err := r.capture.Stop()
	if failed := <-r.done; err == nil {
		err = failed
	}
	if closed := r.capture.Close(); err == nil {
		err = closed
	}
	// How many depends on who gets a processor: a datagram that was read can come late in the stream.
	fmt.Fprintf(os.Stderr, "%d lines of the capture were contradicted\n", r.contradicted)
	return err
}

// of waits for the verdict on the first text like this that a process has said after a time by
// CLOCK_BOOTTIME. pid 0 is any process.
func (r *recording) of(t *testing.T, what said, pid int, after time.Duration) (v *events.Verdict) {
	t.Helper()
	await.Until(t, fmt.Sprintf("a verdict on %q", what.payload), func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, candidate := range r.verdicts[what] {
			if v == nil && candidate.Send.BootTime > after && (pid == 0 || int(candidate.Send.Sender.PID) == pid) {
				v = candidate
			}
		}
		return v != nil
	})
	return v
}

// seenLive counts the verdicts of the capture.
var seenLive struct{ all, unknown, likely atomic.Int64 }

// lookLive compares the verdict of the capture with the one that is right: it may not know, and is never
// another one.
func (u *unit) lookLive(t *testing.T, payload []byte, pid int, sent time.Duration, verdicts []verdict.Verdict) {
	t.Helper()
	v := live.of(t, said{uint32(u.m.PID()), string(payload[:min(len(payload), events.MaxPayload)])}, pid, sent)
	if len(v.Lines) != len(verdicts) && !v.Send.Truncated {
		t.Fatalf("the capture has verdicts on %d lines of %d", len(v.Lines), len(verdicts))
	}
	for i, l := range v.Lines {
		seenLive.all.Add(1)
		want := verdicts[min(i, len(verdicts)-1)]
		switch {
		case l.Outcome == events.Unknown:
			seenLive.unknown.Add(1)
			t.Logf("the capture does not know %s=%s: %s (%s by %s)", l.Key, l.Value, l.Reason, want.Outcome, want.Rule)
		case string(l.Outcome) == want.Outcome.String() && l.Rule == want.Rule:
		default:
			t.Errorf("%s=%s is %s by %s (%s), and the capture says %s by %s (%s)",
				l.Key, l.Value, want.Outcome, want.Rule, want.Reason, l.Outcome, l.Rule, l.Reason)
		}
		if l.Likely {
			seenLive.likely.Add(1)
		}
	}
}

func checkLive(t *testing.T) {
	unknown, all := seenLive.unknown.Load(), seenLive.all.Load()
	t.Logf("of %d verdicts of the capture %d are unknown, and the service manager of %d is likely", all, unknown, seenLive.likely.Load())
	if all == 0 && os.Geteuid() == 0 {
		t.Error("the capture has no verdicts")
	}
}
