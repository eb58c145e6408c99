// SPDX-License-Identifier: Apache-2.0

// Package budget keeps what is spent beside a stream below a share of the time.
package budget

import "time"

const (
	// share is the part of the time that may be spent: one in so many.
	share = 10
	// creditMax is what can be spent at once.
	creditMax = 20 * time.Millisecond
)

// Budget is a tenth of the time, and 20 ms at once. The zero value is full. It must not be used
// concurrently.
type Budget struct {
	credit  time.Duration
	updated time.Duration // 0: never
}

// Allows reports whether there is something to be spent at the time now, by a clock that is always the same one.
func (b *Budget) Allows(now time.Duration) bool {
	if b.updated == 0 {
		b.credit = creditMax
	} else {
		b.credit = min(creditMax, b.credit+(now-b.updated)/share)
	}
	b.updated = now
	return b.credit > 0
}

// Spend takes away what was spent, which may be more than there was.
func (b *Budget) Spend(d time.Duration) { b.credit -= d }
