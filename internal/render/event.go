// SPDX-License-Identifier: Apache-2.0

// Package render makes text for people: a line an event, tables and trees of sockets. What it
// writes holds no character that a terminal acts on but its own.
package render

import (
	"cmp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sdtrace/sdtrace/pkg/events"
)

// Text writes one line an event for people. docs/events.md describes
// the line. The output holds no control or formatting character but the '\n'
// at its end and, with Color, the sequences of the encoder itself.
type Text struct {
	// Color marks up the parts of a line with ANSI escape sequences.
	Color bool
	// Clock writes the times of the lines, nil: as a zero [Clock] does.
	Clock *Clock

	between string // what stands between the assignments of a payload, "" for a blank
}

const (
	styleDim     = "\x1b[2m"
	styleBold    = "\x1b[1m"
	styleCyan    = "\x1b[36m"
	styleYellow  = "\x1b[33m"
	styleFailure = "\x1b[1;31m"
	styleOff     = "\x1b[0m"
)

// The columns' widths in characters. What is longer is shown whole and pushes
// the rest of its line to the right.
const (
	whoWidth    = 22
	groupWidth  = 22
	socketWidth = 21
	resultWidth = 6
)

// AppendRecord appends what r holds to b as one line, its '\n' included.
func (t Text) AppendRecord(b []byte, r *events.Record) []byte {
	switch {
	case r.Event != nil:
		return t.AppendEvent(b, r.Event)
	case r.Receipt != nil:
		return t.AppendReceipt(b, r.Receipt)
	case r.Withheld != nil:
		return t.AppendWithheld(b, r.Withheld)
	case r.Verdict != nil:
		return t.AppendVerdict(b, r.Verdict)
	case r.Unit != nil:
		return t.AppendUnit(b, r.Unit)
	case r.Hang != nil:
		return t.AppendHang(b, r.Hang)
	case r.Lost != nil:
		return t.AppendLost(b, r.Lost)
	}
	return b
}

// AppendEvent appends e to b as one line, its '\n' included.
func (t Text) AppendEvent(b []byte, e *events.Event) []byte { return t.AppendJudged(b, e, nil) }

// AppendJudged appends e and the verdict on it to b as one line, its '\n' included. v is nil when
// there is none.
func (t Text) AppendJudged(b []byte, e *events.Event, v *events.Verdict) []byte {
	b = t.appendTime(b, e.Time)
	b = append(b, ' ')
	b = t.appendColumn(b, styleBold, whoWidth, func(b []byte) []byte {
		return appendProcess(b, e.Sender.Comm, e.Sender.PID)
	})
	b = append(b, ' ')
	b = t.appendColumn(b, styleCyan, groupWidth, func(b []byte) []byte {
		return appendGroup(b, &e.Sender.Identity, e.Sender.CgroupController)
	})
	b = append(b, " -> "...)
	b = t.appendColumn(b, "", socketWidth, func(b []byte) []byte {
		b = appendDestination(b, e)
		if r := e.Receiver; r != nil && r.PID != 0 {
			b = append(b, ' ')
			b = appendProcess(b, r.Comm, r.PID)
		}
		return b
	})
	b = append(b, ' ')
	style := ""
	if e.Result.Failed() {
		style = styleFailure
	}
	b = t.appendColumn(b, style, resultWidth, func(b []byte) []byte { return appendResult(b, e.Result, v) })
	b = append(b, ' ')
	return t.appendMessage(b, e, v)
}

// appendMessage appends what was said, what there is to note of it, and what became of it, as the end of a line.
func (t Text) appendMessage(b []byte, e *events.Event, v *events.Verdict) []byte {
	b = t.appendPayload(b, e, v)
	b = t.appendNotes(b, e, v)
	if v != nil {
		b = t.appendOutcome(b, v)
	}
	return append(b, '\n')
}

// slowSend is from when on it is said how long a call took.
const slowSend = 100 * time.Millisecond

// appendNotes appends what else there is to say of a datagram: each note begins with a blank.
func (t Text) appendNotes(b []byte, e *events.Event, v *events.Verdict) []byte {
	if e.Result.Latency >= slowSend {
		b = t.appendStyled(append(b, ' '), styleYellow, func(b []byte) []byte {
			return appendDuration(append(b, "took "...), e.Result.Latency)
		})
	}
	if len(e.FDs) > 0 {
		b = append(b, ' ')
		b = t.appendStyled(b, styleYellow, func(b []byte) []byte { return appendFDs(b, e.FDs) })
	}
	if v != nil && v.From.PID != 0 && v.From.PID != e.Sender.PID {
		b = append(b, ' ')
		b = t.appendStyled(b, styleYellow, func(b []byte) []byte {
			return appendProcess(append(b, "as "...), v.From.Comm, v.From.PID)
		})
	} else if e.Claimed != nil {
		if claims := appendClaims(nil, e.Claimed, &e.Sender); len(claims) > 0 {
			b = append(b, ' ')
			b = t.appendStyled(b, styleYellow, func(b []byte) []byte { return append(append(b, "claims"...), claims...) })
		}
	}
	if e.Refused != nil {
		b = append(b, ' ')
		b = t.appendStyled(b, styleYellow, func(b []byte) []byte { return appendRefused(b, e.Refused, &e.Sender) })
	}
	if e.Trouble != "" {
		b = append(b, ' ')
		b = t.appendStyled(b, styleYellow, func(b []byte) []byte {
			return append(events.AppendEscaped(append(b, '('), e.Trouble, false), ')')
		})
	}
	if from := e.HopOf; from != nil {
		b = append(b, ' ')
		b = t.appendStyled(b, styleYellow, func(b []byte) []byte {
			b = append(b, "passes on "...)
			if from.Sender.PID == 0 { // it is not in the file that this was read from
				return append(b, '-')
			}
			return appendProcess(b, from.Sender.Comm, from.Sender.PID)
		})
	}
	if v != nil {
		b = t.appendMain(b, v)
	}
	return b
}

// AppendLost appends l to b as one line, its '\n' included.
func (t Text) AppendLost(b []byte, l *events.Lost) []byte {
	b = t.appendTime(b, l.Time)
	b = append(b, ' ')
	b = t.appendLoss(b, l)
	return append(b, '\n')
}

func (t Text) appendLoss(b []byte, l *events.Lost) []byte {
	return t.appendStyled(b, styleFailure, func(b []byte) []byte {
		if l.Names > 0 && l.Count() == 0 && l.Receipts == 0 {
			b = append(b, "*** "...)
			return append(appendForgotten(b, l.Names), " ***"...)
		}
		b = append(b, "*** LOST "...)
		if l.Count() == 0 {
			b = append(b, "what became of at most "...)
			b = appendCount(b, l.Receipts, "datagram")
			return append(b, " ***"...)
		}
		b = appendCount(b, l.Count(), "datagram")
		sep := ": "
		for _, reason := range []struct {
			name  string
			count uint64
		}{
			{"ring buffer full ", l.RingFull},
			{"missed by the kernel at most ", l.Missed},
			{"and what became of at most ", l.Receipts},
		} {
			if reason.count > 0 {
				b = append(b, sep...)
				b = append(b, reason.name...)
				b = strconv.AppendUint(b, reason.count, 10)
				sep = ", "
			}
		}
		if l.Names > 0 {
			b = appendForgotten(append(b, "; "...), l.Names)
		}
		for i := range l.By[:min(len(l.By), namedMost)] {
			if i == 0 {
				b = append(b, "; of "...)
			} else {
				b = append(b, ", "...)
			}
			b = appendLostBy(b, &l.By[i])
		}
		return append(b, " ***"...)
	})
}

// namedMost is how many are named of those who have lost datagrams.
const namedMost = 3

func appendLostBy(b []byte, by *events.LostBy) []byte {
	switch {
	case by.Cgroup != "":
		b = appendWord(b, by.Cgroup)
	case by.CgroupID != 0:
		b = strconv.AppendUint(append(b, "cgroup "...), by.CgroupID, 10)
	default:
		b = strconv.AppendUint(append(b, "uid "...), uint64(by.UID), 10)
	}
	return strconv.AppendUint(append(b, ' '), by.Count, 10)
}

// appendForgotten says that names of notify sockets were given up.
func appendForgotten(b []byte, n uint64) []byte {
	b = appendCount(b, n, "name")
	return append(b, " of notify sockets given up: one user's processes have too many in NOTIFY_SOCKET"...)
}

func (t Text) appendTime(b []byte, at time.Time) []byte {
	clock := t.Clock
	if clock == nil {
		clock = new(Clock)
	}
	return t.appendStyled(b, styleDim, func(b []byte) []byte { return clock.append(b, at) })
}

func (t Text) appendStyled(b []byte, style string, content func([]byte) []byte) []byte {
	if !t.Color || style == "" {
		return content(b)
	}
	b = append(b, style...)
	b = content(b)
	return append(b, styleOff...)
}

func (t Text) appendColumn(b []byte, style string, width int, content func([]byte) []byte) []byte {
	var used int
	b = t.appendStyled(b, style, func(b []byte) []byte {
		start := len(b)
		b = content(b)
		used = utf8.RuneCount(b[start:])
		return b
	})
	for ; used < width; used++ {
		b = append(b, ' ')
	}
	return b
}

func (t Text) appendPayload(b []byte, e *events.Event, v *events.Verdict) []byte {
	note := func(text string) {
		b = t.appendStyled(b, styleYellow, func(b []byte) []byte { return append(b, text...) })
	}
	switch {
	case e.Call != "":
		note("(" + string(e.Call) + ")")
		return b
	case e.Payload == nil && e.Size == nil:
		note("(payload unknown)")
		return b
	case e.Payload == nil:
		note("(payload unknown, " + string(appendCount(nil, uint64(*e.Size), "byte")) + ")")
		return b
	case len(e.Payload) == 0 && !e.Truncated:
		note("(empty)")
		return b
	}

	text := e.TextOf()
	switch {
	case text.Err != nil:
		note("(unparseable: " + text.Err.Error() + ")")
		b = append(b, ' ')
		b = appendQuoted(b, string(e.Payload))
	case len(text.Lines) == 0:
		b = appendQuoted(b, string(e.Payload))
	}
	for i, line := range text.Lines {
		if i > 0 {
			b = append(b, cmp.Or(t.between, " ")...)
		}
		cut := text.Open && i == len(text.Lines)-1
		b = appendLine(b, line.Text, cut)
		if cut {
			b = append(b, "..."...)
		}
		if v != nil && v.Named != nil && v.Named.Comm != "" && strings.HasPrefix(line.Text, "MAINPID=") {
			b = append(b, " ("...)
			b = strconv.AppendUint(b, uint64(v.Named.PID), 10)
			b = append(b, ' ')
			b = append(appendWord(b, v.Named.Comm), ')')
		}
	}
	if e.Truncated {
		size := " (truncated: " + string(appendCount(nil, uint64(len(e.Payload)), "byte"))
		if e.Size != nil {
			size += " of " + strconv.FormatUint(uint64(*e.Size), 10)
		}
		note(size + ")")
	}
	return b
}

// appendLine appends an assignment as KEY=value, with the value quoted where it
// needs it, and everything else as one quoted string, so that no line of a
// payload looks like a part of the output or like an assignment it is not.
func appendLine(b []byte, line string, quoteValue bool) []byte {
	key, value, ok := strings.Cut(line, "=")
	if !ok || key == "" || needsQuotes(key) {
		return appendQuoted(b, line)
	}
	b = events.AppendEscaped(b, key, false)
	b = append(b, '=')
	if quoteValue || needsQuotes(value) {
		return appendQuoted(b, value)
	}
	return events.AppendEscaped(b, value, false)
}

func appendProcess(b []byte, comm string, pid uint32) []byte {
	b = appendWord(b, comm)
	b = append(b, '[')
	b = strconv.AppendUint(b, uint64(pid), 10)
	return append(b, ']')
}

// appendDestination appends where a datagram goes. A socket that is not connected has nowhere to send to
// without an address (unix(7), ENOTCONN).
func appendDestination(b []byte, e *events.Event) []byte {
	if e.Result.Errno == "ENOTCONN" && e.Socket.Address == "" && e.Socket.Bound == "" {
		return append(b, "(no address)"...)
	}
	return appendSocket(b, e.Socket)
}

func appendSocket(b []byte, s events.Socket) []byte {
	switch {
	case s.Address != "" && s.Bound != "" && s.Bound != s.Address:
		b = appendWord(b, string(s.Address))
		b = append(b, " (bound to "...)
		b = appendWord(b, string(s.Bound))
		return append(b, ')')
	case s.Address != "":
		return appendWord(b, string(s.Address))
	case s.Bound != "":
		return appendWord(b, string(s.Bound))
	case s.Inode != 0:
		b = append(b, "socket:["...)
		b = strconv.AppendUint(b, s.Inode, 10)
		return append(b, ']')
	}
	return append(b, "(address unknown)"...)
}

// appendResult appends what is known when the call has ended. That a service manager heeds it, or not,
// is known when that has read it.
func appendResult(b []byte, r events.Result, v *events.Verdict) []byte {
	switch {
	case v != nil && !v.Any(events.Unknown):
		return b
	case r.Errno != "":
		b = append(b, "FAILED "...)
		return appendWord(b, r.Errno)
	case r.Delivered == nil:
		return append(b, "sent"...)
	case !*r.Delivered:
		return append(b, "FAILED dropped by receiver's socket filter"...)
	}
	return append(b, "queued"...)
}

func appendFDs(b []byte, fds []events.FD) []byte {
	b = append(b, '+')
	b = appendCount(b, uint64(len(fds)), "fd")
	b = append(b, ':')
	for _, fd := range fds {
		b = append(b, ' ')
		if fd.Type == "" {
			b = append(b, '?')
			continue
		}
		b = appendWord(b, fd.Type)
	}
	return b
}

// appendRefused appends what the sender claimed to be before, and why it is not.
func appendRefused(b []byte, r *events.Refused, s *events.Sender) []byte {
	b = append(b, "was refused the claim of"...)
	if claims := appendClaims(nil, &r.Claimed, s); len(claims) > 0 {
		b = append(b, claims...)
	} else {
		b = append(b, " its own ids"...)
	}
	return append(append(b, ": "...), r.Errno...)
}

// appendClaims appends the claimed ids that are not the sender's own.
func appendClaims(b []byte, c *events.Claimed, s *events.Sender) []byte {
	claim := func(name string, id uint32) {
		b = append(b, ' ')
		b = append(b, name...)
		b = append(b, ' ')
		b = strconv.AppendUint(b, uint64(id), 10)
	}
	switch {
	case c.PID != 0:
		if c.PID != s.PID {
			claim("pid", c.PID)
		}
	case c.NSPID != 0 && c.NSPID != s.NSPID:
		claim("ns_pid", c.NSPID)
	}
	if c.UID != nil && *c.UID != s.UID {
		claim("uid", *c.UID)
	}
	if c.GID != nil && *c.GID != s.GID {
		claim("gid", *c.GID)
	}
	return b
}

func appendCount(b []byte, n uint64, noun string) []byte {
	b = strconv.AppendUint(b, n, 10)
	b = append(b, ' ')
	b = append(b, noun...)
	if n != 1 {
		b = append(b, 's')
	}
	return b
}

func appendWord(b []byte, s string) []byte {
	if s == "" || needsQuotes(s) || strings.ContainsAny(s, "[]") {
		return appendQuoted(b, s)
	}
	return events.AppendEscaped(b, s, false)
}

func appendQuoted(b []byte, s string) []byte {
	b = append(b, '"')
	b = events.AppendEscaped(b, s, true)
	return append(b, '"')
}

func needsQuotes(s string) bool {
	return strings.ContainsAny(s, "\" ")
}
