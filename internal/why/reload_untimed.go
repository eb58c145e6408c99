// SPDX-License-Identifier: Apache-2.0

//go:build linux

package why

import (
	"fmt"
	"time"
)

// reloadUntimed is seen by RELOADING=1 without MONOTONIC_USEC= in the same message, after which the service manager
// still waits for both (systemd: service_notify_message).
func reloadUntimed(c *Case) *Finding {
	if c.Phase() != Signalled {
		return nil
	}
	s := c.Latest("RELOADING")
	const slack = 10 * time.Millisecond // between two clocks
	if s == nil || s.Event.Result.Failed() || s.Event.Time.Before(c.Wall(c.Service.Changed).Add(-slack)) {
		return nil
	}
	if _, timed := s.Value("MONOTONIC_USEC"); timed {
		return nil
	}
	f := &Finding{
		Certainty: Certain,
		Because: fmt.Sprintf("RELOADING=1 of %s has no effect: the service manager waits for RELOADING=1 with "+
			"MONOTONIC_USEC= in the same message, and goes on waiting until %s",
			s.Who(), c.timeout()),
		Change: "send MONOTONIC_USEC= with the time by CLOCK_MONOTONIC in the same message as RELOADING=1",
	}
	if apart := c.Latest("MONOTONIC_USEC"); apart != nil && !apart.Event.Time.Before(s.Event.Time) {
		f.Because += "; here they are two messages"
	}
	return f
}

// timeout names the limit of the state that the unit is in.
func (c *Case) timeout() string {
	limit, setting := c.Limit()
	if limit == 0 {
		return "it is stopped"
	}
	return fmt.Sprintf("%s=%s is over", setting, Span(limit))
}
