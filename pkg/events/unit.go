// SPDX-License-Identifier: Apache-2.0

package events

import (
	"bytes"
	"fmt"
	"time"
)

// UnitNews says what there is to know of a unit that no message says.
type UnitNews string

// The kinds of news.
const (
	// UnitWaits: the service manager waits for the unit: for a message, or for its processes to end.
	UnitWaits UnitNews = "waits"
	// UnitOverdue: the next ping is overdue.
	UnitOverdue UnitNews = "overdue"
	// UnitStarted: the service manager has started another main process.
	UnitStarted UnitNews = "started"
	// UnitFailed: the unit has failed, and Result says why.
	UnitFailed UnitNews = "failed"
	// UnitIs: nothing was said for a while; this is how the unit is.
	UnitIs UnitNews = "is"
)

// Unit is what a service manager tells of one of its services without a message of that: that it is
// silent where something is waited for, that it was started again, and how it ended
// (org.freedesktop.systemd1(5)).
type Unit struct {
	// News is what there is to know.
	News UnitNews
	// Time is when it was found out.
	Time time.Time
	// Manager is the service manager.
	Manager VerdictManager
	// Identity is the unit's. Cgroup is "" when it has no control group.
	Identity
	// Type is the service's Type=, ActiveState and SubState are its states, "" when unknown.
	Type, ActiveState, SubState string
	// Since is since when it is as News says, the zero value when unknown: in the state, or without a
	// ping.
	Since time.Time
	// Limit is how long it can be so at most until the service manager ends it; 0 for none, or
	// when unknown.
	Limit time.Duration
	// Awaits is the assignment that is waited for, "" for none.
	Awaits string
	// Said is the latest message of the unit since then, as text, Last the process that it counts as
	// from: of [UnitOverdue], the ping. They are absent if nothing was said since, as far as is known.
	Said string
	Last *Process
	// Trouble says why the main process cannot notify, by the NOTIFY_SOCKET that it was executed with, in a
	// sentence without a full stop; "" if nothing is known to be in the way.
	Trouble string
	// Main is the main process, nil when unknown; PID is 0 for none.
	Main *Process
	// Restarts is how often the service manager has restarted it by itself, nil when unknown.
	Restarts *uint32
	// Result is the property of that name, "" when unknown.
	Result string
}

type jsonUnit struct {
	Type         string         `json:"type"`
	News         UnitNews       `json:"news"`
	Time         string         `json:"time"`
	Manager      VerdictManager `json:"manager"`
	Cgroup       *string        `json:"cgroup,omitempty"`
	CgroupBase64 []byte         `json:"cgroup_base64,omitempty"`
	Machine      string         `json:"machine,omitempty"`
	Unit         string         `json:"unit,omitempty"`
	UserUnit     string         `json:"user_unit,omitempty"`
	Slice        string         `json:"slice,omitempty"`
	Container    *Container     `json:"container,omitempty"`
	ServiceType  string         `json:"service_type,omitempty"`
	ActiveState  string         `json:"active_state,omitempty"`
	SubState     string         `json:"sub_state,omitempty"`
	Since        string         `json:"since,omitempty"`
	LimitNS      int64          `json:"limit_ns,omitempty"`
	Awaits       string         `json:"awaits,omitempty"`
	Said         *string        `json:"said,omitempty"`
	SaidBase64   []byte         `json:"said_base64,omitempty"`
	Last         *jsonProcess   `json:"last,omitempty"`
	Trouble      string         `json:"trouble,omitempty"`
	Main         *jsonProcess   `json:"main,omitempty"`
	Restarts     *uint32        `json:"restarts,omitempty"`
	Result       string         `json:"result,omitempty"`
}

const timeLayout = "2006-01-02T15:04:05.000000000Z"

// AppendUnit appends u to b as one line, its '\n' included. Unlike the others it allocates.
func (JSONEncoder) AppendUnit(b []byte, u *Unit) []byte {
	j := jsonUnit{
		Type: typeUnit, News: u.News, Time: u.Time.UTC().Format(timeLayout), Manager: u.Manager,
		Machine: onlyUTF8(u.Machine), Unit: onlyUTF8(u.Unit), UserUnit: onlyUTF8(u.UserUnit), Slice: onlyUTF8(u.Slice),
		Container: containerJSON(u.Container), ServiceType: onlyUTF8(u.Type), ActiveState: onlyUTF8(u.ActiveState), SubState: onlyUTF8(u.SubState),
		LimitNS: int64(u.Limit), Awaits: u.Awaits, Last: processJSON(u.Last), Main: processJSON(u.Main),
		Restarts: u.Restarts, Result: onlyUTF8(u.Result), Trouble: onlyUTF8(u.Trouble),
	}
	if u.Cgroup != "" {
		j.Cgroup, j.CgroupBase64 = splitUTF8(u.Cgroup)
	}
	if u.Said != "" {
		j.Said, j.SaidBase64 = splitUTF8(u.Said)
	}
	if !u.Since.IsZero() {
		j.Since = u.Since.UTC().Format(timeLayout)
	}
	return AppendJSONLine(b, j)
}

// containerJSON is a container with the names that are UTF-8, as appendContainer writes it.
func containerJSON(c *Container) *Container {
	if c == nil {
		return nil
	}
	return &Container{
		Runtime: onlyUTF8(c.Runtime), ID: onlyUTF8(c.ID), Name: onlyUTF8(c.Name), PodUID: onlyUTF8(c.PodUID),
		PodNamespace: onlyUTF8(c.PodNamespace), PodName: onlyUTF8(c.PodName),
	}
}

// MarshalJSON returns u in the form of [Schema]. The error is always nil.
func (u *Unit) MarshalJSON() ([]byte, error) {
	return bytes.TrimSuffix(JSONEncoder{}.AppendUnit(nil, u), []byte{'\n'}), nil
}

// UnmarshalJSON sets u to what [Unit.MarshalJSON] encoded.
func (u *Unit) UnmarshalJSON(data []byte) error {
	var j jsonUnit
	if err := unmarshal(data, &j, &j.Type, typeUnit); err != nil {
		return err
	}
	at, err := time.Parse(time.RFC3339Nano, j.Time)
	if err != nil {
		return fmt.Errorf("decoding event: %w", err)
	}
	*u = Unit{
		News: j.News, Time: at.UTC(), Manager: j.Manager,
		Identity: Identity{
			Cgroup: joinUTF8(j.Cgroup, j.CgroupBase64), Machine: j.Machine, Unit: j.Unit, UserUnit: j.UserUnit,
			Slice: j.Slice, Container: j.Container,
		},
		Type: j.ServiceType, ActiveState: j.ActiveState, SubState: j.SubState, Limit: time.Duration(j.LimitNS), Awaits: j.Awaits,
		Said: joinUTF8(j.Said, j.SaidBase64), Last: j.Last.process(), Main: j.Main.process(), Restarts: j.Restarts, Result: j.Result, Trouble: j.Trouble,
	}
	if j.Since == "" {
		return nil
	}
	since, err := time.Parse(time.RFC3339Nano, j.Since)
	if err != nil {
		return fmt.Errorf("decoding event: %w", err)
	}
	u.Since = since.UTC()
	return nil
}
