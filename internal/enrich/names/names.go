// SPDX-License-Identifier: Apache-2.0

package names

import (
	"context"
	"sync"
	"time"
)

const (
	// lookLimit is how long the looking for one name may take.
	lookLimit = 2 * time.Second
	// workers is how many names are looked for at a time, and waitingMax how many more wait.
	workers    = 2
	waitingMax = 256
	// containersMax is how many containers are remembered, more than a large host has.
	containersMax = 16384
	// A container is looked for again when it was not found, since its runtime may
	// write it down a moment later, and when it was, since it can be renamed.
	againFirst = 100 * time.Millisecond
	againLast  = time.Minute
	againFound = 10 * time.Second
	// crowd is how many containers may be looked for as often as that. Of more, each is
	// looked for as much more rarely, so that all of them take no more time.
	crowd = 100
)

// Names finds out what containers are called, in the background. Its methods can be
// called from any goroutine.
//
// It reads the state files of docker and podman, the bundles of containerd and CRI-O,
// and asks the running processes of these, by their arguments, where else such files are
// and what their containers are called. What is believed has to belong to root, to the
// user in whose slice the container is, or to the user who runs this program; and a
// process in a container only knows of containers inside of that one.
type Names struct {
	look   func(context.Context, Key) Name
	ctx    context.Context
	stop   context.CancelFunc
	wanted chan Key

	mu          sync.Mutex
	byContainer map[Key]*entry
}

type entry struct {
	name Name
	// looked is closed when the container has been looked for once.
	looked chan struct{}
	once   bool
	// busy is set while it is looked for, or waits for that.
	busy  bool
	next  time.Time
	pause time.Duration
}

// Watch begins to find names. Call Close at the end.
func Watch() *Names { return watch(newFinder("/").find) }

func watch(look func(context.Context, Key) Name) *Names {
	n := &Names{look: look, wanted: make(chan Key, waitingMax), byContainer: make(map[Key]*entry)}
	n.ctx, n.stop = context.WithCancel(context.Background())
	for range workers {
		go n.work()
	}
	return n
}

// Close ends the looking. It does not wait for a file system that does not answer.
func (n *Names) Close() { n.stop() }

// Name returns what a container is called, if that is known by now. It never waits:
// the first call for a container, and now and then a later one, has it looked for.
func (n *Names) Name(c Key) (name Name, known bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	e := n.want(c)
	if e == nil {
		return Name{}, false
	}
	return e.name, e.name != (Name{})
}

// NameWithin is Name, but waits until the container has been looked for once, for limit at
// most. For one that was looked for before it does not wait.
func (n *Names) NameWithin(c Key, limit time.Duration) (name Name, known bool) {
	n.mu.Lock()
	e := n.want(c)
	n.mu.Unlock()
	if e == nil {
		return Name{}, false
	}
	select {
	case <-e.looked: // no timer for what is known
	default:
		timer := time.NewTimer(limit)
		defer timer.Stop()
		select {
		case <-e.looked:
		case <-timer.C:
		case <-n.ctx.Done():
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return e.name, e.name != (Name{})
}

// want returns what there is about a container, and has it looked for if it is time;
// nil is for one that has no name. n.mu is held.
func (n *Names) want(c Key) *entry {
	c, ok := c.normal()
	if !ok {
		return nil
	}
	e := n.byContainer[c]
	if e == nil {
		if len(n.byContainer) >= containersMax {
			n.forget()
		}
		e = &entry{looked: make(chan struct{}), pause: againFirst}
		n.byContainer[c] = e
	}
	if !e.busy && !time.Now().Before(e.next) {
		select {
		case n.wanted <- c:
			e.busy = true
		default: // a later call may have more luck
		}
	}
	return e
}

// forget makes room, but not of what is under way.
func (n *Names) forget() {
	for c, e := range n.byContainer {
		if !e.busy {
			delete(n.byContainer, c)
		}
	}
}

func (n *Names) work() {
	for {
		select {
		case <-n.ctx.Done():
			return
		case c := <-n.wanted:
			ctx, cancel := context.WithTimeout(n.ctx, lookLimit)
			n.learn(c, n.look(ctx, c))
			cancel()
		}
	}
}

func (n *Names) learn(c Key, name Name) {
	n.mu.Lock()
	defer n.mu.Unlock()
	e := n.byContainer[c]
	e.busy = false
	now := time.Now()
	after := func(pause time.Duration) time.Time {
		rarer := 1 + len(n.byContainer)/crowd
		return now.Add(min(time.Duration(rarer)*pause, againLast))
	}
	if name != (Name{}) {
		e.name, e.next, e.pause = name, after(againFound), againFirst
	} else { // what is gone is still called as it was
		e.next = after(e.pause)
		e.pause = min(2*e.pause, againLast)
	}
	if !e.once {
		e.once = true
		close(e.looked)
	}
}
