// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"path"
	"strings"

	"github.com/sdtrace/sdtrace/pkg/events"
)

// InitScope is the unit that a service manager is in itself (systemd: SPECIAL_INIT_SCOPE).
const InitScope = "init.scope"

// IsOfHost reports whether a service manager with this root is one of the host's: the system's,
// or one of a user that the system's has started. Their units have a place in [Parse].
func IsOfHost(root string) bool { return root == "/" || isUserManager(path.Base(root)) }

// IsUserManager reports whether a control group is the root of a user's service manager.
func IsUserManager(cgroup string) bool { return isUserManager(path.Base(cgroup)) }

// Below returns what [Parse] says of a cgroup, with the units of the service manager that has
// its root above it. It is what Parse says when root is "" or one of the host's.
func Below(root, cgroup string) events.Identity {
	id := Parse(cgroup)
	if root == "" || IsOfHost(root) || root == cgroup {
		return id
	}
	below := Parse(cgroup[len(root):])
	id.Machine = MachineOf(root)
	id.Unit, id.UserUnit, id.Slice = below.Unit, below.UserUnit, below.Slice
	return id
}

// MachineOf names the machine of which a service manager has this root: by its container, else
// by the name of the control group. That of nspawn's guest is called "payload" whatever the
// machine, so the unit that nspawn runs in (systemd-nspawn --keep-unit) names it. What a terminal
// does not show is escaped, as by [events.Escape].
func MachineOf(root string) string {
	if c := Parse(root).Container; c != nil && c.ID != "" {
		return events.Escape(c.ID)
	}
	name := path.Base(root)
	if name == nspawnPayload {
		name = path.Base(path.Dir(root))
		name = strings.TrimSuffix(strings.TrimSuffix(name, ".service"), ".scope")
	}
	return events.Escape(name)
}
