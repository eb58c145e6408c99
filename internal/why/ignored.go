// SPDX-License-Identifier: Apache-2.0

//go:build linux

package why

import (
	"fmt"
	"strings"

	"github.com/sdtrace/sdtrace/pkg/events"
)

// ignored is seen by the verdict on the message that was waited for, or on one that was meant to be it.
func ignored(c *Case) *Finding {
	key := "READY"
	switch c.Phase() {
	case Starting, Preparing, Finishing:
	case Signalled:
		if reloadUntimed(c) != nil {
			return nil // which says the same, and how long it goes on
		}
		key = "RELOADING"
	case Notifying:
	case Running, Restarting, Failed, Dead:
		return ignoredBefore(c)
	default:
		return nil
	}
	if s, l := refused(c, key); l != nil {
		return ignoredOf(c, s, l)
	}
	if s := c.Latest(key); s != nil && s.Is(key, "1", events.Heeded) {
		return nil // the unit is about to go on
	}
	if s, l := refused(c, ""); l != nil {
		return ignoredOf(c, s, l)
	}
	return nil
}

// ignoredBefore is the same for a unit that is up, or over.
func ignoredBefore(c *Case) *Finding {
	result := c.Service.Result
	if c.IsOver() && (result == "timeout" || result == "protocol") {
		if s, l := refused(c, "READY"); l != nil {
			return ignoredOf(c, s, l)
		}
		if s, l := refused(c, ""); l != nil {
			return ignoredOf(c, s, l)
		}
		return nil
	}
	if result == "watchdog" || c.Watchdog() != 0 {
		if s, l := refused(c, "WATCHDOG"); l != nil && s.Event.Time.After(c.Wall(c.Service.Pinged)) {
			return ignoredOf(c, s, l)
		}
	}
	// What else was ignored is worth a word, and no problem as long as the unit is up.
	for i := range c.Said {
		s := &c.Said[i]
		if l := firstRefused(s); l != nil {
			f := ignoredOf(c, s, l)
			// Unless the latest reload has failed of it.
			f.Note = l.Key != "RELOADING" || c.Service.ReloadResult == "" || c.Service.ReloadResult == "success"
			return f
		}
	}
	return nil
}

// refused is the latest assignment with a key that was not heeded, "" for any, nil if none was, or a later one was heeded.
func refused(c *Case, key string) (said *Said, line *events.LineVerdict) {
	for i := len(c.Said) - 1; i >= 0; i-- {
		s := &c.Said[i]
		if s.Verdict == nil || string(s.Event.Payload) == "BARRIER=1" {
			continue
		}
		if key == "" {
			if l := firstRefused(s); l != nil {
				return s, l
			}
			continue
		}
		l := s.Line(key, "")
		if l == nil {
			continue
		}
		if l.Outcome == events.Heeded {
			return nil, nil
		}
		if isRefusal(l) {
			return s, l
		}
	}
	return nil, nil
}

func firstRefused(s *Said) *events.LineVerdict {
	if s.Verdict == nil || string(s.Event.Payload) == "BARRIER=1" {
		return nil
	}
	for i := range s.Verdict.Lines {
		if l := &s.Verdict.Lines[i]; isRefusal(l) && l.Key != "MAINPID" && l.Key != "MAINPIDFD" { // mainPIDRefused tells of those
			return l
		}
	}
	return nil
}

// isRefusal reports whether something is to be changed so that an assignment is heeded.
func isRefusal(l *events.LineVerdict) bool {
	return l.Outcome == events.Ignored || l.Outcome == events.NoEffect && l.Cure != "" && l.Rule != "D5"
}

// ignoredOf says why an assignment was not heeded.
func ignoredOf(c *Case, s *Said, l *events.LineVerdict) *Finding {
	line := l.Key
	if l.Value != "" {
		line += "=" + l.Value
	}
	outcome := "was ignored"
	if l.Outcome == events.NoEffect {
		outcome = "has no effect"
	}
	said := events.Escape(line)
	if said == "" {
		said = quoted(s.Text()) // it is about the whole datagram
	}
	f := &Finding{Certainty: sure(c, l), Change: l.Cure}
	f.Because = fmt.Sprintf("%s of %s %s: %s", said, s.Who(), outcome, l.Reason)
	if l.Rule != "D3" {
		return f
	}
	// What it counts as, and what is taken.
	main := c.Main()
	access := c.Service.Now.NotifyAccess
	if access == "main" && main != nil {
		f.Because = fmt.Sprintf("%s of %s %s: that is not the main process %s, and NotifyAccess=main takes messages "+
			"from the main process alone",
			said, s.Who(), outcome, main)
	}
	if s.Event.Sender.Comm == "systemd-notify" || strings.Contains(s.Event.Sender.Exe, "systemd-notify") {
		f.Change = "set NotifyAccess=all, or let the main process itself call systemd-notify with exec"
		if refused := s.Event.Refused; refused != nil {
			f.Because += fmt.Sprintf("; systemd-notify has tried to speak for its parent first, which takes root (%s)", refused.Errno)
		}
	}
	if access == "main" && l.Key == "READY" && main != nil && main.Comm != s.Event.Sender.Comm && s.Event.Sender.Comm != "systemd-notify" {
		f.Change += "; if it is not to speak for the service, start it without NOTIFY_SOCKET"
	}
	return f
}
