// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package why says why a unit does not become ready, reload, stay alive or stop: the cause, and what to change.
// What is known of the unit is a [Case], which package look finds out. Each cause is a function of that, in a
// file of its own: see causes.go.
package why

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sdtrace/sdtrace/internal/access"
	"github.com/sdtrace/sdtrace/internal/systemd1"
	"github.com/sdtrace/sdtrace/pkg/events"
	"github.com/sdtrace/sdtrace/pkg/verdict"
)

// Case is what is known of a unit at one moment. What is not known is absent.
type Case struct {
	// Now is when it was looked, by the wall clock; Monotonic is the same by CLOCK_MONOTONIC.
	Now       time.Time
	Monotonic time.Duration
	// Manager is the unit's service manager.
	Manager Manager
	// Unit is the unit's name.
	Unit string
	// Service is what the service manager tells of it, nil if that does not answer.
	Service *systemd1.Service
	// JobWaits are the units whose jobs the unit's job waits for.
	JobWaits []string
	// Processes are those in the unit's control group, the main process first.
	Processes []Process
	// Said is what was captured of the unit since it was started last, in order, Sources by whom. News and
	// Hangs are what a capture has told of it beside messages.
	Said    []Said
	News    []*events.Unit
	Hangs   []*events.Hang
	Sources []Source
	// Before is the case as it was while the unit still hung, nil if it was not looked at then: who is over now was
	// there.
	Before *Case
	// Journal is what the service manager has written to the journal about it since then.
	Journal []Line
	// Starts are how long earlier starts took until the unit was ready, as the journal tells; the latest last.
	Starts []time.Duration
}

// Manager is a service manager.
type Manager struct {
	PID, Version int
	// State is that of its process, a letter of proc_pid_stat(5); 0 when unknown.
	State byte
	// Queued is how many datagrams wait at its notify socket, MaxQueued the limit; nil when unknown.
	Queued, MaxQueued *uint32
	// NotifySocket is the address that it has bound, Inode the socket; 0 when unknown.
	NotifySocket events.Address
	Inode        uint32
	// Silent says why it did not answer, "" if it did.
	Silent string
	// Floods is set when it did not answer because it read messages all the time, and its queue was never empty.
	Floods bool
	// MntNS, NetNS and PIDNS are its namespaces (inode numbers); 0 when unknown.
	MntNS, NetNS, PIDNS uint64
}

// Source is a capture that has told of the unit.
type Source struct {
	// Name says which: "the capture of sdtrace[812]", or a file.
	Name string
	// Since is when it began, Filters what it was asked for, "" for everything. Covers is whether that is all of
	// the unit.
	Since   time.Time
	Filters string
	Covers  bool
	// Lost is how many datagrams it has lost.
	Lost uint64
}

// Line is one of the journal.
type Line struct {
	At   time.Time
	Text string
}

// Process is one of the unit's.
type Process struct {
	events.Process
	// PPID is its parent, NSPID its number in its own pid namespace, UID the user as whom it uses files.
	PPID, NSPID, UID uint32
	// Exe is its program as a path, "" when unknown.
	Exe string
	// Main and Control say whether it is the unit's main or control process.
	Main, Control bool
	// Unexecuted is set for one that the service manager has forked, and that has not executed its program yet.
	Unexecuted bool
	// Executed is the environment that it was executed with, nil when it has written over that, or when unknown.
	// Now is what the C library has now, nil when unknown.
	Executed, Now *Environment
	// Leads is what NOTIFY_SOCKET leads to for it; To names the process that reads there, if that is not the
	// service manager, and Elsewhere says that it is not.
	Leads     access.Reach
	Elsewhere bool
	To        events.Process
	// Root is its root directory as its own mount namespace has it, "" for that of the namespace.
	Root string
	// MntNS, NetNS and PIDNS are its namespaces (inode numbers); 0 when unknown.
	MntNS, NetNS, PIDNS uint64
	// Label is what a security module calls it (proc_pid_attr(5)), "" for nothing.
	Label string
	// Caught and Blocked are signals, bit N-1 for signal N; Signals says that they are known.
	Caught, Blocked uint64
	Signals         bool
	// Notifies says whether the program, and what it has loaded, knows the name NOTIFY_SOCKET.
	Notifies Ability
	// Sends is whether it waits in the kernel to send.
	Sends bool
}

// Ability says whether a program can do something.
type Ability uint8

// The abilities.
const (
	// Unknown is that of an interpreter, whose program is not looked for, and of what cannot be read.
	Unknown Ability = iota
	Able
	Unable
)

// Environment is what the environment of a process says of notifications. nil is a variable that is not there.
type Environment struct {
	NotifySocket, WatchdogPID, WatchdogUSec *string
}

// Said is a datagram, or a call that failed before one, and what became of it.
type Said struct {
	Event    *events.Event
	Verdict  *events.Verdict
	Withheld *events.Withheld
	// Gone is whether the sender is over by now.
	Gone bool
	// Source is which of the case's Sources, counted from 0, has told of it.
	Source int
}

// Text is the message, "" for a call that has failed before.
func (s *Said) Text() string { return string(s.Event.Payload) }

// Who is the sender, and of whom it counts as from if that is another one.
func (s *Said) Who() string {
	who := name(s.Event.Sender.Comm, s.Event.Sender.PID)
	if v := s.Verdict; v != nil && v.From.PID != 0 && v.From.PID != s.Event.Sender.PID {
		who = fmt.Sprintf("%s (claimed by %s)", name(v.From.Comm, v.From.PID), who)
	}
	return who
}

// Value returns the value of the first assignment with a key.
func (s *Said) Value(key string) (value string, ok bool) {
	text := s.Event.TextOf()
	if text == nil {
		return "", false
	}
	return text.Lookup(key)
}

// Line returns the verdict on an assignment, nil when there is none.
func (s *Said) Line(key, value string) *events.LineVerdict {
	if s.Verdict == nil {
		return nil
	}
	for i := range s.Verdict.Lines {
		if l := &s.Verdict.Lines[i]; l.Key == key && (value == "" || l.Value == value) {
			return l
		}
	}
	return nil
}

// Is reports whether an assignment was said and has this outcome.
func (s *Said) Is(key, value string, outcome events.Outcome) bool {
	l := s.Line(key, value)
	return l != nil && l.Outcome == outcome
}

// Phase is what a unit does, and what is waited for.
type Phase uint8

// The phases.
const (
	// Unasked: the service manager has not told.
	Unasked Phase = iota
	// Waiting: a job is there, and waits for others.
	Waiting
	// Preparing: ExecCondition= or ExecStartPre= runs.
	Preparing
	// Starting: READY=1 is waited for, or for another type what starts it.
	Starting
	// Finishing: ExecStartPost= runs.
	Finishing
	// Running: it is up.
	Running
	// Reloading: ExecReload= runs.
	Reloading
	// Signalled: it was told to reload, and RELOADING=1 is waited for.
	Signalled
	// Notifying: READY=1 is waited for at the end of a reload.
	Notifying
	// Stopping: its processes are waited for.
	Stopping
	// Restarting: it is over, and will be started again.
	Restarting
	// Failed and Dead: it is over.
	Failed
	Dead
)

// Phase tells.
func (c *Case) Phase() Phase {
	if c.Service == nil {
		return Unasked
	}
	switch sub := c.Service.Now.SubState; sub {
	case "condition", "start-pre":
		return Preparing
	case "start":
		return Starting
	case "start-post":
		return Finishing
	case "running", "exited":
		return Running
	case "reload", "refresh-extensions", "refresh-credentials", "reload-post":
		if control := c.Service.Now.ControlPID; sub == "reload" && control != nil && *control == 0 {
			return Notifying // RELOADING=1, before systemd 253
		}
		return Reloading
	case "reload-signal":
		return Signalled
	case "reload-notify":
		return Notifying
	case "failed":
		return Failed
	case "auto-restart", "auto-restart-queued", "dead-before-auto-restart", "failed-before-auto-restart":
		return Restarting
	case "dead", "dead-resources-pinned":
		if c.Service.Job != 0 {
			return Waiting
		}
		return Dead
	}
	return Stopping
}

// Notifies reports whether the unit's type waits for messages. One that is not known does: a capture that does not tell
// the type holds messages of the unit.
func (c *Case) Notifies() bool {
	return c.Service != nil && slices.Contains([]string{"", "notify", "notify-reload"}, c.Service.Now.Type)
}

// Awaits is the assignment that the service manager waits for, "" for none.
func (c *Case) Awaits() string {
	switch c.Phase() {
	case Starting:
		if c.Notifies() {
			return "READY=1"
		}
	case Signalled:
		return "RELOADING=1"
	case Notifying:
		return "READY=1"
	case Running:
		if c.Watchdog() != 0 {
			return "WATCHDOG=1"
		}
	}
	return ""
}

// Watchdog is the time in which a ping has to come, 0 for none.
func (c *Case) Watchdog() time.Duration {
	if c.Service == nil || c.Service.Now.Watchdog == nil || *c.Service.Now.Watchdog >= verdict.Never {
		return 0
	}
	return *c.Service.Now.Watchdog
}

// IsOver reports whether the unit has no processes any more that could be looked at.
func (c *Case) IsOver() bool {
	switch c.Phase() {
	case Restarting, Failed, Dead:
		return true
	}
	return false
}

// IsWell reports whether the unit is as it should be as far as its state tells: it is up, or was not started.
func (c *Case) IsWell() bool { return c.Phase() == Running || c.Phase() == Dead }

// For is how long the unit is in its state.
func (c *Case) For() time.Duration {
	if c.Service == nil || c.Service.Changed == 0 {
		return 0
	}
	return c.Monotonic - c.Service.Changed
}

// Limit is how long it can be in its state, 0 for no limit or when unknown, and the setting that says so.
func (c *Case) Limit() (limit time.Duration, setting string) {
	if c.Service == nil {
		return 0, ""
	}
	switch c.Phase() {
	case Preparing, Starting, Finishing, Reloading, Signalled, Notifying:
		limit, setting = c.Service.StartTimeout, "TimeoutStartSec"
	case Stopping:
		limit, setting = c.Service.StopTimeout, "TimeoutStopSec"
	}
	if limit >= verdict.Never {
		return 0, ""
	}
	return limit, setting
}

// Main is the main process, nil if it is not there, or not known.
func (c *Case) Main() *Process {
	i := slices.IndexFunc(c.Processes, func(p Process) bool { return p.Main })
	if i < 0 {
		return nil
	}
	return &c.Processes[i]
}

// Wall is a time by CLOCK_MONOTONIC.
func (c *Case) Wall(at time.Duration) time.Time { return c.Now.Add(at - c.Monotonic) }

// Latest returns the latest message that has an assignment with a key, or one of some keys, nil for none.
func (c *Case) Latest(keys ...string) *Said {
	for i := range slices.Backward(c.Said) {
		s := &c.Said[i]
		if slices.ContainsFunc(keys, func(key string) bool { _, ok := s.Value(key); return ok }) {
			return s
		}
	}
	return nil
}

// Captured reports whether a capture was there since the unit was started that takes all messages of it: what
// it does not hold was not said.
func (c *Case) Captured() bool {
	if c.Service == nil {
		return false
	}
	began := c.Wall(c.Began())
	return slices.ContainsFunc(c.Sources, func(s Source) bool {
		return s.Lost == 0 && s.Covers && s.Since.Before(began)
	})
}

// Began is when the unit's life began that is looked at, by CLOCK_MONOTONIC; 0 when unknown.
func (c *Case) Began() time.Duration {
	s := c.Service
	if s == nil {
		return 0
	}
	if s.Restarts > 0 && s.MainStarted > s.Left {
		return s.MainStarted // systemd before 254 restarts a unit that has not been inactive
	}
	return s.Left
}

// String is the main process as a sentence calls it.
func (p *Process) String() string { return name(p.Comm, p.PID) }

// name is a process as a sentence calls it.
func name(comm string, pid uint32) string {
	return fmt.Sprintf("%s[%d]", events.Escape(cmp.Or(comm, "?")), pid)
}

// Span is a span of time for people.
func Span(d time.Duration) string {
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < 10*time.Second:
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
	text := d.Round(time.Second).String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	return text
}
