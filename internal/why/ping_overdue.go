// SPDX-License-Identifier: Apache-2.0

//go:build linux

package why

import (
	"fmt"
	"time"

	"github.com/sdtrace/sdtrace/pkg/events"
)

// pingOverdue is seen by a ping that most of the time is over for, after others; or by the end that has come of it.
func pingOverdue(c *Case) *Finding {
	interval := c.Watchdog()
	if interval == 0 {
		return nil
	}
	f := &Finding{
		Certainty: Likely,
		Change:    "find out what keeps it from pinging (a loop that is blocked, a garbage collection), or raise WatchdogSec=",
	}
	handed := handedOverSilently(c)
	if handed != "" {
		f.Change = "let the new main process ping at once, or the old one until it does, or raise WatchdogSec="
	}
	switch since := c.Monotonic - c.Service.Pinged; {
	case c.Phase() == Running && c.pinged() && since > interval/4*3:
		f.Because = fmt.Sprintf("the last ping is %s ago%s%s: %s", Span(since), every(c), handed, runsOut(c))
	case c.IsOver() && c.Service.Result == "watchdog" && c.saidPing():
		last := c.Latest("WATCHDOG")
		f.Because = fmt.Sprintf("%s was killed because no ping came within WatchdogSec=%s: the last was from %s at %s%s%s",
			c.Unit, Span(interval), last.Who(), last.Event.Time.Format(time.TimeOnly), every(c), handed)
	default:
		return nil
	}
	return f
}

// handedOverSilently says that the main process was handed over, or was meant to be, and that no other one has pinged
// since; "" if that is not so.
func handedOverSilently(c *Case) string {
	s := c.Latest("MAINPID", "MAINPIDFD")
	if s == nil {
		return ""
	}
	var what string
	switch {
	case s.Verdict != nil && s.Verdict.MainAfter != nil &&
		(s.Is("MAINPID", "", events.Heeded) || s.Is("MAINPIDFD", "", events.Heeded)):
		main := s.Verdict.MainAfter
		if c.hasPinged(func(ping *Said) bool { return ping.Event.Sender.PID == main.PID }) {
			return ""
		}
		what = "the main process is " + name(main.Comm, main.PID)
	case s.Verdict == nil || s.Is("MAINPID", "", events.Unknown):
		if c.hasPinged(func(ping *Said) bool {
			return ping.Event.Time.After(s.Event.Time) && ping.Event.Sender.PID != s.Event.Sender.PID
		}) {
			return ""
		}
		pid, _ := s.Value("MAINPID")
		what = fmt.Sprintf("the main process is to be %s (MAINPID= of %s)", events.Escape(pid), s.Who())
	default:
		return ""
	}
	return fmt.Sprintf("; since then %s, which has not pinged", what)
}

// hasPinged reports whether a ping was captured of which something is so.
func (c *Case) hasPinged(is func(*Said) bool) bool {
	for i := range c.Said {
		if ping, ok := c.Said[i].Value("WATCHDOG"); ok && ping == "1" && is(&c.Said[i]) {
			return true
		}
	}
	return false
}

// intervals are those between the pings that were captured.
func (c *Case) intervals() (all []time.Duration) {
	var before *Said
	for i := range c.Said {
		s := &c.Said[i]
		if value, ok := s.Value("WATCHDOG"); !ok || value != "1" || s.Event.Result.Failed() {
			continue
		}
		if before != nil {
			all = append(all, s.Event.Time.Sub(before.Event.Time))
		}
		before = s
	}
	return all
}

// every says how often pings came, "" when that is not known.
func every(c *Case) string {
	all := c.intervals()
	if len(all) == 0 {
		return ""
	}
	var sum time.Duration
	for _, d := range all {
		sum += d
	}
	return fmt.Sprintf(", before that they came every %s", Span(sum/time.Duration(len(all))))
}
