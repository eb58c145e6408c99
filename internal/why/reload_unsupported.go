// SPDX-License-Identifier: Apache-2.0

//go:build linux

package why

import (
	"fmt"
)

// reloadUnsupported is seen by a reload that nothing was said about.
func reloadUnsupported(c *Case) *Finding {
	if c.Phase() != Signalled || c.For() < beginsWithin {
		return nil
	}
	p := c.Main()
	if p == nil {
		return nil
	}
	for i := range c.Said {
		if c.Said[i].Event.Time.After(c.Wall(c.Service.Changed)) {
			return nil
		}
	}
	f := &Finding{
		Certainty: Likely,
		Because: fmt.Sprintf("%s has been told to reload %s ago and has not said RELOADING=1 with MONOTONIC_USEC=%s",
			p, Span(c.For()), uncaptured(c)),
		Change: "let it say so in one message when it gets the signal, and READY=1 at the end, as sd_notify(3) asks of " +
			"Type=notify-reload; or set Type=notify and ExecReload=",
	}
	return f
}
