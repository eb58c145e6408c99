// SPDX-License-Identifier: Apache-2.0

package destinations

import (
	"context"
	"time"

	"github.com/sdtrace/sdtrace/internal/proc"
	"github.com/sdtrace/sdtrace/internal/sockdiag"
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
	sockets, err := sockdiag.All(ctx)
	if err != nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.clock.check()
	d.mounts.check()
	// All of them were seen before now.
	now := proc.BootTime()
	names := make(map[abstractName]sighting)
	d.known = make(map[uint32]Destination)
	for i := range sockets {
		s := &sockets[i]
		if !s.IsDatagram() || len(d.known) >= namesMax {
			continue
		}
		d.known[s.Inode] = Destination{Inode: s.Inode, Bound: s.Address, NetNS: s.NetNS, UID: s.UID}
		if s.Address.IsAbstract() {
			name := abstractName{s.NetNS, s.Address}
			names[name] = sighting{s.Inode, d.sight(name, s.Inode, now)}
		}
	}
	d.names = names
}
