// SPDX-License-Identifier: Apache-2.0

package relay

import "slices"

// The bounds of the queue. That compacting always makes room follows from them:
// what is left after it is at most one datagram a key between two barriers, those with
// file descriptors, and those with names.
const (
	maxQueued    = 1024 // datagrams
	maxBarriers  = 32   // of all containers, waiting to be sent or for the host
	maxWaiters   = 256  // senders that a barrier is for
	maxOfProcess = 64   // of these, for one process
	maxDenied    = 64   // of these, for processes that may not notify
	maxQueuedFDs = 253  // file descriptors for the host's store
	maxNamed     = 256  // datagrams of which each may say something of its own
)

// replaceable are the keys of which only the last value matters to anybody: an
// older one makes way as soon as the host does not read.
const replaceable = keySet(1<<KeyStatus | 1<<KeyWatchdog)

// named are the keys that mean another thing with each name: a later one makes none superfluous that does not say the same.
const named = keySet(1<<KeyFDStoreRemove | 1<<KeyPrivate)

// entry is a datagram on its way to the host, or a barrier between such.
type entry struct {
	payload []byte
	keys    keySet
	fds     []int  // owned
	main    target // the process that MAINPID= in it names
	barrier *barrier
	rec     recorder
}

// queue keeps, in order and in bounded memory, what the host did not get yet.
type queue struct {
	entries []*entry
	free    []*entry // for reuse
	fds     int      // in all entries
	named   int      // entries with names
}

func (q *queue) len() int { return len(q.entries) }

func (q *queue) head() *entry { return q.entries[0] }

// plain returns as many entries from the head on as are nothing but a payload,
// at most a batch.
func (q *queue) plain() []*entry {
	n := 0
	for n < min(batch, len(q.entries)) && q.entries[n].isPlain() {
		n++
	}
	return q.entries[:n]
}

func (e *entry) isPlain() bool { return e.barrier == nil && len(e.fds) == 0 && e.main.pid == 0 }

// pop takes the head away. What it holds is the caller's affair.
func (q *queue) pop() { q.remove(0) }

func (q *queue) remove(i int) {
	e := q.entries[i]
	q.entries = slices.Delete(q.entries, i, i+1)
	q.fds -= len(e.fds)
	if e.keys&named != 0 {
		q.named--
	}
	*e = entry{payload: e.payload[:0]}
	if len(q.free) < maxQueued {
		q.free = append(q.free, e)
	}
}

// push puts an entry behind the others and copies the payload. It returns false,
// and keeps nothing, when there is no room. If the host does not read, the entry
// makes superfluous what only says the same of an earlier moment.
func (q *queue) push(e entry, unread bool) bool {
	if len(e.fds) > 0 && q.fds+len(e.fds) > maxQueuedFDs {
		return false
	}
	if unread && e.barrier == nil && e.keys&^replaceable == 0 {
		q.supersede(e.keys)
	}
	isNamed := e.keys&named != 0
	isFull := func() bool { return len(q.entries) >= maxQueued || isNamed && q.named >= maxNamed }
	if isFull() {
		q.compact()
	}
	if isFull() && e.barrier == nil { // of barriers there are few
		return false
	}
	if isNamed {
		q.named++
	}
	var kept *entry
	if n := len(q.free); n > 0 {
		kept, q.free = q.free[n-1], q.free[:n-1]
	} else {
		kept = new(entry)
	}
	buffer := kept.payload
	*kept = e
	kept.payload = append(buffer[:0], e.payload...)
	kept.fds = slices.Clone(e.fds)
	q.fds += len(e.fds)
	q.entries = append(q.entries, kept)
	return true
}

// supersede removes what a datagram with these keys makes superfluous. Nothing
// moves across a barrier. The head stays: it may be under way.
func (q *queue) supersede(keys keySet) {
	for i := len(q.entries) - 1; i > 0; i-- {
		e := q.entries[i]
		if e.barrier != nil {
			return
		}
		if e.keys&^replaceable == 0 && e.keys&^keys == 0 {
			q.coalesce(i)
		}
	}
}

// compact leaves, between two barriers, of each key the last assignment: all
// that the host will act on in the end, in order.
func (q *queue) compact() {
	var later keySet
	again := make(map[string]bool) // what is said again, with names
	for i := len(q.entries) - 1; i > 0; i-- {
		e := q.entries[i]
		switch {
		case e.barrier != nil:
			later = 0
			clear(again)
		case e.keys&named != 0 && again[string(e.payload)]:
			q.coalesce(i)
		case e.keys&named != 0:
			again[string(e.payload)] = true
			later |= e.keys &^ (named | 1<<KeyFDName)
		case len(e.fds) == 0 && e.keys&^later == 0:
			q.coalesce(i)
		default:
			later |= e.keys
			if len(e.fds) > 0 { // what was removed before may be stored by it
				clear(again)
			}
		}
	}
}

func (q *queue) coalesce(i int) {
	e := q.entries[i]
	e.main.close()
	for key := range numKeys {
		if e.keys.has(key) {
			e.rec.note(key, Coalesced, ReasonNone, nil)
		}
	}
	q.remove(i)
}
