// SPDX-License-Identifier: Apache-2.0

package verdicts

import (
	"bytes"
	"context"
	"sync"
	"time"

	"github.com/sdtrace/sdtrace/internal/budget"
	"github.com/sdtrace/sdtrace/internal/identity"
	"github.com/sdtrace/sdtrace/internal/osthread"
	"github.com/sdtrace/sdtrace/internal/proc"
	"github.com/sdtrace/sdtrace/internal/sockdiag"
	"github.com/sdtrace/sdtrace/pkg/events"
)

const (
	// hangsEvery is how often it is looked whether a service manager reads.
	hangsEvery = time.Second
	// hangsMax is how many sends that hang are told of at once.
	hangsMax = 64
	// sleeps is the state of a process that waits for something to do (proc_pid_stat(5)).
	sleeps = 'S'
)

// hanging is a send that does not return.
type hanging struct {
	since time.Time
	next  time.Time // when it is told of next
	step  time.Duration
	waits uint64 // of the thread when it was seen first: a later send waits anew
}

// thread tells a thread from another.
type thread struct{ pid, tid int }

// hangs tells of sends to the service manager that hang while it does not read, until the context ends. It
// does not ask the service manager, who would not answer.
func (m *manager) hangs(ctx context.Context) {
	tick := time.NewTicker(hangsEvery)
	defer tick.Stop()
	var spent budget.Budget
	known := make(map[thread]*hanging)
	busy := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if m.over() {
			return
		}
		p, err := proc.Open(int(m.pid))
		if err != nil {
			return
		}
		stat, err := p.Stat()
		switch {
		case err != nil || stat.StartTicks != m.started:
			p.Close()
			return
		case stat.State == sleeps:
			busy = false
			clear(known)
		case !busy:
			busy = true // for a moment, perhaps
		case spent.Allows(proc.BootTime()):
			spent.Spend(osthread.CPUTime(func() { m.findHangs(ctx, p, stat, known) }))
		}
		p.Close()
	}
}

// findHangs looks for threads that wait to send to the service manager, and tells of those that did so before.
func (m *manager) findHangs(ctx context.Context, manager proc.Process, stat proc.Stat, known map[thread]*hanging) {
	now := time.Now()
	found := make(map[thread]bool)
	var told []*events.Hang
	var mu sync.Mutex
	_ = proc.Each(ctx, func(p proc.Process) {
		for _, tid := range p.ThreadsIn(proc.SendWaits...) {
			address := events.AddressOf(p.Destination(tid))
			cgroup, err := p.Cgroup()
			if _, below := below(m.root, cgroup); err != nil || address != m.address || !m.hasRoot || !below {
				continue
			}
			waits, err := p.WaitsOf(tid)
			if err != nil {
				continue // it is over
			}
			mu.Lock()
			key := thread{p.PID, tid}
			found[key] = true
			h := known[key]
			if h == nil || h.waits != waits {
				h = &hanging{since: now, next: now.Add(hangsEvery / 2), step: waitFirst, waits: waits}
				known[key] = h
			}
			if !now.Before(h.next) && len(told) < hangsMax {
				h.next, h.step = now.Add(h.step), min(2*h.step, waitMost)
				told = append(told, m.hang(p, tid, cgroup, h.since, stat))
			}
			mu.Unlock()
		}
	})
	for key := range known {
		if !found[key] {
			delete(known, key)
		}
	}
	if len(told) == 0 {
		return
	}
	queues, err := sockdiag.Queues(ctx)
	inode := boundTo(manager, m.address)
	q, ok := queues[inode]
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, h := range told {
		if err == nil && ok && inode != 0 {
			h.Queued, h.MaxQueued = &q.Datagrams, &q.Limit
		}
		if m.wanted.Hang(h) && len(m.hung) < pendingMax {
			m.hung = append(m.hung, h)
		}
	}
}

// hang is a send that does not return.
func (m *manager) hang(p proc.Process, tid int, cgroup string, since time.Time, reader proc.Stat) *events.Hang {
	comm, _ := p.Comm() // "" when it has ended since
	return &events.Hang{
		Since:   since,
		Sender:  events.Reader{PID: uint32(p.PID), TID: uint32(tid), Comm: comm, Identity: identity.Below(m.root, cgroup)},
		Address: m.address, Receiver: events.Process{PID: m.pid, Comm: reader.Comm}, State: string(reader.State),
	}
}

// boundTo is the socket of a process that is bound to an address, 0 if it is not found.
func boundTo(p proc.Process, address events.Address) (inode uint32) {
	list, err := p.Read("net/unix")
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(list) {
		if n, bound := proc.ParseNetUnix(line); bound == string(address) && p.Holds(n) {
			return n
		}
	}
	return 0
}

// takeHung takes what is to be yielded.
func (m *manager) takeHung() []*events.Hang {
	m.mu.Lock()
	defer m.mu.Unlock()
	hung := m.hung
	m.hung = nil
	return hung
}
