// SPDX-License-Identifier: Apache-2.0

//go:build linux

package why

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/pkg/events"
)

// exitBeforeReady is seen by a unit that has failed because its main process ended without having been ready.
func exitBeforeReady(c *Case) *Finding {
	if !c.IsOver() || !c.Notifies() || c.Service.Active >= c.Began() && c.Service.Active != 0 && c.Began() != 0 {
		return nil
	}
	if s := c.Latest("READY"); s != nil && s.Is("READY", "1", events.Heeded) {
		return nil
	}
	if c.Service.Result != "protocol" && c.Service.Result != "exit-code" && c.Service.Result != "signal" && c.Service.Result != "core-dump" {
		return nil
	}
	f := &Finding{
		Certainty: Certain,
		Because:   fmt.Sprintf("the main process of %s ended (%s) before READY=1", c.Unit, ended(c)),
		Change:    "see journalctl -u " + c.Unit + " for why it ended",
	}
	if c.Service.Result == "protocol" {
		f.Because += ", which Type=" + c.Service.Now.Type + " takes for a failure"
		f.Change = "let the main process live and say READY=1; for a program that goes into the background or ends at " +
			"once, set Type=forking or oneshot"
	}
	return f
}

// startFailures are the statuses by which the service manager says that it could not start the program
// (systemd.exec(5), process exit codes).
var startFailures = map[int]string{
	200: "WorkingDirectory= cannot be entered", 203: "the program cannot be executed: it is missing, or not executable",
	209: "the standard output cannot be set up", 210: "RootDirectory= cannot be entered", 216: "Group= cannot be taken on", 217: "User= cannot be taken on",
	218: "capabilities cannot be set", 226: "the mount namespace cannot be set up", 227: "NoNewPrivileges= cannot be set", 228: "SystemCallFilter= cannot be set up",
	229: "SELinuxContext= cannot be set", 231: "AppArmorProfile= cannot be set", 233: "RuntimeDirectory= cannot be made", 238: "StateDirectory= cannot be made",
}

// ended says how the main process ended (siginfo_t: si_code).
func ended(c *Case) string {
	const exited, killed, dumped = 1, 2, 3
	switch s := c.Service; s.MainCode {
	case exited:
		if why := startFailures[s.MainStatus]; why != "" {
			return fmt.Sprintf("status %d: %s", s.MainStatus, why)
		}
		return fmt.Sprintf("status %d", s.MainStatus)
	case killed:
		return "killed by " + unix.SignalName(unix.Signal(s.MainStatus))
	case dumped:
		return "killed by " + unix.SignalName(unix.Signal(s.MainStatus)) + ", core dumped"
	}
	return "in an unknown way"
}
