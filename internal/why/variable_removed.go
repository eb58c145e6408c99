// SPDX-License-Identifier: Apache-2.0

//go:build linux

package why

import "fmt"

// variableRemoved is seen by a main process that was executed with NOTIFY_SOCKET and has it no more.
func variableRemoved(c *Case) *Finding {
	p := c.Main()
	if p == nil || p.Executed == nil || p.Executed.NotifySocket == nil || p.Now == nil || p.Now.NotifySocket != nil {
		return nil
	}
	f := &Finding{
		Certainty: Likely,
		Change:    "let it keep the variable until all has been said (sd_notify with unset_environment=0)",
	}
	switch {
	case c.silent():
		f.Because = fmt.Sprintf("%s has removed NOTIFY_SOCKET from its environment without having said READY=1, so "+
			"nothing in it can say it now", p)
	case c.Phase() == Running && c.Watchdog() != 0 && !c.pinged():
		f.Because = fmt.Sprintf("%s said READY=1 and then no WATCHDOG=1: it has removed NOTIFY_SOCKET from its "+
			"environment, so nothing in it or below it can ping; %s",
			p, runsOut(c))
	case c.Phase() == Signalled || c.Phase() == Notifying:
		f.Because = fmt.Sprintf("%s has removed NOTIFY_SOCKET from its environment, so nothing in it can say %s", p, c.Awaits())
	default:
		return nil
	}
	return f
}
