// SPDX-License-Identifier: Apache-2.0

package verdicts

import (
	"context"
	"slices"
	"time"

	"github.com/sdtrace/sdtrace/pkg/events"
)

// refuted is a datagram with a verdict that the unit's properties contradict, as it seems: a datagram
// behind it may have been read before these were told, and come later in the stream, because a send ends
// later than that.
type refuted struct {
	*datagram
	told  *events.Verdict
	until time.Time
}

// refutedAfter is how long such datagrams are waited for, and then the unit is asked for once more.
const refutedAfter = 3 * sendLag

// explain takes note that verdicts may be refuted by what a datagram has said.
func (m *manager) explain(d *datagram) {
	for _, r := range m.refuted {
		if r.unit == d.unit && r.message != d.message {
			r.later, r.last = addKeys(slices.Clone(r.later), d.said.Text), false
		}
	}
}

// settle tells the verdicts that were waited for long enough, with what the unit shows now.
func (m *manager) settle(ctx context.Context) {
	for len(m.refuted) > 0 && !time.Now().Before(m.refuted[0].until) {
		r := m.refuted[0]
		m.refuted = m.refuted[1:]
		now, err := m.conn.Service(ctx, r.unit, m.host)
		if err != nil {
			now = nil // nothing is shown
		}
		m.mu.Lock()
		r.later = append(slices.Clone(r.later), keysOf(m.queue)...)
		m.mu.Unlock()
		for i, confirmed := range r.effect(now).lines {
			r.told.Lines[i].Confirmed = confirmed
		}
		r.tell(r.told)
	}
}

// leave tells the verdicts that are waited for without what the unit shows.
func (m *manager) leave() {
	for _, r := range m.refuted {
		for i := range r.told.Lines {
			r.told.Lines[i].Confirmed = nil
		}
		r.tell(r.told)
	}
	m.refuted = nil
}

// unsettled is when to settle next, nil for never.
func (m *manager) unsettled() <-chan time.Time {
	if len(m.refuted) == 0 {
		return nil
	}
	return time.After(time.Until(m.refuted[0].until))
}
