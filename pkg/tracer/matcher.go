// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"strings"

	"github.com/sdtrace/sdtrace/pkg/events"
)

// matcher matches globs again that the kernel matched: it lets a datagram pass
// when matching took it more steps than it has.
type matcher struct {
	sockets    []string
	components [][]string
}

func (m *matcher) matches(e *events.Event) bool {
	if len(m.sockets) > 0 && !matchAny(m.sockets, e.Socket.Address) &&
		!matchAny(m.sockets, e.Socket.Bound) {
		return false
	}
	// The root counts as a name to the kernel, which is empty.
	names := strings.Split(e.Sender.Cgroup, "/")
	for _, globs := range m.components {
		if len(globs) > 0 && !matchAnyName(globs, names) {
			return false
		}
	}
	return true
}

func matchAnyName(globs, names []string) bool {
	for _, name := range names {
		if matchAny(globs, name) {
			return true
		}
	}
	return false
}

func matchAny(globs []string, text string) bool {
	for _, glob := range globs {
		if match(glob, text) {
			return true
		}
	}
	return false
}

// match reports whether text matches glob: "*" is any run of bytes, "?" one byte,
// the rest itself, as in bpf/glob.h.
func match(glob, text string) bool {
	gi, ti, starGi, starTi := 0, 0, -1, 0
	for ti < len(text) || gi < len(glob) {
		switch {
		case gi < len(glob) && glob[gi] == '*':
			gi++
			starGi, starTi = gi, ti
		case gi < len(glob) && ti < len(text) && (glob[gi] == '?' || glob[gi] == text[ti]):
			gi++
			ti++
		case starGi >= 0 && starTi < len(text):
			starTi++
			gi, ti = starGi, starTi
		default:
			return false
		}
	}
	return true
}
