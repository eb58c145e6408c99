// SPDX-License-Identifier: Apache-2.0

package render

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/sdtrace/sdtrace/internal/access"
	"github.com/sdtrace/sdtrace/internal/timespan"
	"github.com/sdtrace/sdtrace/internal/why"
	"github.com/sdtrace/sdtrace/pkg/events"
)

const (
	// toldMost is how many messages of a unit are shown, the latest ones, listedMost how many of its processes.
	toldMost, listedMost = 12, 8
)

// wholeID is the id of a container, of which the first twelve digits are shown, as docker does.
var wholeID = regexp.MustCompile(`\b([0-9a-f]{12})[0-9a-f]{52}\b`)

// AppendWhy appends what is known of a unit to b, and why that is so.
func (t Text) AppendWhy(b []byte, c *why.Case, found []why.Finding) []byte {
	return append(b, wholeID.ReplaceAll(t.appendWhy(nil, c, found), []byte("$1"))...)
}

func (t Text) appendWhy(b []byte, c *why.Case, found []why.Finding) []byte {
	b = t.appendStyled(b, styleBold, func(b []byte) []byte { return events.AppendEscaped(b, c.Unit, false) })
	b = append(b, ": "...)
	b = append(b, State(c)...)
	b = append(b, '\n')
	b = appendSettings(b, c)
	b = t.appendTold(b, c)
	b = appendProcesses(b, c)
	for _, f := range found {
		if !f.Note {
			b = t.appendFinding(b, &f)
			break
		}
	}
	if len(found) == 0 || found[0].Note {
		b = append(append(b, Untroubled(c)...), '\n')
	}
	first := true
	for i := range found {
		f := &found[i]
		if !f.Note && first {
			first = false // it was said
			continue
		}
		word := "also (" + string(f.Certainty) + "): "
		if f.Note {
			word = "note (" + string(f.Certainty) + "): "
		}
		b = appendSentence(append(b, word...), f.Because)
		if f.Change != "" {
			b = appendSentence(append(b[:len(b)-1], " Change: "...), f.Change)
		}
	}
	return b
}

func (t Text) appendFinding(b []byte, f *why.Finding) []byte {
	b = t.appendStyled(b, styleFailure, func(b []byte) []byte { return append(b, "cause ("+string(f.Certainty)+"): "...) })
	b = appendSentence(b, f.Because)
	if f.Change != "" {
		b = t.appendStyled(b, styleBold, func(b []byte) []byte { return append(b, "change: "...) })
		b = appendSentence(b, f.Change)
	}
	return b
}

// appendSentence appends a sentence with a full stop, as a line.
func appendSentence(b []byte, sentence string) []byte {
	return append(events.AppendEscaped(b, sentence, false), ".\n"...)
}

// State says in which state a unit is, since when, and what the service manager waits for.
func State(c *why.Case) string {
	s := c.Service
	if s == nil {
		return fmt.Sprintf("the service manager systemd[%d] does not answer", c.Manager.PID)
	}
	text := fmt.Sprintf("%s (%s)", s.ActiveState, s.Now.SubState)
	if s.Changed != 0 {
		text += " for " + roughly(c.For())
	}
	if limit, setting := c.Limit(); limit != 0 {
		text += fmt.Sprintf(" of %s (%s)", roughly(limit), setting)
	}
	switch c.Phase() {
	case why.Running:
		if interval := c.Watchdog(); interval != 0 {
			since := c.Monotonic - s.Pinged
			text += fmt.Sprintf(", the next ping within %s of %s (WatchdogSec)", roughly(max(0, interval-since)), roughly(interval))
		}
	case why.Preparing, why.Finishing, why.Reloading:
		text += ", waits for a command to end"
	case why.Stopping:
		text += ", waits for its processes to end"
	case why.Signalled:
		text += ", waits for RELOADING=1 with MONOTONIC_USEC="
	case why.Starting:
		if c.Awaits() == "" {
			text += ", waits for its start command to end (Type=" + s.Now.Type + ")"
			break
		}
		text += ", waits for READY=1"
	case why.Notifying:
		text += ", waits for READY=1"
	case why.Restarting:
		text += ", is started again soon, Result=" + s.Result
	case why.Failed:
		text += ", Result=" + s.Result
	case why.Waiting:
		text += ", its start is queued"
	}
	return events.Escape(text)
}

// Untroubled says how a unit is with which nothing is wrong as far as is known.
func Untroubled(c *why.Case) string {
	switch c.Phase() {
	case why.Running:
		return "healthy: it is up, and nothing is waited for in vain as far as is known."
	case why.Dead:
		return "it is not started."
	}
	if c.Service == nil {
		return "cause unknown: the service manager has not answered in time (" + events.Escape(c.Manager.Silent) + ")."
	}
	text := "cause unknown: nothing was found that is in the way"
	if c.Awaits() != "" && !c.Captured() {
		text += "; what it says is not captured (sdtrace why --restart shows it from the start)"
	}
	return text + "."
}

func appendSettings(b []byte, c *why.Case) []byte {
	s := c.Service
	if s == nil {
		return b
	}
	var facts []string
	add := func(format, value string) {
		if value != "" {
			facts = append(facts, fmt.Sprintf(format, value))
		}
	}
	add("Type=%s", events.Escape(s.Now.Type))
	add("NotifyAccess=%s", events.Escape(s.Now.NotifyAccess))
	if s.Restarts > 0 {
		facts = append(facts, fmt.Sprintf("restarted by itself %d times", s.Restarts))
	}
	if text := s.Now.StatusText; text != nil && *text != "" {
		add("status %s", string(appendQuoted(nil, *text)))
	}
	if c.Manager.Version != 0 {
		facts = append(facts, fmt.Sprintf("systemd %d", c.Manager.Version))
	}
	if len(facts) == 0 {
		return b
	}
	return append(append(append(b, "  "...), strings.Join(facts, ", ")...), '\n')
}

// appendTold appends what the unit has said.
func (t Text) appendTold(b []byte, c *why.Case) []byte {
	if len(c.Sources) == 0 {
		return append(b, "  said: not captured; what is told here is by the service manager and the processes\n"...)
	}
	for _, s := range c.Sources {
		b = fmt.Appendf(b, "  said, by %s since %s", events.Escape(s.Name), s.Since.Local().Format(time.TimeOnly))
		if s.Filters != "" && !s.Covers {
			b = fmt.Appendf(b, " (%s only)", events.Escape(s.Filters))
		}
		if s.Lost > 0 {
			b = append(append(b, ", which has lost "...), appendCount(nil, s.Lost, "datagram")...)
		}
		b = append(b, '\n')
	}
	if len(c.Said) == 0 {
		b = append(b, "    nothing\n"...)
	}
	said := c.Said
	if more := len(said) - toldMost; more > 0 {
		b = fmt.Appendf(b, "    (%d earlier ones)\n", more)
		said = said[more:]
	}
	for i := range said {
		b = t.appendSaidOf(append(b, "    "...), &said[i])
	}
	return b
}

func (t Text) appendSaidOf(b []byte, s *why.Said) []byte {
	e, v := s.Event, s.Verdict
	b = append(t.appendTime(b, e.Time), ' ')
	b = append(appendProcess(b, e.Sender.Comm, e.Sender.PID), ' ')
	before := len(b)
	if b = appendResult(b, e.Result, v); len(b) > before {
		b = append(b, ' ')
	}
	return t.appendMessage(b, e, v)
}

// appendProcesses appends what each process has to notify by.
func appendProcesses(b []byte, c *why.Case) []byte {
	for i := range c.Processes[:min(len(c.Processes), listedMost)] {
		p := &c.Processes[i]
		b = appendProcess(append(b, "  "...), p.Comm, p.PID)
		switch {
		case p.Main:
			b = append(b, " main"...)
		case p.Control:
			b = append(b, " control"...)
		}
		b = append(b, ": "...)
		b = append(b, strings.Join(environmentOf(p, &c.Manager), ", ")...)
		b = append(b, '\n')
	}
	if more := len(c.Processes) - listedMost; more > 0 {
		b = fmt.Appendf(b, "  (%d more processes)\n", more)
	}
	return b
}

// environmentOf says what a process has, and what is odd about it.
func environmentOf(p *why.Process, m *why.Manager) (facts []string) {
	env := p.Executed
	switch {
	case p.Unexecuted:
		return []string{"systemd has not executed its program yet"}
	case env == nil && p.Now == nil:
		return []string{"environment unknown, it has written over it"}
	case env == nil:
		env = p.Now
	}
	if env.NotifySocket == nil {
		facts = append(facts, "no NOTIFY_SOCKET")
	} else {
		facts = append(facts, "NOTIFY_SOCKET="+events.Escape(*env.NotifySocket)+" "+leads(p))
		if p.Now != nil && p.Now.NotifySocket == nil {
			facts = append(facts, "removed from its environment since")
		}
	}
	if env.WatchdogUSec != nil {
		text := "WATCHDOG_USEC=" + events.Escape(*env.WatchdogUSec)
		if span, err := time.ParseDuration(*env.WatchdogUSec + "us"); err == nil {
			text = "WATCHDOG_USEC is " + timespan.Format(span)
		}
		if of := env.WatchdogPID; of != nil && *of != fmt.Sprint(p.NSPID) {
			text += ", WATCHDOG_PID is of process " + events.Escape(*of) + ", not its own"
		}
		facts = append(facts, text)
	}
	if p.Root != "" {
		facts = append(facts, "root directory "+events.Escape(p.Root))
	}
	for _, ns := range []struct {
		name       string
		its, other uint64
	}{{"mount", p.MntNS, m.MntNS}, {"network", p.NetNS, m.NetNS}, {"pid", p.PIDNS, m.PIDNS}} {
		if ns.its != 0 && ns.other != 0 && ns.its != ns.other {
			facts = append(facts, "another "+ns.name+" namespace")
		}
	}
	if p.Label != "" && !slices.Contains([]string{"unconfined", "kernel"}, p.Label) {
		facts = append(facts, "confined as "+events.Escape(p.Label))
	}
	if p.Notifies == why.Unable {
		facts = append(facts, "its program does not know NOTIFY_SOCKET")
	}
	return facts
}

// leads says what the socket leads to for the process.
func leads(p *why.Process) string {
	switch p.Leads.State {
	case access.OK:
		if !p.Elsewhere {
			return "leads to systemd"
		}
		if p.To.PID != 0 {
			return "leads to " + string(appendProcess(nil, p.To.Comm, p.To.PID))
		}
		return "leads to another socket"
	case access.Missing:
		return "DOES NOT EXIST for it"
	case access.Nobody:
		return "leads to NOBODY"
	case access.NotSocket:
		return "is NO SOCKET for it"
	case access.WrongType:
		return "is NO DATAGRAM SOCKET"
	case access.Forbidden:
		return fmt.Sprintf("is NOT ALLOWED: uid %d %s", p.UID, p.Leads.Denied)
	}
	return "(not looked at)"
}
