// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/sdtrace/sdtrace/internal/glob"
	"github.com/sdtrace/sdtrace/internal/identity"
	"github.com/sdtrace/sdtrace/pkg/events"
)

// Match says which datagrams to capture. A datagram matches when it fits each of the fields that
// are set; it fits a field when it fits one of the values. The kernel evaluates it; only whose a
// unit is, is judged afterwards.
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
	// Keys are keys of assignments, one of which has to be in the message, and WithoutKeys those of
	// which none may be in it.
	Keys, WithoutKeys []string
	// Comms are names of processes, of which the first 15 bytes count, or globs for them.
	Comms []string
	// PIDs are thread group ids in the initial pid namespace, UIDs real user ids in the
	// initial user namespace, NetNS inode numbers of the sender's network namespace.
	PIDs, UIDs, NetNS []uint32
	// Failed lets only datagrams pass that are known not to have arrived.
	Failed bool
}

// OptionError is the error for options that make no sense anywhere, or not with a file.
type OptionError struct {
	// Option is the field of [Match] or [Options] that is wrong, such as "PIDs"; "" if it is several together.
	Option string
	err    error
}

// Error says which option and what would be right.
func (e *OptionError) Error() string { return e.err.Error() }

// Unwrap returns the reason.
func (e *OptionError) Unwrap() error { return e.err }

func badOption(option, format string, args ...any) error {
	return &OptionError{option, fmt.Errorf(format, args...)}
}

// pidMax is the largest process id there can be (kernel: PID_MAX_LIMIT).
const pidMax = 1 << 22

// check refuses what cannot match anything.
func (m *Match) check() error {
	for _, pid := range m.PIDs {
		if pid == 0 || pid > pidMax {
			return badOption("PIDs", "no process can have the id %d", pid)
		}
	}
	for _, pattern := range m.Sockets {
		if pattern == "" {
			return badOption("Sockets", "socket pattern \"\": it is empty")
		}
	}
	for option, keys := range map[string][]string{"Keys": m.Keys, "WithoutKeys": m.WithoutKeys} {
		for _, key := range keys {
			if key == "" || strings.ContainsAny(key, "=\n\r") {
				return badOption(option, "key %q: a key must not be empty or contain '=' or a line break", key)
			}
		}
	}
	if slices.Contains(m.Comms, "") {
		return badOption("Comms", "process name \"\": it is empty")
	}
	if slices.Contains(m.NetNS, 0) {
		return badOption("NetNS", "no network namespace has the inode number 0")
	}
	if slices.Contains(m.UIDs, math.MaxUint32) {
		return badOption("UIDs", "no user can have the id %d", uint32(math.MaxUint32))
	}
	return nil
}

// unitMatch is one of Match.Units.
type unitMatch struct {
	// machine is a glob for the machine's name, "" for the host.
	machine string
	// names are globs for the names that the cgroup of the unit can have.
	names []string
}

func parseUnit(text string) (unitMatch, error) {
	machine, unit, found := strings.Cut(text, ":")
	if !found {
		machine, unit = "", text
	} else if strings.Contains(machine, "/") {
		return unitMatch{}, badOption("Units", "machine name %q contains '/'", machine)
	}
	names, err := identity.UnitPatterns(unit)
	if err != nil {
		return unitMatch{}, &OptionError{"Units", err}
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

// matches reports whether a cgroup is one of the unit's. roots are the roots of the service
// managers above it but the host's, the innermost first. calls is what else the machine at a root
// is called, "" for nothing.
func (u *unitMatch) matches(cgroup string, roots []string, calls func(root string) string) bool {
	// What belongs to a manager ends at the root of the next one below.
	below := cgroup
	for _, root := range roots {
		if u.machine != "" && u.isMachine(identity.MachineOf(root), calls(root)) && u.isUnit(below[len(root):]) {
			return true
		}
		below = root
	}
	return u.machine == "" && u.isUnit(below)
}

func (u *unitMatch) isUnit(cgroup string) bool {
	return slices.ContainsFunc(identity.UnitNames(cgroup), func(name string) bool { return glob.MatchAny(u.names, name) })
}

// idPrefix is the number of digits of a container's id from which on they are taken for it.
const idPrefix = 4

func (u *unitMatch) isMachine(name, alias string) bool {
	return glob.Match(u.machine, name) || alias != "" && glob.Match(u.machine, alias) ||
		identity.IsContainerID(name) && len(u.machine) >= idPrefix && strings.HasPrefix(name, u.machine)
}

// isPattern reports whether the machine's name stands for any number of them.
func (u *unitMatch) isPattern() bool { return isGlob(u.machine) }

// Filter judges events by what they say alone, such as those of a file.
type Filter struct{ judge *afterwards }

// Filter prepares the judgement. The error is an [OptionError] for what cannot match anything, or not so.
func (m Match) Filter() (*Filter, error) {
	judge, err := judgeAfterwards(m)
	if err != nil {
		return nil, err
	}
	return &Filter{judge}, nil
}

// MatchesAll reports whether every event matches.
func (f *Filter) MatchesAll() bool { return f.judge.empty() }

// Matches reports whether an event matches.
func (f *Filter) Matches(e *events.Event) bool { return f.judge.matches(e) }

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
			return nil, badOption("Cgroups", "cgroup %q: a file knows cgroups by their path below the root, as in sender.cgroup", cgroup)
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
			return nil, &OptionError{"Containers", err}
		}
		a.containers = append(a.containers, patterns)
	}
	return a, nil
}

// empty reports whether every event passes.
func (a *afterwards) empty() bool {
	return len(a.Units)+len(a.Containers)+len(a.Cgroups)+len(a.Sockets)+len(a.Keys)+len(a.WithoutKeys)+len(a.Comms)+
		len(a.PIDs)+len(a.UIDs)+len(a.NetNS) == 0 && !a.Failed
}

func (a *afterwards) matches(e *events.Event) bool {
	s := &e.Sender
	return anyOf(a.PIDs, func(pid uint32) bool { return s.PID == pid }) &&
		anyOf(a.UIDs, func(uid uint32) bool { return s.UID == uid }) &&
		anyOf(a.NetNS, func(netns uint32) bool { return s.NetNS == netns }) &&
		a.commMatches(s.Comm) &&
		anyOf(a.Cgroups, func(cgroup string) bool { return isBelow(s.Cgroup, cgroup) }) &&
		anyOf(a.Sockets, func(pattern string) bool {
			return glob.Match(pattern, string(e.Socket.Address)) || glob.Match(pattern, string(e.Socket.Bound))
		}) &&
		anyOf(a.Keys, func(key string) bool { return hasKey(e, key) }) && a.saysKeys(e) && a.isWithout(e) &&
		anyOf(a.units, func(u unitMatch) bool { return u.matches(s.Cgroup, rootsOf(&s.Identity), nameOf(&s.Identity)) }) &&
		a.containerMatches(&s.Identity) &&
		(!a.Failed || e.Result.Failed())
}

// matchesUnit reports whether what a service manager with a notify socket tells of one of its units is wanted,
// "" for one that is not known. Filters that are about senders leave it out, and about keys, unless the unit
// was asked for by name.
func (a *afterwards) matchesUnit(id *events.Identity, socket events.Address) bool {
	if len(a.Comms)+len(a.PIDs)+len(a.UIDs)+len(a.NetNS) > 0 || a.Failed || len(a.Keys) > 0 && len(a.units) == 0 {
		return false
	}
	return anyOf(a.Cgroups, func(cgroup string) bool { return isBelow(id.Cgroup, cgroup) }) &&
		anyOf(a.Sockets, func(pattern string) bool { return socket != "" && glob.Match(pattern, string(socket)) }) &&
		anyOf(a.units, func(u unitMatch) bool { return u.matchesIdentity(id) }) && a.containerMatches(id)
}

// matchesHang judges a send that does not return, of which it is not known what it says and who the user is.
func (a *afterwards) matchesHang(h *events.Hang) bool {
	if len(a.Keys)+len(a.WithoutKeys)+len(a.UIDs)+len(a.NetNS) > 0 {
		return false
	}
	return a.matches(&events.Event{
		Sender: events.Sender{PID: h.Sender.PID, Comm: h.Sender.Comm, Identity: h.Sender.Identity},
		Socket: events.Socket{Address: h.Address}, Result: events.Result{Errno: "EAGAIN"}, // as good as failed
	})
}

// matchesIdentity reports whether an identity is the unit's, which may have no control group.
func (u *unitMatch) matchesIdentity(id *events.Identity) bool {
	calls := nameOf(id)("")
	if id.Machine == "" && u.machine != "" || id.Machine != "" && (u.machine == "" || !u.isMachine(id.Machine, calls)) {
		return false
	}
	return id.Unit != "" && glob.MatchAny(u.names, id.Unit) || id.UserUnit != "" && glob.MatchAny(u.names, id.UserUnit) ||
		id.Slice != "" && glob.MatchAny(u.names, id.Slice)
}

// commMatches reports whether a name of a process is one of those that are wanted.
func (m *Match) commMatches(name string) bool {
	return anyOf(m.Comms, func(comm string) bool {
		return isGlob(comm) && glob.Match(comm, name) || name == comm[:min(len(comm), commMax)]
	})
}

// isGlob reports whether a pattern stands for more than itself.
func isGlob(pattern string) bool { return strings.ContainsAny(pattern, "*?") }

// isWithout reports whether a message has none of the keys that are not wanted.
func (m *Match) isWithout(e *events.Event) bool {
	return !slices.ContainsFunc(m.WithoutKeys, func(key string) bool { return hasKey(e, key) })
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

// saysKeys reports whether a message in which a key is found that is asked for says anything: systemd drops it whole if it
// cannot be parsed.
func (m *Match) saysKeys(e *events.Event) bool {
	return len(m.Keys) == 0 || e.Payload == nil || e.TextOf().Err == nil
}

// hasKey looks for a key as the programs do (has_wanted_key in bpf/notify.h).
func hasKey(e *events.Event, wanted string) bool {
	key, inKey, escaped := make([]byte, 0, len(wanted)), true, false
	for _, c := range e.Payload {
		switch {
		case c == '\\' && !escaped:
			escaped = true
			continue
		case (c == '\n' || c == '\r') && !escaped:
			key, inKey = key[:0], true
		case inKey && c == '=':
			if string(key) == wanted {
				return true
			}
			inKey = false
		case inKey:
			key = append(key, c)
		}
		escaped = false
	}
	return false
}

// rootsOf finds the root of a recorded machine: the control group above that gave it its name.
func rootsOf(id *events.Identity) []string {
	if id.Machine == "" {
		return nil
	}
	for at := range cutsOf(id.Cgroup) {
		if identity.MachineOf(at) == id.Machine && identity.Below(at, id.Cgroup).Unit == id.Unit {
			return []string{at}
		}
	}
	return nil
}

// nameOf returns what a recorded machine is called if it is a container with a name.
func nameOf(id *events.Identity) func(root string) string {
	return func(string) string {
		if id.Container != nil && id.Container.ID == id.Machine {
			return id.Container.Name
		}
		return ""
	}
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
