// SPDX-License-Identifier: Apache-2.0

//go:build linux

package systemd1

import (
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
)

// changes follows what a service manager signals about units. A private connection gets these
// signals without asking (systemd: bus_foreach_bus).
type changes struct {
	mu  sync.Mutex
	all uint64
	of  map[dbus.ObjectPath]*changed
	// before is the value of all until which of does not tell of a unit that is not in it.
	before uint64
	// news is what was told of units since it was taken last.
	news []News
}

// News is what a service manager has told of a unit at one time.
type News struct {
	// Unit is the unit's name.
	Unit string
	// Active and Sub are its ActiveState and SubState, Since when it entered that, by CLOCK_MONOTONIC.
	Active, Sub string
	Since       time.Duration
	// Main is the main process in the service manager's pid namespace, 0 for none, Restarts how often the
	// service was restarted by itself, Result why it failed or "success"; absent if not told.
	Main, Restarts *uint32
	Result         string
}

// newsMax is how many news are kept that nobody takes, the latest ones.
const newsMax = 4096

// News returns what was told of services since the last call, in order.
func (m *Manager) News() []News {
	c := &m.changes
	c.mu.Lock()
	defer c.mu.Unlock()
	news := c.news
	c.news = nil
	return news
}

// changed is what was signalled about a unit.
type changed struct {
	latest uint64 // the value of all at the latest signal
	states []State
	first  dbus.Sequence // of the first of states
	next   State         // with what was told of the service before the unit
	news   News          // the same
	// mainStarted is when the main process was started that was told with it, by CLOCK_MONOTONIC.
	mainStarted time.Duration
	frozen      bool // ever
}

// State is a state that a unit has entered.
type State struct {
	// Sub is its SubState, Since when it was entered, by CLOCK_MONOTONIC. With Before that was when or
	// before the connection was made, which is Since then.
	Sub    string
	Since  time.Duration
	Before bool
	// Main and Control are the main process that was told in it first, and the control process, in the
	// service manager's pid namespace; 0 for none. They are absent (nil) if none was told, and Control
	// also if it was more than one.
	Main, Control *uint32
	// NotifyAccess is what was told of that first, "" if nothing was, as systemd before 254 does not.
	NotifyAccess string
	// HadJob is whether a job was there for the unit (Job=) when it was entered; nil if that was not told.
	HadJob *bool
}

// unitsMax is how many units are told apart, more than a large host has.
const unitsMax = 16384

// StatesMax is how many states of a unit are remembered, the latest ones.
const StatesMax = 32

// DeliverSignal is called in the order in which signals and answers come, before the next of them.
func (c *changes) DeliverSignal(_, name string, s *dbus.Signal) {
	if !strings.HasPrefix(string(s.Path), unitPath) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all++
	if len(c.of) >= unitsMax {
		c.of, c.before = nil, c.all
	}
	if c.of == nil {
		c.of = make(map[dbus.ObjectPath]*changed)
	}
	unit := c.of[s.Path]
	if unit == nil {
		unit = new(changed)
		c.of[s.Path] = unit
	}
	unit.latest = c.all
	if name != "PropertiesChanged" || len(s.Body) < 2 {
		return
	}
	kind, _ := s.Body[0].(string)
	now, ok := s.Body[1].(map[string]dbus.Variant)
	if !ok {
		return
	}
	if unit.note(kind, now); len(unit.states) == 1 && unit.first == dbus.NoSequence {
		unit.first = s.Sequence
	}
	c.tell(unit, nameOf(s.Path), kind, now)
}

// tell takes note of what a service manager tells of a service.
func (c *changes) tell(unit *changed, name, kind string, now properties) {
	n := &unit.news
	switch kind {
	case "org.freedesktop.systemd1.Service":
		n.Main, n.Restarts, n.Result = pointer[uint32](now, "MainPID"), pointer[uint32](now, "NRestarts"), value[string](now, "Result")
	case "org.freedesktop.systemd1.Unit":
		n.Unit, n.Active, n.Sub = name, value[string](now, "ActiveState"), value[string](now, "SubState")
		n.Since = now.time("StateChangeTimestampMonotonic")
		if n.Sub != "" && strings.HasSuffix(name, ".service") {
			if len(c.news) == newsMax {
				c.news = slices.Delete(c.news, 0, 1)
			}
			c.news = append(c.news, *n)
		}
		*n = News{}
	}
}

// list takes note of the states that units were in when the answer with that number was given, to a question
// that was asked at a time.
func (c *changes) list(units []systemd.UnitStatus, at dbus.Sequence, asked time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, listed := range units {
		unit := c.of[listed.Path]
		switch {
		case unit == nil && len(c.of) >= unitsMax:
			return
		case unit == nil:
			unit = &changed{latest: c.before}
			if c.of == nil {
				c.of = make(map[dbus.ObjectPath]*changed)
			}
			c.of[listed.Path] = unit
		case len(unit.states) > 0 && unit.first < at:
			continue // what was signalled is known from then on
		}
		unit.states = slices.Insert(unit.states, 0, State{Sub: listed.SubState, Since: asked, Before: true})
	}
}

// note takes note of properties that have changed: those of the service come before those of the unit
// (systemd: send_changed_signal).
func (u *changed) note(kind string, now properties) {
	switch kind {
	case "org.freedesktop.systemd1.Service":
		u.next.Main, u.next.Control = pointer[uint32](now, "MainPID"), pointer[uint32](now, "ControlPID")
		u.next.NotifyAccess = value[string](now, "NotifyAccess")
		u.mainStarted = now.time("ExecMainStartTimestampMonotonic")
	case "org.freedesktop.systemd1.Unit":
		if state, ok := now["FreezerState"].Value().(string); ok && state != "running" {
			u.frozen = true
		}
		s := u.next
		s.Sub, s.Since = value[string](now, "SubState"), now.time("StateChangeTimestampMonotonic")
		u.next = State{}
		if u.mainStarted > s.Since {
			// The service has said more since it entered the state, before this was told.
			s.Main, s.NotifyAccess = nil, ""
		}
		if job, ok := now["Job"].Value().([]any); ok && len(job) > 0 {
			had := job[0] != uint32(0)
			s.HadJob = &had
		}
		if s.Sub == "" {
			return
		}
		if n := len(u.states); n > 0 && u.states[n-1].Since == s.Since {
			u.states[n-1].tell(s)
			return
		}
		if len(u.states) == StatesMax {
			u.states = slices.Delete(u.states, 0, 1)
		}
		u.states = append(u.states, s)
	}
}

// tell takes note of the control process that is told in the same state: another one of several commands.
func (s *State) tell(now State) {
	if s.Control != nil && now.Control != nil && *s.Control != *now.Control {
		s.Control = nil
	}
}

// Changes returns a number that is another one after the service manager has signalled a change of
// a unit.
func (m *Manager) Changes(unit string) uint64 {
	c := &m.changes
	c.mu.Lock()
	defer c.mu.Unlock()
	if u, ok := c.of[pathOf(unit)]; ok {
		return u.latest
	}
	return c.before
}

// States returns the state that a unit was in when the connection was made, and the latest ones that it has
// entered since, in order.
// Between two of them it was in no other one but for moments in which nothing else was looked at.
func (m *Manager) States(unit string) []State {
	c := &m.changes
	c.mu.Lock()
	defer c.mu.Unlock()
	if u, ok := c.of[pathOf(unit)]; ok {
		return slices.Clone(u.states)
	}
	return nil
}

// WasFrozen reports whether a unit was told to be frozen, or about to be or not to be, since the
// connection was made.
func (m *Manager) WasFrozen(unit string) bool {
	c := &m.changes
	c.mu.Lock()
	defer c.mu.Unlock()
	u, ok := c.of[pathOf(unit)]
	return ok && u.frozen
}

// unitPath is what is before the name of a unit in its object's path.
const unitPath = managerPath + "/unit/"

// pathOf is the object of a unit.
func pathOf(unit string) dbus.ObjectPath {
	return dbus.ObjectPath(unitPath + systemd.PathBusEscape(unit))
}

// nameOf is the unit of an object, "" if it is none's (systemd: bus_label_unescape).
func nameOf(path dbus.ObjectPath) string {
	label := strings.TrimPrefix(string(path), unitPath)
	var name []byte
	for i := 0; i < len(label); i++ {
		if label[i] != '_' {
			name = append(name, label[i])
			continue
		}
		c, err := strconv.ParseUint(label[i+1:min(i+3, len(label))], 16, 8)
		if err != nil {
			return ""
		}
		name = append(name, byte(c))
		i += 2
	}
	return string(name)
}
