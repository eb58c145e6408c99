// SPDX-License-Identifier: Apache-2.0

package render

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/sdtrace/sdtrace/internal/field"
	"github.com/sdtrace/sdtrace/pkg/events"
)

// AppendUnit appends u to b as one line, its '\n' included.
func (t Text) AppendUnit(b []byte, u *events.Unit) []byte {
	b = t.appendTime(b, u.Time)
	b = append(b, ' ')
	b = t.appendColumn(b, styleBold, whoWidth, func(b []byte) []byte {
		return appendProcess(b, field.ServiceManager, u.Manager.PID)
	})
	b = append(b, ' ')
	b = t.appendColumn(b, styleCyan, groupWidth, func(b []byte) []byte { return appendGroup(b, &u.Identity, "") })
	b = t.appendNews(append(b, ' '), u)
	return append(b, '\n')
}

// AppendHang appends h to b as one line, its '\n' included.
func (t Text) AppendHang(b []byte, h *events.Hang) []byte {
	b = t.appendTime(b, h.Time)
	b = append(b, ' ')
	b = t.appendColumn(b, styleBold, whoWidth, func(b []byte) []byte { return appendProcess(b, h.Sender.Comm, h.Sender.PID) })
	b = append(b, ' ')
	b = t.appendColumn(b, styleCyan, groupWidth, func(b []byte) []byte { return appendGroup(b, &h.Sender.Identity, "") })
	b = append(b, " -> "...)
	b = t.appendColumn(b, "", socketWidth, func(b []byte) []byte { return appendWord(b, string(h.Address)) })
	b = append(b, ' ')
	return append(t.appendHanging(b, h), '\n')
}

// states are the words for the states of a process (proc_pid_stat(5)).
var states = map[string]string{
	"T": "stopped", "t": "stopped by a debugger", "D": "waiting for a disk or the like", "R": "busy", "Z": "over", "S": "sleeping",
}

// appendHanging appends how long a send does not return, and why.
func (t Text) appendHanging(b []byte, h *events.Hang) []byte {
	b = t.appendStyled(b, styleFailure, func(b []byte) []byte {
		return fmt.Appendf(b, "HANGS for %s", roughly(h.Time.Sub(h.Since)))
	})
	if h.Queued != nil && h.MaxQueued != nil {
		b = fmt.Appendf(b, ", queue %d of %d", *h.Queued, *h.MaxQueued)
	}
	b = appendProcess(append(b, ", reader "...), h.Receiver.Comm, h.Receiver.PID)
	if state := states[h.State]; state != "" {
		b = append(append(b, " is "...), state...)
	}
	return b
}

// newsWords are the words for what is told of units, and how they are marked up.
var newsWords = map[events.UnitNews]struct{ word, style string }{
	events.UnitWaits:   {"WAITING", styleYellow},
	events.UnitOverdue: {"OVERDUE", styleFailure},
	events.UnitStarted: {"STARTED", styleYellow},
	events.UnitFailed:  {"FAILED", styleFailure},
	events.UnitIs:      {"is", styleDim},
}

// appendNews appends what there is to know of a unit.
func (t Text) appendNews(b []byte, u *events.Unit) []byte {
	kind := newsWords[u.News]
	b = t.appendStyled(b, kind.style, func(b []byte) []byte { return append(b, kind.word...) })
	b = append(b, ' ')
	switch u.News {
	case events.UnitWaits:
		return appendWaits(b, u)
	case events.UnitOverdue:
		b = fmt.Appendf(b, "no ping for %s%s (WatchdogSec)", elapsed(u), ofLimit(u))
		if u.Last != nil {
			return appendProcess(append(b, ", the last was from "...), u.Last.Comm, u.Last.PID)
		}
		return append(b, ", and none before as far as is known"...)
	case events.UnitStarted:
		b = append(b, "main process "...)
		b = appendMainOf(b, u)
		if u.Restarts != nil && *u.Restarts > 0 {
			b = fmt.Appendf(b, ", restart %d", *u.Restarts)
		}
		return b
	case events.UnitFailed:
		b = appendWord(append(b, "Result="...), u.Result)
		if why := resultMeans[u.Result]; why != "" {
			b = append(append(b, ": "...), why...)
		}
		return b
	}
	b = events.AppendEscaped(b, u.ActiveState, false)
	b = append(events.AppendEscaped(append(b, " ("...), u.SubState, false), ')')
	if !u.Since.IsZero() {
		b = fmt.Appendf(b, " for %s", elapsed(u))
	}
	if u.Type != "" {
		b = events.AppendEscaped(append(b, ", Type="...), u.Type, false)
	}
	if u.Main != nil && u.Main.PID != 0 {
		b = appendMainOf(append(b, ", main process "...), u)
	}
	b = append(b, ", and nothing was said since the capture began"...)
	return appendAsk(b, u)
}

// appendAsk appends which command says more of a unit.
func appendAsk(b []byte, u *events.Unit) []byte {
	name := strings.TrimSuffix(cmp.Or(u.UserUnit, u.Unit), ".service")
	if name == "" {
		return b
	}
	b = append(b, " (sdtrace why "...)
	if u.Machine != "" || u.UserUnit != "" {
		b = fmt.Appendf(b, "--manager %d ", u.Manager.PID)
	}
	return append(events.AppendEscaped(b, name, false), ')')
}

// resultMeans says what a Result= of systemd.exec(5) means for who waits for notifications.
var resultMeans = map[string]string{
	"watchdog":        "no ping came in time (WatchdogSec)",
	"timeout":         "what was waited for did not come in time",
	"protocol":        "the main process ended without READY=1",
	"start-limit-hit": "it was started too often",
	"exit-code":       "the main process ended with a status that is no success",
	"signal":          "the main process was killed by a signal",
	"core-dump":       "the main process was killed by a signal, and dumped core",
	"oom-kill":        "a process was killed because memory was short",
	"resources":       "the service manager could not start it",
	"exec-condition":  "ExecCondition= was against it",
}

func appendWaits(b []byte, u *events.Unit) []byte {
	b = events.AppendEscaped(b, u.ActiveState, false)
	b = append(events.AppendEscaped(append(b, " ("...), u.SubState, false), ") for "...)
	b = append(b, elapsed(u)...)
	setting := "TimeoutStartSec"
	if u.ActiveState == "deactivating" {
		setting = "TimeoutStopSec"
	}
	if of := ofLimit(u); of != "" {
		b = append(append(b, of...), " ("+setting+")"...)
	}
	switch {
	case u.Awaits == "RELOADING=1":
		b = append(b, ", for RELOADING=1 with MONOTONIC_USEC= in one message"...)
	case u.Awaits != "":
		b = append(append(b, ", for "...), u.Awaits...)
	case u.ActiveState == "deactivating":
		b = append(b, ", for its processes to end"...)
	}
	if u.Awaits == "" {
		return b
	}
	if u.Last == nil {
		b = append(b, ": nothing was said yet"...)
	} else {
		b = appendProcess(append(b, ": "...), u.Last.Comm, u.Last.PID)
		b = appendSaid(append(b, " has said "...), u.Said)
	}
	if u.Trouble != "" {
		b = append(b, "; "...)
		if u.Main != nil && u.Main.PID != 0 {
			b = append(appendProcess(b, u.Main.Comm, u.Main.PID), ": "...)
		}
		b = events.AppendEscaped(b, u.Trouble, false)
	}
	return b
}

// appendSaid appends a message line by line.
func appendSaid(b []byte, said string) []byte {
	for i, line := range strings.FieldsFunc(said, func(r rune) bool { return r == '\n' || r == '\r' }) {
		if i > 0 {
			b = append(b, ' ')
		}
		b = appendLine(b, line, false)
	}
	return b
}

func appendMainOf(b []byte, u *events.Unit) []byte {
	if u.Main == nil {
		return append(b, "unknown"...)
	}
	return appendProcess(b, u.Main.Comm, u.Main.PID)
}

// elapsed is how long the unit is so, rounded.
func elapsed(u *events.Unit) string { return roughly(u.Time.Sub(u.Since)) }

// ofLimit is the limit as a part of a sentence, "" for none.
func ofLimit(u *events.Unit) string {
	if u.Limit == 0 {
		return ""
	}
	return " of " + roughly(u.Limit)
}

// roughly is a span for people: tenths of a second below ten.
func roughly(d time.Duration) string {
	if d < 10*time.Second {
		return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + "s"
	}
	text := d.Round(time.Second).String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	return text
}
