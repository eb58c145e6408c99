// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"bytes"
	"slices"
	"time"

	"github.com/sdtrace/sdtrace/internal/proc"
	"github.com/sdtrace/sdtrace/pkg/events"
)

const (
	// retriedFor is how long a send that failed waits for its thread to send again, which it does at once if it gets a
	// processor.
	retriedFor = 2 * time.Second
	// retriedMax is how many wait at most.
	retriedMax = 256
)

// retries makes one datagram of two sends:
//
//   - sd_notify(3) sends as another process, and when the kernel refuses that, at once again as itself (systemd:
//     pid_notify_with_fds_internal).
//   - The kernel ends a send that waits when a signal comes, and makes it once more when the signal is dealt with, of which
//     the program sees nothing (signal(7), SA_RESTART). Else the program sees EINTR.
type retries struct {
	// onlyFailed keeps back datagrams that have arrived: the programs let one pass behind a refused claim.
	onlyFailed bool
	waiting    []item
	since      []time.Time
	out        []item // reused
}

// pass takes the next records, and returns what can be shown now, and how many sends it has dropped.
// A send that waits comes behind others if its thread does not send again. What it returns holds until
// the next call.
func (c *retries) pass(all []item) (shown []item, dropped uint64) {
	c.out = c.out[:0]
	for _, it := range all {
		if it.send == nil {
			c.out = append(c.out, it)
			continue
		}
		e := &it.send.Event
		i := slices.IndexFunc(c.waiting, func(r item) bool { return r.send.Event.Sender.TID == e.Sender.TID })
		if i >= 0 {
			before := &c.waiting[i].send.Event
			switch {
			case isInterrupted(before) && restarts(e, before):
				if e.Result.Latency != 0 && before.Result.Latency != 0 {
					e.Result.Latency += e.Time.Add(-e.Result.Latency).Sub(before.Time.Add(-before.Result.Latency))
				}
				c.remove(i)
				dropped++
			case isRefused(before) && repeats(e, before):
				claim := before.Clone()
				e.Refused = &events.Refused{Claimed: *claim.Claimed, Errno: claim.Result.Errno}
				c.remove(i)
				dropped++
			default:
				c.show(i)
			}
		}
		switch {
		case isRefused(e) || isInterrupted(e):
			if len(c.waiting) == retriedMax {
				c.show(0)
			}
			c.waiting, c.since = append(c.waiting, it), append(c.since, time.Now())
		case c.onlyFailed && !e.Result.Failed():
			dropped++
		default:
			c.out = append(c.out, it)
		}
	}
	return c.out, dropped
}

// giveUp returns those whose threads have not sent again for long, or all that wait.
func (c *retries) giveUp(all bool) []item {
	c.out = c.out[:0]
	for i := 0; i < len(c.waiting); {
		e := &c.waiting[i].send.Event
		switch {
		case !all && time.Since(c.since[i]) <= retriedFor:
			i++
		case !all && isInterrupted(e) && isSending(&e.Sender):
			c.since[i] = time.Now()
			i++
		default:
			c.show(i)
		}
	}
	return c.out
}

func (c *retries) show(i int) {
	if e := &c.waiting[i].send.Event; isInterrupted(e) {
		e.Result.Errno = "EINTR"
	}
	c.out = append(c.out, c.waiting[i])
	c.remove(i)
}

func (c *retries) remove(i int) {
	c.waiting, c.since = slices.Delete(c.waiting, i, i+1), slices.Delete(c.since, i, i+1)
}

// isRefused reports whether a send has failed that claimed credentials.
func isRefused(e *events.Event) bool {
	return e.Claimed != nil && e.Result.Errno != "" && !isInterrupted(e)
}

// repeats reports whether a send says the same as a refused one of its thread, without a claim. What a
// refused one says is not always known.
func repeats(e, refused *events.Event) bool {
	return e.Claimed == nil && isSame(e, refused)
}

// isInterrupted reports whether a send has ended because a signal came: by numbers that no program sees (kernel:
// linux/errno.h).
func isInterrupted(e *events.Event) bool {
	return e.Result.Errno == "ERESTARTSYS" || e.Result.Errno == "ERESTARTNOINTR" || e.Result.Errno == "ERESTARTNOHAND"
}

// restarts reports whether a send is an interrupted one, which the kernel makes once more.
func restarts(e, interrupted *events.Event) bool {
	return (e.Claimed == nil) == (interrupted.Claimed == nil) && isSame(e, interrupted)
}

// isSame reports whether two sends say the same to the same. What the first one said is not always known.
func isSame(e, before *events.Event) bool {
	return len(e.FDs) == len(before.FDs) && e.Socket.Address == before.Socket.Address &&
		(before.Payload == nil || bytes.Equal(e.Payload, before.Payload))
}

// isSending reports whether a thread waits in a send still, or its process is stopped, so that it cannot go on with one.
func isSending(s *events.Sender) bool {
	p, err := proc.Open(int(s.PID))
	if err != nil {
		return false
	}
	defer p.Close()
	stat, err := p.Stat()
	if err != nil || !stat.StartedAt(s.StartTime) {
		return false
	}
	return stat.State == 'T' || stat.State == 't' || slices.Contains(p.ThreadsIn(proc.SendWaits...), int(s.TID))
}
