// SPDX-License-Identifier: Apache-2.0

//go:build linux

package why

import (
	"fmt"
	"strings"

	"github.com/sdtrace/sdtrace/internal/access"
	"github.com/sdtrace/sdtrace/pkg/events"
)

// leadsNowhere is seen by a NOTIFY_SOCKET that the process cannot reach.
func leadsNowhere(c *Case) *Finding {
	if c.IsOver() {
		return leadNowhere(c)
	}
	if c.Awaits() == "" || notDelivered(c) != nil { // who has tried tells more
		return nil
	}
	for i := range c.Processes {
		p := &c.Processes[i]
		if !p.Main && c.Service.Now.NotifyAccess == "main" || p.Executed == nil || p.Executed.NotifySocket == nil {
			continue
		}
		reason, change := unreachable(c, p, *p.Executed.NotifySocket)
		if reason == "" {
			continue
		}
		f := &Finding{
			Certainty: Certain,
			Because:   fmt.Sprintf("%s cannot send %s: %s", p, c.Awaits(), reason), Change: change,
		}
		if !p.Main || c.Phase() == Running {
			f.Certainty = Likely // another one may be to notify
		}
		return f
	}
	return nil
}

// leadNowhere is the same for a unit that is over, as a capture has seen it.
func leadNowhere(c *Case) *Finding {
	if c.Service.Result != "timeout" && c.Service.Result != "watchdog" {
		return nil
	}
	for i := len(c.News) - 1; i >= 0; i-- {
		u := c.News[i]
		if u.News != events.UnitWaits || u.Trouble == "" || u.Main == nil {
			continue
		}
		return &Finding{
			Certainty: Certain,
			Because:   fmt.Sprintf("the main process %s could not send %s: %s", name(u.Main.Comm, u.Main.PID), u.Awaits, u.Trouble),
			Change:    "let NOTIFY_SOCKET lead to the service manager for it",
		}
	}
	return nil
}

// unreachable says why a process does not reach its notify socket, and what to change.
func unreachable(c *Case, p *Process, socket string) (reason, change string) {
	if !strings.HasPrefix(socket, "/") && !strings.HasPrefix(socket, "@") && !strings.HasPrefix(socket, "vsock") {
		return fmt.Sprintf("NOTIFY_SOCKET=%s is no address that sd_notify(3) takes: a path from / on, or @ and a name",
				events.Escape(socket)),
			"do not set NOTIFY_SOCKET for the service, or to an address"
	}
	switch p.Leads.State {
	case access.Missing:
		if p.Root != "" {
			return chrooted(p, socket)
		}
		reason = "there is no " + events.Escape(socket)
		if p.MntNS != 0 && c.Manager.MntNS != 0 && p.MntNS != c.Manager.MntNS {
			reason += " in its mount namespace, which is not the service manager's"
		}
		return reason, "bind the socket there: BindReadOnlyPaths=" + socket
	case access.Nobody:
		if reason, change := hiddenByNetwork(c, p, socket); reason != "" {
			return reason, change
		}
		return "nobody reads from " + events.Escape(socket), "let NOTIFY_SOCKET lead to the service manager, or to a relay that lives"
	case access.NotSocket:
		return events.Escape(socket) + " is no socket for it", "bind the socket itself there, not a file"
	case access.WrongType:
		return events.Escape(socket) + " is no datagram socket", "make it SOCK_DGRAM"
	case access.Forbidden:
		return denial(p)
	}
	return "", ""
}
