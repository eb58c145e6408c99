// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"time"

	"github.com/sdtrace/sdtrace/internal/proc"
	"github.com/sdtrace/sdtrace/internal/wire"
	"github.com/sdtrace/sdtrace/pkg/events"
)

// exeCache remembers executables, so that a busy sender is looked up once.
type exeCache struct {
	paths *lru[exeKey, string]
}

type exeKey struct {
	pid       uint32
	startTime uint64
	execs     uint32
	comm      string
}

// lookup returns the path of the sender's executable if the process is still the
// one that sent: same pid, same start time, same name, and has executed no other program since. Else it returns "".
func (c *exeCache) lookup(s *events.Sender) string {
	key := exeKey{s.PID, s.StartTime, s.Execs, s.Comm}
	path, known := c.paths.Get(key)
	if !known {
		path = readExe(key)
		c.paths.Add(key, path)
	}
	return path
}

func readExe(key exeKey) string {
	p, err := proc.Open(int(key.pid))
	if err != nil {
		return ""
	}
	defer p.Close()
	path, err := p.Link("exe")
	if err != nil {
		return ""
	}
	// Asked after the path, so that what is read here held before too.
	if now, err := p.Stat(); err != nil || !now.StartedAt(key.startTime) || now.Comm != key.comm {
		return ""
	}
	return path
}

// bootClock follows the wall clock's distance from CLOCK_BOOTTIME.
type bootClock struct {
	clock wire.Clock
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
	wall, boot := proc.WallAndBootTime()
	start := wall.Add(-boot)
	// A microsecond of jitter between two readings is no step.
	if drift := start.Sub(c.clock.Boot).Abs(); drift > time.Millisecond {
		c.clock = wire.Clock{Boot: start}
	}
	c.next = now.Add(bootClockInterval)
}
