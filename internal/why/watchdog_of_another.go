// SPDX-License-Identifier: Apache-2.0

//go:build linux

package why

import (
	"fmt"
	"strconv"
)

// watchdogOfAnother is seen by a WATCHDOG_PID that is not the process's own, which pings then no more
// (sd_watchdog_enabled(3)).
func watchdogOfAnother(c *Case) *Finding {
	if c.Watchdog() == 0 || c.Phase() != Running || c.pinged() {
		return nil
	}
	for i := range c.Processes {
		p := &c.Processes[i]
		env := p.Executed
		if env == nil || env.WatchdogPID == nil || env.NotifySocket == nil {
			continue
		}
		if of, err := strconv.Atoi(*env.WatchdogPID); err == nil && uint32(of) != p.NSPID && (!p.Main || p.NSPID != 0) {
			if p.Main || i == len(c.Processes)-1 || c.Main() != nil && isLauncher(c.Main()) {
				return &Finding{
					Certainty: Likely,
					Because: fmt.Sprintf("no ping comes: WATCHDOG_PID=%s in the environment of %s is another process, so "+
						"sd_watchdog_enabled(3) tells it not to ping; %s",
						*env.WatchdogPID, p, runsOut(c)),
					Change: "execute it as the process that systemd has started (exec in the shell script), or set WATCHDOG_PID to its own",
				}
			}
		}
	}
	return nil
}

// isLauncher reports whether a process is a shell or the like, which pings nobody.
func isLauncher(p *Process) bool {
	switch p.Comm {
	case "sh", "bash", "dash", "ash", "zsh", "sudo", "su", "runuser", "env", "tini", "dumb-init", "timeout":
		return true
	}
	return false
}
