// SPDX-License-Identifier: Apache-2.0

//go:build linux

package why

import (
	"fmt"
	"time"
)

// noPings is seen by a watchdog of which most of the time is over, and no ping since the start.
func noPings(c *Case) *Finding {
	interval := c.Watchdog()
	p := c.Main()
	switch {
	case c.Phase() == Running && interval != 0 && !c.pinged() && c.Monotonic-c.Service.Pinged > interval/5*3:
	case c.Service != nil && c.Service.Result == "watchdog" && !c.saidPing():
		// The last run has ended so.
		since := ""
		if c.Phase() != Failed {
			since = ", and is started again"
		}
		return &Finding{
			Certainty: likelyUnless(c.Captured()),
			Because: fmt.Sprintf("%s was killed because no WATCHDOG=1 came within WatchdogSec=%s%s%s",
				c.Unit, Span(interval), since, uncaptured(c)),
			Change: "let it send WATCHDOG=1 every half of that, or remove WatchdogSec=",
		}
	default:
		return nil
	}
	who := c.Unit
	if p != nil {
		who = p.String()
	}
	f := &Finding{
		Certainty: Certain, // its timestamp shows every ping
		Because:   fmt.Sprintf("%s has not sent WATCHDOG=1 since it is ready: %s", who, runsOut(c)),
		Change:    "let it send WATCHDOG=1 every half of WATCHDOG_USEC, or remove WatchdogSec=",
	}
	if p != nil && p.Executed != nil && p.Executed.WatchdogUSec == nil {
		f.Because = fmt.Sprintf("%s does not know that it has to ping: there is no WATCHDOG_USEC in its environment; %s",
			who, runsOut(c))
	}
	return f
}

func likelyUnless(certain bool) Certainty {
	if certain {
		return Certain
	}
	return Likely
}

// pinged reports whether a ping was heeded since the start (systemd: service_enter_start_post begins the time, and
// each ping anew).
func (c *Case) pinged() bool {
	return c.Service.Pinged > c.Service.Active+pingSlack && c.Service.Active != 0
}

// pingSlack is how long after READY=1 the unit is active at most.
const pingSlack = 50 * time.Millisecond

// saidPing reports whether a ping was captured.
func (c *Case) saidPing() bool { return c.Latest("WATCHDOG") != nil }

// runsOut says when the time for a ping is over.
func runsOut(c *Case) string {
	interval := c.Watchdog()
	since := c.Monotonic - c.Service.Pinged
	if since >= interval {
		return fmt.Sprintf("WatchdogSec=%s has run out", Span(interval))
	}
	return fmt.Sprintf("WatchdogSec=%s runs out in %s", Span(interval), Span(interval-since))
}
