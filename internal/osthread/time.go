// SPDX-License-Identifier: Apache-2.0

package osthread

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// CPUTime calls f and returns the time of a processor that f took, without what other goroutines
// took for it. How busy the machine is makes no difference.
func CPUTime(f func()) time.Duration {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	began := threadTime()
	f()
	return threadTime() - began
}

func threadTime() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &now); err != nil {
		panic(err) // Linux has had this clock since 2.6.12
	}
	return time.Duration(now.Nano())
}
