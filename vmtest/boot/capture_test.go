// SPDX-License-Identifier: Apache-2.0

//go:build linux

package boot_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sdtrace/sdtrace/pkg/events"
)

// systemSocket is where a service tells the system's systemd.
const systemSocket = "/run/systemd/notify"

// captured is a whole capture.
type captured struct {
	sends []*events.Event // in the order of the kernel
	// reads are those of datagrams that somebody received, unread those of datagrams that nobody did, each by the
	// number of the datagram.
	reads, unread map[uint64]*events.Receipt
	// withheld is what relays did not pass on.
	withheld []*events.Withheld
}

// parseCapture reads what sdtrace has written, and fails if there is a loss in it.
func parseCapture(t *testing.T, text []byte) *captured {
	t.Helper()
	c := &captured{reads: map[uint64]*events.Receipt{}, unread: map[uint64]*events.Receipt{}}
	for line := range bytes.Lines(text) {
		r, err := events.Decode(line)
		if err != nil {
			t.Fatalf("reading %q: %v", line, err)
		}
		switch {
		case r.Event != nil:
			c.sends = append(c.sends, r.Event)
			if want := uint64(len(c.sends)); r.Event.Seq != want {
				t.Fatalf("datagram %d comes as the %dth", r.Event.Seq, want)
			}
		case r.Receipt != nil && r.Receipt.Kind == events.ReceiptRead:
			c.reads[r.Receipt.Seq] = r.Receipt
		case r.Receipt != nil && r.Receipt.Kind == events.ReceiptUnread:
			c.unread[r.Receipt.Seq] = r.Receipt
		case r.Withheld != nil:
			c.withheld = append(c.withheld, r.Withheld)
		case r.Lost != nil:
			t.Errorf("something is lost: %s", line)
		}
	}
	return c
}

// before returns what was sent before a time.
func (c *captured) before(end time.Time) []*events.Event {
	n, _ := slices.BinarySearchFunc(c.sends, end, func(e *events.Event, end time.Time) int { return e.Time.Compare(end) })
	return c.sends[:n]
}

// says reports whether a datagram holds an assignment.
func says(e *events.Event, key, value string) bool {
	return slices.Contains(messageOf(e), events.Assignment{Key: key, Value: value})
}

// messageOf are the assignments of a datagram, none of one that is not of the protocol.
func messageOf(e *events.Event) events.Message {
	m, err := e.Message()
	if err != nil {
		return nil
	}
	return m
}

// delivered reports whether a datagram is known to have arrived.
func delivered(e *events.Event) bool { return e.Result.Delivered != nil && *e.Result.Delivered }

// receivedBy reports whether it is known to be a process that a datagram went to.
func receivedBy(e *events.Event, pid uint32) bool { return e.Receiver != nil && e.Receiver.PID == pid }

// text is a datagram without its time.
func text(e *events.Event) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s[%d] -> %s", e.Sender.Comm, e.Sender.PID, e.Socket.Address)
	if e.Receiver != nil && e.Receiver.PID != 0 {
		fmt.Fprintf(&b, " %s[%d]", e.Receiver.Comm, e.Receiver.PID)
	}
	if e.Result.Errno != "" {
		b.WriteString(" FAILED " + e.Result.Errno)
	}
	b.WriteString(assignments(messageOf(e)))
	for _, fd := range e.FDs {
		fmt.Fprintf(&b, " +%s", fd.Type)
	}
	if e.Refused != nil {
		fmt.Fprintf(&b, " (%s in the name of [%d])", e.Refused.Errno, e.Refused.PID)
	}
	if e.Claimed != nil && e.Claimed.PID != e.Sender.PID {
		fmt.Fprintf(&b, " (in the name of [%d])", e.Claimed.PID)
	}
	return b.String()
}

// assignments writes them down, each behind a blank.
func assignments(message events.Message) string {
	var b strings.Builder
	for _, a := range message {
		if strings.ContainsAny(a.Value, " \"") {
			a.Value = fmt.Sprintf("%q", a.Value)
		}
		fmt.Fprintf(&b, " %s=%s", a.Key, a.Value)
	}
	return b.String()
}

// group is the unit that has sent a datagram.
func group(e *events.Event) string {
	if e.Sender.UserUnit != "" && e.Sender.UserUnit != "init.scope" {
		return e.Sender.Unit + ": " + e.Sender.UserUnit
	}
	return e.Sender.Unit
}

// timeline lists what each unit has said, in the order of the units' names: units
// that do not wait for one another take turns in another way in each boot. What a
// unit says again and again is there once, and what it says of several things at
// once in the order of their names. How long it waits already, which a user's systemd
// says when it is slow, is left out.
func timeline(sends []*events.Event, boot time.Time) string {
	units := map[string][]*events.Event{}
	for _, r := range sends {
		if !strings.HasPrefix(assignments(messageOf(r)), ` STATUS="User job `) {
			units[group(r)] = append(units[group(r)], r)
		}
	}
	var b strings.Builder
	for _, unit := range sortedKeys(units) {
		fmt.Fprintf(&b, "%s\n", unit)
		for _, r := range arrange(units[unit]) {
			fmt.Fprintf(&b, "%9.3f  %s\n", r.Time.Sub(boot).Seconds(), text(r))
		}
	}
	return b.String()
}

// arrange leaves out repetitions, and sorts neighbours that assign one and the same key.
func arrange(sends []*events.Event) []*events.Event {
	seen := map[string]bool{}
	var list []*events.Event
	for _, r := range sends {
		if said := text(r); !seen[said] {
			seen[said] = true
			list = append(list, r)
		}
	}
	for i, begin := 1, 0; i <= len(list); i++ {
		if i < len(list) && onlyKey(list[i]) != "" && onlyKey(list[i]) == onlyKey(list[begin]) {
			continue
		}
		slices.SortStableFunc(list[begin:i], func(a, b *events.Event) int { return strings.Compare(text(a), text(b)) })
		begin = i
	}
	return list
}

// onlyKey is the key of a datagram with one assignment.
func onlyKey(r *events.Event) string {
	message := messageOf(r)
	if len(message) != 1 {
		return ""
	}
	return message[0].Key
}
