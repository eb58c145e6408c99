// SPDX-License-Identifier: Apache-2.0

package machines

import (
	"bytes"
	"path"
	"strings"

	"github.com/sdtrace/sdtrace/internal/cgroupfs"
	"github.com/sdtrace/sdtrace/internal/field"
	"github.com/sdtrace/sdtrace/internal/identity"
	"github.com/sdtrace/sdtrace/internal/proc"
	"github.com/sdtrace/sdtrace/pkg/events"
)

// Manager is a service manager that runs.
type Manager struct {
	// PID is its process, NotifySocket the address that it has bound.
	PID          int
	NotifySocket events.Address
	// Root is the control group below which its units are, "/" for the host's, and Identity what that says.
	// Both are empty when the service manager is in no init.scope.
	Root string
	events.Identity
	// UID is the user that it runs as.
	UID uint32
}

// ManagerOf looks at a process. ok is false if it is no service manager: called systemd, with a notify socket
// that has the name of a service manager's (systemd: manager_setup_notify).
func ManagerOf(p proc.Process) (m Manager, ok bool) {
	comm, err := p.Comm()
	if err != nil || comm != field.ServiceManager {
		return m, false
	}
	m = Manager{PID: p.PID}
	if m.NotifySocket, ok = notifySocket(p); !ok {
		return m, false
	}
	if status, err := p.Status(); err == nil {
		m.UID = status.UID
	}
	cgroup, err := p.Cgroup()
	if err == nil && path.Base(cgroup) == identity.InitScope {
		m.Root = path.Dir(cgroup)
		m.Identity = identity.Below(m.Root, cgroup)
		m.Machine = ""
		if !identity.IsOfHost(m.Root) {
			m.Machine = identity.MachineOf(m.Root)
		}
	}
	return m, true
}

// groupsMax is how many control groups are looked through for service managers.
const groupsMax = 4096

// Managers returns the service managers that run, the host's first.
func Managers() (all []Manager) {
	for _, scope := range append([]string{"/" + identity.InitScope}, cgroupfs.Named(identity.InitScope, groupsMax)...) {
		if len(all) > 0 && scope == "/"+identity.InitScope {
			continue
		}
		pids, err := cgroupfs.Processes(scope)
		if err != nil || len(pids) > fewProcesses {
			continue
		}
		for _, pid := range pids {
			p, err := proc.Open(pid)
			if err != nil {
				continue
			}
			m, ok := ManagerOf(p)
			p.Close()
			if ok {
				all = append(all, m)
				break
			}
		}
	}
	return all
}

// IsUser reports whether it is a user's service manager.
func (m *Manager) IsUser() bool { return strings.HasPrefix(string(m.NotifySocket), "/run/user/") }

func hasNotifySocket(p proc.Process) bool {
	_, ok := notifySocket(p)
	return ok
}

// notifySocket is the socket of a service manager's that a process holds, by what its network namespace has
// (proc_pid_net(5), unix).
func notifySocket(p proc.Process) (address events.Address, ok bool) {
	list, err := p.Read("net/unix")
	if err != nil {
		return "", false
	}
	named := make(map[uint32]events.Address)
	for line := range bytes.Lines(list) {
		inode, address := proc.ParseNetUnix(line)
		if field.IsManagerSocket(address) {
			named[inode] = events.Address(address)
		}
	}
	if len(named) == 0 {
		return "", false
	}
	ok = p.HoldsAny(func(inode uint32) bool {
		found, isNamed := named[inode]
		if isNamed {
			address = found
		}
		return isNamed
	})
	return address, ok
}
