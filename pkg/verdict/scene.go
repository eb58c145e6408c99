// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/sdtrace/sdtrace/pkg/events"
)

// rule says what systemd does with an assignment in one situation.
type rule struct {
	id string
	// key is the assignment's, or several with blanks in between; "" for any.
	key string
	// since and before bound the versions of systemd: from since on, until before. 0: no bound.
	since, before int
	// when is whether the rule holds; nil: always. What it asks for and is not known it notes
	// with [scene.need], and its result does not count then.
	when    func(*scene) bool
	outcome Outcome
	// reason is why, in one sentence without a full stop. $words are those of [scene.word].
	reason string
	// cure is what to change, "" if there is nothing.
	cure string
	// source is the function of systemd that the rule stands in.
	source string
	// then is what becomes of the unit; nil: it stays as it is.
	then func(*scene)
}

// about reports whether the rule is about assignments with a key.
func (r *rule) about(key string) bool {
	if r.key == "" {
		return true
	}
	for one := range strings.SplitSeq(r.key, " ") {
		if one == key {
			return true
		}
	}
	return false
}

// scene is what a rule looks at.
type scene struct {
	datagram *Datagram
	manager  Manager
	version  int
	unit     *Unit // nil: not known
	line     events.Assignment
	index    int
	missing  string // what a rule asked for and is not known
}

// need notes what is missing, unless it is known, and returns known.
func (s *scene) need(known bool, what string) bool {
	if !known && s.missing == "" {
		s.missing = what
	}
	return known
}

// known returns what a pointer leads to, or notes that it is missing.
func known[T any](s *scene, v *T, what string) (value T) {
	if s.need(v != nil, what) {
		return *v
	}
	return value
}

// in reports whether the unit is in one of some states.
func (s *scene) in(states ...string) bool {
	return s.need(s.unit.SubState != "", "the state of "+s.unit.Name) && slices.Contains(states, s.unit.SubState)
}

// enter puts the unit into another state; "" is one that is not known. Its timeout is another one
// then.
func (s *scene) enter(state string) {
	s.unit.SubState, s.unit.Deadline = state, nil
}

// is reports whether the line is an assignment of this value.
func (s *scene) is(value string) bool { return s.line.Value == value }

// isFirst reports whether no line before has the same key and, with same, the same value.
func (s *scene) isFirst(same bool) bool {
	for _, l := range s.datagram.Text.Lines[:s.index] {
		if a, ok := l.Assignment(); ok && a.Key == s.line.Key && (!same || a.Value == s.line.Value) {
			return false
		}
	}
	return true
}

// phases are the assignments of which a service manager acts on one alone.
var phases = []string{"STOPPING", "READY", "RELOADING"}

// phase is the one of them that counts: STOPPING before READY before RELOADING, and before systemd
// 253 the last one.
func (s *scene) phase() string {
	if s.version >= 253 {
		for _, key := range phases {
			if s.datagram.has(key + "=1") {
				return key
			}
		}
	}
	for _, l := range slices.Backward(s.datagram.Text.Lines) {
		if a, _ := l.Assignment(); a.Value == "1" && slices.Contains(phases, a.Key) {
			return a.Key
		}
	}
	return ""
}

// isReloadAnswer reports whether the datagram says when the reload began, and that this was after
// the signal.
func (s *scene) isReloadAnswer() bool {
	value, ok := s.datagram.Text.Lookup("MONOTONIC_USEC")
	if !ok {
		return false
	}
	usec, ok := parseNumber(value)
	if !ok || usec == 1<<64-1 {
		return false
	}
	return usec >= uint64(known(s, s.unit.ReloadBegan, "when "+s.unit.Name+" was told to reload").Microseconds())
}

// isTold reports whether the sender may send to the unit: whether it is a process that NotifyAccess=
// names.
func (s *scene) isTold(controls bool) bool {
	if !s.need(s.datagram.PID != 0, "the sender's process id") {
		return false
	}
	if s.datagram.PID == known(s, s.unit.MainPID, "the main process of "+s.unit.Name) {
		return true
	}
	return controls && s.datagram.PID == known(s, s.unit.ControlPID, "the control process of "+s.unit.Name)
}

// access reports whether NotifyAccess= of the unit is this.
func (s *scene) access(value string) bool {
	return s.need(s.unit.NotifyAccess != "", "NotifyAccess= of "+s.unit.Name) && s.unit.NotifyAccess == value
}

// takes says which processes NotifyAccess= names.
func (s *scene) takes() string {
	var who []string
	for _, p := range []struct {
		pid  *uint32
		name string
	}{{s.unit.MainPID, "main process"}, {s.unit.ControlPID, "control process"}} {
		switch {
		case p.pid == nil || *p.pid == 0 || p.pid != s.unit.MainPID && s.unit.NotifyAccess != "exec":
		case *p.pid == Over:
			who = append(who, "the "+p.name+", which is over")
		default:
			who = append(who, fmt.Sprintf("%d, the %s", *p.pid, p.name))
		}
	}
	if len(who) == 0 {
		return "nobody now, as there is no main process"
	}
	return strings.Join(who, ", and ")
}

// word is what stands in a reason for $name.
func (s *scene) word(name string) string {
	switch name {
	case "key":
		return s.line.Key
	case "value":
		return s.line.Value
	case "literal":
		return literals[s.line.Key]
	case "meaning":
		return meaning[s.line.Key]
	case "meant":
		return meant(s.line.Key)
	case "phase":
		return s.phase()
	case "version":
		return strconv.Itoa(s.version)
	case "since":
		return strconv.Itoa(introduced[s.line.Key])
	case "unit":
		return s.unit.Name
	case "state":
		return s.unit.SubState
	case "type":
		return s.unit.Type
	case "pid":
		return strconv.FormatUint(uint64(s.datagram.PID), 10)
	case "pidfile":
		return s.unit.PIDFile
	case "named":
		return strconv.FormatUint(uint64(*s.unit.PIDFileNames), 10)
	case "takes":
		return s.takes()
	case "fds":
		return strconv.Itoa(*s.datagram.FDs)
	case "max":
		return strconv.FormatUint(uint64(*s.unit.FDStoreMax), 10)
	case "stored":
		return strconv.FormatUint(uint64(*s.unit.FDStored), 10)
	}
	panic("no such word: " + name)
}

// forget makes unknown what a line may have changed on which there is no verdict.
func (s *scene) forget(key string) {
	u := s.unit
	if u == nil {
		return
	}
	switch key {
	case "MAINPID", "MAINPIDFD":
		u.MainPID = nil
	case "READY", "RELOADING", "STOPPING":
		s.enter("")
		u.Stopping, u.WatchdogDeadline = nil, nil
	case "STATUS":
		u.StatusText = nil
	case "NOTIFYACCESS":
		u.NotifyAccess = ""
	case "ERRNO":
		u.StatusErrno = nil
	case "BUSERROR":
		u.StatusBusError = nil
	case "VARLINKERROR":
		u.StatusVarlinkError = nil
	case "EXTEND_TIMEOUT_USEC":
		u.Deadline, u.WatchdogDeadline = nil, nil
	case "WATCHDOG":
		s.enter("") // it may have been triggered
		u.WatchdogDeadline = nil
	case "WATCHDOG_USEC":
		u.Watchdog, u.WatchdogDeadline = nil, nil
	case "FDSTORE", "FDSTOREREMOVE":
		u.FDStored = nil
	}
}
