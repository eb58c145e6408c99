// SPDX-License-Identifier: Apache-2.0

package events

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Address is the address of an AF_UNIX socket (unix(7)), of any bytes: a path, or "@" and an
// abstract name. A relative path that begins with "@" is written with "./" before it, so that
// it is none. "" is no address.
type Address string

// AddressOf returns the address in a sun_path, which is as long as the address says.
func AddressOf(sunPath []byte) Address {
	if len(sunPath) > 0 && sunPath[0] == 0 {
		return Address("@" + string(sunPath[1:]))
	}
	path, _, _ := bytes.Cut(sunPath, []byte{0})
	if len(path) > 0 && path[0] == '@' {
		return Address("./" + string(path))
	}
	return Address(path)
}

// IsAbstract reports whether the address lives in a network namespace and not in a file
// system.
func (a Address) IsAbstract() bool { return strings.HasPrefix(string(a), "@") }

// IsAbsolute reports whether the address is a path from the root directory.
func (a Address) IsAbsolute() bool { return strings.HasPrefix(string(a), "/") }

// String makes the address fit to print, as [Escape] does.
func (a Address) String() string { return Escape(string(a)) }

// ParseAddress is the inverse of [Address.String]. The error says which escape is wrong.
func ParseAddress(s string) (Address, error) {
	bytes, err := unescape(s)
	return Address(bytes), err
}

// Escape makes text of any bytes fit to print: a backslash becomes
// `\\`, line ends and tabs become `\n`, `\r` and `\t`, and every byte that is
// not part of a visible character (control and formatting characters, blanks that are not
// ASCII, invalid UTF-8) becomes `\xNN`. Different texts stay different. The blank and quotes
// are left as they are.
func Escape(s string) string { return string(AppendEscaped(nil, s, false)) }

// unescape is the inverse of Escape.
func unescape(s string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			b.WriteByte(s[i])
			continue
		}
		i++
		if i == len(s) {
			return "", fmt.Errorf("parsing address %q: trailing backslash", s)
		}
		switch s[i] {
		case '\\':
			b.WriteByte('\\')
		case 'n':
			b.WriteByte('\n')
		case 'r':
			b.WriteByte('\r')
		case 't':
			b.WriteByte('\t')
		case 'x':
			c, err := strconv.ParseUint(s[i+1:min(i+3, len(s))], 16, 8)
			if err != nil || i+2 >= len(s) {
				return "", fmt.Errorf("parsing address %q: \\x without two hexadecimal digits", s)
			}
			b.WriteByte(byte(c))
			i += 2
		default:
			return "", fmt.Errorf("parsing address %q: unknown escape %q", s, s[i-1:i+1])
		}
	}
	return b.String(), nil
}

// AppendEscaped appends s as [Escape] describes; with quoted, a double
// quote is escaped too.
func AppendEscaped(b []byte, s string, quoted bool) []byte {
	const hex = "0123456789abcdef"
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == '\\' || quoted && r == '"':
			b = append(b, '\\', s[i])
		case r == '\n':
			b = append(b, `\n`...)
		case r == '\r':
			b = append(b, `\r`...)
		case r == '\t':
			b = append(b, `\t`...)
		case visible(r) && (r != utf8.RuneError || n > 1):
			b = append(b, s[i:i+n]...)
		default:
			for _, c := range []byte(s[i : i+n]) {
				b = append(b, '\\', 'x', hex[c>>4], hex[c&15])
			}
		}
		i += n
	}
	return b
}

// visible reports whether a terminal shows r, so that it can neither move the
// cursor, nor reorder the text around it, nor hide in it. Of all blanks the one of ASCII counts.
func visible(r rune) bool {
	if r < utf8.RuneSelf {
		return ' ' <= r && r <= '~'
	}
	return unicode.IsGraphic(r) && !unicode.In(r, unicode.Zs, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector, blanks)
}

// blanks are characters without ink that Unicode counts among symbols: BRAILLE PATTERN BLANK and MUSICAL SYMBOL NULL
// NOTEHEAD.
var blanks = &unicode.RangeTable{R16: []unicode.Range16{{Lo: 0x2800, Hi: 0x2800, Stride: 1}}, R32: []unicode.Range32{{Lo: 0x1d159, Hi: 0x1d159, Stride: 1}}}
