// SPDX-License-Identifier: Apache-2.0

package main

import (
	"time"

	"github.com/sdtrace/sdtrace/pkg/containers"
	"github.com/sdtrace/sdtrace/pkg/events"
	"github.com/sdtrace/sdtrace/pkg/inventory"
)

// nameWait is how long an event may wait for the name of a container that it is the first
// to come from.
const nameWait = 250 * time.Millisecond

// addName says what a container is called, if that is known by now or in a moment. While
// much waits to be read nothing waits for names.
func (s *stream) addName(c *events.Container, cgroup string) {
	if c == nil {
		return
	}
	of := containers.Container{Runtime: c.Runtime, ID: c.ID, Cgroup: cgroup}
	if s.tracer.Backlog() < s.busy {
		c.Name, _ = s.names.Await(of, nameWait)
	} else {
		c.Name, _ = s.names.Name(of)
	}
}

// namesLimit is how long a list of sockets may wait for the names of containers.
const namesLimit = 200 * time.Millisecond

// nameContainers says what the containers of an inventory are called, as far as that is
// found out in time.
func nameContainers(inv *inventory.Inventory) {
	names := containers.Watch()
	defer names.Close()
	var inside []*inventory.Process
	of := func(p *inventory.Process) containers.Container {
		return containers.Container{Runtime: p.Container.Runtime, ID: p.Container.ID, Cgroup: p.Cgroup}
	}
	collect := func(p *inventory.Process) {
		if p.Container != nil {
			names.Name(of(p)) // all are looked for at once
			inside = append(inside, p)
		}
	}
	for i := range inv.Sockets {
		for j := range inv.Sockets[i].Holders {
			collect(&inv.Sockets[i].Holders[j])
		}
	}
	for i := range inv.Clients {
		collect(&inv.Clients[i].Process)
	}
	end := time.Now().Add(namesLimit)
	for _, p := range inside {
		p.Container.Name, _ = names.Await(of(p), time.Until(end))
	}
}
