// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/sdtrace/sdtrace/internal/glob"
	"github.com/sdtrace/sdtrace/pkg/events"
)

// matcher matches globs again where the kernel ran out of steps and let a datagram pass.
type matcher struct {
	sockets, units []string

	mu         sync.RWMutex // AddContainers may be called while Read matches
	containers []string
}

func newMatcher(f Filter) *matcher {
	return &matcher{sockets: f.Sockets, units: f.Units, containers: slices.Clone(f.Containers)}
}

func (m *matcher) matches(e *events.Event) bool {
	if len(m.sockets) > 0 && !glob.MatchAny(m.sockets, string(e.Socket.Address)) &&
		!glob.MatchAny(m.sockets, string(e.Socket.Bound)) {
		return false
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	if len(m.units)+len(m.containers) == 0 || isTooDeep(e) {
		return true
	}
	// The root counts as a name to the kernel, which is empty.
	names := strings.Split(e.Sender.Cgroup, "/")
	for _, globs := range [][]string{m.units, m.containers} {
		if len(globs) > 0 && !slices.ContainsFunc(names, func(name string) bool { return glob.MatchAny(globs, name) }) {
			return false
		}
	}
	return true
}

// isTooDeep reports whether the control group of a sender has no path that can be told, so that no filter for its names can
// decide.
func isTooDeep(e *events.Event) bool { return e.Sender.Cgroup == "" }

// AddContainers adds globs to Filter.Containers, which must not have been empty, while the
// capture runs. There is room for 16 in all; the error says so when they are used up.
func (t *Tracer) AddContainers(globs []string) error {
	t.filter.mu.Lock()
	defer t.filter.mu.Unlock()
	if len(globs) > t.spare {
		return badOption("Containers", "no room for %d more names of cgroups", len(globs))
	}
	for _, glob := range globs {
		p, err := newPattern(glob, groupContainers)
		if err != nil {
			return err
		}
		// User space first: what the kernel lets pass must match here too.
		t.filter.containers = append(t.filter.containers, glob)
		if err := t.collection.Maps["patterns"].Put(uint32(t.patterns-t.spare), &p); err != nil {
			return fmt.Errorf("adding a name of a cgroup: %w", err)
		}
		t.spare--
	}
	return nil
}
