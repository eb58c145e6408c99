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
	var t Text
	t.Split(payload, false)
	return t.Message()
}

// ParsePrefix reads the first bytes of a datagram that goes on beyond them: the
// assignments on its whole lines. A line that the end of prefix cuts is left
// out. The error is [ErrEmbeddedNUL], also for a NUL at the end of prefix.
func ParsePrefix(prefix []byte) (Message, error) {
	var t Text
	t.Split(prefix, true)
	return t.Message()
}

// Tokenize splits a whole datagram into lines, as [Text] describes. The errors are those of
// [Parse].
func Tokenize(payload []byte) ([]string, error) {
	var t Text
	t.Split(payload, false)
	if t.Err != nil {
		return nil, t.Err
	}
	var lines []string
	for _, line := range t.Lines {
		lines = append(lines, strings.Clone(line.Text))
	}
	return lines, nil
}

// AppendLines is [Tokenize] into a buffer: each line is appended to dst and ended by a NUL,
// which no line holds. With an error dst is returned as it was.
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
