// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sdtrace/sdtrace/internal/cgroupfs"
	"github.com/sdtrace/sdtrace/pkg/capture"
	"github.com/sdtrace/sdtrace/pkg/events"
	"github.com/sdtrace/sdtrace/pkg/inventory"
)

// socketFilter chooses from an inventory.
type socketFilter struct {
	filter *capture.Filter
	failed bool
	all    bool // nothing is left out
}

func newSocketFilter(cmd *cobra.Command, flags *filterFlags) (*socketFilter, error) {
	match, err := flags.resolve(cmd, findNetNS)
	if err != nil {
		return nil, err
	}
	for i, path := range match.Cgroups {
		if below, ok := strings.CutPrefix(path, cgroupfs.Mount()); ok {
			match.Cgroups[i] = "/" + strings.Trim(below, "/")
		}
	}
	f := &socketFilter{failed: match.Failed}
	match.Failed = false
	if f.filter, err = match.Filter(); err != nil {
		return nil, usageOf(cmd, err)
	}
	f.all = !f.failed && f.filter.MatchesAll()
	return f, nil
}

// apply leaves the processes that were asked for, and the sockets that they hold or lead to.
func (f *socketFilter) apply(inv *inventory.Inventory) {
	if f.all {
		return
	}
	ledTo := make(map[uint32]bool)
	inv.Clients = slices.DeleteFunc(inv.Clients, func(c inventory.Client) bool {
		if f.failed && reaches(&c) || !f.matches(&c.Process, c.UID, events.Address(c.NotifySocket)) {
			return true
		}
		ledTo[c.Inode] = true
		return false
	})
	inv.Sockets = slices.DeleteFunc(inv.Sockets, func(s inventory.Socket) bool {
		isHeld := slices.ContainsFunc(s.Holders, func(p inventory.Process) bool { return f.matches(&p, nil, s.Name()) }) ||
			len(s.Holders) == 0 && f.matches(new(inventory.Process), s.UID, s.Name())
		return !ledTo[s.Inode] && (f.failed || !isHeld)
	})
}

// reaches reports whether nothing is known to be wrong with what a client is to notify.
func reaches(c *inventory.Client) bool {
	switch c.State {
	case "", inventory.ClientOK, inventory.ClientVsock, inventory.ClientOverwritten:
		return true
	}
	return false
}

// matches judges a process and a socket as if the one had sent to the other.
func (f *socketFilter) matches(p *inventory.Process, uid *uint32, address events.Address) bool {
	e := &events.Event{
		Sender: events.Sender{PID: uint32(p.PID), Comm: p.Comm, NetNS: uint32(p.NetNS), Identity: p.Identity},
		Socket: events.Socket{Address: address},
	}
	if uid != nil {
		e.Sender.UID = *uid
	} else {
		e.Sender.UID = nobody
	}
	return f.filter.Matches(e)
}

// nobody is the id of no user (kernel: INVALID_UID).
const nobody = 1<<32 - 1

// suffix says that some were left out.
func (f *socketFilter) suffix() string {
	if f.all {
		return ""
	}
	return " that was asked for"
}
