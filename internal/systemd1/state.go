// SPDX-License-Identifier: Apache-2.0

//go:build linux

package systemd1

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/sdtrace/sdtrace/pkg/verdict"
)

// Service returns what the service manager tells of a service. Process ids are in its pid namespace:
// host translates one to the initial pid namespace, and returns nil when it cannot. What the
// service manager does not tell is absent.
func (m *Manager) Service(ctx context.Context, name string, host func(pid uint32) *uint32) (*verdict.Unit, error) {
	if !strings.HasSuffix(name, ".service") {
		return nil, fmt.Errorf("%s is no service", name)
	}
	p := make(properties)
	for _, kind := range []string{"Unit", "Service"} {
		some, err := m.conn.GetUnitTypePropertiesContext(ctx, name, kind)
		if err != nil {
			return nil, fmt.Errorf("asking for %s: %w", name, err)
		}
		for k, v := range some {
			p[k] = v
		}
	}
	u := &verdict.Unit{
		Name: name, Type: value[string](p, "Type"), NotifyAccess: value[string](p, "NotifyAccess"),
		SubState:   value[string](p, "SubState"),
		FDStoreMax: pointer[uint32](p, "FileDescriptorStoreMax"), FDStored: pointer[uint32](p, "NFileDescriptorStore"),
		StatusText: pointer[string](p, "StatusText"), StatusBusError: pointer[string](p, "StatusBusError"),
		StatusVarlinkError: pointer[string](p, "StatusVarlinkError"),
	}
	for name, to := range map[string]**uint32{"MainPID": &u.MainPID, "ControlPID": &u.ControlPID} {
		if pid, ok := p[name].(uint32); ok && pid == 0 {
			*to = &pid
		} else if ok {
			*to = host(pid)
		}
	}
	if errno, ok := p["StatusErrno"].(int32); ok {
		n := int(errno)
		u.StatusErrno = &n
	}
	if usec, ok := p["WatchdogUSec"].(uint64); ok {
		interval := span(usec)
		u.Watchdog = &interval
	}
	if state, ok := p["FreezerState"].(string); ok {
		frozen := state == "frozen"
		u.Frozen = &frozen
	}
	if commands, ok := p["ExecStartPost"].([][]any); ok {
		any := len(commands) > 0
		u.StartPost = &any
	}
	if changed, ok := p["StateChangeTimestampMonotonic"].(uint64); ok && u.SubState == "reload-signal" {
		began := time.Duration(changed) * time.Microsecond
		u.ReloadBegan = &began
	}
	return u, nil
}

// properties are those of a unit, by name.
type properties map[string]any

func value[T any](p properties, name string) (v T) {
	v, _ = p[name].(T)
	return v
}

func pointer[T any](p properties, name string) *T {
	if v, ok := p[name].(T); ok {
		return &v
	}
	return nil
}

// span is a time in microseconds, of which the largest means none.
func span(usec uint64) time.Duration {
	if usec > uint64(verdict.Never/time.Microsecond) {
		return 0
	}
	return time.Duration(usec) * time.Microsecond
}
