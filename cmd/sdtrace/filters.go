// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sdtrace/sdtrace/pkg/capture"
)

// filterFlags are the filters as the user wrote them.
type filterFlags struct {
	match       capture.Match
	uids, netns []string
	keys        []string
	pids        []uint
	ignored     bool
}

func (f *filterFlags) register(set *pflag.FlagSet) {
	m := &f.match
	f.registerProcesses(set, "senders")
	set.StringArrayVar(&m.Sockets, "socket", nil, "datagrams to the socket `PATTERN`: a path or @abstract name; * and ? match any")
	set.StringArrayVar(&f.keys, "key", nil, "messages with an assignment to `KEY`; A,B is either, !A one without it")
	set.BoolVar(&m.Failed, "failed", false, "sends that did not arrive")
	set.BoolVar(&f.ignored, "ignored", false, "what the service manager ignored or what had no effect, and sends that did not arrive")
}

// registerProcesses registers the filters by what a process is; all is what such processes are called.
func (f *filterFlags) registerProcesses(set *pflag.FlagSet, all string) {
	m := &f.match
	set.StringArrayVar(&m.Cgroups, "cgroup", nil, all+" in the cgroup `PATH` or below it")
	set.StringArrayVarP(&m.Units, "unit", "u", nil, all+" in the systemd `UNIT` of the host, or MACHINE:UNIT; * and ? match any")
	set.StringArrayVar(&m.Containers, "container", nil, all+" in the container `ID` or name")
	set.UintSliceVarP(&f.pids, "pid", "p", nil, all+" with the id `PID`")
	set.Lookup("pid").DefValue = "" // help says [] otherwise
	set.StringArrayVar(&f.uids, "uid", nil, all+" of the user `UID` or name")
	set.StringArrayVar(&m.Comms, "comm", nil, all+" called `NAME`; * and ? match any")
	set.StringArrayVar(&f.netns, "netns", nil, all+" in the network namespace `NS`: name, path or inode number")
}

// resolve looks up what the user wrote by name. A network namespace that is named is one of this
// machine's, which findNetNS finds; nil refuses it, as for a file.
func (f *filterFlags) resolve(cmd *cobra.Command, findNetNS func(name string) (inode uint32, err error)) (capture.Match, error) {
	match := f.match
	// The kernel cannot know what becomes of it.
	match.Failed = match.Failed && !f.ignored
	for _, list := range f.keys {
		for key := range strings.SplitSeq(list, ",") {
			if without, ok := strings.CutPrefix(key, "!"); ok {
				match.WithoutKeys = append(match.WithoutKeys, without)
			} else {
				match.Keys = append(match.Keys, key)
			}
		}
	}
	for _, pid := range f.pids {
		if uint(uint32(pid)) != pid {
			return match, usage(cmd, fmt.Errorf("--pid: no process can have the id %d", pid))
		}
		match.PIDs = append(match.PIDs, uint32(pid))
	}
	for _, name := range f.uids {
		uid, err := resolveUser(name)
		if err != nil {
			return match, usage(cmd, fmt.Errorf("--uid: %w", err))
		}
		match.UIDs = append(match.UIDs, uid)
	}
	for _, name := range f.netns {
		inode, err := strconv.ParseUint(name, 10, 32)
		found := uint32(inode)
		switch {
		case err == nil:
		case findNetNS == nil:
			const why = "a file knows network namespaces by inode number alone, as in sender.netns"
			return match, usage(cmd, fmt.Errorf("--netns %q: %s", name, why))
		default:
			if found, err = findNetNS(name); err != nil {
				return match, usage(cmd, fmt.Errorf("--netns: %w", err))
			}
		}
		match.NetNS = append(match.NetNS, found)
	}
	return match, nil
}

// isFilter reports whether a flag is one of these.
func (f *filterFlags) isFilter(name string) bool {
	all := pflag.NewFlagSet("", pflag.ContinueOnError)
	new(filterFlags).register(all)
	return all.Lookup(name) != nil
}

// asksForKeys reports whether messages were asked for by what they say.
func (f *filterFlags) asksForKeys() bool {
	return slices.ContainsFunc(f.keys, func(list string) bool {
		return slices.ContainsFunc(strings.Split(list, ","), func(key string) bool { return !strings.HasPrefix(key, "!") })
	})
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
