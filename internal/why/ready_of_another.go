// SPDX-License-Identifier: Apache-2.0

//go:build linux

package why

import (
	"fmt"

	"github.com/sdtrace/sdtrace/pkg/events"
)

// readyOfAnother is seen by READY=1 that was heeded of another program than the main process's.
func readyOfAnother(c *Case) *Finding {
	if c.Service == nil || c.Phase() != Running {
		return nil
	}
	for i := range c.Said {
		s := &c.Said[i]
		if !s.Is("READY", "1", events.Heeded) {
			continue
		}
		v := s.Verdict
		if v.MainBefore != nil && v.MainBefore.PID != 0 && v.From.PID == v.MainBefore.PID && s.Event.Sender.PID != v.From.PID &&
			s.Event.Sender.Comm != "systemd-notify" {
			return &Finding{
				Certainty: Certain, Note: true,
				Because: fmt.Sprintf("%s is active because %s said READY=1 in the name of its main process %s "+
					"(SCM_CREDENTIALS), as root may: NotifyAccess= does not keep it from that",
					c.Unit, name(s.Event.Sender.Comm, s.Event.Sender.PID), name(v.From.Comm, v.From.PID)),
				Change: "if it is not to speak for the service, start it without NOTIFY_SOCKET",
			}
		}
		if v.MainBefore == nil || v.MainBefore.PID == 0 || v.From.PID == v.MainBefore.PID || s.Event.Sender.Comm == "systemd-notify" ||
			v.From.Comm == v.MainBefore.Comm {
			return nil
		}
		main := name(v.MainBefore.Comm, v.MainBefore.PID)
		return &Finding{
			Certainty: Likely, Note: true,
			Because: fmt.Sprintf("%s is active because %s said READY=1, which is not its main process %s (NotifyAccess=%s "+
				"lets it): the main process may not be ready",
				c.Unit, s.Who(), main, c.Service.Now.NotifyAccess),
			Change: "if it is not to speak for the service, set NotifyAccess=main or start it without NOTIFY_SOCKET",
		}
	}
	return nil
}
