// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"bytes"
	"slices"
	"time"

	"github.com/sdtrace/sdtrace/pkg/events"
)

const (
	// refusedFor is how long a refused claim waits for the thread to send again, which it does at
	// once if it gets a processor.
	refusedFor = 2 * time.Second
	// refusedMax is how many wait at most.
	refusedMax = 256
)

// claims makes one datagram of two sends: sd_notify(3) sends as another process, and when the kernel
// refuses that, at once again as itself (systemd: pid_notify_with_fds_internal).
type claims struct {
	// onlyFailed keeps back datagrams that have arrived: the programs let one pass behind a
	// refused claim.
	onlyFailed bool
	refused    []item // that wait, the oldest first
	since      []time.Time
	out        []item // reused
}

// pass takes the next records, and returns what can be shown now, and how many sends it has dropped.
// A refused claim comes behind others if its thread does not send again. What it returns holds until
// the next call.
func (c *claims) pass(all []item) (shown []item, dropped uint64) {
	c.out = c.out[:0]
	for _, it := range all {
		if it.send == nil {
			c.out = append(c.out, it)
			continue
		}
		e := &it.send.Event
		i := slices.IndexFunc(c.refused, func(r item) bool { return r.send.Event.Sender.TID == e.Sender.TID })
		if i >= 0 {
			before := &c.refused[i].send.Event
			if repeats(e, before) {
				claim := before.Clone()
				e.Refused = &events.Refused{Claimed: *claim.Claimed, Errno: claim.Result.Errno}
				c.remove(i)
				dropped++
			} else {
				c.show(i)
			}
		}
		switch {
		case isRefused(e):
			if len(c.refused) == refusedMax {
				c.show(0)
			}
			c.refused, c.since = append(c.refused, it), append(c.since, time.Now())
		case c.onlyFailed && !e.Result.Failed():
			dropped++
		default:
			c.out = append(c.out, it)
		}
	}
	return c.out, dropped
}

// giveUp returns those whose threads have not sent again for long, or all that wait.
func (c *claims) giveUp(all bool) []item {
	c.out = c.out[:0]
	for len(c.refused) > 0 && (all || time.Since(c.since[0]) > refusedFor) {
		c.show(0)
	}
	return c.out
}

func (c *claims) show(i int) {
	c.out = append(c.out, c.refused[i])
	c.remove(i)
}

func (c *claims) remove(i int) {
	c.refused, c.since = slices.Delete(c.refused, i, i+1), slices.Delete(c.since, i, i+1)
}

// isRefused reports whether a send has failed that claimed credentials.
func isRefused(e *events.Event) bool { return e.Claimed != nil && e.Result.Errno != "" }

// repeats reports whether a send says the same as a refused one of its thread, without a claim. What a
// refused one says is not always known.
func repeats(e, refused *events.Event) bool {
	return e.Claimed == nil && len(e.FDs) == len(refused.FDs) && e.Socket.Address == refused.Socket.Address &&
		(refused.Payload == nil || bytes.Equal(e.Payload, refused.Payload))
}
