// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"encoding/binary"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/pkg/events"
	"github.com/sdtrace/sdtrace/pkg/identity"
)

// identifyReceiver fills in what the cgroup of the receiving socket says. c is room for its
// container.
func (t *Tracer) identifyReceiver(r *events.Receiver, c *events.Container) {
	if r == nil || r.CgroupID == 0 {
		return
	}
	r.Cgroup = t.cgroups.path(r.CgroupID)
	id := t.identities.of(r.Cgroup)
	r.Unit, r.UserUnit, r.Slice = id.Unit, id.UserUnit, id.Slice
	r.Container = container(id, c)
}

// identifyReader fills in what the cgroup of a reader says.
func (t *Tracer) identifyReader(r *events.Reader) {
	r.Cgroup = t.cgroups.path(r.CgroupID)
	id := t.identities.of(r.Cgroup)
	r.Unit, r.UserUnit, r.Slice = id.Unit, id.UserUnit, id.Slice
	r.Container = container(id, new(events.Container))
}

// container is what a cgroup path says about a container, in the room at c.
func container(id identity.Identity, c *events.Container) *events.Container {
	if id.Runtime == "" && id.ContainerID == "" && id.PodUID == "" {
		return nil
	}
	*c = events.Container{Runtime: id.Runtime, ID: id.ContainerID, PodUID: id.PodUID}
	return c
}

// identities remembers what the paths of cgroups say.
type identities struct {
	byPath memory[string, identity.Identity]
}

func (i *identities) of(path string) identity.Identity {
	id, known := i.byPath.find(path)
	if !known {
		id = identity.Parse(path)
		i.byPath.keep(path, id)
	}
	return id
}

// cgroupPaths remembers the paths of cgroups of version 2 by their ids, which are
// not given twice.
type cgroupPaths struct{ byID memory[uint64, string] }

// path is that of a cgroup, or "" if it is gone, or cannot be found.
func (c *cgroupPaths) path(id uint64) string {
	path, known := c.byID.find(id)
	if !known {
		path = lookUpCgroup(id)
		c.byID.keep(id, path)
	}
	return path
}

// cgroup2Mount is where the whole hierarchy is mounted, or "".
var cgroup2Mount = sync.OnceValue(func() string {
	mounts, err := cgroupMounts()
	if err != nil {
		return ""
	}
	for _, m := range mounts {
		if m.v2 && m.root == "/" {
			return m.point
		}
	}
	return ""
})

// kernfsHandle is the type of a file handle that is a kernfs_node's id
// (kernel: FILEID_KERNFS).
const kernfsHandle = 0xfe

func lookUpCgroup(id uint64) string {
	mount, err := unix.Open(cgroup2Mount(), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(mount)
	handle := unix.NewFileHandle(kernfsHandle, binary.NativeEndian.AppendUint64(nil, id))
	fd, err := unix.OpenByHandleAt(mount, handle, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	path, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		return ""
	}
	below, ok := strings.CutPrefix(path, cgroup2Mount())
	switch {
	case !ok:
		return ""
	case below == "":
		return "/"
	}
	return below
}
