// SPDX-License-Identifier: Apache-2.0

//go:build linux

package why

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/sdtrace/sdtrace/pkg/events"
)

// notHeeded is seen by a message that was waited for, has arrived, and has changed nothing, where the verdict on it is
// not known.
func notHeeded(c *Case) *Finding {
	awaits, still := c.Awaits(), "and the unit still waits"
	if c.IsOver() && c.Service.Result == "timeout" && c.Notifies() && c.Service.Active < c.Began() {
		awaits, still = "READY=1", "and the unit went on waiting"
	}
	key, value, _ := strings.Cut(awaits, "=")
	if awaits == "" || c.Phase() == Running {
		return nil
	}
	s := c.Latest(key)
	const reads = time.Second // or it is not read yet
	if s == nil || s.Event.Result.Failed() || !c.IsOver() && s.Event.Time.Before(c.Wall(c.Service.Changed)) || c.Now.Sub(s.Event.Time) < reads {
		return nil
	}
	if l := s.Line(key, ""); l != nil && l.Outcome != events.Unknown {
		return nil
	}
	if said, _ := s.Value(key); said != value || !c.isToManager(s.Event) {
		return nil
	}
	from := s.Event.Sender.PID
	if s.Event.Claimed != nil && s.Event.Claimed.PID != 0 {
		from = s.Event.Claimed.PID
	}
	main := c.mainAt(s)
	f := &Finding{
		Certainty: Likely,
		Because:   fmt.Sprintf("%s of %s was sent %s ago %s: ", awaits, s.Who(), Span(c.Now.Sub(s.Event.Time)), still),
	}
	switch access := c.Service.Now.NotifyAccess; {
	case access == "main" && main != nil && from != main.PID:
		f.Because += fmt.Sprintf("that is not the main process %s, and NotifyAccess=main takes messages from the main "+
			"process alone", name(main.Comm, main.PID))
		f.Change = "set NotifyAccess=all, or let the main process send"
	case s.Gone:
		f.Because += "the sender was over when the service manager read it, which cannot tell whose it is then"
		f.Change = "let the sender wait with sd_notify_barrier(3), as systemd-notify does, or let a process send that stays"
	case s.Event.Claimed == nil && elsewhere(c, &s.Event.Sender.Identity) != "":
		f.Because += fmt.Sprintf("the sender is in %s, and the service manager goes by the control group of the sender, "+
			"whatever NotifyAccess= says", elsewhere(c, &s.Event.Sender.Identity))
		f.Change = "send from a process in the control group of the service, or let sdtrace relay pass it on"
	default:
		return nil
	}
	return f
}

// elsewhere names where a sender is if that is not in the unit, else it is "".
func elsewhere(c *Case, sender *events.Identity) string {
	unit := cmp.Or(sender.UserUnit, sender.Unit)
	switch container := sender.Container; {
	case unit == "" || unit == c.Unit:
		return ""
	case container != nil && container.ID != "":
		return "the container " + events.Escape(cmp.Or(container.Name, container.ID))
	}
	return events.Escape(unit)
}

// isToManager reports whether a datagram was sent to the service manager, as far as is known, rather than to a relay.
func (c *Case) isToManager(e *events.Event) bool {
	if e.Socket.Inode != 0 && c.Manager.Inode != 0 {
		return uint32(e.Socket.Inode) == c.Manager.Inode
	}
	return c.Manager.NotifySocket == "" || e.Socket.Address == "" || e.Socket.Address == c.Manager.NotifySocket
}

// mainAt is the main process when a message was sent, nil when it is not known.
func (c *Case) mainAt(s *Said) *events.Process {
	switch {
	case s.Verdict != nil && s.Verdict.MainBefore != nil && s.Verdict.MainBefore.PID != 0:
		return s.Verdict.MainBefore
	case c.Main() != nil:
		return &c.Main().Process
	case len(c.News) > 0 && c.News[len(c.News)-1].Main != nil && c.News[len(c.News)-1].Main.PID != 0:
		return c.News[len(c.News)-1].Main
	case c.Service.LatestMain != nil && *c.Service.LatestMain != 0:
		return &events.Process{PID: *c.Service.LatestMain}
	}
	return nil
}
