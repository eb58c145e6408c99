// SPDX-License-Identifier: Apache-2.0

package inventory

import "time"

const (
	// share is the part of the time that may be spent: one in so many.
	share = 10
	// creditMax is what can be spent at once.
	creditMax = 20 * time.Millisecond
	// waitMax is for how long somebody is made to wait at once, and behindMax how long
	// after its send a datagram may be asked about for that: then many others are answered
	// with it, as they were sent meanwhile.
	waitMax   = time.Millisecond
	behindMax = 10 * time.Millisecond
)

// budget keeps what is spent below a share of the time.
type budget struct {
	credit  time.Duration
	updated time.Duration
}

// allows reports whether there is something to be spent at the time now, by CLOCK_BOOTTIME,
// for what was sent at the time sent. It may wait.
func (b *budget) allows(now, sent time.Duration) bool {
	b.update(now)
	if b.credit > 0 {
		return true
	}
	if now-sent > behindMax {
		return false
	}
	time.Sleep(min(waitMax, -b.credit*share+time.Microsecond))
	b.update(bootTime())
	return b.credit > 0
}

func (b *budget) update(now time.Duration) {
	if b.updated == 0 {
		b.credit = creditMax
	} else {
		b.credit = min(creditMax, b.credit+(now-b.updated)/share)
	}
	b.updated = now
}

func (b *budget) spend(d time.Duration) { b.credit -= d }
