// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/pkg/events"
)

// clockTick is the unit of times in /proc/PID/stat: USER_HZ is 100 on all
// architectures there are programs for.
const clockTick = 10 * time.Millisecond

// exeCache remembers executables, so that a busy sender is looked up once.
type exeCache struct {
	paths map[exeKey]string
}

type exeKey struct {
	pid       uint32
	startTime uint64
	comm      string
}

const exeCacheSize = 4096

// lookup returns the path of the sender's executable if the process is still the
// one that sent: same pid, same start time, same name. Else it returns "".
func (c *exeCache) lookup(s *events.Sender) string {
	key := exeKey{s.PID, s.StartTime, s.Comm}
	if path, ok := c.paths[key]; ok {
		return path
	}
	if c.paths == nil || len(c.paths) >= exeCacheSize {
		c.paths = make(map[exeKey]string)
	}
	path := readExe(key)
	c.paths[key] = path
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
	// "pid (comm) state …", where comm may hold anything; starttime is the 22nd.
	open, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
	if open < 0 || end < open {
		return ""
	}
	fields := strings.Fields(string(stat[end+1:]))
	const startTime = 22 - 3
	if len(fields) <= startTime ||
		fields[startTime] != strconv.FormatUint(key.startTime/uint64(clockTick), 10) ||
		string(stat[open+1:end]) != key.comm {
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

func (c *bootClock) now() events.Clock {
	now := time.Now()
	if now.Before(c.next) {
		return c.clock
	}
	var boot unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot); err != nil {
		return c.clock
	}
	// Without the monotonic reading, which must not follow into the events.
	start := time.Now().Round(0).Add(-time.Duration(boot.Nano()))
	// A microsecond of jitter between two readings is no step.
	if drift := start.Sub(c.clock.Boot).Abs(); drift > time.Millisecond {
		c.clock = events.Clock{Boot: start}
	}
	c.next = now.Add(bootClockInterval)
	return c.clock
}
