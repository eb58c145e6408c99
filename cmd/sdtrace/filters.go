// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os/user"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/pkg/containers"
	"github.com/sdtrace/sdtrace/pkg/identity"
	"github.com/sdtrace/sdtrace/pkg/tracer"
)

// filterFlags are the filters as the user wrote them.
type filterFlags struct {
	cgroups, units, containers, uids, comms, netns, sockets, keys []string
	pids                                                          []uint
	failed                                                        bool
}

func (f *filterFlags) register(set *pflag.FlagSet) {
	set.StringArrayVar(&f.cgroups, "cgroup", nil, "senders in the cgroup `PATH` or below it")
	set.StringArrayVarP(&f.units, "unit", "u", nil, "senders in the systemd unit `NAME`; * and ? match any")
	set.StringArrayVar(&f.containers, "container", nil, "senders in the container `ID` or name")
	set.UintSliceVarP(&f.pids, "pid", "p", nil, "the sending process `PID`")
	set.StringArrayVar(&f.uids, "uid", nil, "senders of the user `UID` or name")
	set.StringArrayVar(&f.comms, "comm", nil, "senders of this process `NAME`")
	set.StringArrayVar(&f.netns, "netns", nil, "senders in the network namespace `NS`: name, path or inode number")
	set.StringArrayVar(&f.sockets, "socket", nil, "datagrams to the socket `PATTERN`: a path or @abstract name; * and ? match any")
	set.StringArrayVar(&f.keys, "key", nil, "messages with an assignment to `KEY`")
	set.BoolVar(&f.failed, "failed", false, "sends that did not arrive")
}

// The lists of tracer.Filter.Components.
const (
	unitList = iota
	containerList
)

// resolved is what the filters come to.
type resolved struct {
	filter tracer.Filter
	// notes are for the user: what is asked for but not there yet.
	notes []string
	// containers are names that stand for no container yet.
	containers []string
}

// seesAll reports whether nothing is filtered out.
func (r resolved) seesAll() bool { return r.filter.Empty() && len(r.containers) == 0 }

// resolve turns names into what the kernel can compare.
func (f *filterFlags) resolve(cmd *cobra.Command) (r resolved, err error) {
	r.filter = tracer.Filter{
		Cgroups: f.cgroups, Comms: f.comms, Sockets: f.sockets, Keys: f.keys, Failed: f.failed,
	}
	for _, pid := range f.pids {
		if pid == 0 || pid > 1<<22 {
			return r, usage(cmd, fmt.Errorf("no process can have the id %d", pid))
		}
		r.filter.PIDs = append(r.filter.PIDs, uint32(pid))
		if unix.Kill(int(pid), 0) == unix.ESRCH {
			r.notes = append(r.notes, fmt.Sprintf("process %d does not exist", pid))
		}
	}
	for _, name := range f.keys {
		if name == "" || strings.ContainsAny(name, "=\n\r") {
			return r, usage(cmd, fmt.Errorf("%q is no key of an assignment", name))
		}
	}
	for _, name := range f.uids {
		uid, err := resolveUser(name)
		if err != nil {
			return r, usage(cmd, err)
		}
		r.filter.UIDs = append(r.filter.UIDs, uid)
	}
	for _, name := range f.netns {
		inode, err := resolveNetNS(name)
		if err != nil {
			return r, err
		}
		r.filter.NetNS = append(r.filter.NetNS, inode)
	}
	units, notes, err := f.resolveUnits()
	if err != nil {
		return r, usage(cmd, err)
	}
	r.notes = append(r.notes, notes...)
	containers, unresolved, notes, err := f.resolveContainers(cmd)
	if err != nil {
		return r, err
	}
	r.notes = append(r.notes, notes...)
	r.containers = unresolved
	r.filter.Components = [][]string{unitList: units, containerList: containers}
	return r, nil
}

func (f *filterFlags) resolveUnits() (all, notes []string, err error) {
	for _, unit := range f.units {
		patterns, err := identity.UnitPatterns(unit)
		if err != nil {
			return nil, nil, err
		}
		all = append(all, patterns...)
		if !tracer.HasCgroup(patterns) {
			notes = append(notes, fmt.Sprintf("unit %s is not running: waiting for it to start", patterns[0]))
		}
	}
	return all, notes, nil
}

// unresolved are names of containers that no runtime knows yet.
func (f *filterFlags) resolveContainers(cmd *cobra.Command) (all, unresolved, notes []string, err error) {
	for _, name := range f.containers {
		patterns, err := identity.ContainerPatterns(name)
		if err != nil {
			return nil, nil, nil, usage(cmd, err)
		}
		byID, err := patternsOfContainer(cmd.Context(), name)
		if errors.Is(err, containers.ErrNotFound) {
			unresolved = append(unresolved, name)
		} else if err != nil {
			return nil, nil, nil, err
		}
		patterns = append(patterns, byID...)
		all = append(all, patterns...)
		if !tracer.HasCgroup(patterns) {
			notes = append(notes, fmt.Sprintf("container %s is not running: waiting for it to start", name))
		}
	}
	return all, unresolved, notes, nil
}

// patternsOfContainer are those of the id behind a name.
func patternsOfContainer(ctx context.Context, name string) ([]string, error) {
	id, err := containers.Resolve(ctx, name)
	if err != nil {
		return nil, err
	}
	return identity.ContainerPatterns(id)
}

// containerInterval is how often the runtimes are asked for a name they did not know.
const containerInterval = 200 * time.Millisecond

// awaitContainers gives the capture the ids of containers that are made after its
// start, until ctx ends. A message in the moment between is missed: the name is
// nowhere in the kernel.
func awaitContainers(ctx context.Context, t *tracer.Tracer, names []string) error {
	tick := time.NewTicker(containerInterval)
	defer tick.Stop()
	for len(names) > 0 {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		var unknown []string
		for _, name := range names {
			patterns, err := patternsOfContainer(ctx, name)
			if err != nil {
				unknown = append(unknown, name) // half-written state included
				continue
			}
			if err := t.AddComponents(containerList, patterns); err != nil {
				return err
			}
		}
		names = unknown
	}
	return nil
}

func resolveUser(name string) (uint32, error) {
	if uid, err := strconv.ParseUint(name, 10, 32); err == nil {
		return uint32(uid), nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return 0, fmt.Errorf("no user %q", name)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("user %q has the odd uid %q", name, u.Uid)
	}
	return uint32(uid), nil
}

// resolveNetNS finds the inode number of a network namespace.
func resolveNetNS(name string) (uint32, error) {
	if inode, err := strconv.ParseUint(name, 10, 32); err == nil {
		return uint32(inode), nil
	}
	open := netns.GetFromName // as ip-netns(8) has it
	if strings.Contains(name, "/") {
		open = netns.GetFromPath
	}
	handle, err := open(name)
	if err != nil {
		return 0, fmt.Errorf("no network namespace %q: want a name of ip netns, a path such as /proc/PID/ns/net, or an inode number", name)
	}
	defer func() { _ = handle.Close() }()
	var stat unix.Stat_t
	if err := unix.Fstat(int(handle), &stat); err != nil {
		return 0, fmt.Errorf("reading network namespace %q: %w", name, err)
	}
	return uint32(stat.Ino), nil
}
