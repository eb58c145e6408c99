// SPDX-License-Identifier: Apache-2.0

//go:build linux

package why

import (
	"time"

	"github.com/sdtrace/sdtrace/internal/access"
	"github.com/sdtrace/sdtrace/pkg/events"
)

// answer is the form of a case in JSON: docs/why.md has it field by field. What is not known is left out.
type answer struct {
	Type         string                `json:"type"`
	Time         time.Time             `json:"time"`
	Unit         string                `json:"unit"`
	Manager      events.VerdictManager `json:"manager"`
	Silent       string                `json:"silent,omitempty"`
	ServiceType  string                `json:"service_type,omitempty"`
	NotifyAccess string                `json:"notify_access,omitempty"`
	ActiveState  string                `json:"active_state,omitempty"`
	SubState     string                `json:"sub_state,omitempty"`
	Result       string                `json:"result,omitempty"`
	Since        *time.Time            `json:"since,omitempty"`
	LimitNS      time.Duration         `json:"limit_ns,omitempty"`
	Awaits       string                `json:"awaits,omitempty"`
	Restarts     uint32                `json:"restarts,omitempty"`
	StatusText   string                `json:"status_text,omitempty"`
	Health       string                `json:"health"`
	Cause        *finding              `json:"cause,omitempty"`
	Also         []finding             `json:"also,omitempty"`
	Sources      []source              `json:"sources,omitempty"`
	Said         []said                `json:"said,omitempty"`
	Processes    []process             `json:"processes,omitempty"`
}

type finding struct {
	Cause     string    `json:"name"`
	Certainty Certainty `json:"certainty"`
	Because   string    `json:"because"`
	Change    string    `json:"change,omitempty"`
	Note      bool      `json:"note,omitempty"`
}

type source struct {
	Name    string    `json:"name"`
	Since   time.Time `json:"since"`
	Filters string    `json:"filters,omitempty"`
	Lost    uint64    `json:"lost,omitempty"`
}

type said struct {
	Event   *events.Event   `json:"send"`
	Verdict *events.Verdict `json:"verdict,omitempty"`
}

type process struct {
	PID          uint32       `json:"pid"`
	Comm         string       `json:"comm"`
	Exe          string       `json:"exe,omitempty"`
	UID          uint32       `json:"uid"`
	Main         bool         `json:"main,omitempty"`
	Control      bool         `json:"control,omitempty"`
	NotifySocket *string      `json:"notify_socket,omitempty"`
	Removed      bool         `json:"notify_socket_removed,omitempty"`
	Leads        access.State `json:"leads,omitempty"`
	Elsewhere    bool         `json:"elsewhere,omitempty"`
	Denied       string       `json:"denied,omitempty"`
	WatchdogUSec *string      `json:"watchdog_usec,omitempty"`
	WatchdogPID  *string      `json:"watchdog_pid,omitempty"`
	Root         string       `json:"root,omitempty"`
	MntNS        uint64       `json:"mntns,omitempty"`
	NetNS        uint64       `json:"netns,omitempty"`
	PIDNS        uint64       `json:"pidns,omitempty"`
	Label        string       `json:"label,omitempty"`
}

// The values of health.
const (
	healthy = "healthy"
	problem = "problem"
	unknown = "unknown"
)

// AppendJSON appends a case and what explains it as a line of JSON, its '\n' included.
func AppendJSON(b []byte, c *Case, found []Finding) []byte {
	a := answer{
		Type: "why", Time: c.Now.UTC(), Unit: c.Unit, Silent: c.Manager.Silent, Awaits: c.Awaits(),
		Manager: events.VerdictManager{PID: uint32(c.Manager.PID), Version: c.Manager.Version}, Health: unknown,
	}
	if c.IsWell() {
		a.Health = healthy
	}
	if s := c.Service; s != nil {
		a.ServiceType, a.NotifyAccess, a.ActiveState, a.SubState = s.Now.Type, s.Now.NotifyAccess, s.ActiveState, s.Now.SubState
		a.Result, a.Restarts = s.Result, s.Restarts
		a.LimitNS, _ = c.Limit()
		if s.Now.StatusText != nil {
			a.StatusText = *s.Now.StatusText
		}
		if s.Changed != 0 {
			since := c.Wall(s.Changed).UTC()
			a.Since = &since
		}
	}
	for _, f := range found {
		j := finding{f.Cause, f.Certainty, f.Because, f.Change, f.Note}
		if !f.Note && a.Cause == nil {
			a.Health, a.Cause = problem, &j
			continue
		}
		a.Also = append(a.Also, j)
	}
	for _, s := range c.Sources {
		a.Sources = append(a.Sources, source{s.Name, s.Since.UTC(), s.Filters, s.Lost})
	}
	for i := range c.Said {
		a.Said = append(a.Said, said{c.Said[i].Event, c.Said[i].Verdict})
	}
	for i := range c.Processes {
		a.Processes = append(a.Processes, processOf(&c.Processes[i]))
	}
	return events.AppendJSONLine(b, a)
}

func processOf(p *Process) process {
	j := process{
		PID: p.PID, Comm: p.Comm, Exe: p.Exe, UID: p.UID, Main: p.Main, Control: p.Control, Leads: p.Leads.State,
		Elsewhere: p.Elsewhere, Root: p.Root, Label: p.Label, MntNS: p.MntNS, NetNS: p.NetNS, PIDNS: p.PIDNS,
	}
	env := p.Executed
	if env == nil {
		env = p.Now
	}
	if env != nil {
		j.NotifySocket, j.WatchdogUSec, j.WatchdogPID = env.NotifySocket, env.WatchdogUSec, env.WatchdogPID
		j.Removed = p.Now != nil && env.NotifySocket != nil && p.Now.NotifySocket == nil
	}
	if p.Leads.Denied != nil {
		j.Denied = p.Leads.Denied.String()
	}
	return j
}
