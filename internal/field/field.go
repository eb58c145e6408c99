// SPDX-License-Identifier: Apache-2.0

// Package field holds the names of the field: of notify sockets, of the runtimes that relay
// notifications, and of their processes.
package field

import (
	"slices"
	"strings"
)

// NotifyNames are how the addresses of notify sockets end: those of systemd, of its containers,
// and of the runtimes' relays. bpf/notify.h has the same list, and a test of package bpf holds
// the two together.
var NotifyNames = []string{"/systemd/notify", "/run/host/notify", "/notify.sock", "/notify/notify"}

// IsNotifyName reports whether an address is that of a notify socket by its name alone.
func IsNotifyName(address string) bool {
	return slices.ContainsFunc(NotifyNames, func(end string) bool { return strings.HasSuffix(address, end) })
}

// SystemSocket is the notify socket of the system's service manager.
const SystemSocket = "/run/systemd/notify"

// IsManagerSocket reports whether an address is the one that a service manager binds
// (systemd: manager_setup_notify): of the system, or below a user's XDG_RUNTIME_DIR.
func IsManagerSocket(address string) bool { return strings.HasSuffix(address, "/systemd/notify") }

// ServiceManager is what a service manager's process is called (/proc/PID/comm), whatever it is started
// by, and Journal the journal's.
const (
	ServiceManager = "systemd"
	Journal        = "systemd-journal"
)

// Relays are what processes of the field's relays are called (/proc/PID/comm).
var Relays = []string{"conmon", "crun", "podman", "runc", "sdtrace", "systemd-nspawn"}

// Monitors are the names of processes that know what the containers of a runtime are called,
// of 15 bytes at most, and these runtimes.
var Monitors = map[string][]string{
	"dockerd":         {"docker"},
	"conmon":          {"podman", "cri-o"},
	"containerd-shim": {"containerd"},
}
