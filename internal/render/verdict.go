// SPDX-License-Identifier: Apache-2.0

package render

import (
	"slices"
	"strings"

	"github.com/sdtrace/sdtrace/internal/field"
	"github.com/sdtrace/sdtrace/pkg/events"
)

// AppendVerdict appends v to b as one line, its '\n' included.
func (t Text) AppendVerdict(b []byte, v *events.Verdict) []byte {
	by := events.Reader{PID: v.Manager.PID, Comm: field.ServiceManager}
	if v.Send != nil && v.Send.Receiver != nil {
		by.Comm, by.Identity = v.Send.Receiver.Comm, v.Send.Receiver.Identity
	}
	b = t.appendTo(b, v.Time, &by, v.Send)
	b = t.appendLate(b[:len(b)-1], v) // each part begins with a blank
	if v.Send == nil {
		return append(b, '\n')
	}
	b = append(b, ' ')
	b = t.appendPayload(b, v.Send, v)
	return append(b, '\n')
}

// appendLate appends what a verdict of its own line says.
func (t Text) appendLate(b []byte, v *events.Verdict) []byte {
	if !v.Any(events.Ignored, events.NoEffect, events.Unknown) {
		b = append(b, " heeded"...)
		if v.Send != nil {
			b = append(b, " after "...)
			b = appendDuration(b, v.Time.Sub(v.Send.Time))
		}
	}
	b = t.appendMain(b, v)
	return t.appendOutcome(b, v)
}

// appendMain appends a change of the main process.
func (t Text) appendMain(b []byte, v *events.Verdict) []byte {
	from, to := v.MainBefore, v.MainAfter
	if from == nil || to == nil || from.PID == to.PID {
		return b
	}
	return t.appendStyled(append(b, ' '), styleYellow, func(b []byte) []byte {
		b = append(b, "main process: "...)
		for i, p := range []*events.Process{from, to} {
			if i > 0 {
				b = append(b, " -> "...)
			}
			if p.PID == 0 {
				b = append(b, "none"...)
				continue
			}
			b = appendProcess(b, p.Comm, p.PID)
		}
		return b
	})
}

// outcomes are the words for what is not heeded, and how they are marked up, in the order in which
// they are said.
var outcomes = []struct {
	outcome     events.Outcome
	word, style string
}{
	{events.Ignored, "IGNORED", styleFailure},
	{events.NoEffect, "NO EFFECT", styleYellow},
	{events.Unknown, "UNKNOWN", styleDim},
	{events.Heeded, "HEEDED", styleYellow},
}

// appendOutcome appends what is not heeded, or could be better, and why: once for the whole datagram, or by
// its keys.
func (t Text) appendOutcome(b []byte, v *events.Verdict) []byte {
	if v.Pending {
		return b // more comes
	}
	whole, all := v.Whole()
	for _, o := range outcomes {
		if all && whole.Outcome == o.outcome && isToldOf(whole) {
			b = t.appendReason(b, o.style, o.word, "", whole)
			continue
		}
		var said []string
		for _, l := range v.Lines {
			if all || l.Outcome != o.outcome || !isToldOf(l) || slices.Contains(said, l.Reason) {
				continue
			}
			said = append(said, l.Reason)
			b = t.appendReason(b, o.style, o.word, keysOf(v, l), l)
		}
	}
	for _, l := range v.Lines {
		if l.Confirmed != nil && !*l.Confirmed {
			b = t.appendStyled(append(b, ' '), styleFailure, func(b []byte) []byte {
				b = append(b, "CONTRADICTED: "...)
				b = events.AppendEscaped(b, l.Key, false)
				return append(b, "= should have been heeded, and the unit does not show it"...)
			})
		}
	}
	return b
}

// isToldOf reports whether there is something to say of a verdict.
func isToldOf(l events.LineVerdict) bool { return l.Outcome != events.Heeded || l.Cure != "" }

// keysOf are the keys of the lines on which the verdict is the same, each once.
func keysOf(v *events.Verdict, like events.LineVerdict) string {
	var keys []string
	for _, l := range v.Lines {
		if l.Outcome == like.Outcome && l.Reason == like.Reason && !slices.Contains(keys, l.Key) {
			keys = append(keys, l.Key)
		}
	}
	return strings.Join(keys, ", ")
}

func (t Text) appendReason(b []byte, style, word, keys string, l events.LineVerdict) []byte {
	b = append(b, ' ')
	return t.appendStyled(b, style, func(b []byte) []byte {
		b = append(b, word...)
		if keys != "" {
			b = append(b, ' ')
			b = events.AppendEscaped(b, keys, false)
		}
		if l.Likely && l.Outcome != events.Unknown {
			b = append(b, " (likely)"...)
		}
		b = append(b, ": "...)
		b = events.AppendEscaped(b, l.Reason, false)
		if l.Cure != "" {
			b = append(b, "; "...)
			b = events.AppendEscaped(b, l.Cure, false)
		}
		return b
	})
}
