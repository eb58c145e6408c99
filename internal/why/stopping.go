// SPDX-License-Identifier: Apache-2.0

//go:build linux

package why

import (
	"fmt"
	"strings"

	"github.com/sdtrace/sdtrace/pkg/events"
)

// stopping is seen by a unit whose processes do not end.
func stopping(c *Case) *Finding {
	if c.Phase() != Stopping {
		return nil
	}
	var names []string
	for i := range c.Processes {
		names = append(names, c.Processes[i].String())
	}
	const most = 4
	if len(names) > most {
		names = append(names[:most], fmt.Sprintf("%d more", len(names)-most))
	}
	who := "its processes"
	if len(names) > 0 {
		who = strings.Join(names, ", ")
	}
	f := &Finding{Certainty: Certain, Note: c.For() < beginsWithin}
	f.Because = fmt.Sprintf("%s is stopping (%s) for %s, and waits for %s to end", c.Unit, c.Service.Now.SubState, Span(c.For()), who)
	f.Change = "let them end when they get SIGTERM (KillSignal=), or lower TimeoutStopSec="
	if s := c.Latest("STOPPING"); s != nil && s.Is("STOPPING", "1", events.Heeded) {
		f.Because = fmt.Sprintf("%s has said STOPPING=1, so %s is stopping for %s, and waits for %s to end",
			s.Who(), c.Unit, Span(c.For()), who)
		if main := c.Main(); main != nil && s.Verdict.From.PID != main.PID {
			f.Because += fmt.Sprintf("; it is not the main process %s, but NotifyAccess=%s lets it speak for the service",
				main, c.Service.Now.NotifyAccess)
			f.Change = "set NotifyAccess=main, or start that program without NOTIFY_SOCKET"
		}
	}
	return f
}
