// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"context"
	"strings"
	"time"
)

const (
	// listingPause is the time from one listing of all sockets to the next, if listing them
	// does not take more than a tenth of that.
	listingPause = time.Second
	// quietPauses is how many times as long it becomes while nobody asks.
	quietPauses = 8
)

func (d *Destinations) run(ctx context.Context) {
	defer close(d.stopped)
	quiet := 1
	for {
		began := time.Now()
		d.list(ctx)
		pause := max(listingPause, 10*time.Since(began))
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		quiet = min(2*quiet, quietPauses)
		select {
		case <-ctx.Done():
			return
		case <-d.asked:
			quiet = 1
		case <-time.After(time.Duration(quiet-1) * pause):
		}
	}
}

// list notes which sockets there are in all network namespaces, and what has changed that
// would be taken for a change just now if it was noticed only with the next send.
func (d *Destinations) list(ctx context.Context) {
	t := &taking{onlyHolders: true}
	defer t.close()
	if t.scanProcesses(ctx) != nil {
		return
	}
	t.addMountedNamespaces()
	if t.listSockets(ctx, nil) != nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.clock.check()
	d.mounts.check()
	// All of them were seen before now.
	now := bootTime()
	names := make(map[abstractName]sighting)
	d.known = make(map[uint32]Destination)
	for i := range t.sockets {
		s := &t.sockets[i]
		if !s.isDatagram() || len(d.known) >= namesMax {
			continue
		}
		d.known[s.Inode] = Destination{Inode: s.Inode, Bound: s.Address, NetNS: s.NetNS, UID: s.UID}
		if strings.HasPrefix(s.Address, "@") {
			name := abstractName{s.NetNS, s.Address}
			names[name] = sighting{s.Inode, d.sight(name, s.Inode, now)}
		}
	}
	d.names = names
}
