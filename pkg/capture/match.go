// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sdtrace/sdtrace/internal/glob"
	"github.com/sdtrace/sdtrace/internal/identity"
	"github.com/sdtrace/sdtrace/pkg/events"
)

// Match says which datagrams to capture: those of which, for each field that is set, one of its
// values matches. The kernel evaluates it wherever it can.
type Match struct {
	// Units are systemd units, as systemctl(1) takes them: * and ? match any, and a name
	// without a suffix is a service. UNIT is one of the host's service managers,
	// "MACHINE:UNIT" one of that machine's own (see [events.Identity]), "*:UNIT" one of any
	// machine's. A unit of the host with a colon in its name is ":UNIT".
	Units []string
	// Containers are ids, or at least the first four digits of one, or names.
	Containers []string
	// Cgroups are directories of a cgroup file system or paths below the root of cgroup v2;
	// what is in them or below matches, also in cgroups made later.
	Cgroups []string
	// Sockets are globs for the address of the socket: a path, or "@" and an abstract name.
	// With them any datagram to such a socket counts, and none to another.
	Sockets []string
	// Keys are keys of assignments, one of which has to be in the message.
	Keys []string
	// Comms are names of processes, of which the first 15 bytes count.
	Comms []string
	// PIDs are thread group ids in the initial pid namespace, UIDs real user ids in the
	// initial user namespace, NetNS inode numbers of the sender's network namespace.
	PIDs, UIDs, NetNS []uint32
	// Failed lets only datagrams pass that are known not to have arrived.
	Failed bool
}

// OptionError is the error for options that make no sense anywhere, or not with a file.
type OptionError struct{ err error }

// Error says which option and what would be right.
func (e *OptionError) Error() string { return e.err.Error() }

// Unwrap returns the reason.
func (e *OptionError) Unwrap() error { return e.err }

func badOption(format string, args ...any) error {
	return &OptionError{fmt.Errorf(format, args...)}
}

// pidMax is the largest process id there can be (kernel: PID_MAX_LIMIT).
const pidMax = 1 << 22

// check refuses what cannot match anything.
func (m *Match) check() error {
	for _, pid := range m.PIDs {
		if pid == 0 || pid > pidMax {
			return badOption("no process can have the id %d", pid)
		}
	}
	for _, key := range m.Keys {
		if key == "" || strings.ContainsAny(key, "=\n\r") {
			return badOption("key %q: a key must not be empty or contain '=' or a line break", key)
		}
	}
	return nil
}

// unitMatch is one of Match.Units.
type unitMatch struct {
	// machine is a glob for the machine's name, "" for the host.
	machine string
	// ids are what else the machine is called: the id of the container with that name.
	ids []string
	// names are globs for the names that the cgroup of the unit can have.
	names []string
}

func parseUnit(text string) (unitMatch, error) {
	machine, unit, found := strings.Cut(text, ":")
	if !found {
		machine, unit = "", text
	} else if strings.Contains(machine, "/") {
		return unitMatch{}, badOption("machine name %q contains '/'", machine)
	}
	names, err := identity.UnitPatterns(unit)
	if err != nil {
		return unitMatch{}, &OptionError{err}
	}
	return unitMatch{machine: machine, names: names}, nil
}

func parseUnits(units []string) (all []unitMatch, err error) {
	for _, text := range units {
		u, err := parseUnit(text)
		if err != nil {
			return nil, err
		}
		all = append(all, u)
	}
	return all, nil
}

// matches reports whether a cgroup is one of the unit's. root is the root of the service manager
// that the cgroup belongs to, "" for the host's.
func (u *unitMatch) matches(cgroup, root string) bool {
	if u.machine != "" {
		if root == "" || !u.isMachine(identity.MachineOf(root)) {
			return false
		}
		cgroup = cgroup[len(root):]
	}
	return slices.ContainsFunc(identity.UnitNames(cgroup), func(name string) bool { return glob.MatchAny(u.names, name) })
}

// idPrefix is the number of digits of a container's id from which on they are taken for it.
const idPrefix = 4

func (u *unitMatch) isMachine(name string) bool {
	return glob.Match(u.machine, name) || slices.Contains(u.ids, name) ||
		identity.IsContainerID(name) && len(u.machine) >= idPrefix && strings.HasPrefix(name, u.machine)
}

// afterwards judges events of which there is only what was written down.
type afterwards struct {
	Match
	units      []unitMatch
	containers [][]string // globs for the names in a cgroup path
}

// judgeAfterwards prepares a Match for a file. The error names what cannot be judged so.
func judgeAfterwards(m Match) (*afterwards, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	for _, cgroup := range m.Cgroups {
		if strings.HasPrefix(cgroup, "/sys/fs/cgroup") || !strings.HasPrefix(cgroup, "/") {
			return nil, badOption("cgroup %q: a file knows cgroups by their path below the root, as in sender.cgroup", cgroup)
		}
	}
	a := &afterwards{Match: m}
	var err error
	if a.units, err = parseUnits(m.Units); err != nil {
		return nil, err
	}
	for _, name := range m.Containers {
		patterns, err := identity.ContainerPatterns(name)
		if err != nil {
			return nil, &OptionError{err}
		}
		a.containers = append(a.containers, patterns)
	}
	return a, nil
}

// empty reports whether every event passes.
func (a *afterwards) empty() bool {
	return len(a.Units)+len(a.Containers)+len(a.Cgroups)+len(a.Sockets)+len(a.Keys)+len(a.Comms)+
		len(a.PIDs)+len(a.UIDs)+len(a.NetNS) == 0 && !a.Failed
}

func (a *afterwards) matches(e *events.Event) bool {
	s := &e.Sender
	return anyOf(a.PIDs, func(pid uint32) bool { return s.PID == pid }) &&
		anyOf(a.UIDs, func(uid uint32) bool { return s.UID == uid }) &&
		anyOf(a.NetNS, func(netns uint32) bool { return s.NetNS == netns }) &&
		anyOf(a.Comms, func(comm string) bool { return s.Comm == comm[:min(len(comm), commMax)] }) &&
		anyOf(a.Cgroups, func(cgroup string) bool { return isBelow(s.Cgroup, cgroup) }) &&
		anyOf(a.Sockets, func(pattern string) bool {
			return glob.Match(pattern, string(e.Socket.Address)) || glob.Match(pattern, string(e.Socket.Bound))
		}) &&
		anyOf(a.Keys, func(key string) bool { return hasKey(e, key) }) &&
		anyOf(a.units, func(u unitMatch) bool { return u.matches(s.Cgroup, rootOf(&s.Identity)) }) &&
		a.containerMatches(&s.Identity) &&
		(!a.Failed || e.Result.Failed())
}

// commMax is the longest name of a process, in bytes (kernel: TASK_COMM_LEN).
const commMax = 15

// anyOf reports whether one of the values matches, or there is none.
func anyOf[T any](values []T, matches func(T) bool) bool {
	return len(values) == 0 || slices.ContainsFunc(values, matches)
}

// isBelow reports whether a cgroup is another one or below it; one that is unknown is not.
func isBelow(cgroup, top string) bool {
	if cgroup == "" {
		return false
	}
	below, ok := strings.CutPrefix(cgroup, strings.TrimSuffix(top, "/"))
	return ok && (below == "" || below[0] == '/')
}

func hasKey(e *events.Event, key string) bool {
	text := e.TextOf()
	if text == nil {
		return false
	}
	return slices.ContainsFunc(text.Lines, func(line events.Line) bool {
		assignment, ok := line.Assignment()
		return ok && assignment.Key == key
	})
}

// rootOf finds the root of a recorded machine: the control group above that gave it its name.
func rootOf(id *events.Identity) string {
	if id.Machine == "" {
		return ""
	}
	for at := range cutsOf(id.Cgroup) {
		if identity.MachineOf(at) == id.Machine && identity.Below(at, id.Cgroup).Unit == id.Unit {
			return at
		}
	}
	return ""
}

// cutsOf yields the control groups above one, the innermost first.
func cutsOf(cgroup string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for at := strings.LastIndexByte(cgroup, '/'); at > 0; at = strings.LastIndexByte(cgroup[:at], '/') {
			if !yield(cgroup[:at]) {
				return
			}
		}
	}
}

func (a *afterwards) containerMatches(id *events.Identity) bool {
	if len(a.containers) == 0 {
		return true
	}
	if id.Container != nil && id.Container.Name != "" && slices.Contains(a.Containers, id.Container.Name) {
		return true
	}
	return slices.ContainsFunc(strings.Split(id.Cgroup, "/"), func(component string) bool {
		return slices.ContainsFunc(a.containers, func(patterns []string) bool { return glob.MatchAny(patterns, component) })
	})
}
