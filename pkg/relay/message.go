// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"bytes"
	"strconv"
	"unicode"
	"unicode/utf8"

	"github.com/sdtrace/sdtrace/pkg/events"
)

// keySet is a set of keys. Of WATCHDOG=trigger it holds KeyTrigger alone.
type keySet uint32

func (s keySet) has(k Key) bool { return s&(1<<k) != 0 }

// form is how what follows the name of a key is written.
type form uint8

const (
	literal form = iota + 1 // one value only, which is part of start
	number                  // decimal
	text
)

// syntax of the assignments that a datagram can hold.
var syntax = [numKeys]struct {
	start string
	form  form
}{
	KeyBarrier:       {"BARRIER=1", literal},
	KeyBusError:      {"BUSERROR=", text},
	KeyErrno:         {"ERRNO=", text},
	KeyExitStatus:    {"EXIT_STATUS=", text},
	KeyExtendTimeout: {"EXTEND_TIMEOUT_USEC=", number},
	KeyFDName:        {"FDNAME=", text},
	KeyFDPoll:        {"FDPOLL=0", literal},
	KeyFDStore:       {"FDSTORE=1", literal},
	KeyFDStoreRemove: {"FDSTOREREMOVE=1", literal},
	KeyMainPID:       {"MAINPID=", number},
	KeyMainPIDFD:     {"MAINPIDFD=1", literal},
	KeyMainPIDFDID:   {"MAINPIDFDID=", number},
	KeyMonotonic:     {"MONOTONIC_USEC=", number},
	KeyNotifyAccess:  {"NOTIFYACCESS=", text},
	KeyReady:         {"READY=1", literal},
	KeyReloading:     {"RELOADING=1", literal},
	KeyRestartReset:  {"RESTART_RESET=1", literal},
	KeyStatus:        {"STATUS=", text},
	KeyStopping:      {"STOPPING=1", literal},
	KeyVarlinkError:  {"VARLINKERROR=", text},
	KeyWatchdog:      {"WATCHDOG=1", literal},
	KeyWatchdogUSec:  {"WATCHDOG_USEC=", number},
	KeyTrigger:       {"WATCHDOG=trigger", literal},
	KeyPrivate:       {"", text},
}

// order is that of the assignments in what is sent: first what the relay found
// out itself, last what the container is most free to choose.
var order = [...]Key{
	KeyMainPID, KeyMainPIDFDID, KeyMainPIDFD,
	KeyStopping, KeyReady, KeyReloading, KeyMonotonic,
	KeyWatchdog, KeyTrigger, KeyWatchdogUSec, KeyExtendTimeout, KeyRestartReset,
	KeyFDStore, KeyFDStoreRemove, KeyFDPoll, KeyNotifyAccess, KeyFDName,
	KeyErrno, KeyExitStatus, KeyBusError, KeyVarlinkError, KeyStatus, KeyPrivate,
}

// message is a datagram to the host, assignment by assignment. It holds the keys
// of keys alone; what the arrays hold for others means nothing. The texts point
// into buffers of the filter that made it and are valid until it judges again.
type message struct {
	keys   keySet
	number [numKeys]uint64
	// text is as it is to be read, without escapes. KeyPrivate: whole lines,
	// separated by '\n'.
	text [numKeys][]byte
}

// append appends the datagram in the one form in which the relay writes: the
// assignments in a fixed order, separated by '\n', no other control byte, a
// backslash only before a backslash. What does not fit, fit takes out first.
func (m *message) append(dst []byte) []byte {
	m.fit()
	start := len(dst)
	for _, key := range order {
		if !m.keys.has(key) {
			continue
		}
		if len(dst) > start {
			dst = append(dst, '\n')
		}
		dst = append(dst, syntax[key].start...)
		switch syntax[key].form {
		case number:
			dst = strconv.AppendUint(dst, m.number[key], 10)
		case text:
			dst = appendEscaped(dst, m.text[key], key == KeyPrivate)
		}
	}
	return dst
}

// appendEscaped writes a value so that systemd reads it as it is. The control
// bytes that it replaces no text has that the filter made.
func appendEscaped(dst, value []byte, lines bool) []byte {
	for _, c := range value {
		switch {
		case c == '\\':
			dst = append(dst, '\\', '\\')
		case c == '\n' && lines:
			dst = append(dst, '\n')
		case c < ' ' || c == 0x7f:
			dst = append(dst, ' ')
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

// fit makes the message short enough for systemd: it cuts STATUS, but not
// to nothing, else takes the private lines out, and returns which of them. The
// rest always fits, since the filter bounds each value of it.
func (m *message) fit() (cut keySet) {
	for range 2 {
		over := m.size() - events.MaxPayload
		if over <= 0 {
			return cut
		}
		if m.keys.has(KeyStatus) {
			kept := cutEscaped(m.text[KeyStatus], escapedLen(m.text[KeyStatus])-over)
			if len(kept) > 0 || !m.keys.has(KeyPrivate) {
				m.text[KeyStatus] = kept
				return cut | 1<<KeyStatus
			}
		}
		m.keys &^= 1 << KeyPrivate
		cut |= 1 << KeyPrivate
	}
	return cut
}

// size is how many bytes append writes.
func (m *message) size() int {
	n := -1 // there is a separator less than there are lines
	for _, key := range order {
		if !m.keys.has(key) {
			continue
		}
		n += 1 + len(syntax[key].start)
		switch syntax[key].form {
		case number:
			var digits [20]byte
			n += len(strconv.AppendUint(digits[:0], m.number[key], 10))
		case text:
			n += escapedLen(m.text[key])
		}
	}
	return n
}

func escapedLen(value []byte) int { return len(value) + bytes.Count(value, []byte{'\\'}) }

// cutEscaped returns as many characters from the start of a value as take at
// most room bytes when escaped.
func cutEscaped(value []byte, room int) []byte {
	end := 0
	for end < len(value) {
		_, n := utf8.DecodeRune(value[end:])
		room -= escapedLen(value[end : end+n])
		if room < 0 {
			break
		}
		end += n
	}
	return value[:end]
}

// isText reports whether systemd takes s for text (utf8_is_valid, which knows no
// noncharacters) and no byte of it is control.
func isText(s []byte) bool {
	for len(s) > 0 {
		r, n := utf8.DecodeRune(s)
		if r != textRune(r) || (r == utf8.RuneError && n == 1) {
			return false
		}
		s = s[n:]
	}
	return true
}

// appendText appends s as text, at most limit bytes of it: a blank for a control
// character, U+FFFD for what is no character.
func appendText(dst, s []byte, limit int) (text []byte, trimmed bool) {
	for len(s) > 0 {
		r, n := utf8.DecodeRune(s)
		r = textRune(r)
		if limit -= utf8.RuneLen(r); limit < 0 {
			return dst, true
		}
		dst = utf8.AppendRune(dst, r)
		s = s[n:]
	}
	return dst, false
}

// textRune is what stands in a text for r.
func textRune(r rune) rune {
	switch {
	case unicode.IsControl(r):
		return ' '
	case r&0xfffe == 0xfffe, 0xfdd0 <= r && r <= 0xfdef:
		return utf8.RuneError
	}
	return r
}

// isPrintable reports whether s is printable ASCII, blanks included.
func isPrintable(s []byte) bool {
	for _, c := range s {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return true
}

// isFDName reports whether systemd takes s as a name (fdname_is_valid).
func isFDName(s []byte) bool {
	return len(s) <= maxName && isPrintable(s) && bytes.IndexByte(s, ':') < 0
}

// fdName is the name of the file descriptors that a message stores or removes (systemd: service_add_fd_store).
func (m *message) fdName() string {
	if m.keys.has(KeyFDName) {
		return string(m.text[KeyFDName])
	}
	return "stored"
}
