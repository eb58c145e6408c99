// SPDX-License-Identifier: Apache-2.0

//go:build linux

package why

import (
	"fmt"
	"time"
)

// stuck are the states of a process that reads nothing, and what they mean (proc_pid_stat(5)).
var stuck = map[byte]string{'T': "it is stopped by a signal", 't': "a debugger has stopped it", 'Z': "it is over", 'D': "it waits for a disk or the like"}

// receiverDoesNotRead is seen by a service manager that does not answer, senders that wait in the kernel, and sends
// that failed because its queue was full.
func receiverDoesNotRead(c *Case) *Finding {
	manager := name("systemd", uint32(c.Manager.PID))
	queue := ""
	if c.Manager.Queued != nil && c.Manager.MaxQueued != nil {
		queue = fmt.Sprintf(", %d messages wait in its queue of %d", *c.Manager.Queued, *c.Manager.MaxQueued)
	}
	// Who answers reads: messages come first (systemd: EVENT_PRIORITY_NOTIFY).
	if why, isStuck := stuck[c.Manager.State]; isStuck && c.Manager.Silent != "" {
		f := &Finding{
			Certainty: Certain,
			Because:   fmt.Sprintf("the service manager %s does not read what is sent to it: %s%s%s", manager, why, queue, hanging(c)),
			Change:    "find out what it waits for (cat /proc/" + fmt.Sprint(c.Manager.PID) + "/stack)",
		}
		if c.Manager.State == 'T' {
			f.Change = fmt.Sprintf("let it go on: kill -CONT %d", c.Manager.PID)
		}
		return f
	}
	// That it does not answer in time alone says nothing: the machine may be busy. And one that answers reads: who hangs for
	// a moment then sends too fast.
	if who := hanging(c); who != "" && !c.Manager.Floods && (len(c.Hangs) > 0 || c.Manager.Silent != "") {
		return &Finding{
			Certainty: Certain, Because: "the service manager " + manager + " has not read for a while" + queue + who,
			Change: "send less often, or find out what keeps it busy",
		}
	}
	for i := range c.Said {
		if s := &c.Said[i]; s.Event.Result.Errno == "EAGAIN" {
			return &Finding{
				Certainty: Certain,
				Because: fmt.Sprintf("%s could not send %s: EAGAIN, the queue of the notify socket was full because %s did "+
					"not read, and it does not wait",
					s.Who(), quoted(s.Text()), manager),
				Change: "let the program wait or send it again, and send less often",
			}
		}
	}
	return nil
}

// hanging names a process that waits to send, as a part of a sentence.
func hanging(c *Case) string {
	if len(c.Hangs) > 0 {
		h := c.Hangs[len(c.Hangs)-1]
		return fmt.Sprintf(", and %s hangs in its send for %s", name(h.Sender.Comm, h.Sender.PID), Span(c.Now.Sub(h.Since).Round(time.Second/10)))
	}
	for i := range c.Processes {
		if p := &c.Processes[i]; p.Sends {
			return ", and " + p.String() + " hangs in its send"
		}
	}
	return ""
}
