// SPDX-License-Identifier: Apache-2.0

//go:build linux

package systemd1

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/sdtrace/sdtrace/pkg/verdict"
)

// Service is what a service manager tells of a service at one time. What it does not tell is absent.
type Service struct {
	// Now is the service then.
	Now verdict.Unit
	// Changed is since when it is in its state, by CLOCK_MONOTONIC. Left and Active are when it
	// began to start and had started, MainStarted and MainExited when its latest main process was
	// started and was over; 0 for never.
	Changed, Left, Active, MainStarted, MainExited time.Duration
	// ControlStarted is when the control process was started; 0 when there is none, or that is
	// not known. PostStarted is when ExecStartPost= last began.
	ControlStarted, PostStarted time.Duration
	// Pinged is when the watchdog's interval last began; 0 for never.
	Pinged time.Duration
	// LatestMain is the latest main process, also when it is over, in the initial pid namespace;
	// nil when unknown. LatestNumber is it in the service manager's pid namespace; 0 for none.
	LatestMain   *uint32
	LatestNumber uint32
	// Main is the main process in the service manager's pid namespace; 0 for none.
	Main uint32
	// StartTimeout and StopTimeout are TimeoutStartSec= and TimeoutStopSec=, RunTimeout
	// RuntimeMaxSec=; [verdict.Never] for none.
	StartTimeout, StopTimeout, RunTimeout time.Duration
	// ActiveState is the property of that name, Cgroup its control group below the service manager's root, "" for none.
	// Restarts is how often it was restarted by itself, Result why it failed, or "success".
	ActiveState, Cgroup, Result string
	Restarts                    uint32
	// HasSockets is whether socket units pass file descriptors to it, too.
	HasSockets bool
	// ReloadSignal is the number of ReloadSignal=; 0 when unknown.
	ReloadSignal int
	// LoadState is "loaded", "not-found", "masked" or another one, and ID the unit's own name, to which an alias leads.
	LoadState, ID string
	// Slice is the slice that it is in.
	Slice string
	// ReloadResult is why the latest reload failed, or "success"; "" when that is not told, as before systemd 253.
	ReloadResult string
	// MainCode and MainStatus say how the latest main process ended (siginfo_t: si_code, si_status); MainCode is 0
	// for none that has ended.
	MainCode, MainStatus int
	// Job is the number of the unit's job, 0 for none.
	Job uint32
	// Program is what ExecStart= runs first, as a path; "" for none.
	Program string
	// NoUnixSockets is whether RestrictAddressFamilies= leaves AF_UNIX out.
	NoUnixSockets bool
	// Unset are the variables of UnsetEnvironment=.
	Unset []string

	version int
}

// overridesAccess is the version of systemd from which on NOTIFYACCESS= counts.
const overridesAccess = 254

// Service asks for a service. Process ids are in the service manager's pid namespace: host translates
// one to the initial pid namespace and says when that process was started, by CLOCK_MONOTONIC, or
// returns nil.
func (m *Manager) Service(ctx context.Context, name string, host func(pid uint32) (*uint32, time.Duration)) (*Service, error) {
	if !strings.HasSuffix(name, ".service") {
		return nil, fmt.Errorf("%s is no service", name)
	}
	p := make(properties)
	unit := m.conn.Object(busName, pathOf(name))
	for _, kind := range []string{"Unit", "Service"} {
		var some properties
		err := unit.CallWithContext(ctx, "org.freedesktop.DBus.Properties.GetAll", 0, "org.freedesktop.systemd1."+kind).Store(&some)
		if err != nil {
			return nil, fmt.Errorf("asking for %s: %w", name, err)
		}
		maps.Copy(p, some)
	}
	s := &Service{
		Changed: p.time("StateChangeTimestampMonotonic"), Left: p.time("InactiveExitTimestampMonotonic"),
		Active: p.time("ActiveEnterTimestampMonotonic"), MainStarted: p.time("ExecMainStartTimestampMonotonic"),
		MainExited: p.time("ExecMainExitTimestampMonotonic"), Pinged: p.time("WatchdogTimestampMonotonic"),
		StartTimeout: p.timeout("TimeoutStartUSec"), StopTimeout: p.timeout("TimeoutStopUSec"), RunTimeout: p.timeout("RuntimeMaxUSec"),
		ActiveState: value[string](p, "ActiveState"), Cgroup: value[string](p, "ControlGroup"), Result: value[string](p, "Result"),
		Restarts: value[uint32](p, "NRestarts"),
		version:  m.Version, Main: value[uint32](p, "MainPID"), ReloadSignal: int(value[int32](p, "ReloadSignal")),
		LoadState: value[string](p, "LoadState"), ID: value[string](p, "Id"), ReloadResult: value[string](p, "ReloadResult"),
		Slice:    value[string](p, "Slice"),
		MainCode: int(value[int32](p, "ExecMainCode")), MainStatus: int(value[int32](p, "ExecMainStatus")),
		Unset: value[[]string](p, "UnsetEnvironment"),
	}
	if families := value[[]any](p, "RestrictAddressFamilies"); len(families) > 1 {
		allows, _ := families[0].(bool)
		list, _ := families[1].([]string)
		// A list that forbids is empty unless it is set.
		s.NoUnixSockets = allows != slices.Contains(list, "AF_UNIX")
	}
	if job := value[[]any](p, "Job"); len(job) > 0 {
		s.Job, _ = job[0].(uint32)
	}
	if commands := p.commands("ExecStart"); len(commands) > 0 && len(commands[0]) > 0 {
		s.Program, _ = commands[0][0].(string)
	}
	s.HasSockets = slices.ContainsFunc(value[[]string](p, "TriggeredBy"), func(unit string) bool {
		return strings.HasSuffix(unit, ".socket")
	})
	u := &s.Now
	*u = verdict.Unit{
		Name: name, Type: value[string](p, "Type"), NotifyAccess: value[string](p, "NotifyAccess"),
		SubState:   value[string](p, "SubState"),
		PIDFile:    value[string](p, "PIDFile"),
		FDStoreMax: pointer[uint32](p, "FileDescriptorStoreMax"), FDStored: pointer[uint32](p, "NFileDescriptorStore"),
		StatusText: pointer[string](p, "StatusText"), StatusBusError: pointer[string](p, "StatusBusError"),
		StatusVarlinkError: pointer[string](p, "StatusVarlinkError"),
	}
	if pid, ok := p["MainPID"].Value().(uint32); ok {
		u.MainPID = &pid
		if pid != 0 {
			u.MainPID, _ = host(pid)
		}
	}
	s.LatestMain, s.LatestNumber = u.MainPID, s.Main
	if pid := value[uint32](p, "ExecMainPID"); pid != s.Main && pid != 0 {
		s.LatestMain, _ = host(pid)
		s.LatestNumber = pid
	}
	if pid, ok := p["ControlPID"].Value().(uint32); ok {
		u.ControlPID = &pid
		if pid != 0 {
			u.ControlPID, s.ControlStarted = host(pid)
		}
	}
	if errno, ok := p["StatusErrno"].Value().(int32); ok {
		n := int(errno)
		u.StatusErrno = &n
	}
	if usec, ok := p["WatchdogUSec"].Value().(uint64); ok {
		interval := span(usec)
		u.Watchdog = &interval
	}
	if state, ok := p["FreezerState"].Value().(string); ok {
		frozen := state == "frozen"
		u.Frozen = &frozen
	}
	if commands, ok := p["ExecStartPost"].Value().([][]any); ok {
		some := len(commands) > 0
		u.StartPost = &some
		const began = 4
		if some && len(commands[0]) > began {
			usec, _ := commands[0][began].(uint64)
			s.PostStarted = span(usec)
		}
	}
	if u.SubState == "reload-signal" {
		u.ReloadBegan = &s.Changed
	}
	return s, nil
}

// At returns the service as it was at a time by CLOCK_MONOTONIC, before a datagram was read then,
// which may have changed it. said reports whether the service may have said an assignment with that
// key since, which is how some properties change without a trace. What may have been different then
// is absent.
func (s *Service) At(at time.Duration, said func(key string) bool) *verdict.Unit {
	u := s.Now
	u.StatusText, u.StatusErrno, u.StatusBusError, u.StatusVarlinkError, u.Frozen = nil, nil, nil, nil, nil
	if s.Changed >= at {
		u.SubState, u.ReloadBegan = "", nil
		// It was starting and has its main process, which it has from the state "start" on.
		if s.Left != 0 && s.Left < at && s.Active >= at && s.MainStarted != 0 && s.MainStarted < at &&
			u.StartPost != nil && (!*u.StartPost || s.PostStarted >= at) {
			u.SubState = "start"
		}
	}
	switch {
	case s.MainStarted >= at || said("MAINPID") || said("MAINPIDFD"):
		u.MainPID = nil
	case s.MainExited >= at:
		u.MainPID = s.LatestMain
	}
	switch {
	case u.ControlPID == nil:
	case *u.ControlPID != 0 && (s.ControlStarted == 0 || s.ControlStarted >= at),
		*u.ControlPID == 0 && !HasNoControl(u.SubState, u.Type):
		u.ControlPID = nil
	}
	// What it has said is gone with the run (systemd: service_enter_dead, service_start).
	another := s.Left >= at || s.Changed >= at && IsOver(s.Now.SubState)
	if (said("NOTIFYACCESS") || another) && s.version >= overridesAccess {
		u.NotifyAccess = ""
	}
	if said("WATCHDOG_USEC") || another {
		u.Watchdog = nil
	}
	if said("FDSTORE") || said("FDSTOREREMOVE") || another {
		u.FDStored = nil
		if u.FDStoreMax != nil && *u.FDStoreMax == 0 {
			u.FDStored = u.FDStoreMax
		}
	}
	return &u
}

// HasNoControl reports whether a service of a type that is in a state has no control process as long as
// it is.
func HasNoControl(state, kind string) bool {
	switch state {
	case "running", "exited", "reload-signal", "reload-notify", "dead", "failed":
		return true
	case "start":
		return kind != "" && kind != "forking"
	}
	return false
}

// IsOver reports whether a unit has no processes in a state.
func IsOver(state string) bool {
	switch state {
	case "dead", "failed", "auto-restart", "auto-restart-queued", "dead-before-auto-restart", "failed-before-auto-restart":
		return true
	}
	return false
}

// properties are those of a unit, by name.
type properties map[string]dbus.Variant

func value[T any](p properties, name string) (v T) {
	v, _ = p[name].Value().(T)
	return v
}

func pointer[T any](p properties, name string) *T {
	if v, ok := p[name].Value().(T); ok {
		return &v
	}
	return nil
}

// commands are those of a property such as ExecStart, each as "sasbttttuii" (org.freedesktop.systemd1(5)).
func (p properties) commands(name string) [][]any { return value[[][]any](p, name) }

// time is a property that is a time by CLOCK_MONOTONIC.
func (p properties) time(name string) time.Duration {
	usec, _ := p[name].Value().(uint64)
	return span(usec)
}

// timeout is a property that is a span of time, of which the largest means none.
func (p properties) timeout(name string) time.Duration {
	usec, ok := p[name].Value().(uint64)
	if !ok || usec > uint64(verdict.Never/time.Microsecond) {
		return verdict.Never
	}
	return time.Duration(usec) * time.Microsecond
}

// span is a time in microseconds, of which the largest means none.
func span(usec uint64) time.Duration {
	if usec > uint64(verdict.Never/time.Microsecond) {
		return 0
	}
	return time.Duration(usec) * time.Microsecond
}
