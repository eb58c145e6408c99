// SPDX-License-Identifier: Apache-2.0

package relay

import "time"

// pacer keeps the status of the unit to one in a while, since PID 1 tells
// everybody of each. What comes too soon is held, and only the last of it.
type pacer struct {
	every time.Duration // 0: no limit
	last  time.Time     // when one was let through
	held  message       // STATUS alone
	text  []byte        // of held
	rec   recorder
}

// holds reports whether there is a status to be sent later.
func (p *pacer) holds() bool { return p.held.keys != 0 }

// due is when that is, or the zero time.
func (p *pacer) due() time.Time {
	if !p.holds() {
		return time.Time{}
	}
	return p.last.Add(p.every)
}

// pace takes the status out of a message that has one too soon.
func (p *pacer) pace(msg *message, rec *recorder) {
	if p.every == 0 || !msg.keys.has(KeyStatus) {
		return
	}
	if p.holds() {
		p.rec.note(KeyStatus, Coalesced, ReasonNone, p.text)
		p.held.keys = 0
	}
	if now := time.Now(); now.Sub(p.last) >= p.every {
		p.last = now
		return
	}
	msg.keys &^= 1 << KeyStatus
	p.text = append(p.text[:0], msg.text[KeyStatus]...)
	p.held.keys, p.held.text[KeyStatus] = 1<<KeyStatus, p.text
	p.rec = *rec
	rec.note(KeyStatus, Held, ReasonTooSoon, p.text)
}

// releaseStatus puts the status that was held on its way to the host.
func (r *Relay) releaseStatus() {
	if !r.pacer.holds() {
		return
	}
	r.pacer.rec.note(KeyStatus, Released, ReasonNone, r.pacer.text)
	r.out = r.pacer.held.append(r.out[:0])
	r.pacer.held.keys = 0
	r.pacer.last = time.Now()
	r.forward(entry{payload: r.out, keys: 1 << KeyStatus, rec: r.pacer.rec}, nil)
}
