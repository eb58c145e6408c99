// SPDX-License-Identifier: Apache-2.0

// Package containers knows where container runtimes write down what they call their
// containers. It asks no daemon.
package containers

import (
	"os"
	"strconv"
	"strings"

	"github.com/sdtrace/sdtrace/pkg/identity"
)

// Container is what there is to find a name by.
type Container struct {
	// Runtime is that of [identity.Identity], or "".
	Runtime string
	// ID is the container's id. Only one of 64 hexadecimal digits has a name beside
	// it: what lxc, nspawn and runc have in its place is the name.
	ID string
	// Cgroup is the path of the control group that Runtime and ID were read off, or
	// of one below it. It says whom to believe: see [Names]. "" says: root alone.
	Cgroup string
}

// key makes one of all the control groups of a container.
func (c Container) key() (key Container, ok bool) {
	if !identity.IsContainerID(c.ID) {
		return Container{}, false
	}
	above, _, found := strings.Cut(c.Cgroup, c.ID)
	c.Cgroup = ""
	if found {
		c.Cgroup = above + c.ID
	}
	return c, true
}

// owner is the user in whose slice the container is, 0 if it is in none.
func (c Container) owner() uint32 {
	number, ok := strings.CutPrefix(identity.Parse(c.Cgroup).Slice, "user-")
	if !ok {
		return 0
	}
	uid, err := strconv.ParseUint(strings.TrimSuffix(number, ".slice"), 10, 32)
	if err != nil {
		return 0
	}
	return uint32(uid)
}

// believes reports whether what a user writes down or runs can tell the name: anybody
// can call a program of theirs conmon.
func (c Container) believes(uid uint32) bool {
	return uid == 0 || uid == c.owner() || int(uid) == os.Geteuid()
}

// isInside reports whether the container was made in another one, so that a runtime
// which is in that one can tell its name.
func (c Container) isInside(outer string) bool {
	return identity.IsContainerID(outer) && outer != c.ID && strings.Contains(c.Cgroup, outer)
}
