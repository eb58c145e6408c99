// SPDX-License-Identifier: Apache-2.0

// Package machines finds the service managers beside those of the host (in nspawn, lxc, other
// containers, or any control group), so that units are told by whose they are.
package machines

import (
	"bytes"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/sdtrace/sdtrace/internal/cgroupfs"
	"github.com/sdtrace/sdtrace/internal/field"
	"github.com/sdtrace/sdtrace/internal/identity"
	"github.com/sdtrace/sdtrace/internal/proc"
	"github.com/sdtrace/sdtrace/pkg/events"
)

const (
	// cgroupsMax is how many control groups are remembered, more than a large host has.
	cgroupsMax = 16384
	// believed is how long an answer counts: a service manager may come, or go.
	believed = time.Second
	// fewProcesses is how many processes a service manager's own scope has at most.
	fewProcesses = 16
)

// Machines knows which service manager has its root above a control group. It must not be used
// concurrently.
type Machines struct {
	byCgroup *simplelru.LRU[string, answer]
	// roots says of control groups whether a service manager has its root there: many
	// others are below the same ones.
	roots *simplelru.LRU[string, look]
	now   func() time.Time
}

// look is what a look at a control group found.
type look struct {
	managed bool
	until   time.Time
}

// answer is what was found out about a control group.
type answer struct {
	events.Identity
	root  string // "" for the host's
	until time.Time
}

// New returns what knows nothing yet.
func New() *Machines {
	return &Machines{byCgroup: newLRU[answer](), roots: newLRU[look](), now: time.Now}
}

func newLRU[V any]() *simplelru.LRU[string, V] {
	l, err := simplelru.NewLRU[string, V](cgroupsMax, nil)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return l
}

// RootOf returns the root of the service manager that a control group belongs to, "" for one
// that belongs to the host's. It looks into the control groups above, at most once a second for
// each.
//
// A service manager is recognised by what it is: it is called systemd, holds a notify socket of
// that name, and is in init.scope of the control group that it has made its root (systemd:
// manager_setup_cgroup).
func (m *Machines) RootOf(cgroup string) string { return m.find(cgroup).root }

// Refine makes of the identity that a cgroup path says one whose units are those of the service
// manager that has its root above. It leaves alone what belongs to the host.
func (m *Machines) Refine(id *events.Identity) {
	if id.Cgroup == "" || id.Cgroup == "/" {
		return
	}
	if a := m.find(id.Cgroup); a.root != "" {
		container := id.Container // its name may be known
		*id = a.Identity
		if container != nil {
			id.Container = container
		}
	}
}

// Do refines the identities in a record.
func (m *Machines) Do(r *events.Record) {
	switch {
	case r.Event != nil:
		if r.Event.Sender.CgroupController == "" {
			m.Refine(&r.Event.Sender.Identity)
		}
		if r.Event.Receiver != nil {
			m.Refine(&r.Event.Receiver.Identity)
		}
	case r.Receipt != nil:
		m.Refine(&r.Receipt.By.Identity)
	}
}

func (m *Machines) find(cgroup string) answer {
	now := m.now()
	known, found := m.byCgroup.Get(cgroup)
	if found && now.Before(known.until) {
		return known
	}
	root := m.rootAbove(cgroup, now)
	// What is gone belonged to whom it did.
	if len(root) < len(known.root) && !exists(known.root) {
		root = known.root
	}
	if !found || root != known.root {
		known = answer{Identity: identity.Below(root, cgroup), root: root}
	}
	known.until = now.Add(believed)
	m.byCgroup.Add(cgroup, known)
	return known
}

func exists(cgroup string) bool {
	_, err := cgroupfs.Processes(cgroup)
	return err == nil
}

// rootAbove asks the control groups from the innermost out.
func (m *Machines) rootAbove(cgroup string, now time.Time) string {
	for at := path.Clean(cgroup); strings.HasPrefix(at, "/") && at != "/"; at = path.Dir(at) {
		if identity.IsOfHost(at) {
			continue
		}
		l, found := m.roots.Get(at)
		if !found || !now.Before(l.until) {
			l = look{managed: isManaged(at), until: now.Add(believed)}
			m.roots.Add(at, l)
		}
		if l.managed {
			return at
		}
	}
	return ""
}

// isManaged reports whether a service manager has its root here.
func isManaged(cgroup string) bool {
	pids, err := cgroupfs.Processes(path.Join(cgroup, identity.InitScope))
	if err != nil || len(pids) > fewProcesses {
		return false
	}
	for _, pid := range pids {
		p, err := proc.Open(pid)
		if err != nil {
			continue
		}
		comm, err := p.Comm()
		is := err == nil && comm == "systemd" && holdsManagerSocket(p)
		p.Close()
		if is {
			return true
		}
	}
	return false
}

// holdsManagerSocket reports whether a process holds a socket with the name of a service
// manager's, by what its network namespace has (proc_pid_net(5), unix).
func holdsManagerSocket(p proc.Process) bool {
	list, err := p.Read("net/unix")
	if err != nil {
		return false
	}
	named := make(map[uint32]bool)
	for line := range bytes.Lines(list) {
		fields := strings.Fields(string(line))
		// Num RefCount Protocol Flags Type St Inode Path
		if len(fields) < 8 || !field.IsManagerSocket(fields[7]) {
			continue
		}
		if inode, err := strconv.ParseUint(fields[6], 10, 32); err == nil {
			named[uint32(inode)] = true
		}
	}
	return len(named) > 0 && len(p.Sockets(func(inode uint32) bool { return named[inode] })) > 0
}
