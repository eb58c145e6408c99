// SPDX-License-Identifier: Apache-2.0

//go:build linux

package why

import "fmt"

// childWithoutVariable is seen by a main process with NOTIFY_SOCKET that has started another program without it.
func childWithoutVariable(c *Case) *Finding {
	main := c.Main()
	if !c.silent() || main == nil || main.Executed == nil || main.Executed.NotifySocket == nil {
		return nil
	}
	for i := range c.Processes {
		p := &c.Processes[i]
		if p.Main || p.Executed == nil || p.Executed.NotifySocket != nil {
			continue
		}
		parent := c.process(p.PPID)
		if parent == nil || parent.Executed == nil || parent.Executed.NotifySocket == nil {
			continue
		}
		f := &Finding{
			Certainty: Likely,
			Because:   fmt.Sprintf("%s has started %s without NOTIFY_SOCKET, so that cannot say READY=1", parent, p),
			Change:    "let it keep the variable, and set NotifyAccess=all, as it is not the main process",
		}
		switch parent.Comm {
		case "sudo":
			f.Because = fmt.Sprintf("sudo[%d] has dropped NOTIFY_SOCKET from the environment of %s, so that cannot say "+
				"READY=1", parent.PID, p)
			f.Change = "set User= instead of using sudo; or sudo --preserve-env=NOTIFY_SOCKET and NotifyAccess=all"
		case "su", "runuser", "login":
			f.Because = fmt.Sprintf("%s has dropped NOTIFY_SOCKET from the environment of %s, so that cannot say READY=1", parent, p)
			f.Change = "set User= instead, or keep the variable (su --whitelist-environment=NOTIFY_SOCKET) and set NotifyAccess=all"
		}
		return f
	}
	return nil
}
