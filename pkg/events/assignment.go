// SPDX-License-Identifier: Apache-2.0

package events

import (
	"bytes"
	"errors"
	"slices"
	"strings"
)

// The reasons for which systemd drops a whole datagram without reading any
// assignment in it (systemd: notify_recv_with_fds, manager_dispatch_notify_fd).
var (
	// ErrTooLong is returned for more than [MaxPayload] bytes.
	ErrTooLong = errors.New("longer than 4096 bytes")
	// ErrEmbeddedNUL is returned when a NUL byte stands anywhere but at the end.
	ErrEmbeddedNUL = errors.New("embedded NUL byte")
	// ErrTrailingBackslash is returned when the last byte is a backslash that
	// escapes nothing (systemd: extract_first_word).
	ErrTrailingBackslash = errors.New("trailing backslash")
)

// Assignment is one line of a datagram, split at its first '='. The bytes are
// those of the sender with systemd's escapes resolved: no encoding is assumed.
type Assignment struct{ Key, Value string }

// Message is the assignments of one datagram in the order in which they were
// written. A key may occur more than once.
type Message []Assignment

// Lookup returns the value of the first assignment to key, which is the one
// systemd heeds (systemd: strv_find_startswith).
func (m Message) Lookup(key string) (value string, ok bool) {
	for _, a := range m {
		if a.Key == key {
			return a.Value, true
		}
	}
	return "", false
}

// Parse reads a whole datagram as systemd does. Lines without '=' are no
// assignments and are left out. The result is not nil unless there is an
// error: [ErrTooLong], [ErrEmbeddedNUL] or [ErrTrailingBackslash].
func Parse(payload []byte) (Message, error) {
	lines, err := Tokenize(payload)
	if err != nil {
		return nil, err
	}
	return assignments(lines), nil
}

// ParsePrefix reads the first bytes of a datagram that goes on beyond them: the
// assignments on its whole lines. A line that the end of prefix cuts is left
// out. The error is [ErrEmbeddedNUL], also for a NUL at the end of prefix.
func ParsePrefix(prefix []byte) (Message, error) {
	if bytes.IndexByte(prefix, 0) >= 0 {
		return nil, ErrEmbeddedNUL
	}
	lines, tail := split(prefix)
	if tail != tailNone {
		lines = lines[:len(lines)-1]
	}
	return assignments(lines), nil
}

// Message parses the event's payload with [Parse] or, when it is truncated,
// with [ParsePrefix]. It is nil without an error when the payload is unknown.
func (e *Event) Message() (Message, error) {
	switch {
	case e.Payload == nil:
		return nil, nil
	case e.Truncated:
		return ParsePrefix(e.Payload)
	default:
		return Parse(e.Payload)
	}
}

// Tokenize splits a whole datagram into lines the way systemd does
// (strv_split_newlines_full with flags 0, on what notify_recv_with_fds lets
// through): '\n' and '\r' separate, runs of them count as one, empty lines do
// not exist; a backslash is dropped and makes the next byte an ordinary one,
// a separator included; quotes and blanks are ordinary bytes; one NUL at the
// very end is allowed and dropped. The errors are those of [Parse].
func Tokenize(payload []byte) ([]string, error) {
	text, err := AppendLines(nil, payload)
	return cut(text), err
}

// AppendLines is [Tokenize] without allocation: it appends the lines to dst,
// each followed by a NUL, which cannot be in a line. With an error dst is
// returned as it was.
func AppendLines(dst, payload []byte) ([]byte, error) {
	if len(payload) > MaxPayload {
		return dst, ErrTooLong
	}
	payload = bytes.TrimSuffix(payload, []byte{0})
	if bytes.IndexByte(payload, 0) >= 0 {
		return dst, ErrEmbeddedNUL
	}
	text, tail := appendLines(dst, payload)
	if tail == tailEscape {
		return dst, ErrTrailingBackslash
	}
	return text, nil
}

// tail says how the last line that appendLines found ended.
type tail int

const (
	tailNone   tail = iota // by a separator, or there is no line
	tailOpen               // by the end of the input
	tailEscape             // by the end of the input, just after a backslash
)

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

// split is appendLines into strings of their own. There is no NUL in s.
func split(s []byte) ([]string, tail) {
	text, end := appendLines(nil, s)
	return cut(text), end
}

// cut takes apart what appendLines wrote.
func cut(text []byte) []string {
	var lines []string
	for len(text) > 0 {
		line, rest, _ := bytes.Cut(text, []byte{0})
		lines, text = append(lines, string(line)), rest
	}
	return lines
}

func assignments(lines []string) Message {
	m := make(Message, 0, len(lines))
	for _, line := range lines {
		if key, value, ok := strings.Cut(line, "="); ok {
			m = append(m, Assignment{key, value})
		}
	}
	return m
}

var keys = []string{
	"BARRIER",
	"BUSERROR",
	"ERRNO",
	"EXIT_STATUS",
	"EXTEND_TIMEOUT_USEC",
	"FDNAME",
	"FDPOLL",
	"FDSTORE",
	"FDSTOREREMOVE",
	"MAINPID",
	"MAINPIDFD",
	"MAINPIDFDID",
	"MONOTONIC_USEC",
	"NOTIFYACCESS",
	"READY",
	"RELOADING",
	"RESTART_RESET",
	"STATUS",
	"STOPPING",
	"VARLINKERROR",
	"WATCHDOG",
	"WATCHDOG_USEC",
}

// Keys returns the keys of the protocol, sorted (sd_notify(3), and the ones
// service_notify_message of systemd 262 reads).
func Keys() []string { return slices.Clone(keys) }

// KnownKey reports whether key is one of [Keys]. Keys are case-sensitive.
// Private keys, which begin with "X_", are not known.
func KnownKey(key string) bool {
	_, found := slices.BinarySearch(keys, key)
	return found
}
