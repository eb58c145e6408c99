// SPDX-License-Identifier: Apache-2.0

package relay

// compose turns what one of several containers says into what the unit says,
// by taking assignments out of the message and by replacing its status. A
// single container is the unit.
func (r *Relay) compose(m *member, msg *message, rec *recorder) {
	if len(r.members) == 1 {
		return
	}
	hold := func(keys ...Key) {
		for _, key := range keys {
			if msg.keys.has(key) {
				msg.keys &^= 1 << key
				rec.note(key, Held, ReasonGroup, nil)
			}
		}
	}
	if msg.keys.has(KeyReloading) {
		m.reloading = true
		if !r.unitReady || r.unitReloading {
			hold(KeyReloading, KeyMonotonic)
		}
		r.unitReloading = r.unitReloading || r.unitReady
	}
	if msg.keys.has(KeyReady) {
		m.ready, m.reloading = true, false
		if !r.all(func(m *member) bool { return m.ready && !m.reloading }) {
			hold(KeyReady)
		} else {
			r.unitReady, r.unitReloading = true, false
		}
	}
	if msg.keys.has(KeyWatchdog) {
		m.pinged = true
		if !r.all(func(m *member) bool { return m.pinged }) {
			hold(KeyWatchdog)
		} else {
			for _, m := range r.members {
				m.pinged = false
			}
		}
	}
	for _, key := range []Key{KeyMainPID, KeyMainPIDFD, KeyMainPIDFDID} {
		// The unit can have one main process, and nobody said whose.
		if msg.keys.has(key) {
			msg.keys &^= 1 << key
			rec.note(key, Denied, ReasonGroup, nil)
		}
	}
	if msg.keys.has(KeyStatus) {
		m.status = append(m.status[:0], msg.text[KeyStatus]...)
		r.status = r.status[:0]
		for _, m := range r.members {
			if len(m.status) == 0 {
				continue
			}
			if len(r.status) > 0 {
				r.status = append(r.status, "; "...)
			}
			r.status = append(append(append(r.status, m.name...), ": "...), m.status...)
		}
		msg.text[KeyStatus] = r.status
		rec.note(KeyStatus, Rewritten, ReasonGroup, r.status)
	}
}

func (r *Relay) all(holds func(*member) bool) bool {
	for _, m := range r.members {
		if !holds(m) {
			return false
		}
	}
	return true
}
