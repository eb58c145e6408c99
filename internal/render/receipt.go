// SPDX-License-Identifier: Apache-2.0

package render

import (
	"time"

	"github.com/sdtrace/sdtrace/pkg/events"
)

// AppendReceipt appends r to b as one line, its '\n' included.
func (t Text) AppendReceipt(b []byte, r *events.Receipt) []byte {
	b = t.appendTo(b, r.Time, &r.By, r.Send)
	b = t.appendFateOf(b, r)
	return t.appendWhat(b, r.Send)
}

func (t Text) appendFateOf(b []byte, r *events.Receipt) []byte {
	style := ""
	if r.Kind == events.ReceiptUnread || r.Errno != "" || r.Truncated || r.ControlTruncated {
		style = styleFailure
	}
	return t.appendStyled(b, style, func(b []byte) []byte { return appendFate(b, r) })
}

// AppendWithheld appends w to b as one line, its '\n' included.
func (t Text) AppendWithheld(b []byte, w *events.Withheld) []byte {
	b = t.appendTo(b, w.Time, &w.Relay, w.Send)
	return append(t.appendKept(b, w), '\n')
}

func (t Text) appendKept(b []byte, w *events.Withheld) []byte {
	b = t.appendStyled(b, styleFailure, func(b []byte) []byte { return append(b, "NOT PASSED ON"...) })
	for _, a := range w.Message {
		b = append(b, ' ')
		b = appendLine(b, a.Key+"="+a.Value, false)
	}
	return b
}

// appendTo appends who did something with whose datagram.
func (t Text) appendTo(b []byte, at time.Time, by *events.Reader, send *events.Event) []byte {
	b = t.appendTime(b, at)
	b = append(b, ' ')
	b = t.appendColumn(b, styleBold, whoWidth, func(b []byte) []byte { return appendProcess(b, by.Comm, by.PID) })
	b = append(b, ' ')
	b = t.appendColumn(b, styleCyan, groupWidth, func(b []byte) []byte {
		return appendGroup(b, &by.Identity, "")
	})
	b = append(b, " <- "...)
	b = t.appendColumn(b, "", socketWidth, func(b []byte) []byte {
		if send == nil {
			return append(b, '-')
		}
		return appendProcess(b, send.Sender.Comm, send.Sender.PID)
	})
	return append(b, ' ')
}

func appendFate(b []byte, r *events.Receipt) []byte {
	switch r.Kind {
	case events.ReceiptRead:
		b = append(b, "read after "...)
	case events.ReceiptUnread:
		b = append(b, "NEVER READ, thrown away after "...)
	case events.ReceiptBarrier:
		b = append(b, "barrier passed after "...)
	}
	b = appendDuration(b, r.Delay)
	if r.Errno != "" {
		b = append(b, ", FAILED "...)
		b = appendWord(b, r.Errno)
	}
	if r.Truncated {
		b = append(b, ", TRUNCATED"...)
	}
	if r.ControlTruncated {
		b = append(b, ", ANCILLARY DATA TRUNCATED"...)
	}
	if r.SenderExited != nil {
		b = append(b, ", sender gone for "...)
		b = appendDuration(b, *r.SenderExited)
	}
	return b
}

// appendWhat appends what the datagram said, and ends the line.
func (t Text) appendWhat(b []byte, send *events.Event) []byte {
	if send != nil {
		b = append(b, ' ')
		b = t.appendPayload(b, send, nil)
	}
	return append(b, '\n')
}

// appendDuration appends three digits or so, which is what a clock read on two CPUs is
// good for.
func appendDuration(b []byte, d time.Duration) []byte {
	for _, unit := range []time.Duration{time.Second, time.Millisecond, time.Microsecond} {
		if d >= 100*unit {
			return append(b, d.Round(unit).String()...)
		}
		if d >= unit {
			return append(b, d.Round(unit/100).String()...)
		}
	}
	return append(b, d.String()...)
}
