// SPDX-License-Identifier: Apache-2.0

//go:build linux

package boot_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// systemSocket is where a service tells the system's systemd.
const systemSocket = "/run/systemd/notify"

// record is what is needed here of a line of "sdtrace -o json".
type record struct {
	Type    string
	Seq     uint64
	Time    time.Time
	Sender  process
	Claimed *struct{ PID int }
	Socket  struct{ Address string }

	Receiver process
	Result   struct {
		Errno     string
		Delivered bool
	}
	Message []struct{ Key, Value string }
	FDs     []struct{ Type string }

	Reader    process
	Relay     process
	Errno     string
	Truncated bool
}

type process struct {
	PID      int
	Comm     string
	Unit     string
	UserUnit string `json:"user_unit"`
}

func (p process) String() string { return fmt.Sprintf("%s[%d]", p.Comm, p.PID) }

// says reports whether the datagram holds an assignment.
func (r *record) says(key, value string) bool {
	return slices.ContainsFunc(r.Message, func(a struct{ Key, Value string }) bool { return a.Key == key && a.Value == value })
}

// captured is a whole capture.
type captured struct {
	sends []*record          // in the order of the kernel
	reads map[uint64]*record // by the number of the datagram
	// withheld is what relays did not pass on.
	withheld []*record
}

// parseCapture reads what sdtrace has written, and fails if there is a loss in it.
func parseCapture(t *testing.T, text []byte) *captured {
	t.Helper()
	c := &captured{reads: map[uint64]*record{}}
	for line := range bytes.Lines(text) {
		r := new(record)
		if err := json.Unmarshal(line, r); err != nil {
			t.Fatalf("reading %q: %v", line, err)
		}
		switch r.Type {
		case "send":
			c.sends = append(c.sends, r)
			if want := uint64(len(c.sends)); r.Seq != want {
				t.Fatalf("datagram %d comes as the %dth", r.Seq, want)
			}
		case "read":
			c.reads[r.Seq] = r
		case "withheld":
			c.withheld = append(c.withheld, r)
		case "lost":
			t.Errorf("something is lost: %s", line)
		}
	}
	return c
}

// before returns what was sent before a time.
func (c *captured) before(end time.Time) []*record {
	n, _ := slices.BinarySearchFunc(c.sends, end, func(r *record, end time.Time) int { return r.Time.Compare(end) })
	return c.sends[:n]
}

// text is the datagram without its time.
func (r *record) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s -> %s", r.Sender, r.Socket.Address)
	if r.Receiver.PID != 0 {
		fmt.Fprintf(&b, " %s", r.Receiver)
	}
	if r.Result.Errno != "" {
		b.WriteString(" FAILED " + r.Result.Errno)
	}
	b.WriteString(r.assignments())
	for _, fd := range r.FDs {
		fmt.Fprintf(&b, " +%s", fd.Type)
	}
	if r.Claimed != nil && r.Claimed.PID != r.Sender.PID {
		fmt.Fprintf(&b, " (in the name of [%d])", r.Claimed.PID)
	}
	return b.String()
}

// assignments are those of the datagram, each behind a blank.
func (r *record) assignments() string {
	var b strings.Builder
	for _, a := range r.Message {
		if strings.ContainsAny(a.Value, " \"") {
			a.Value = fmt.Sprintf("%q", a.Value)
		}
		fmt.Fprintf(&b, " %s=%s", a.Key, a.Value)
	}
	return b.String()
}

// group is the unit that has sent the datagram.
func (r *record) group() string {
	if r.Sender.UserUnit != "" && r.Sender.UserUnit != "init.scope" {
		return r.Sender.Unit + ": " + r.Sender.UserUnit
	}
	return r.Sender.Unit
}

// timeline lists what each unit has said, in the order of the units' names: units
// that do not wait for one another take turns in another way in each boot. What a
// unit says again and again is there once, and what it says of several things at
// once in the order of their names. How long it waits already, which a user's systemd
// says when it is slow, is left out.
func timeline(sends []*record, boot time.Time) string {
	units := map[string][]*record{}
	for _, r := range sends {
		if !strings.HasPrefix(r.assignments(), ` STATUS="User job `) {
			units[r.group()] = append(units[r.group()], r)
		}
	}
	var b strings.Builder
	for _, unit := range sortedKeys(units) {
		fmt.Fprintf(&b, "%s\n", unit)
		for _, r := range arrange(units[unit]) {
			fmt.Fprintf(&b, "%9.3f  %s\n", r.Time.Sub(boot).Seconds(), r.text())
		}
	}
	return b.String()
}

// arrange leaves out repetitions, and sorts neighbours that assign one and the same key.
func arrange(sends []*record) []*record {
	seen := map[string]bool{}
	var list []*record
	for _, r := range sends {
		if text := r.text(); !seen[text] {
			seen[text] = true
			list = append(list, r)
		}
	}
	for i, begin := 1, 0; i <= len(list); i++ {
		if i < len(list) && onlyKey(list[i]) != "" && onlyKey(list[i]) == onlyKey(list[begin]) {
			continue
		}
		slices.SortStableFunc(list[begin:i], func(a, b *record) int { return strings.Compare(a.text(), b.text()) })
		begin = i
	}
	return list
}

// onlyKey is the key of a datagram with one assignment.
func onlyKey(r *record) string {
	if len(r.Message) != 1 {
		return ""
	}
	return r.Message[0].Key
}
