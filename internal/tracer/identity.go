// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"github.com/sdtrace/sdtrace/internal/cgroupfs"
	"github.com/sdtrace/sdtrace/internal/identity"
	"github.com/sdtrace/sdtrace/pkg/events"
)

// identifyReceiver fills in what the cgroup of the receiving socket says.
func (t *Tracer) identifyReceiver(r *events.Receiver) {
	if r != nil && r.CgroupID != 0 {
		r.Identity = t.identities.of(t.cgroups.path(r.CgroupID))
	}
}

// identities remembers what the paths of cgroups say.
type identities struct{ byPath *lru[string, events.Identity] }

func (i *identities) of(path string) events.Identity {
	id, known := i.byPath.Get(path)
	if !known {
		id = identity.Parse(path)
		i.byPath.Add(path, id)
	}
	return id
}

// cgroupPaths remembers the paths of cgroups of version 2 by their ids, which are
// not given twice.
type cgroupPaths struct{ byID *lru[uint64, string] }

// path is that of a cgroup, or "" if it is gone, or cannot be found.
func (c *cgroupPaths) path(id uint64) string {
	path, known := c.byID.Get(id)
	if !known {
		path = cgroupfs.PathOf(id)
		c.byID.Add(id, path)
	}
	return path
}
