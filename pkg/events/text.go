// SPDX-License-Identifier: Apache-2.0

package events

import (
	"cmp"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// TextEncoder writes one line an event for people. docs/events.md describes
// the line. The output holds no control or formatting character but the '\n'
// at its end and, with Color, the sequences of the encoder itself.
type TextEncoder struct {
	// Color marks up the parts of a line with ANSI escape sequences.
	Color bool
	// Location is the time zone of the times shown, nil for the local one.
	Location *time.Location
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
	resultWidth = 4
)

// AppendEvent appends e to b as one line, its '\n' included.
func (t TextEncoder) AppendEvent(b []byte, e *Event) []byte {
	b = t.appendTime(b, e.Time)
	b = append(b, ' ')
	b = t.appendColumn(b, styleBold, whoWidth, func(b []byte) []byte {
		return appendProcess(b, e.Sender.Comm, e.Sender.PID)
	})
	b = append(b, ' ')
	b = t.appendColumn(b, styleCyan, groupWidth, func(b []byte) []byte {
		return appendGroup(b, group{e.Sender.Container, e.Sender.Unit, e.Sender.UserUnit, e.Sender.Cgroup, e.Sender.CgroupController})
	})
	b = append(b, " -> "...)
	b = t.appendColumn(b, "", socketWidth, func(b []byte) []byte {
		b = appendSocket(b, e.Socket)
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
	b = t.appendColumn(b, style, resultWidth, func(b []byte) []byte { return appendResult(b, e.Result) })
	b = append(b, ' ')
	b = t.appendPayload(b, e)
	if len(e.FDs) > 0 {
		b = append(b, ' ')
		b = t.appendStyled(b, styleYellow, func(b []byte) []byte { return appendFDs(b, e.FDs) })
	}
	if e.Claimed != nil {
		if claims := appendClaims(nil, e.Claimed, &e.Sender); len(claims) > 0 {
			b = t.appendStyled(b, styleYellow, func(b []byte) []byte { return append(b, claims...) })
		}
	}
	if from := e.HopOf; from != nil {
		b = append(b, ' ')
		b = t.appendStyled(b, styleYellow, func(b []byte) []byte {
			b = append(b, "passes on "...)
			return appendProcess(b, from.Sender.Comm, from.Sender.PID)
		})
	}
	return append(b, '\n')
}

// AppendLost appends l to b as one line, its '\n' included.
func (t TextEncoder) AppendLost(b []byte, l *Lost) []byte {
	b = t.appendTime(b, l.Time)
	b = append(b, ' ')
	b = t.appendStyled(b, styleFailure, func(b []byte) []byte {
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
			{"in-flight table full ", l.InFlightFull},
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
		return append(b, " ***"...)
	})
	return append(b, '\n')
}

func (t TextEncoder) appendTime(b []byte, at time.Time) []byte {
	loc := t.Location
	if loc == nil {
		loc = time.Local
	}
	return t.appendStyled(b, styleDim, func(b []byte) []byte { return at.In(loc).AppendFormat(b, "15:04:05.000000") })
}

func (t TextEncoder) appendStyled(b []byte, style string, content func([]byte) []byte) []byte {
	if !t.Color || style == "" {
		return content(b)
	}
	b = append(b, style...)
	b = content(b)
	return append(b, styleOff...)
}

func (t TextEncoder) appendColumn(b []byte, style string, width int, content func([]byte) []byte) []byte {
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

func (t TextEncoder) appendPayload(b []byte, e *Event) []byte {
	note := func(text string) {
		b = t.appendStyled(b, styleYellow, func(b []byte) []byte { return append(b, text...) })
	}
	switch {
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

	var (
		lines []string
		err   error
		open  bool
	)
	if e.Truncated {
		if _, err = ParsePrefix(e.Payload); err == nil {
			var end tail
			lines, end = split(e.Payload)
			open = end != tailNone
		}
	} else {
		lines, err = Tokenize(e.Payload)
	}
	switch {
	case err != nil:
		note("(unparseable: " + err.Error() + ")")
		b = append(b, ' ')
		b = appendQuoted(b, string(e.Payload))
	case len(lines) == 0:
		b = appendQuoted(b, string(e.Payload))
	}
	for i, line := range lines {
		if i > 0 {
			b = append(b, ' ')
		}
		cut := open && i == len(lines)-1
		b = appendLine(b, line, cut)
		if cut {
			b = append(b, "..."...)
		}
	}
	if e.Truncated {
		text := " (truncated: " + string(appendCount(nil, uint64(len(e.Payload)), "byte"))
		if e.Size != nil {
			text += " of " + strconv.FormatUint(uint64(*e.Size), 10)
		}
		note(text + ")")
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
	b = appendEscaped(b, key, false)
	b = append(b, '=')
	if quoteValue || needsQuotes(value) {
		return appendQuoted(b, value)
	}
	return appendEscaped(b, value, false)
}

func appendProcess(b []byte, comm string, pid uint32) []byte {
	b = appendWord(b, comm)
	b = append(b, '[')
	b = strconv.AppendUint(b, uint64(pid), 10)
	return append(b, ']')
}

// group is what a process belongs to.
type group struct {
	Container                *Container
	Unit, UserUnit           string
	Cgroup, CgroupController string
}

// appendGroup appends what the process belongs to: its container by name or id, else
// its unit, else its cgroup.
func appendGroup(b []byte, s group) []byte {
	if c := s.Container; c != nil && (c.Runtime != "" || c.ID != "" || c.PodUID != "") {
		runtime, name := c.Runtime, cmp.Or(c.Name, shortID(c.ID))
		if runtime == "" {
			runtime = "container"
		}
		if name == "" {
			name = "pod " + c.PodUID
			if c.PodUID == "" {
				return appendWord(b, runtime)
			}
		}
		return appendWord(b, runtime+":"+name)
	}
	switch {
	case s.Unit != "" && s.UserUnit != "":
		return appendWord(b, s.Unit+"/"+s.UserUnit)
	case s.UserUnit != "":
		return appendWord(b, s.UserUnit)
	case s.Unit != "":
		return appendWord(b, s.Unit)
	case s.Cgroup != "" && s.CgroupController != "":
		return appendWord(b, s.CgroupController+":"+s.Cgroup)
	case s.Cgroup != "":
		return appendWord(b, s.Cgroup)
	}
	return append(b, '-')
}

// shortID abbreviates a random id of 64 hexadecimal digits to the 12 that the
// container runtimes print and accept. Names stay whole.
func shortID(id string) string {
	if len(id) == 64 && strings.Trim(id, "0123456789abcdef") == "" {
		return id[:12]
	}
	return id
}

func appendSocket(b []byte, s Socket) []byte {
	switch {
	case s.Address != "" && s.Bound != "" && s.Bound != s.Address:
		b = appendWord(b, s.Address)
		b = append(b, " (bound to "...)
		b = appendWord(b, s.Bound)
		return append(b, ')')
	case s.Address != "":
		return appendWord(b, s.Address)
	case s.Bound != "":
		return appendWord(b, s.Bound)
	case s.Inode != 0:
		b = append(b, "socket:["...)
		b = strconv.AppendUint(b, s.Inode, 10)
		return append(b, ']')
	}
	return append(b, "(address unknown)"...)
}

func appendResult(b []byte, r Result) []byte {
	switch {
	case r.Errno != "":
		b = append(b, "FAILED "...)
		return appendWord(b, r.Errno)
	case r.Delivered == nil:
		return append(b, "sent"...)
	case !*r.Delivered:
		return append(b, "FAILED dropped by receiver's socket filter"...)
	}
	return append(b, "ok"...)
}

func appendFDs(b []byte, fds []FD) []byte {
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

// appendClaims appends the claimed ids that are not the sender's own.
func appendClaims(b []byte, c *Claimed, s *Sender) []byte {
	claim := func(name string, id uint32) {
		if len(b) == 0 {
			b = append(b, " claims"...)
		}
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
	return appendEscaped(b, s, false)
}

func appendQuoted(b []byte, s string) []byte {
	b = append(b, '"')
	b = appendEscaped(b, s, true)
	return append(b, '"')
}

func needsQuotes(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r == '"' || unicode.Is(unicode.Zs, r) })
}
