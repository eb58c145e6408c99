// SPDX-License-Identifier: Apache-2.0

//go:build linux

package why

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sdtrace/sdtrace/internal/access"
	"github.com/sdtrace/sdtrace/internal/field"
	"github.com/sdtrace/sdtrace/pkg/events"
)

// relayWithholds is seen by a message that a relay has read, and has not passed on.
func relayWithholds(c *Case) *Finding {
	if c.Awaits() == "" && !c.IsOver() {
		return nil
	}
	key, _, _ := strings.Cut(c.Awaits(), "=")
	for i := len(c.Said) - 1; i >= 0; i-- {
		s := &c.Said[i]
		if w := s.Withheld; w != nil && holds(w.Message, key) {
			return &Finding{
				Certainty: Likely,
				Because: fmt.Sprintf("%s has read %s of %s and has not passed it on to the service manager",
					name(w.Relay.Comm, w.Relay.PID), messageText(w.Message), s.Who()),
				Change: "use a relay that passes it on: sdtrace relay, or for podman --sdnotify=container",
			}
		}
	}
	for i := range c.Processes {
		p := &c.Processes[i]
		if p.Elsewhere && slices.Contains(field.Relays, p.To.Comm) && p.Leads.State == access.OK && relayed(c, p) {
			return &Finding{
				Certainty: Likely,
				Because:   fmt.Sprintf("%s notifies a relay, %s, which has passed nothing on since", p.String(), name(p.To.Comm, p.To.PID)),
				Change:    "use a relay that passes all of it on, such as sdtrace relay",
			}
		}
	}
	return nil
}

func holds(m events.Message, key string) bool {
	return slices.ContainsFunc(m, func(a events.Assignment) bool { return key == "" || a.Key == key })
}

func messageText(m events.Message) string {
	var lines []string
	for _, a := range m {
		lines = append(lines, a.Key+"="+a.Value)
	}
	return events.Escape(strings.Join(lines, " "))
}

// relayed reports whether a process has said something to a relay.
func relayed(c *Case, p *Process) bool {
	return slices.ContainsFunc(c.Said, func(s Said) bool { return s.Event.Sender.PID == p.PID && !s.Event.Result.Failed() })
}
