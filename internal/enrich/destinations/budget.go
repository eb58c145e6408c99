// SPDX-License-Identifier: Apache-2.0

package destinations

import "time"

const (
	// share is the part of the time that may be spent: one in so many.
	share = 10
	// creditMax is what can be spent at once.
	creditMax = 20 * time.Millisecond
)

// budget keeps what is spent below a share of the time.
type budget struct {
	credit  time.Duration
	updated time.Duration // 0: never
}

// allows reports whether there is something to be spent at the time now, by CLOCK_BOOTTIME.
func (b *budget) allows(now time.Duration) bool {
	if b.updated == 0 {
		b.credit = creditMax
	} else {
		b.credit = min(creditMax, b.credit+(now-b.updated)/share)
	}
	b.updated = now
	return b.credit > 0
}

func (b *budget) spend(d time.Duration) { b.credit -= d }
