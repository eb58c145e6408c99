// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"context"
	"strings"
	"time"
)

// listingPause is the time from one listing of all sockets to the next, if listing them
// does not take more than a tenth of that.
const listingPause = time.Second

func (d *Destinations) run(ctx context.Context) {
	defer close(d.stopped)
	for {
		began := time.Now()
		d.list(ctx)
		select {
		case <-ctx.Done():
			return
		case <-time.After(max(listingPause, 10*time.Since(began))):
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
