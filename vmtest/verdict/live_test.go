// SPDX-License-Identifier: Apache-2.0

package verdict_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sdtrace/sdtrace/internal/await"
	"github.com/sdtrace/sdtrace/pkg/capture"
	"github.com/sdtrace/sdtrace/pkg/events"
	"github.com/sdtrace/sdtrace/pkg/verdict"
	"github.com/sdtrace/sdtrace/vmtest/pid1"
)

// live is a capture of all that is said to the systemds, as sdtrace makes one.
var live recording

// recording holds the latest verdicts of a capture.
type recording struct {
	capture *capture.Live
	done    chan error

	mu       sync.Mutex
	verdicts map[said][]*events.Verdict // in order
	news     []*events.Unit             // in order
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
		if record.Unit != nil {
			r.mu.Lock()
			r.news = append(r.news, record.Clone().Unit)
			r.mu.Unlock()
			continue
		}
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

// take waits for the verdict on a message to the service manager that is a process, and forgets it.
func (r *recording) take(t *testing.T, manager int, what message) (v *events.Verdict) {
	t.Helper()
	key := said{uint32(manager), string(what.payload[:min(len(what.payload), events.MaxPayload)])}
	await.Until(t, fmt.Sprintf("a verdict on %q", what.payload), func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		i := slices.IndexFunc(r.verdicts[key], func(v *events.Verdict) bool {
			return v.Send.BootTime > what.sent && (what.pid == 0 || int(v.Send.Sender.PID) == what.pid)
		})
		if i < 0 {
			return false
		}
		v = r.verdicts[key][i]
		if r.verdicts[key] = slices.Delete(r.verdicts[key], i, i+1); len(r.verdicts[key]) == 0 {
			delete(r.verdicts, key)
		}
		return true
	})
	return v
}

// tally counts the verdicts of the capture.
type tally struct {
	mu                           sync.Mutex
	all, unknown, likely, others int
	causes                       map[string]int // of those that are unknown
}

// seenLive counts those on the scenarios, and randomLive those on random messages.
var seenLive, randomLive tally

// message is one that was said, and the verdicts on it that are right.
type message struct {
	payload  []byte
	pid      int           // of the sender, 0: any
	sent     time.Duration // by CLOCK_BOOTTIME, at the earliest
	verdicts []verdict.Verdict
}

// compare compares the verdicts of the capture on a message with those that are right, and returns those
// that are known and others.
func (c *tally) compare(t *testing.T, manager *pid1.Systemd, said message) (others []string) {
	t.Helper()
	v := live.take(t, manager.PID(), said)
	if len(v.Lines) != len(said.verdicts) && !v.Send.Truncated {
		t.Fatalf("the capture has verdicts on %d lines of %d", len(v.Lines), len(said.verdicts))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.causes == nil {
		c.causes = make(map[string]int)
	}
	for i, l := range v.Lines {
		c.all++
		want := said.verdicts[min(i, len(said.verdicts)-1)]
		switch {
		case l.Outcome == events.Unknown:
			c.unknown++
			c.causes[l.Reason]++
		case string(l.Outcome) == want.Outcome.String() && l.Rule == want.Rule:
		case want.Rule == "S1" && l.Outcome == events.Heeded:
			// What it says is so now, and whether it was before is not always known.
		default:
			c.others++
			others = append(others, fmt.Sprintf("%s=%s is %s by %s (%s), and the capture says %s by %s (%s)",
				l.Key, l.Value, want.Outcome, want.Rule, want.Reason, l.Outcome, l.Rule, l.Reason))
		}
		if l.Likely {
			c.likely++
		}
	}
	return others
}

// forget takes back that so many were others.
func (c *tally) forget(others int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.others -= others
}

// check holds that a capture knows nearly all verdicts, and that nearly none is another one: with tracepoints a
// send that had no processor for a tenth of a second is taken for a later one (docs/verdict.md).
func (c *tally) check(t *testing.T) {
	t.Helper()
	t.Log(c)
	switch {
	case t.Failed():
	case c.all == 0:
		t.Error("the capture has no verdicts")
	case 200*c.others > c.all:
		t.Error("more than one in 200 is another one")
	case 20*c.unknown > c.all:
		t.Error("more than one in 20 is unknown")
	}
}

func (c *tally) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var s strings.Builder
	fmt.Fprintf(&s, "of %d verdicts of the capture %d are unknown, %d are others, and the service manager of %d is likely",
		c.all, c.unknown, c.others, c.likely)
	for _, cause := range slices.SortedFunc(maps.Keys(c.causes), func(a, b string) int { return c.causes[b] - c.causes[a] }) {
		fmt.Fprintf(&s, "\n%6d unknown: %s", c.causes[cause], cause)
	}
	return s.String()
}
