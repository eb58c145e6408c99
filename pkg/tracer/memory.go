// SPDX-License-Identifier: Apache-2.0

package tracer

// memory remembers values by key, those that were asked for last: a full generation makes
// the one before it go, and what is found there moves on.
type memory[K comparable, V any] struct {
	recent, older map[K]V
}

// memorySize is how many values a generation has: there are two. It is more than twice what a
// large host runs at a time.
const memorySize = 16384

func (m *memory[K, V]) find(key K) (value V, found bool) {
	if value, found = m.recent[key]; found {
		return value, true
	}
	if value, found = m.older[key]; found {
		m.keep(key, value)
	}
	return value, found
}

func (m *memory[K, V]) keep(key K, value V) {
	if m.recent == nil || len(m.recent) >= memorySize {
		m.recent, m.older = make(map[K]V), m.recent
	}
	m.recent[key] = value
}
