// SPDX-License-Identifier: Apache-2.0

package systemd_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/sdtrace/sdtrace/pkg/inventory"
)

// Three service managers on one kernel have a socket of the same name each.
func TestSocketsOfSeveralSystemdsAreToldApart(t *testing.T) {
	eachVersion(t, func(t *testing.T, m *manager) {
		s := m.define(t, unit{service: []string{"Type=notify"}})
		c := s.started(t)
		inv, err := inventory.Take(t.Context(), inventory.Options{})
		if err != nil {
			t.Fatal(err)
		}
		c.notify(t, "STOPPING=1")

		manager, found := socketOf(inv, m.PID(), "/run/systemd/notify")
		if !found {
			t.Fatalf("the notify socket of pid %d is missing", m.PID())
		}
		if len(manager.Holders) != 1 || manager.File == nil || manager.File.State != inventory.FileThere || manager.File.Mode != "0777" {
			t.Errorf("got %+v with file %+v, want one holder and a file of mode 0777", manager, manager.File)
		}
		// The relay is to notify its own manager, the container its own relay.
		leads := map[string]uint32{"/run/systemd/notify": manager.Inode}
		inside := insideDirectory + "/notify.sock"
		for _, client := range inv.Clients {
			if !strings.Contains(client.Cgroup+"/", "/"+s.name+".service/") || client.NotifySocket != "/run/systemd/notify" {
				continue
			}
			if relay, found := socketOf(inv, client.PID, "/run/"+s.name+"/notify.sock"); found {
				leads[inside] = relay.Inode
			}
		}
		seen := map[string]int{}
		for _, client := range inv.Clients {
			if !strings.Contains(client.Cgroup+"/", "/"+s.name+".service/") {
				continue
			}
			// What starts the container has its environment, but not its files.
			if client.NotifySocket == inside && client.State == inventory.ClientMissing {
				continue
			}
			seen[client.NotifySocket]++
			if client.State != inventory.ClientOK || client.Inode != leads[client.NotifySocket] {
				t.Errorf("%v: %s is %q and leads to socket %d, want %d", client, client.NotifySocket, client.State,
					client.Inode, leads[client.NotifySocket])
			}
		}
		if seen["/run/systemd/notify"] == 0 || seen[inside] == 0 {
			t.Errorf("the clients have %v, want both the relay and its container", seen)
		}
	})
}

// socketOf finds the socket of that address which a process holds.
func socketOf(inv *inventory.Inventory, pid int, address string) (inventory.Socket, bool) {
	i := slices.IndexFunc(inv.Sockets, func(s inventory.Socket) bool {
		return string(s.Address) == address && slices.ContainsFunc(s.Holders, func(p inventory.Process) bool { return p.PID == pid })
	})
	if i < 0 {
		return inventory.Socket{}, false
	}
	return inv.Sockets[i], true
}
