// SPDX-License-Identifier: Apache-2.0

package destinations

import (
	"time"

	"github.com/sdtrace/sdtrace/internal/proc"
)

// steadyClock turns times of the wall clock into those of CLOCK_BOOTTIME, and notices when
// the wall clock was set: times of before then mean something else.
type steadyClock struct {
	boot  time.Time // the wall clock at CLOCK_BOOTTIME 0
	since time.Duration
}

// clockStep is less than any step of the wall clock that matters, and more than two
// readings of two clocks are apart.
const clockStep = 5 * time.Millisecond

// check looks at the clocks. since is the time by CLOCK_BOOTTIME at which a change was
// noticed last, 0 for never.
func (c *steadyClock) check() (since time.Duration) {
	wall, now := proc.WallAndBootTime()
	boot := wall.Add(-now)
	if c.boot.IsZero() {
		c.boot = boot
	} else if boot.Sub(c.boot).Abs() > clockStep {
		c.boot, c.since = boot, now
	}
	return c.since
}

// at is when the wall clock said so, by CLOCK_BOOTTIME, if it was not set since.
func (c *steadyClock) at(wall time.Time) time.Duration { return wall.Sub(c.boot) }
