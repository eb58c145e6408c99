// SPDX-License-Identifier: Apache-2.0

package events

import (
	"bytes"
	"strings"
	"unsafe"
)

// Text is a payload split into lines the way systemd does (strv_split_newlines_full with
// flags 0, on what notify_recv_with_fds lets through): '\n' and '\r' separate, runs of them
// count as one, empty lines do not exist; a backslash is dropped and makes the next byte an
// ordinary one, a separator included; quotes and blanks are ordinary bytes; one NUL at the
// very end of a whole datagram is allowed and dropped.
//
// Its lines may share the payload's memory: they are valid until the payload changes or
// Split is called again.
type Text struct {
	// Lines are all lines, those that are no assignment among them. There are none when Err
	// is set.
	Lines []Line
	// Open is set when the end of a truncated payload may have cut the last of Lines.
	Open bool
	// Err is why systemd drops the whole datagram, as in [Parse].
	Err error

	unescaped []byte
}

// Line is a line of a message, with systemd's escapes resolved.
type Line struct {
	// Text is the whole line, of any bytes but NUL.
	Text string
	// Equals is the index of the first '=' in Text, -1 if there is none.
	Equals int
}

// Assignment returns the line as an assignment; ok is false if it is none.
func (l Line) Assignment() (a Assignment, ok bool) {
	if l.Equals < 0 {
		return Assignment{}, false
	}
	return Assignment{Key: l.Text[:l.Equals], Value: l.Text[l.Equals+1:]}, true
}

// Split reads a payload. truncated says that it is the beginning of a longer one.
func (t *Text) Split(payload []byte, truncated bool) {
	t.Lines, t.Open, t.Err = t.Lines[:0], false, nil
	if !truncated {
		if len(payload) > MaxPayload {
			t.Err = ErrTooLong
			return
		}
		payload = bytes.TrimSuffix(payload, []byte{0})
	}
	if bytes.IndexByte(payload, 0) >= 0 {
		t.Err = ErrEmbeddedNUL
		return
	}
	end := t.split(payload)
	if end == tailEscape && !truncated {
		t.Lines, t.Err = t.Lines[:0], ErrTrailingBackslash
		return
	}
	t.Open = truncated && end != tailNone
}

func (t *Text) split(payload []byte) (end tail) {
	if bytes.IndexByte(payload, '\\') >= 0 {
		t.unescaped, end = appendLines(t.unescaped[:0], payload)
		for rest := t.unescaped; len(rest) > 0; {
			n := bytes.IndexByte(rest, 0)
			t.add(rest[:n])
			rest = rest[n+1:]
		}
		return end
	}
	for start := 0; start < len(payload); {
		n := separator(payload[start:])
		if n > 0 {
			t.add(payload[start : start+n])
		}
		if start+n == len(payload) {
			return tailOpen
		}
		start += n + 1
	}
	return tailNone
}

// separator is the index of the first separator, or the length if there is none.
func separator(s []byte) int {
	for i, c := range s {
		if c == '\n' || c == '\r' {
			return i
		}
	}
	return len(s)
}

func (t *Text) add(line []byte) {
	t.Lines = append(t.Lines, Line{asString(line), bytes.IndexByte(line, '=')})
}

// Message returns the assignments on the whole lines, in memory of their own, or Err.
func (t *Text) Message() (Message, error) {
	if t.Err != nil {
		return nil, t.Err
	}
	m := make(Message, 0, len(t.Lines))
	for a := range t.whole() {
		m = append(m, Assignment{strings.Clone(a.Key), strings.Clone(a.Value)})
	}
	return m, nil
}

// whole yields the assignments on the whole lines.
func (t *Text) whole() func(yield func(Assignment) bool) {
	return func(yield func(Assignment) bool) {
		for i, line := range t.Lines {
			if t.Open && i == len(t.Lines)-1 {
				return
			}
			if a, ok := line.Assignment(); ok && !yield(a) {
				return
			}
		}
	}
}

// Lookup returns the value of the first assignment to key, as [Message.Lookup] does, in the
// text's memory.
func (t *Text) Lookup(key string) (value string, ok bool) {
	for a := range t.whole() {
		if a.Key == key {
			return a.Value, true
		}
	}
	return "", false
}

// Equal reports true: a text follows from its payload, which is what is compared.
func (t *Text) Equal(*Text) bool { return true }

// tail says how the last line that was found ended.
type tail int

const (
	tailNone   tail = iota // by a separator, or there is no line
	tailOpen               // by the end of the input
	tailEscape             // by the end of the input, just after a backslash
)

// appendLines appends the lines of s, which holds no NUL, each with a NUL behind it.
func appendLines(dst, s []byte) ([]byte, tail) {
	end := tailNone
	for _, c := range s {
		switch {
		case end == tailEscape:
			dst, end = append(dst, c), tailOpen
		case c == '\\':
			end = tailEscape
		case c != '\n' && c != '\r':
			dst, end = append(dst, c), tailOpen
		case end == tailOpen:
			dst, end = append(dst, 0), tailNone
		}
	}
	if end != tailNone {
		dst = append(dst, 0)
	}
	return dst, end
}

// asString is b as a string, for as long as b does not change.
func asString(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// TextOf returns the event's payload split into lines, nil when the payload is unknown. It is
// split once: what decodes an event does it, or else the first call.
func (e *Event) TextOf() *Text {
	if e.Text == nil && e.Payload != nil {
		e.Text = new(Text)
		e.Text.Split(e.Payload, e.Truncated)
	}
	return e.Text
}

// Message returns the assignments in the event's payload, of a truncated one those on its
// whole lines. It is nil without an error when the payload is unknown.
func (e *Event) Message() (Message, error) {
	if t := e.TextOf(); t != nil {
		return t.Message()
	}
	return nil, nil
}
