// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/sdtrace/sdtrace/pkg/events"
)

// parseNumber reads an unsigned number as systemd does (safe_atou64, base 0): blanks before it, a
// sign, 0x, 0o, 0b, and 0 for octal.
func parseNumber(s string) (n uint64, ok bool) {
	s = strings.TrimLeft(s, " \t\n\r")
	negative := strings.HasPrefix(s, "-")
	s = strings.TrimPrefix(strings.TrimPrefix(s, "+"), "-")
	if strings.ContainsAny(s, "_+-") {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 0, 64)
	return n, err == nil && (!negative || n == 0)
}

// isTime reports whether a number is a time to systemd, and not 0 or infinity (timestamp_is_set).
func isTime(usec uint64) bool { return usec != 0 && usec != math.MaxUint64 }

// parsePID reads a process id (parse_pid).
func parsePID(s string) (pid uint32, ok bool) {
	n, ok := parseNumber(s)
	return uint32(n), ok && n > 0 && n <= math.MaxInt32
}

// parseErrno reads a number or a name of errno(3) (parse_errno).
func parseErrno(s string) (errno int, ok bool) {
	if errno, ok := events.Errno(s); ok {
		return errno, true
	}
	const most = 4095 // ERRNO_MAX
	n, ok := parseNumber(s)
	return int(n), ok && n <= most
}

// isUTF8 is systemd's utf8_is_valid, which knows no noncharacters.
func isUTF8(s string) bool {
	for i, r := range s {
		if r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD") || r&0xfffe == 0xfffe || 0xfdd0 <= r && r <= 0xfdef {
			return false
		}
	}
	return true
}

// isPrintable is systemd's string_is_safe_ascii: printable, without quotes and backslashes.
func isPrintable(s string) bool {
	for _, c := range []byte(s) {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return !strings.ContainsAny(s, `\"'`)
}

// isFDName is systemd's fdname_is_valid.
func isFDName(s string) bool {
	const longest = 255 // FDNAME_MAX
	if len(s) > longest {
		return false
	}
	for _, c := range []byte(s) {
		if c < ' ' || c > '~' || c == ':' {
			return false
		}
	}
	return true
}
