// SPDX-License-Identifier: Apache-2.0

package verdict

import "time"

// Unit is what a service manager knows of a unit, by the names of org.freedesktop.systemd1(5). What
// is nil or "" is not known.
type Unit struct {
	// Name is the unit's; "" for a sender that is in no unit of this service manager.
	Name string
	// Type is what Type= says, such as "notify".
	Type string
	// NotifyAccess is who may send: "none", "main", "exec" or "all", with what NOTIFYACCESS= has
	// changed.
	NotifyAccess string
	// ConfiguredAccess is NotifyAccess= without that. No property tells, once it is changed.
	ConfiguredAccess string
	// MainPID and ControlPID are in the initial pid namespace; 0 for none, or [Over].
	MainPID, ControlPID *uint32
	// SubState is the state, such as "start" or "running".
	SubState string
	// Stopping is whether it has said STOPPING=1 since it was started (Service.notify_state). No
	// property tells.
	Stopping *bool
	// ReloadHandled is whether the main process catches or blocks ReloadSignal=.
	ReloadHandled *bool
	// ReloadBegan is when the reload signal was sent, by CLOCK_MONOTONIC. No property tells but
	// the time of the state's change, which is just after it.
	ReloadBegan *time.Duration
	// Deadline is when the state's timeout is over, and WatchdogDeadline the watchdog's, by
	// CLOCK_MONOTONIC; [Never] for none. What EXTEND_TIMEOUT_USEC= has changed no property tells.
	Deadline, WatchdogDeadline *time.Duration
	// Watchdog is the watchdog's interval with what WATCHDOG_USEC= has changed, 0 for none.
	Watchdog *time.Duration
	// Frozen is whether it is frozen (systemctl freeze).
	Frozen *bool
	// FDStoreMax is FileDescriptorStoreMax=, FDStored how many are in the store.
	FDStoreMax, FDStored *uint32
	// StatusText, StatusErrno, StatusBusError and StatusVarlinkError are what it has said last.
	StatusText, StatusBusError, StatusVarlinkError *string
	StatusErrno                                    *int
	// PIDFile is PIDFile=, and PIDFileNames the process id in it, in the initial pid namespace; nil also when
	// there is none.
	PIDFile      string
	PIDFileNames *uint32
	// StartPost is whether it has an ExecStartPost=.
	StartPost *bool
}

// Over is a process id for one that is over and of which nothing else is known: no datagram is from it,
// and none names it. It is larger than any process id (kernel: PID_MAX_LIMIT).
const Over uint32 = 1 << 31

// Never is a deadline that does not come.
const Never = time.Duration(1<<63 - 1)

// takesReady is whether a unit of this type waits for READY=1.
func takesReady(kind string) bool { return kind == "notify" || kind == "notify-reload" }
