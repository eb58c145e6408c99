// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"math"
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

var loaded = time.Now()

// Elapsed is the time since this program was loaded, by CLOCK_MONOTONIC. It takes a tenth of what [BootTime] takes, which
// is a system call.
func Elapsed() time.Duration { return time.Since(loaded) }

// WallAndBootTime reads the wall clock and CLOCK_BOOTTIME at the same moment. The time has no monotonic reading, which
// goes by another clock.
func WallAndBootTime() (wall time.Time, boot time.Duration) { return sameMoment(wallClock, BootTime) }

// WallAndMonotonic reads the wall clock and CLOCK_MONOTONIC at the same moment, as [WallAndBootTime] does.
func WallAndMonotonic() (wall time.Time, monotonic time.Duration) {
	return sameMoment(wallClock, Monotonic)
}

// Suspended is how long the machine has been suspended since it was booted: by how much CLOCK_BOOTTIME is ahead of
// CLOCK_MONOTONIC.
func Suspended() time.Duration {
	boot, monotonic := sameMoment(BootTime, Monotonic)
	return max(boot-monotonic, 0).Truncate(time.Millisecond)
}

func wallClock() time.Time { return time.Now().Round(0) }

// Two clocks are read as often as readings, until nothing came in between: that takes less than undisturbed.
const (
	readings    = 8
	undisturbed = 20 * time.Microsecond
)

// sameMoment reads two clocks. On a busy machine something else can run between two readings, for longer than a tenth
// of a second: of some, those count that are the least apart.
func sameMoment[T any](one func() T, other func() time.Duration) (a T, b time.Duration) {
	least := time.Duration(math.MaxInt64)
	for range readings {
		before := other()
		now := one()
		apart := other() - before
		if apart < least {
			least, a, b = apart, now, before+apart/2
		}
		if apart < undisturbed {
			break
		}
	}
	return a, b
}

// Monotonic is now by CLOCK_MONOTONIC, which stands still while the machine is suspended.
func Monotonic() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t)
	return time.Duration(t.Nano())
}
