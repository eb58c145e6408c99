// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"slices"
	"time"

	"github.com/sdtrace/sdtrace/pkg/events"
)

// Datagram is what was sent, and how it was read. What is nil or 0 is not known.
type Datagram struct {
	// Text is what it says.
	Text *events.Text
	// Size is its length in bytes.
	Size *uint32
	// PID and UID are of the sender in the initial namespaces: those that it claimed
	// (SCM_CREDENTIALS), else its own. They are what a service manager goes by.
	PID uint32
	UID *uint32
	// FDs is how many file descriptors came with it.
	FDs *int
	// Read is when it was read, by CLOCK_MONOTONIC; 0 when unknown.
	Read time.Duration
	// ControlTruncated is MSG_CTRUNC, as the reader got it (recvmsg(2)).
	ControlTruncated *bool
	// Foreign is whether the sender has no number in the pid namespace of the service manager.
	Foreign *bool
	// Gone is whether the sender was not in /proc any more when the datagram was read.
	Gone *bool
	// Main is the process that MAINPID= or MAINPIDFD= names.
	Main *Process
}

// Process is one that a service manager can be told to take for the main process.
type Process struct {
	// PID is its number in the initial pid namespace; 0 when there is no such process.
	PID uint32
	// Unit is the unit of the service manager that it belongs to; "" for none.
	Unit string
	// Zombie is whether it is over and was not waited for.
	Zombie bool
	// FDID is the inode number of a pidfd of it (MAINPIDFDID=); 0 when unknown.
	FDID uint64
}

// Of returns the datagram of an event and, if it is known, of its reading.
func Of(e *events.Event, read *events.Receipt) *Datagram {
	d := &Datagram{Text: e.TextOf(), Size: e.Size, PID: e.Sender.PID, UID: &e.Sender.UID}
	if e.Claimed != nil {
		d.PID, d.UID = e.Claimed.PID, e.Claimed.UID
	}
	if e.Payload != nil {
		n := len(e.FDs)
		d.FDs = &n
	}
	if read != nil && read.Kind == events.ReceiptRead {
		d.ControlTruncated = &read.ControlTruncated
	}
	return d
}

// Lines returns all lines, as [Judge] does. One without '=' is a key without a value; of an empty datagram there is
// one that is empty.
func (d *Datagram) Lines() []events.Assignment {
	if d.Text == nil || len(d.Text.Lines) == 0 {
		return []events.Assignment{{}}
	}
	var lines []events.Assignment
	for _, l := range d.Text.Lines {
		a, ok := l.Assignment()
		if !ok {
			a.Key = l.Text
		}
		lines = append(lines, a)
	}
	return lines
}

// has reports whether a line is this one (strv_contains).
func (d *Datagram) has(line string) bool {
	return d.Text != nil && slices.ContainsFunc(d.Text.Lines, func(l events.Line) bool { return l.Text == line })
}

// MainPID returns the process id that MAINPID= names, as the service manager sees it; ok is false
// when it names none.
func (d *Datagram) MainPID() (pid uint32, ok bool) {
	if d.Text == nil {
		return 0, false
	}
	value, ok := d.Text.Lookup("MAINPID")
	if !ok {
		return 0, false
	}
	return parsePID(value)
}
