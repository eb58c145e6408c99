// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"errors"
	"strings"

	"github.com/sdtrace/sdtrace/pkg/events"
)

// The functions of systemd that the rules stand in.
const (
	receives   = "manager_dispatch_notify_fd"
	barriers   = "manager_process_barrier_fd"
	authorizes = "service_notify_message_authorized"
)

// inside is the cure for a sender that is in none of the service's control groups.
const inside = "send from a process in the control group of the service, or let the service's main process send"

// reception is what decides about a whole datagram before a unit looks at any assignment.
var reception = []rule{
	{
		id: "R2", source: receives, outcome: Ignored,
		when:   func(s *scene) bool { t := s.datagram.ControlTruncated; return t != nil && *t },
		reason: "the service manager could not take the file descriptors that came with it, and drops the whole datagram",
		cure:   "pass fewer file descriptors, or none that a security module refuses to the service manager",
	},
	{
		id: "R3", source: receives, outcome: Ignored,
		when: func(s *scene) bool {
			return s.datagram.Size != nil && *s.datagram.Size > events.MaxPayload || errors.Is(s.datagram.err(), events.ErrTooLong)
		},
		reason: "it is longer than 4096 bytes",
		cure:   "send less at once",
	},
	{
		id: "R5", source: receives, outcome: Ignored,
		when:   func(s *scene) bool { f := s.datagram.Foreign; return f != nil && *f },
		reason: "the sender has no process id in the pid namespace of the service manager",
		cure:   "send from a process of the service manager's pid namespace, or of one below it",
	},
	{
		id: "R6", source: receives, outcome: Ignored,
		when:   func(s *scene) bool { return errors.Is(s.datagram.err(), events.ErrEmbeddedNUL) },
		reason: "there is a NUL byte in it, before its end",
		cure:   "send text without NUL bytes",
	},
	{
		id: "R6a", source: "strv_split_newlines", outcome: Ignored,
		when:   func(s *scene) bool { return errors.Is(s.datagram.err(), events.ErrTrailingBackslash) },
		reason: "it ends with a backslash, which escapes nothing",
		cure:   "write a backslash as two",
	},
	{
		id: "R7a", source: barriers, outcome: Ignored,
		when:   func(s *scene) bool { return s.datagram.has("BARRIER=1") && len(s.datagram.Text.Lines) > 1 },
		reason: "with BARRIER=1 there must be no other line: everything in the datagram is dropped",
		cure:   "send BARRIER=1 in a datagram of its own",
	},
	{
		id: "R7b", source: barriers, outcome: NoEffect,
		when: func(s *scene) bool {
			return s.datagram.has("BARRIER=1") && known(s, s.datagram.FDs, "how many file descriptors came with it") != 1
		},
		reason: "BARRIER=1 takes one file descriptor, which nobody else has",
		cure:   "send the end of a pipe along, as sd_notify_barrier(3) does",
	},
	{
		id: "R7", source: barriers, outcome: Heeded,
		when:   func(s *scene) bool { return s.datagram.has("BARRIER=1") },
		reason: "the service manager closes the file descriptor, whoever sent it",
	},
	{
		id: "D1", source: receives, outcome: Ignored,
		when: func(s *scene) bool {
			return s.need(s.unit != nil, "the unit that the sender belongs to") && s.unit.Name == ""
		},
		reason: "the sender belongs to no unit of the service manager", cure: inside,
	},
	{
		id: "D1", source: receives, outcome: Ignored,
		when:   func(s *scene) bool { return !strings.HasSuffix(s.unit.Name, ".service") },
		reason: "the sender belongs to $unit, which is no service", cure: inside,
	},
	{
		id: "D3", source: authorizes, outcome: Ignored,
		when:   func(s *scene) bool { return s.access("none") },
		reason: "$unit takes messages from nobody: NotifyAccess=none",
		cure:   "set NotifyAccess=main, exec or all",
	},
	{
		id: "D3", source: authorizes, outcome: Ignored,
		when:   func(s *scene) bool { return s.access("main") && !s.isTold(false) },
		reason: "it counts as from $pid, and NotifyAccess=main takes $takes",
		cure:   "set NotifyAccess=all, or exec for a control process, or let the main process send",
	},
	{
		id: "D3", source: authorizes, outcome: Ignored,
		when:   func(s *scene) bool { return s.access("exec") && !s.isTold(true) },
		reason: "it counts as from $pid, and NotifyAccess=exec takes $takes",
		cure:   "set NotifyAccess=all, or let the main process send",
	},
	{
		// The main and the control process are watched, and found without their control group.
		id: "D2", source: receives, outcome: Ignored,
		when: func(s *scene) bool {
			if d := s.datagram; d.PID != 0 && (isPID(s.unit.MainPID, d.PID) || isPID(s.unit.ControlPID, d.PID)) {
				return false
			}
			return known(s, s.datagram.Gone, "whether the sender was there when the service manager read it")
		},
		reason: "the sender was gone when the service manager read it, and so nobody could tell which unit it belonged to",
		cure:   "let the sender wait with sd_notify_barrier(3), as systemd-notify does, or let a process send that stays",
	},
	{
		id: "R0", source: "service_notify_message", outcome: NoEffect,
		when: func(s *scene) bool {
			return s.need(s.datagram.Text != nil, "what it says") && len(s.datagram.Text.Lines) == 0
		},
		reason: "the datagram is empty",
	},
}

func isPID(known *uint32, pid uint32) bool { return known != nil && *known == pid }

// err is why the datagram cannot be split into lines.
func (d *Datagram) err() error {
	if d.Text == nil {
		return nil
	}
	return d.Text.Err
}
