// SPDX-License-Identifier: Apache-2.0

// Package holders finds the processes that hold the sockets which datagrams are sent to.
package holders

import (
	"context"
	"sync"
	"time"

	"github.com/sdtrace/sdtrace/internal/cgroupfs"
	"github.com/sdtrace/sdtrace/internal/identity"
	"github.com/sdtrace/sdtrace/internal/proc"
	"github.com/sdtrace/sdtrace/internal/sockdiag"
	"github.com/sdtrace/sdtrace/pkg/events"
)

const (
	// Looking at all processes takes up to seconds on a large host, so that it is
	// done only for a socket that was not there before, and not all the time.
	holdersFirst = 100 * time.Millisecond
	holdersLast  = 30 * time.Second
	// inVainMax is how many sockets are remembered that nobody was found to hold.
	inVainMax = 4096
	// checkedFor is how long a holder is believed to hold a socket still.
	checkedFor = 100 * time.Millisecond
)

// Holders finds out who holds a socket, in the background. Its methods can be called
// from any goroutine.
type Holders struct {
	stop    context.CancelFunc
	wanted  chan struct{}
	stopped chan struct{}
	looked  chan struct{}

	mu      sync.Mutex
	byInode map[uint32]*held
}

// Process is one that holds a socket.
type Process struct {
	// PID is 0 when there is none.
	PID  int
	Comm string
	events.Identity
}

// held is a socket and the process that holds it.
type held struct {
	process Process // PID 0: none was found
	checked time.Time
}

// Watch begins to look. Call Close at the end.
func Watch() *Holders {
	ctx, cancel := context.WithCancel(context.Background())
	h := &Holders{
		stop: cancel, wanted: make(chan struct{}, 1), stopped: make(chan struct{}),
		looked: make(chan struct{}), byInode: make(map[uint32]*held),
	}
	h.wanted <- struct{}{}
	go h.run(ctx)
	return h
}

// Looked is closed when all processes have been looked at for the first time.
func (h *Holders) Looked() <-chan struct{} { return h.looked }

// Close ends the looking.
func (h *Holders) Close() {
	h.stop()
	<-h.stopped
}

// Find returns the process that holds the socket with this inode number, of several the
// one with the lowest id. cgroup is the path of the cgroup v2 it was made in, or "". Find
// does not wait: of a socket that it is asked for the first time it only looks at the
// processes of that cgroup, if they are few, and the answer may be another one a moment
// later. What it returns held the socket a tenth of a second ago at most.
func (h *Holders) Find(inode uint64, cgroup string) (Process, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	found := h.byInode[uint32(inode)]
	switch {
	case found == nil:
		p := holderIn(cgroup, uint32(inode))
		h.byInode[uint32(inode)] = &held{process: p, checked: time.Now()}
		if p.PID == 0 {
			h.want()
		}
		return p, p.PID != 0
	case found.process.PID == 0:
		return Process{}, false
	}
	if now := time.Now(); now.Sub(found.checked) > checkedFor {
		if ifHolds(found.process.PID, uint32(inode)).PID == 0 {
			found.process = Process{}
			h.want()
			return Process{}, false
		}
		found.checked = now
	}
	return found.process, true
}

// Saw tells that a process was seen reading from the socket with this inode number, so
// that Find knows it if it holds the socket still.
func (h *Holders) Saw(inode uint64, pid int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if found := h.byInode[uint32(inode)]; found != nil && found.process.PID != 0 {
		return
	}
	now := time.Now()
	if p := ifHolds(pid, uint32(inode)); p.PID != 0 {
		h.byInode[uint32(inode)] = &held{process: p, checked: now}
	}
}

// Do says which process holds the receiving socket of an event, if that is known by now.
func (h *Holders) Do(r *events.Record) {
	switch {
	case r.Event != nil:
		to := r.Event.Receiver
		if to == nil || r.Event.Socket.Inode == 0 {
			return
		}
		if p, found := h.Find(r.Event.Socket.Inode, to.Cgroup); found {
			to.PID, to.Comm, to.Identity = uint32(p.PID), p.Comm, p.Identity
		}
	case r.Receipt != nil && r.Receipt.Kind == events.ReceiptRead:
		h.Saw(r.Receipt.Send.Socket.Inode, int(r.Receipt.By.PID))
	}
}

// want asks for another look.
func (h *Holders) want() {
	select {
	case h.wanted <- struct{}{}:
	default:
	}
}

func (h *Holders) run(ctx context.Context) {
	defer close(h.stopped)
	pause := holdersFirst
	for first := true; ; first = false {
		select {
		case <-ctx.Done():
			return
		case <-h.wanted:
		}
		began := time.Now()
		if h.look(ctx) {
			pause = holdersFirst
		} else {
			pause = min(2*pause, holdersLast)
		}
		if first {
			close(h.looked)
		}
		// At most a tenth of the time is spent looking.
		select {
		case <-ctx.Done():
			return
		case <-time.After(max(pause, 10*time.Since(began))):
		}
	}
}

// look finds the holders of all bound datagram sockets, and says whether it found one
// that was not known.
func (h *Holders) look(ctx context.Context) (news bool) {
	found, err := holdersOfAll(ctx)
	if err != nil {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for inode := range found {
		if old := h.byInode[inode]; old == nil || old.process.PID == 0 {
			news = true
		}
	}
	// What was asked for in vain is not a reason to look again.
	vain := 0
	for inode, old := range h.byInode {
		if old.process.PID == 0 && found[inode] == nil && vain < inVainMax {
			found[inode] = old
			vain++
		}
	}
	h.byInode = found
	return news
}

// holdersOfAll finds the holders of all bound datagram sockets, by inode number.
func holdersOfAll(ctx context.Context) (map[uint32]*held, error) {
	sockets, err := sockdiag.All(ctx)
	if err != nil {
		return nil, err
	}
	bound := make(map[uint32]bool)
	for _, s := range sockets {
		if s.IsDatagram() {
			bound[s.Inode] = true
		}
	}
	var mu sync.Mutex
	found := make(map[uint32]*held)
	err = proc.Each(ctx, func(p proc.Process) {
		inodes := p.Sockets(func(inode uint32) bool { return bound[inode] })
		if len(inodes) == 0 {
			return
		}
		process := describe(p)
		if process.PID == 0 {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		for _, inode := range inodes {
			if old := found[inode]; old == nil || p.PID < old.process.PID {
				found[inode] = &held{process: process, checked: time.Now()}
			}
		}
	})
	return found, err
}

// describe says what is known about a process by itself; PID is 0 if it is gone.
func describe(p proc.Process) Process {
	comm, err := p.Comm()
	if err != nil {
		return Process{}
	}
	cgroup, err := p.Cgroup()
	if err != nil {
		return Process{}
	}
	return Process{PID: p.PID, Comm: comm, Identity: identity.Parse(cgroup)}
}

// fewProcesses are looked at while somebody waits: a millisecond.
const fewProcesses = 16

// holderIn looks for the holder of a socket among the processes of a cgroup. PID 0 is none.
func holderIn(cgroup string, inode uint32) Process {
	if cgroup == "" {
		return Process{}
	}
	pids, err := cgroupfs.Processes(cgroup)
	if err != nil || len(pids) > fewProcesses {
		return Process{}
	}
	for _, pid := range pids {
		if p := ifHolds(pid, inode); p.PID != 0 {
			return p
		}
	}
	return Process{}
}

// ifHolds describes a process if it has a file descriptor of a socket. PID 0 is none.
func ifHolds(pid int, inode uint32) Process {
	p, err := proc.Open(pid)
	if err != nil {
		return Process{}
	}
	defer p.Close()
	if !p.Holds(inode) {
		return Process{}
	}
	return describe(p)
}
