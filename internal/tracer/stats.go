// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/sdtrace/sdtrace/bpf"
	"github.com/sdtrace/sdtrace/pkg/events"
)

// lost reports what was lost since the last report, nil if nothing was, or it was looked for a moment ago.
func (t *Tracer) lost() (*events.Lost, error) {
	if t.pending == nil && time.Since(t.counted) < countInterval {
		return nil, nil
	}
	t.counted = time.Now()
	stats, err := t.Stats()
	if err != nil {
		return nil, err
	}
	now := events.Lost{
		RingFull: stats.RingFull, Missed: stats.Missed, Receipts: stats.Receipts, Names: t.forgotten.Load(),
	}
	delta := events.Lost{
		Time:     time.Now(),
		RingFull: now.RingFull - t.reported.RingFull,
		Missed:   now.Missed - t.reported.Missed,
		Receipts: now.Receipts - t.reported.Receipts,
		Names:    now.Names - t.reported.Names,
	}
	if delta.Count() == 0 && delta.Receipts == 0 && delta.Names == 0 {
		return nil, nil
	}
	if delta.RingFull > 0 {
		delta.By = t.lostBy()
	}
	t.reported = now
	return &delta, nil
}

// lostBy says whose datagrams had no room since it was asked last: what cannot be read is not known.
func (t *Tracer) lostBy() (by []events.LostBy) {
	const isUser = 1 << 63 // OWNER_IS_USER in bpf/share.h
	if t.lostBefore == nil {
		t.lostBefore = make(map[uint64]uint64)
	}
	var owner uint64
	var share bpf.FentryShare
	for all := t.collection.Maps["shares"].Iterate(); all.Next(&owner, &share); {
		n := share.Lost - t.lostBefore[owner]
		t.lostBefore[owner] = share.Lost
		switch {
		case n == 0 || n > share.Lost: // nothing, or it has begun anew
		case owner&isUser != 0:
			by = append(by, events.LostBy{UID: uint32(owner), Count: n})
		default:
			by = append(by, events.LostBy{CgroupID: owner, Cgroup: t.cgroups.path(owner), Count: n})
		}
	}
	slices.SortFunc(by, func(a, b events.LostBy) int { return cmp.Compare(b.Count, a.Count) })
	return by[:min(len(by), lostByMost)]
}

// lostByMost is how many are named of those whose datagrams were lost.
const lostByMost = 16

// Stats are totals since the start of the capture, in datagrams.
type Stats struct {
	// Ignored is how many AF_UNIX datagrams do not count as notifications.
	Ignored uint64
	// Filtered is how many a filter rejected; whether they count was not asked
	// where the filter was cheaper to ask.
	Filtered uint64
	// Captured is how many were handed to user space.
	Captured uint64
	// RingFull and Missed are the losses, as in [events.Lost].
	RingFull, Missed uint64
	// Receipts is how many receipts are missing at most, as in [events.Lost].
	Receipts uint64
	// Unknown is what may have been datagrams.
	Unknown Unknown
}

// Unknown is what may have sent datagrams that are in no other count, as the backend that has only raw_tp/sys_exit cannot
// tell; for others it is 0.
type Unknown struct {
	// IOUring is how many requests io_uring_enter(2) handed over, of any kind.
	IOUring uint64
	// Splice is how many calls of splice(2) and sendfile(2) moved something to a datagram socket, each as one datagram or more.
	Splice uint64
	// Compat is how many calls of 32-bit programs sent or wrote to a datagram socket.
	Compat uint64
}

// Seen is how many AF_UNIX datagrams were sent on the host: each is in one of the others.
func (s Stats) Seen() uint64 { return s.Ignored + s.Filtered + s.Captured + s.Lost() }

// Lost is the number of datagrams lost, all reasons together.
func (s Stats) Lost() uint64 { return s.RingFull + s.Missed }

// Stats reads the kernel's counters. The error says which could not be read.
func (t *Tracer) Stats() (Stats, error) {
	var s Stats
	skipped, err := t.missed(sendExitByThread)
	if err != nil {
		return Stats{}, err
	}
	var known, unreturned uint64
	for counter, to := range map[bpf.FentryCounter]*uint64{
		bpf.FentryCounterCOUNT_IGNORED:      &s.Ignored,
		bpf.FentryCounterCOUNT_FILTERED:     &s.Filtered,
		bpf.FentryCounterCOUNT_CAPTURED:     &s.Captured,
		bpf.FentryCounterCOUNT_RING_FULL:    &s.RingFull,
		bpf.FentryCounterCOUNT_RUN_SKIPPED:  &known,
		bpf.FentryCounterCOUNT_UNREADABLE:   &s.Missed,
		bpf.FentryCounterCOUNT_RECEIPT_LOST: &s.Receipts,
		bpf.FentryCounterCOUNT_UNRETURNED:   &unreturned,

		bpf.FentryCounterCOUNT_UNKNOWN_IO_URING: &s.Unknown.IOUring,
		bpf.FentryCounterCOUNT_UNKNOWN_SPLICE:   &s.Unknown.Splice,
		bpf.FentryCounterCOUNT_UNKNOWN_COMPAT:   &s.Unknown.Compat,
	} {
		var perCPU []uint64
		if err := t.collection.Maps["counters"].Lookup(uint32(counter), &perCPU); err != nil {
			return Stats{}, fmt.Errorf("reading the counters: %w", err)
		}
		for _, n := range perCPU {
			*to += n
		}
	}
	if here := t.collection.Maps["call_here"]; here != nil {
		var perCPU []bpf.FentryCall
		if err := here.Lookup(uint32(0), &perCPU); err != nil {
			return Stats{}, fmt.Errorf("reading the counters: %w", err)
		}
		for i := range perCPU {
			s.Ignored += perCPU[i].Ignored
			s.Captured += perCPU[i].Captured
		}
	}
	s.Missed += max(known, t.unseen(skipped, unreturned))
	// Read after the kernel's counter, which is never less.
	rejected := min(t.rejected.Load(), s.Captured)
	s.Captured, s.Filtered = s.Captured-rejected, s.Filtered+rejected
	for _, p := range t.plan.programs {
		if !p.counted {
			continue
		}
		missed, err := t.missed(p.name)
		if err != nil {
			return Stats{}, err
		}
		s.Missed += missed
	}
	if t.plan.knows.Receipts {
		for _, name := range []string{datagramQueued, datagramQueuedByThread, datagramTaken, datagramRead} {
			missed, err := t.missed(name)
			if err != nil {
				return Stats{}, err
			}
			s.Receipts += missed
		}
	}
	return s, nil
}

// unseen is how many sends were missed because the kernel skipped a program: each send ends, so that it is for as many as
// ends were skipped, but for those of datagrams whose queueing was seen and whose end was not. A send that is between the
// two in this moment makes it less for a moment, but what was said once stays.
func (t *Tracer) unseen(skipped, unreturned uint64) uint64 {
	for {
		before := t.unseenMost.Load()
		now := int64(skipped - unreturned)
		if now <= int64(before) || t.unseenMost.CompareAndSwap(before, uint64(now)) {
			return max(before, uint64(max(now, 0)))
		}
	}
}

// missed is how many runs of a program the kernel skipped, 0 for one that is not loaded. Kernels before 5.12 say 0,
// and never skip one.
func (t *Tracer) missed(program string) (uint64, error) {
	if t.collection.Programs[program] == nil {
		return 0, nil
	}
	stats, err := t.collection.Programs[program].Stats()
	if err != nil {
		return 0, fmt.Errorf("reading the program statistics: %w", err)
	}
	return stats.RecursionMisses, nil
}

// doubtDelivery takes back that a datagram was dropped by the receiver's socket filter
// when the receiver may just not have been seen.
func (t *Tracer) doubtDelivery(r *events.Result) error {
	if r.Errno != "" || !r.Failed() {
		return nil
	}
	missed, err := t.missed(datagramQueuedByThread)
	if missed > 0 {
		r.Delivered = nil
	}
	return err
}
