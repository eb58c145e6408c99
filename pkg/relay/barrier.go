// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// barrier is a point in the stream of notifications. Its waiters are let go,
// by closing what they passed, when the host has read all that came before
// (sd_notify_barrier(3)).
type barrier struct {
	pipe    int // the end whose other one the host holds; -1: not sent yet
	waiters []waiter
}

// waiter is a sender of BARRIER=1.
type waiter struct {
	fd     int
	isPipe bool // so that polling it is safe, and tells when nobody waits any more
	rec    recorder
}

// barriers keeps count of all that are not passed yet.
type barriers struct {
	sent []*barrier // the host has them, in order
	all  int        // queued or sent
	// count counts the waiters of all barriers, ofProcess by their processes, denied those that may not notify, which are in
	// neither.
	count, denied int
	ofProcess     map[int]int
	// late are waiters for whom no barrier was left: the next one is theirs, too.
	late []waiter
	// held are waiters for whom there is no room: they wait until there is, or the relay ends.
	held []waiter
	// passing is set while nothing was sent since the last barrier.
	passing bool
}

// addBarrier takes over fd and releases it when the host has read everything
// that was accepted before. Who may not notify waits all the same, as for systemd.
func (r *Relay) addBarrier(fd int, rec recorder) {
	w := waiter{fd: fd, isPipe: fileType(fd) == unix.S_IFIFO, rec: rec}
	switch {
	case r.barriers.hasRoom(w):
		if !rec.denied {
			r.releaseStatus()
		}
		r.await(w)
	case rec.denied:
		rec.note(KeyBarrier, Denied, ReasonTooManyBarriers, nil)
		r.closer.close(rec.owner(), fd)
	default:
		rec.note(KeyBarrier, Held, ReasonTooManyBarriers, nil)
		r.barriers.held = append(r.barriers.held, w)
	}
}

// hasRoom reports whether one more can wait.
func (b *barriers) hasRoom(w waiter) bool {
	if w.rec.denied {
		return b.denied < maxDenied
	}
	return b.count < maxWaiters && b.ofProcess[w.rec.pid] < maxOfProcess
}

// add counts a waiter, or with -1 no more.
func (b *barriers) add(w waiter, n int) {
	if w.rec.denied {
		b.denied += n
		return
	}
	if b.ofProcess == nil {
		b.ofProcess = make(map[int]int)
	}
	b.count += n
	if b.ofProcess[w.rec.pid] += n; b.ofProcess[w.rec.pid] == 0 {
		delete(b.ofProcess, w.rec.pid)
	}
}

// await puts a waiter behind the last barrier, or makes one for it.
func (r *Relay) await(w waiter) {
	b := &r.barriers
	b.add(w, 1)
	last := r.lastBarrier()
	switch {
	case last != nil:
		last.waiters = append(last.waiters, w)
	case b.all >= maxBarriers:
		b.late = append(b.late, w)
	default:
		r.queueBarrier(w)
	}
}

// isOver forgets a waiter that waits no more, and closes what it passed.
func (r *Relay) isOver(w waiter) {
	r.barriers.add(w, -1)
	r.closer.close(w.rec.owner(), w.fd)
}

// admitHeld lets those wait for whom there is room now. It is for when no barrier is being released: they would be taken for
// waiters of that.
func (r *Relay) admitHeld() {
	held := r.barriers.held
	r.barriers.held = nil
	for _, w := range held {
		if r.barriers.hasRoom(w) {
			r.await(w)
		} else {
			r.barriers.held = append(r.barriers.held, w)
		}
	}
}

// lastBarrier is the barrier behind which nothing came yet, if there is one.
func (r *Relay) lastBarrier() *barrier {
	if n := r.queue.len(); n > 0 {
		return r.queue.entries[n-1].barrier
	}
	if n := len(r.barriers.sent); n > 0 && r.barriers.passing {
		return r.barriers.sent[n-1]
	}
	return nil
}

func (r *Relay) queueBarrier(waiters ...waiter) {
	r.barriers.all++
	// There is room: the bounds of the queue are made so.
	rec := recorder{counters: &r.counters, callback: r.callback}
	r.queue.push(entry{barrier: &barrier{pipe: -1, waiters: waiters}, rec: rec}, false)
}

// sendBarrier puts a barrier to the host.
func (r *Relay) sendBarrier(b *barrier) error {
	if !r.up.passesFDs() {
		// What was sent before has been read, or it would not count as sent.
		r.release(b, ReasonNone)
		return nil
	}
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return fmt.Errorf("%w: %w", errAway, err)
	}
	defer unix.Close(ends[1])
	if err := r.up.send([]byte("BARRIER=1"), ends[1:], r.main.pid); err != nil {
		unix.Close(ends[0])
		if errors.Is(err, errNoFDs) {
			// Nobody can tell when the host reads: what came before was sent.
			r.release(b, ReasonHostTakesNoFDs)
			return nil
		}
		return err
	}
	b.pipe = ends[0]
	r.barriers.sent = append(r.barriers.sent, b)
	r.barriers.passing = true
	return nil
}

// release lets the waiters of a barrier go on. why is ReasonNone if the host has passed it.
func (r *Relay) release(b *barrier, why Reason) {
	for _, w := range b.waiters {
		w.rec.note(KeyBarrier, Released, why, nil)
		r.isOver(w)
	}
	r.barriers.all--
	if b.pipe >= 0 {
		unix.Close(b.pipe)
	}
	if len(r.barriers.late) > 0 {
		late := r.barriers.late
		r.barriers.late = nil
		r.queueBarrier(late...)
	}
}

// passed handles that the host has read what came before a barrier: it has also
// read what came before the ones that were sent earlier.
func (r *Relay) passed(b *barrier) {
	n := slices.Index(r.barriers.sent, b) + 1
	done := r.barriers.sent[:n:n]
	r.barriers.sent = slices.Clone(r.barriers.sent[n:])
	for _, b := range done {
		r.release(b, ReasonNone)
	}
}

// abandon lets go of a waiter that nobody waits for any more.
func (r *Relay) abandon(fd int) {
	drop := func(waiters []waiter, over func(waiter)) []waiter {
		return slices.DeleteFunc(waiters, func(w waiter) bool {
			if w.fd != fd {
				return false
			}
			w.rec.note(KeyBarrier, Denied, ReasonBarrierAbandoned, nil)
			over(w)
			return true
		})
	}
	r.barriers.held = drop(r.barriers.held, func(w waiter) { r.closer.close(w.rec.owner(), w.fd) })
	r.barriers.late = drop(r.barriers.late, r.isOver)
	for _, b := range r.barriers.sent {
		b.waiters = drop(b.waiters, r.isOver)
	}
	for _, e := range r.queue.entries {
		if e.barrier != nil {
			e.barrier.waiters = drop(e.barrier.waiters, r.isOver)
		}
	}
}

// eachWaiter calls f for every waiter there is.
func (r *Relay) eachWaiter(f func(waiter)) {
	for _, b := range r.barriers.sent {
		for _, w := range b.waiters {
			f(w)
		}
	}
	for _, e := range r.queue.entries {
		if e.barrier != nil {
			for _, w := range e.barrier.waiters {
				f(w)
			}
		}
	}
	for _, w := range r.barriers.late {
		f(w)
	}
	for _, w := range r.barriers.held {
		f(w)
	}
}
