// SPDX-License-Identifier: Apache-2.0

//go:build linux

package why

import (
	"fmt"
	"time"
)

// beginsWithin is how long an answer takes at most that is on its way.
const beginsWithin = time.Second

// reloadNotFinished is seen by a reload that has begun, and no READY=1 since.
func reloadNotFinished(c *Case) *Finding {
	if c.Phase() != Notifying || c.For() < beginsWithin {
		return nil
	}
	last := c.Latest("RELOADING")
	who := "the service"
	if last != nil {
		who = last.Who()
	} else if p := c.Main(); p != nil {
		who = p.String()
	}
	if ready := c.Latest("READY"); ready != nil && (last == nil || ready.Event.Time.After(last.Event.Time)) && ready.Event.Time.After(c.Wall(c.Service.Changed)) {
		return nil // told by its verdict
	}
	return &Finding{
		Certainty: Likely,
		Because: fmt.Sprintf("%s has said RELOADING=1 %s ago and not READY=1 since%s: the reload goes on until then",
			who, Span(c.For()), uncaptured(c)),
		Change: "let it say READY=1 when the reload is over, also when it has failed",
	}
}

// uncaptured says how much is known about what was not said.
func uncaptured(c *Case) string {
	if c.Captured() {
		return ""
	}
	return ", as far as is known"
}
