// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/sdtrace/sdtrace/pkg/events"
)

// matcher matches globs again that the kernel matched: it lets a datagram pass
// when matching took it more steps than it has.
type matcher struct {
	sockets []string

	mu         sync.RWMutex // AddComponents may be called while Read matches
	components [][]string
}

func newMatcher(f Filter) *matcher {
	m := &matcher{sockets: f.Sockets}
	for _, globs := range f.Components {
		m.components = append(m.components, slices.Clone(globs))
	}
	return m
}

func (m *matcher) matches(e *events.Event) bool {
	if len(m.sockets) > 0 && !matchAny(m.sockets, e.Socket.Address) &&
		!matchAny(m.sockets, e.Socket.Bound) {
		return false
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	if len(m.components) == 0 {
		return true
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

// AddComponents adds globs to the list Filter.Components[list], which must not have
// been empty, while the capture runs. There is room for 16 in all; the error says
// so when they are used up.
func (t *Tracer) AddComponents(list int, globs []string) error {
	t.filter.mu.Lock()
	defer t.filter.mu.Unlock()
	if len(globs) > t.spare {
		return badOption("no room for %d more names of cgroups", len(globs))
	}
	for _, glob := range globs {
		p, err := newPattern(glob, list)
		if err != nil {
			return err
		}
		// User space first: what the kernel lets pass must match here too.
		t.filter.components[list] = append(t.filter.components[list], glob)
		if err := t.collection.Maps["patterns"].Put(uint32(t.patterns-t.spare), &p); err != nil {
			return fmt.Errorf("adding a name of a cgroup: %w", err)
		}
		t.spare--
	}
	return nil
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
