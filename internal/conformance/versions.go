// SPDX-License-Identifier: Apache-2.0

//go:build linux

package conformance

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/sdtrace/sdtrace/internal/proc"
	"github.com/sdtrace/sdtrace/pkg/events"
	"github.com/sdtrace/sdtrace/pkg/verdict"
)

// firstVersion is the oldest systemd of which it is known what it makes of messages.
const firstVersion = 247

// unitName is what the application's unit is called.
const unitName = "app.service"

// reloadsByNotify is the version from which on Type=notify-reload is there.
const reloadsByNotify = 253

// simulated is what a version of systemd would have made of the application until now.
type simulated struct {
	version int
	unit    *verdict.Unit
}

// refusal is an assignment that some versions would not have heeded.
type refusal struct {
	line         events.Assignment
	outcome      verdict.Outcome
	rule         string
	reason, cure string
	versions     []int
}

// simulate begins to follow all known versions.
func simulate(t *trial) (all []*simulated) {
	for version := firstVersion; version <= verdict.Newest; version++ {
		kind := "notify"
		if t.Reload != 0 && version >= reloadsByNotify {
			kind = "notify-reload"
		}
		main, control, none, stopping, frozen, post := t.pid, uint32(0), uint32(0), false, false, false
		empty, errno := "", 0
		never, interval, most := verdict.Never, t.Watchdog, uint32(64)
		all = append(all, &simulated{version, &verdict.Unit{
			Name: unitName, Type: kind, NotifyAccess: t.Access, ConfiguredAccess: t.Access, MainPID: &main, ControlPID: &control,
			SubState: "start", Stopping: &stopping, Frozen: &frozen, StartPost: &post, Deadline: &never, WatchdogDeadline: &never,
			Watchdog: &interval, FDStored: &none, FDStoreMax: &most, StatusText: &empty, StatusBusError: &empty, StatusVarlinkError: &empty,
			StatusErrno: &errno,
		}})
	}
	return all
}

// enterReload has all versions tell the application to reload.
func (t *trial) enterReload() {
	now := proc.Monotonic()
	for _, s := range t.versions {
		if s.version >= reloadsByNotify {
			s.unit.SubState, s.unit.ReloadBegan = "reload-signal", &now
		}
	}
}

// judge finds out what the versions make of a message.
func (t *trial) judge(m *message) {
	fds, cut, foreign, gone := m.fds, m.cut, false, m.gone
	d := verdict.Datagram{
		Text: m.text, Size: &m.size, PID: m.pid, UID: &m.uid, FDs: &fds, Read: m.mono, ControlTruncated: &cut, Foreign: &foreign, Gone: &gone,
	}
	if pid, ok := d.MainPID(); ok {
		d.Main = new(verdict.Process)
		if p, err := proc.Open(int(pid)); err == nil {
			stat, _ := p.Stat()
			*d.Main = verdict.Process{PID: pid, Unit: unitName, Zombie: stat.State == 'Z'}
			p.Close()
			m.named = pid
		}
	}
	for _, s := range t.versions {
		handles := t.Reload == 0 || (m.status.Caught|m.status.Blocked)&(1<<(t.Reload-1)) != 0
		s.unit.ReloadHandled = &handles
		verdicts, after := verdict.Judge(&d, verdict.Manager{Version: s.version, PID: 1}, s.unit)
		s.unit = after
		for _, v := range verdicts {
			if v.Outcome == verdict.Ignored || v.Outcome == verdict.NoEffect && v.Cure != "" {
				m.refuse(v, s.version)
			}
		}
	}
}

// refuse takes note of a verdict of a version.
func (m *message) refuse(v verdict.Verdict, version int) {
	i := slices.IndexFunc(m.refusals, func(r refusal) bool {
		return r.line == v.Assignment && r.outcome == v.Outcome && r.reason == v.Reason
	})
	if i < 0 {
		i = len(m.refusals)
		m.refusals = append(m.refusals, refusal{line: v.Assignment, outcome: v.Outcome, rule: v.Rule, reason: v.Reason, cure: v.Cure})
	}
	m.refusals[i].versions = append(m.refusals[i].versions, version)
}

// refusedNow says why a message with a key would not be heeded by any version, "" if it would be by some.
func (t *trial) refusedNow(m *message, key string) string {
	for _, r := range m.refusals {
		if r.line.Key == key && len(r.versions) == len(t.versions) {
			return "systemd would not heed it: " + r.reason
		}
	}
	return ""
}

// protocol says of all messages whether systemd would have heeded them.
func (t *trial) protocol() {
	p := Point{Name: fmt.Sprintf("all that it says is heeded by systemd %d to %d", firstVersion, verdict.Newest), OK: true}
	if len(t.said) == 0 {
		p.OK, p.Skipped = false, true
		p.Details = append(p.Details, "it has said nothing")
		t.point(p)
		return
	}
	counts := make(map[string]int)
	var order []string
	for i := range t.said {
		for _, r := range t.said[i].refusals {
			p.OK = false
			line := fmt.Sprintf("%s: %s by systemd %s: %s", lineText(r.line), outcomeWord(r.outcome), ranges(r.versions), r.reason)
			if r.cure != "" {
				line += "; " + r.cure
			}
			if counts[line] == 0 {
				order = append(order, line)
			}
			counts[line]++
		}
	}
	for _, line := range order {
		if n := counts[line]; n > 1 {
			line += fmt.Sprintf(" (%d times)", n)
		}
		p.Details = append(p.Details, line)
	}
	t.point(p)
}

func lineText(a events.Assignment) string {
	switch {
	case a.Key == "" && a.Value == "":
		return "a message"
	case a.Value == "":
		return a.Key
	}
	return text(a)
}

func outcomeWord(o verdict.Outcome) string {
	if o == verdict.NoEffect {
		return "has no effect"
	}
	return "ignored"
}

// ranges writes versions as "247 to 252, 257".
func ranges(versions []int) string {
	slices.SortFunc(versions, cmp.Compare)
	var parts []string
	for i := 0; i < len(versions); {
		j := i
		for j+1 < len(versions) && versions[j+1] == versions[j]+1 {
			j++
		}
		if i == j {
			parts = append(parts, fmt.Sprint(versions[i]))
		} else {
			parts = append(parts, fmt.Sprintf("%d to %d", versions[i], versions[j]))
		}
		i = j + 1
	}
	return strings.Join(parts, ", ")
}
