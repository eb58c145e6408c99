// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"math"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/sdtrace/sdtrace/bpf"
	"github.com/sdtrace/sdtrace/internal/cgroupfs"
	"github.com/sdtrace/sdtrace/internal/proc"
	"github.com/sdtrace/sdtrace/pkg/events"
)

// Filter narrows a capture down. A datagram passes when for each field that is set
// one of its values matches. The kernel evaluates it.
type Filter struct {
	// Cgroups are directories of a cgroup file system, v2 or a v1 controller's, or
	// paths below the root of cgroup v2. What is in them or below matches, also
	// in cgroups made later.
	Cgroups []string
	// PIDs are thread group ids in the initial pid namespace.
	PIDs []uint32
	// UIDs are real user ids in the initial user namespace.
	UIDs []uint32
	// Comms are names of processes, of which the first 15 bytes count.
	Comms []string
	// NetNS are inode numbers of the sender's network namespace.
	NetNS []uint32
	// Sockets are globs ("*" any run of bytes, "?" one byte) for the address as
	// the sender wrote it or the receiver bound it, at most 112 with those of
	// Units and Containers. With them any datagram to a matching socket counts, and none
	// to another.
	Sockets []string
	// Keys are keys of assignments, one of which has to be in the message.
	Keys []string
	// Units and Containers are globs, of each of which one has to match one of the names in
	// the sender's cgroup path, also of units and containers that start later.
	// [Tracer.AddContainers] adds to the second.
	Units, Containers []string
	// Failed lets only datagrams pass that are known not to have arrived.
	Failed bool
}

// Empty reports whether every datagram passes.
func (f Filter) Empty() bool {
	return len(f.Cgroups)+len(f.PIDs)+len(f.UIDs)+len(f.Comms)+len(f.NetNS)+len(f.Sockets)+len(f.Keys)+
		len(f.Units)+len(f.Containers) == 0 && !f.Failed
}

// The limits of bpf/settings.h.
const (
	maxPatterns     = 128
	maxSet          = 1 << 20
	maxKeys         = 64
	maxControllers  = 8
	spareComponents = 16 // globs that AddContainers can add
	maxPattern      = len(bpf.FentryPattern{}.Text)
	commSize        = len(bpf.FentryComm{}.Name) - 1
	addressSize     = len(bpf.FentryAddress{}.Path)
	maxCgroupPath   = len(bpf.FentryCgroupPath{}.Text)
)

// The groups of globs for the names in a cgroup path.
const (
	groupUnits = iota
	groupContainers
)

// settings are options in the shape the programs take them.
type settings struct {
	ringSize   uint32
	variables  map[string]any
	sets       []set
	patterns   []bpf.FentryPattern
	matcher    *matcher
	byName     bool // notify sockets are told by name
	onlyFailed bool
	// byThread says that the fentry backend keeps what it knows of a send with the thread, as the kernel preempts
	// itself or the time of each send is asked for; denied that it sees sends which a security module refuses.
	byThread, denied bool
	preempts         bool // the kernel does itself
	hierarchies      *hierarchies
	pids             map[uint32]uint64               // when each was started, in ticks
	cgroupPaths      map[bpf.FentryCgroupPath]uint64 // and their ids
	// types is the kernel's BTF: decoding it takes a good part of a start, so all plans
	// that are tried share it. Its megabytes go with the settings.
	types *btf.Cache
}

// set is the content of a hash map whose values do not matter.
type set struct {
	name string
	keys []any
}

// newTypes is replaced by tests, which open many captures.
var newTypes = btf.NewCache

func newSettings(opts Options) (*settings, error) {
	f := opts.Filter
	s := &settings{
		ringSize: opts.RingSize,
		matcher:  newMatcher(f), onlyFailed: f.Failed,
		byName:   !opts.All && len(f.Sockets) == 0,
		preempts: preempts(),
		denied:   opts.Denied,
		types:    newTypes(),
	}
	s.byThread = opts.Latency || s.preempts
	if s.ringSize == 0 {
		s.ringSize = DefaultRingSize
	}
	if s.ringSize&(s.ringSize-1) != 0 || int(s.ringSize) < os.Getpagesize() {
		return nil, badOption("RingSize", "ring buffer of %d bytes: want a power of two of at least %d",
			s.ringSize, os.Getpagesize())
	}
	var err error
	if s.hierarchies, err = findHierarchies(s.types); err != nil {
		return nil, err
	}
	v1 := s.hierarchies.v1()
	s.variables = map[string]any{
		"self_tgid":            uint32(os.Getpid()),
		"capture_all":          opts.All,
		"by_name":              s.byName,
		"wakeup_bytes":         s.ringSize / 4,
		"crowded_bytes":        s.ringSize - s.ringSize/8,
		"share_bytes":          s.ringSize / 32,
		"round_bytes":          s.ringSize / 8,
		"filter_pid":           len(f.PIDs) > 0,
		"filter_uid":           len(f.UIDs) > 0,
		"filter_comm":          len(f.Comms) > 0,
		"filter_netns":         len(f.NetNS) > 0,
		"filter_key":           len(f.Keys) > 0,
		"filter_failed":        f.Failed,
		"v1_controllers":       padded(v1),
		"v1_controllers_count": uint32(len(v1)),
	}
	s.variables["filter_task"] = len(f.PIDs)+len(f.UIDs)+len(f.Comms)+len(f.NetNS)+
		len(f.Cgroups)+len(f.Units)+len(f.Containers) > 0
	s.sets = []set{
		{"uids", anySlice(f.UIDs)},
		{"netnses", anySlice(f.NetNS)},
	}
	err = errors.Join(
		s.addPIDs(f.PIDs), s.addComms(f.Comms), s.addKeys(f.Keys), s.addCgroups(f.Cgroups),
		s.addPatterns(f.Sockets, f.Units, f.Containers),
	)
	if err != nil {
		return nil, err
	}
	for _, set := range s.sets {
		if len(set.keys) > maxSet {
			return nil, badOption("", "%d values for one filter: at most %d", len(set.keys), maxSet)
		}
	}
	return s, nil
}

// addPIDs notes which processes have the numbers now.
func (s *settings) addPIDs(pids []uint32) error {
	if len(pids) > maxSet {
		return badOption("PIDs", "%d values for one filter: at most %d", len(pids), maxSet)
	}
	s.pids = make(map[uint32]uint64)
	for _, pid := range pids {
		p, err := proc.Open(int(pid))
		if err != nil {
			continue // none has it
		}
		if stat, err := p.Stat(); err == nil {
			s.pids[pid] = stat.StartTicks
		}
		p.Close()
	}
	return nil
}

func (s *settings) addComms(comms []string) error {
	var keys []any
	for _, comm := range comms {
		var key bpf.FentryComm
		putChars(key.Name[:commSize], comm)
		keys = append(keys, key)
	}
	s.sets = append(s.sets, set{"comms", keys})
	return nil
}

func (s *settings) addKeys(keys []string) error {
	var protocol, wanted []any
	for _, name := range events.Keys() {
		var key bpf.FentryKey
		putChars(key.Name[:], name)
		protocol = append(protocol, key)
	}
	for _, name := range keys {
		hash := fnv.New64a()
		_, _ = hash.Write([]byte(name))
		wanted = append(wanted, hash.Sum64())
	}
	if len(wanted) > maxKeys {
		return badOption("Keys", "%d keys: at most %d fit", len(wanted), maxKeys)
	}
	s.sets = append(s.sets, set{"protocol_keys", protocol}, set{"wanted_keys", wanted})
	return nil
}

// putChars copies a string into an array of C's char, as much of it as fits.
func putChars(to []int8, s string) {
	for i := range min(len(to), len(s)) {
		to[i] = int8(s[i])
	}
}

func (s *settings) addCgroups(cgroups []string) error {
	var targets []any
	numbers := map[uint8]bool{}
	for _, path := range cgroups {
		target, err := s.hierarchies.find(path)
		if err != nil {
			return err
		}
		targets = append(targets, target)
		if target.Hierarchy == 0 {
			s.addCgroupPath(target.Id)
		}
		numbers[uint8(target.Hierarchy)] = true
	}
	var list []uint8
	for number := range numbers {
		list = append(list, number)
	}
	if len(list) > maxControllers {
		return badOption("Cgroups", "cgroups of %d hierarchies: at most %d can be looked at", len(list), maxControllers)
	}
	s.variables["target_hierarchies"] = padded(list)
	s.variables["target_hierarchies_count"] = uint32(len(list))
	s.sets = append(s.sets, set{"cgroup_targets", targets})
	return nil
}

// addCgroupPath notes what path a control group of version 2 has, if it can be told.
func (s *settings) addCgroupPath(id uint64) {
	if s.cgroupPaths == nil {
		s.cgroupPaths = make(map[bpf.FentryCgroupPath]uint64)
	}
	if path, _ := cgroupfs.PathOf(id); path != "" && len(path) < maxCgroupPath {
		var key bpf.FentryCgroupPath
		putChars(key.Text[:], path)
		s.cgroupPaths[key] = id
	}
}

func newPattern(glob string, group uint32) (bpf.FentryPattern, error) {
	if glob == "" || len(glob) > maxPattern {
		return bpf.FentryPattern{}, badOption("", "pattern %q: want 1 to %d bytes", glob, maxPattern)
	}
	p := bpf.FentryPattern{Len: uint32(len(glob)), Group: group}
	putChars(p.Text[:], glob)
	return p, nil
}

func (s *settings) addPatterns(sockets, units, containers []string) error {
	add := func(glob string, group uint32) error {
		p, err := newPattern(glob, group)
		s.patterns = append(s.patterns, p)
		return err
	}
	for _, glob := range sockets {
		// The kernel has a NUL where an abstract address is written "@".
		if glob != "" && glob[0] == '@' {
			glob = "\x00" + glob[1:]
		}
		if err := add(glob, 0); err != nil {
			return err
		}
	}
	var groups uint32
	for group, globs := range [...][]string{groupUnits: units, groupContainers: containers} {
		if len(globs) == 0 {
			continue
		}
		groups |= 1 << group
		for _, glob := range globs {
			if err := add(glob, uint32(group)); err != nil {
				return err
			}
		}
	}
	if len(s.patterns) > maxPatterns-spareComponents {
		return badOption("", "%d patterns for sockets, units and containers: at most %d fit",
			len(s.patterns), maxPatterns-spareComponents)
	}
	if groups != 0 {
		// A spare's length is such that nothing matches it.
		for range spareComponents {
			s.patterns = append(s.patterns, bpf.FentryPattern{Len: math.MaxUint32})
		}
	}
	s.variables["socket_patterns_count"] = uint32(len(sockets))
	s.variables["component_patterns_count"] = uint32(len(s.patterns) - len(sockets))
	s.variables["component_groups"] = groups
	return nil
}

func (s *settings) hasComponents() bool { return s.variables["component_groups"] != uint32(0) }

// applyTo sets what has to be known when the programs are loaded, more of which is
// what the plan sets itself.
func (s *settings) applyTo(spec *ebpf.CollectionSpec, more map[string]any) error {
	variables := maps.Clone(s.variables)
	maps.Copy(variables, more)
	if spec.Variables["by_thread"] != nil {
		variables["by_thread"] = s.byThread
	}
	variables["preempts"], variables["may_stay"] = s.preempts, s.preempts && mayStay()
	for name, value := range variables {
		variable := spec.Variables[name]
		if variable == nil {
			return fmt.Errorf("setting %s: no such variable", name)
		}
		if err := variable.Set(value); err != nil {
			return fmt.Errorf("setting %s: %w", name, err)
		}
	}
	spec.Maps["ring"].MaxEntries = s.ringSize
	spec.Maps["pids"].MaxEntries = uint32(max(1, len(s.pids)))
	spec.Maps["cgroup_paths"].MaxEntries = uint32(max(1, len(s.cgroupPaths)))
	for _, set := range s.sets {
		spec.Maps[set.name].MaxEntries = uint32(max(1, len(set.keys)))
	}
	return nil
}

// fill puts the sets and patterns into the maps.
func (s *settings) fill(maps map[string]*ebpf.Map) error {
	for _, set := range s.sets {
		for _, key := range set.keys {
			if err := maps[set.name].Put(key, uint8(1)); err != nil {
				return fmt.Errorf("filling %s: %w", set.name, err)
			}
		}
	}
	for pid, started := range s.pids {
		if err := maps["pids"].Put(pid, started); err != nil {
			return fmt.Errorf("filling pids: %w", err)
		}
	}
	for path, id := range s.cgroupPaths {
		if err := maps["cgroup_paths"].Put(path, id); err != nil {
			return fmt.Errorf("filling cgroup_paths: %w", err)
		}
	}
	for i := range s.patterns {
		if err := maps["patterns"].Put(uint32(i), &s.patterns[i]); err != nil {
			return fmt.Errorf("filling patterns: %w", err)
		}
	}
	return nil
}

func padded(list []uint8) (array [maxControllers]uint8) {
	copy(array[:], list)
	return array
}

func anySlice[T any](values []T) []any {
	list := make([]any, len(values))
	for i, v := range values {
		list[i] = v
	}
	return list
}
