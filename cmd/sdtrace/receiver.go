// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/sdtrace/sdtrace/pkg/events"
	"github.com/sdtrace/sdtrace/pkg/inventory"
)

// watchDestinations begins to find out where datagrams of the tracepoint backend go, which
// sees no receiver of those that are sent to an address. It is nil for the other backend.
func watchDestinations(backend string) *inventory.Destinations {
	if backend != "tracepoint" {
		return nil
	}
	return inventory.WatchDestinations()
}

// addDestination says which socket an address led to, if that is known for sure.
func addDestination(e *events.Event, destinations *inventory.Destinations) {
	if destinations == nil || e.Receiver != nil || e.Socket.Inode != 0 || e.Result.Errno != "" {
		return
	}
	found, ok := destinations.Find(inventory.Send{
		PID: e.Sender.PID, TID: e.Sender.TID, StartTime: e.Sender.StartTime,
		MntNS: e.Sender.MntNS, NetNS: e.Socket.SenderNetNS,
		Address: e.Socket.Address, Ended: e.BootTime,
	})
	if !ok {
		return
	}
	e.Socket.Inode, e.Socket.Bound = uint64(found.Inode), found.Bound
	e.Receiver = &events.Receiver{UID: found.UID, NetNS: uint32(found.NetNS)}
}

// addHolder says which process holds the receiving socket, if that is known by now.
func addHolder(e *events.Event, holders *inventory.Holders) {
	r := e.Receiver
	if r == nil || e.Socket.Inode == 0 {
		return
	}
	p, found := holders.Find(e.Socket.Inode, r.Cgroup)
	if !found {
		return
	}
	r.PID, r.Comm = uint32(p.PID), p.Comm
	r.Unit, r.UserUnit, r.Slice = p.Unit, p.UserUnit, p.Slice
	r.Container = nil
	if c := p.Container; c != nil {
		r.Container = &events.Container{Runtime: c.Runtime, ID: c.ID, PodUID: c.PodUID}
	}
}
