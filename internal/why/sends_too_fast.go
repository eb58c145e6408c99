// SPDX-License-Identifier: Apache-2.0

//go:build linux

package why

import (
	"fmt"
	"time"
)

// sendsTooFast is seen by a process that waits in the kernel to send to a service manager that reads.
func sendsTooFast(c *Case) *Finding {
	if !c.Manager.Floods && (len(c.Hangs) > 0 || c.Manager.Silent != "") {
		return nil // it does not read
	}
	queued, most := c.Manager.Queued, c.Manager.MaxQueued
	if queued == nil || most == nil || *queued < *most/2 && !c.Manager.Floods {
		return nil // it waits for somebody else
	}
	for i := range c.Processes {
		p := &c.Processes[i]
		if !p.Sends || p.Elsewhere {
			continue
		}
		answers := ""
		if c.Manager.Floods {
			answers = ", so that it answers nothing else (systemctl hangs)"
		}
		return &Finding{
			Certainty: Likely, Note: c.IsWell(),
			Because: fmt.Sprintf("%s waits in its send for room in the queue of %s, where %d messages are: it reads, and "+
				"more is sent to it than it can take%s%s",
				p, name("systemd", uint32(c.Manager.PID)), *queued, answers, lately(c, p.PID)),
			Change: "send less often: a status that changes many times a second is worth one message a second",
		}
	}
	return nil
}

// lately says how many messages of a process were seen in the last second, "" for few or when that is not known.
func lately(c *Case, pid uint32) string {
	const few = 10
	n := 0
	for i := range c.Said {
		if e := c.Said[i].Event; e.Sender.PID == pid && c.Now.Sub(e.Time) < time.Second {
			n++
		}
	}
	if n < few {
		return ""
	}
	return fmt.Sprintf("; it has sent %d messages and more in the last second", n)
}
