// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/sdtrace/sdtrace/pkg/events"
	"github.com/sdtrace/sdtrace/pkg/inventory"
)

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
