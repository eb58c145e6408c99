// SPDX-License-Identifier: Apache-2.0

package render

import (
	"cmp"

	"github.com/sdtrace/sdtrace/internal/identity"
	"github.com/sdtrace/sdtrace/pkg/events"
)

// appendGroup appends what a process belongs to: the unit of a machine's own service manager,
// else its container by name or id, else its unit, else its cgroup. controller is the cgroup v1
// controller of the cgroup's path, "" for cgroup v2.
func appendGroup(b []byte, id *events.Identity, controller string) []byte {
	unit := id.Unit
	switch {
	case id.Unit != "" && id.UserUnit != "":
		unit = id.Unit + "/" + id.UserUnit
	case id.UserUnit != "":
		unit = id.UserUnit
	}
	switch {
	case id.Machine != "" && unit != "":
		return appendWord(b, machineName(id)+":"+unit)
	case id.Container != nil && *id.Container != (events.Container{}):
		return appendWord(b, containerName(id.Container))
	case unit != "":
		return appendWord(b, unit)
	case id.Cgroup != "" && controller != "":
		return appendWord(b, controller+":"+id.Cgroup)
	case id.Cgroup != "":
		return appendWord(b, id.Cgroup)
	}
	return append(b, '-')
}

// machineName is what a machine is called in MACHINE:UNIT: by the name of its container, if
// that has one.
func machineName(id *events.Identity) string {
	if c := id.Container; c != nil && c.ID == id.Machine {
		return cmp.Or(c.Name, shortID(c.ID))
	}
	return shortID(id.Machine)
}

// containerName is a container by name or id, else by its pod.
func containerName(c *events.Container) string {
	runtime, name := cmp.Or(c.Runtime, "container"), cmp.Or(c.Name, shortID(c.ID))
	if c.PodName != "" && c.PodNamespace != "" {
		name = c.PodNamespace + "/" + c.PodName + "/" + name
	}
	switch {
	case name != "":
		return runtime + ":" + name
	case c.PodUID != "":
		return runtime + ":pod " + c.PodUID
	}
	return runtime
}

// shortID abbreviates a random id of 64 hexadecimal digits to the 12 that the
// container runtimes print and accept. Names stay whole.
func shortID(id string) string {
	if identity.IsContainerID(id) {
		return id[:12]
	}
	return id
}
