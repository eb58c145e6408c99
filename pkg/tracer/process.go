// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/pkg/events"
	"github.com/sdtrace/sdtrace/pkg/procstat"
)

// exeCache remembers executables, so that a busy sender is looked up once.
type exeCache struct {
	paths memory[exeKey, string]
}

type exeKey struct {
	pid       uint32
	startTime uint64
	comm      string
}

// lookup returns the path of the sender's executable if the process is still the
// one that sent: same pid, same start time, same name. Else it returns "".
func (c *exeCache) lookup(s *events.Sender) string {
	key := exeKey{s.PID, s.StartTime, s.Comm}
	path, known := c.paths.find(key)
	if !known {
		path = readExe(key)
		c.paths.keep(key, path)
	}
	return path
}

func readExe(key exeKey) string {
	proc := "/proc/" + strconv.FormatUint(uint64(key.pid), 10)
	path, err := os.Readlink(proc + "/exe")
	if err != nil {
		return ""
	}
	// Asked after the path, so that what is read here held before too.
	stat, err := os.ReadFile(proc + "/stat")
	if err != nil {
		return ""
	}
	if now, ok := procstat.Parse(stat); !ok || !now.StartedAt(key.startTime) || now.Comm != key.comm {
		return ""
	}
	return path
}

// bootClock follows the wall clock's distance from CLOCK_BOOTTIME.
type bootClock struct {
	clock events.Clock
	next  time.Time
}

// bootClockInterval bounds how long a step of the wall clock goes unnoticed.
const bootClockInterval = time.Second

// check looks at the wall clock, if that is due.
func (c *bootClock) check() {
	now := time.Now()
	if now.Before(c.next) {
		return
	}
	var boot unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot); err != nil {
		return
	}
	// Without the monotonic reading, which must not follow into the events.
	start := time.Now().Round(0).Add(-time.Duration(boot.Nano()))
	// A microsecond of jitter between two readings is no step.
	if drift := start.Sub(c.clock.Boot).Abs(); drift > time.Millisecond {
		c.clock = events.Clock{Boot: start}
	}
	c.next = now.Add(bootClockInterval)
}
