// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"time"

	"golang.org/x/sys/unix"
)

// BootTime is now by CLOCK_BOOTTIME, which nobody sets: the time since the machine was
// booted, suspended or not.
func BootTime() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &t)
	return time.Duration(t.Nano())
}

// Monotonic is now by CLOCK_MONOTONIC, which stands still while the machine is suspended.
func Monotonic() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t)
	return time.Duration(t.Nano())
}
