// SPDX-License-Identifier: Apache-2.0

// Package names knows where container runtimes write down what they call their
// containers. It asks no daemon.
package names

import (
	"os"
	"strconv"
	"strings"

	"github.com/sdtrace/sdtrace/internal/identity"
	"github.com/sdtrace/sdtrace/pkg/events"
)

// Key is what there is to find the name of a container by.
type Key struct {
	// Runtime is that of [events.Container], or "".
	Runtime string
	// ID is the container's id. Only one of 64 hexadecimal digits has a name beside
	// it: what lxc, nspawn and runc have in its place is the name.
	ID string
	// Cgroup is the path of the control group that Runtime and ID were read off, or
	// of one below it. It says whom to believe: see [Names]. "" says: root alone.
	Cgroup string
}

// KeyOf returns the key for the container in an identity; the zero value if it has none.
func KeyOf(id *events.Identity) Key {
	if id.Container == nil {
		return Key{}
	}
	return Key{Runtime: id.Container.Runtime, ID: id.Container.ID, Cgroup: id.Cgroup}
}

// normal makes one of all the control groups of a container.
func (k Key) normal() (key Key, ok bool) {
	if !identity.IsContainerID(k.ID) {
		return Key{}, false
	}
	above, _, found := strings.Cut(k.Cgroup, k.ID)
	k.Cgroup = ""
	if found {
		k.Cgroup = above + k.ID
	}
	return k, true
}

// Name is what a runtime calls a container, and Kubernetes its pod.
type Name struct {
	// Container is empty while it is not known.
	Container string
	// PodNamespace and PodName are empty outside of Kubernetes.
	PodNamespace, PodName string
}

// Complete sets the names in an identity's container. The identity gets a container of its own:
// the one that it had may be shared.
func (n Name) Complete(id *events.Identity) {
	if n == (Name{}) || id.Container == nil {
		return
	}
	c := *id.Container
	c.Name, c.PodNamespace, c.PodName = n.Container, n.PodNamespace, n.PodName
	id.Container = &c
}

// owner is the user in whose slice the container is, 0 if it is in none.
func (c Key) owner() uint32 {
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
func (c Key) believes(uid uint32) bool {
	return uid == 0 || uid == c.owner() || int(uid) == os.Geteuid()
}

// isInside reports whether the container was made in another one, so that a runtime
// which is in that one can tell its name.
func (c Key) isInside(outer string) bool {
	return identity.IsContainerID(outer) && outer != c.ID && strings.Contains(c.Cgroup, outer)
}
