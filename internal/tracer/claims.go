// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"bytes"
	"slices"
	"time"

	"github.com/sdtrace/sdtrace/pkg/events"
)

// claims makes one datagram of two sends: sd_notify(3) sends as another process, and when the kernel
// refuses that, at once again as itself (systemd: pid_notify_with_fds_internal).
type claims struct {
	// onlyFailed keeps back datagrams that have arrived: the programs let one pass behind a
	// refused claim.
	onlyFailed bool
	// held are in order; the first is a claim that was refused, behind which the thread may send again.
	held  []item
	since time.Time
	out   []item // reused
}

// refusedMax is how many records wait with a refused claim at most.
const refusedMax = 256

// pass takes the next records, and returns what can be shown now, in order, and how many sends it
// has dropped. What it returns holds until the next call.
func (c *claims) pass(all []item) (shown []item, dropped uint64) {
	c.out = c.out[:0]
	for _, it := range all {
		switch {
		case len(c.held) > 0:
			c.held = append(c.held, it)
			dropped += c.release(len(c.held) > refusedMax)
		case isRefused(it):
			c.held, c.since = append(c.held, it), time.Now()
		default:
			dropped += c.show(it)
		}
	}
	return c.out, dropped
}

// waitedLong says that it is time to give up what is held.
func (c *claims) waitedLong() bool {
	return len(c.held) > 0 && time.Since(c.since) > heldFor
}

// giveUp shows all that is held: the thread has not sent again.
func (c *claims) giveUp() (shown []item, dropped uint64) {
	c.out = c.out[:0]
	for len(c.held) > 0 {
		dropped += c.release(true)
	}
	return c.out, dropped
}

// release shows what is held up to a refused claim whose thread has not sent since. With anyway, the
// first of them is not waited for.
func (c *claims) release(anyway bool) (dropped uint64) {
	for len(c.held) > 0 {
		first, rest := c.held[0], c.held[1:]
		if isRefused(first) {
			next := slices.IndexFunc(rest, func(it item) bool {
				return it.send != nil && it.send.Event.Sender.TID == first.send.Event.Sender.TID
			})
			if next < 0 && !anyway {
				c.since = time.Now()
				return dropped
			}
			if next >= 0 && repeats(&rest[next].send.Event, &first.send.Event) {
				e := first.send.Event.Clone()
				rest[next].send.Event.Refused = &events.Refused{Claimed: *e.Claimed, Errno: e.Result.Errno}
				c.held = rest
				dropped++
				continue
			}
			anyway = false
		}
		c.held = rest
		dropped += c.show(first)
	}
	c.held = nil
	return dropped
}

// show adds what is to be shown to out.
func (c *claims) show(it item) (dropped uint64) {
	if c.onlyFailed && it.send != nil && !it.send.Event.Result.Failed() {
		return 1
	}
	c.out = append(c.out, it)
	return 0
}

// isRefused reports whether a send has failed that claimed credentials.
func isRefused(it item) bool {
	return it.send != nil && it.send.Event.Claimed != nil && it.send.Event.Result.Errno != ""
}

// repeats reports whether a send says the same as a refused one of its thread, without a claim. What a
// refused one says is not always known.
func repeats(e, refused *events.Event) bool {
	return e.Claimed == nil && len(e.FDs) == len(refused.FDs) && e.Socket.Address == refused.Socket.Address &&
		(refused.Payload == nil || bytes.Equal(e.Payload, refused.Payload))
}
