// SPDX-License-Identifier: Apache-2.0

//go:build linux

package why

import (
	"fmt"
	"time"
)

// programCannotNotify is seen by a main process that has the variable and says nothing, and whose program does not
// know it.
func programCannotNotify(c *Case) *Finding {
	p := c.Main()
	const told = 2 * time.Second // by then captures have told of what it has said at its start
	if c.For() < told || !c.silent() || p == nil || p.Notifies != Unable || c.Latest("READY") != nil || len(c.Said) > 0 {
		return nil
	}
	for i := range c.Processes {
		if c.Processes[i].Notifies != Unable {
			return nil // it may be that one which is to say it
		}
	}
	return &Finding{
		Certainty: Likely,
		Because: fmt.Sprintf("%s has said nothing since its start %s ago%s, has the variable, and its program %s does "+
			"not know the name NOTIFY_SOCKET: it is not a program that notifies",
			p, Span(c.For()), uncaptured(c), p.Exe),
		Change: "set Type=exec or simple (or forking), or use a build of the program with support for systemd",
	}
}
