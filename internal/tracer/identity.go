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
type cgroupPaths struct{ byID *lru[uint64, cgroupPath] }

// cgroupPath is the path of a cgroup, "" if it is gone, or cannot be told; and of the nearest one above of which it can.
type cgroupPath struct{ path, nearest string }

func (c *cgroupPaths) find(id uint64) cgroupPath {
	p, known := c.byID.Get(id)
	if !known {
		p.path, p.nearest = cgroupfs.PathOf(id)
		c.byID.Add(id, p)
	}
	return p
}

// path is that of a cgroup, or "" if it is gone, or cannot be found.
func (c *cgroupPaths) path(id uint64) string { return c.find(id).path }

// identify tells the unit and the like of a sender.
func (t *Tracer) identify(s *events.Sender) {
	if s.Cgroup != "" || s.CgroupController != "" {
		s.Identity = t.identities.of(s.Cgroup)
		return
	}
	s.Identity = t.identities.of(t.cgroups.find(s.CgroupID).nearest)
	s.Cgroup = ""
}
