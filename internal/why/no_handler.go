// SPDX-License-Identifier: Apache-2.0

//go:build linux

package why

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// noHandler is seen by a main process that does nothing about ReloadSignal=.
func noHandler(c *Case) *Finding {
	if c.Service == nil || c.Service.Now.Type != "notify-reload" || c.Service.ReloadSignal == 0 {
		return nil
	}
	if f := readyWithoutHandler(c); f != nil {
		return f
	}
	p := c.Main()
	signal := unix.SignalName(unix.Signal(c.Service.ReloadSignal))
	if p == nil || !p.Signals || (p.Caught|p.Blocked)&(1<<(c.Service.ReloadSignal-1)) != 0 {
		return nil
	}
	f := &Finding{
		Certainty: Certain,
		Because:   fmt.Sprintf("%s does not handle %s, by which Type=notify-reload tells it to reload", p, signal),
		Change:    "let it handle the signal from before READY=1 on, or set Type=notify and ExecReload=",
	}
	// The signal ends it, or is ignored.
	switch c.Phase() {
	case Signalled:
		return f
	case Running:
		f.Because += ": a reload will end it, or hang"
		f.Note = true
		return f
	}
	return nil
}

// asksForHandler is the version of systemd from which on READY=1 is refused without a handler.
const asksForHandler = 262

// readyWithoutHandler is seen by a start that READY=1 has ended (systemd: service_notify_message).
func readyWithoutHandler(c *Case) *Finding {
	if !c.IsOver() || c.Service.Result != "protocol" || c.Manager.Version < asksForHandler {
		return nil
	}
	s := c.Latest("READY")
	if s == nil || s.Event.Result.Failed() {
		return nil
	}
	return &Finding{
		Certainty: Likely,
		Because: fmt.Sprintf("%s of %s ended the start: the main process neither handles nor blocks %s, by which "+
			"Type=notify-reload tells it to reload",
			quoted(s.Text()), s.Who(), unix.SignalName(unix.Signal(c.Service.ReloadSignal))),
		Change: "install the handler before READY=1, or set Type=notify and ExecReload=",
	}
}
