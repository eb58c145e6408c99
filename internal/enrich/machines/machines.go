// SPDX-License-Identifier: Apache-2.0

// Package machines finds the service managers beside those of the host (in nspawn, lxc, other
// containers, or any control group), so that units are told by whose they are.
package machines

import (
	"path"
	"strings"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/sdtrace/sdtrace/internal/budget"
	"github.com/sdtrace/sdtrace/internal/cgroupfs"
	"github.com/sdtrace/sdtrace/internal/field"
	"github.com/sdtrace/sdtrace/internal/identity"
	"github.com/sdtrace/sdtrace/internal/osthread"
	"github.com/sdtrace/sdtrace/internal/proc"
	"github.com/sdtrace/sdtrace/pkg/events"
)

const (
	// cgroupsMax is how many control groups are remembered, more than a large host has.
	cgroupsMax = 16384
	// believed is how long an answer counts: a service manager may come, or go.
	believed = time.Second
	// coming is how long an answer counts while a service manager has made its scope and holds
	// no notify socket yet. It starts nothing before (systemd: manager_startup).
	coming = 10 * time.Millisecond
	// fewProcesses is how many processes a service manager's own scope has at most.
	fewProcesses = 16
)

// Machines knows which service manager has its root above a control group. It must not be used
// concurrently.
type Machines struct {
	byCgroup *simplelru.LRU[string, answer]
	// roots says of control groups whether a service manager has its root there: many
	// others are below the same ones.
	roots  *simplelru.LRU[string, look]
	budget budget.Budget
	// now is the time by a clock that is read for each event, and cost calls a function and says
	// what it took of a processor.
	now  func() time.Duration
	cost func(func()) time.Duration
}

// answer is what was found out about a control group.
type answer struct {
	events.Identity
	root  string // "" for the host's
	until time.Duration
}

// look is what a look at a control group found.
type look struct {
	managed bool
	manager process // the zero value: unknown
	until   time.Duration
}

// process tells one process from another with the same number.
type process struct {
	pid     int
	started uint64 // in [proc.Tick] of CLOCK_BOOTTIME
}

// New returns what knows nothing yet.
func New() *Machines {
	return &Machines{byCgroup: newLRU[answer](), roots: newLRU[look](), now: proc.Elapsed, cost: osthread.CPUTime}
}

func newLRU[V any]() *simplelru.LRU[string, V] {
	l, err := simplelru.NewLRU[string, V](cgroupsMax, nil)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return l
}

// RootOf returns the root of the service manager that a control group belongs to, "" for one
// that belongs to the host's. It takes a tenth of the time of a processor at most to look at
// processes: beyond that nothing new is found out.
//
// A service manager is recognised by what it is: it is called systemd, holds a notify socket of
// that name, and is in init.scope of the control group that it has made its root (systemd:
// manager_setup_cgroup). When it has gone, what is left below its root belonged to it, until
// another process is in that init.scope.
func (m *Machines) RootOf(cgroup string) string { return m.find(cgroup).root }

// RootsOf returns the roots of all service managers above a control group but the host's, the
// innermost first.
func (m *Machines) RootsOf(cgroup string) (roots []string) {
	for root := m.RootOf(cgroup); root != ""; root = m.RootOf(path.Dir(root)) {
		roots = append(roots, root)
	}
	return roots
}

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
	if found && now < known.until {
		return known
	}
	root, until := m.rootAbove(cgroup, now)
	if !found || root != known.root {
		known = answer{Identity: identity.Below(root, cgroup), root: root}
	}
	known.until = until
	m.byCgroup.Add(cgroup, known)
	return known
}

// rootAbove asks the control groups from the innermost out, and says how long the answer counts.
func (m *Machines) rootAbove(cgroup string, now time.Duration) (root string, until time.Duration) {
	until = now + believed
	for at := path.Clean(cgroup); strings.HasPrefix(at, "/") && at != "/"; at = path.Dir(at) {
		if identity.IsOfHost(at) {
			continue
		}
		l, found := m.roots.Get(at)
		scope := path.Join(at, identity.InitScope)
		// That there is none is found out so fast that it need not be remembered, and
		// what is started there next asks anew.
		if (!found || now >= l.until) && cgroupfs.Exists(scope) {
			if m.budget.Allows(m.now()) {
				m.budget.Spend(m.cost(func() { l = lookAt(scope, l, now) }))
				m.roots.Add(at, l)
			}
			until = min(until, l.until)
		}
		if l.managed {
			return at, until
		}
	}
	return "", until
}

// lookAt looks for a service manager in its scope. Where nobody is, there is still the one of
// before.
func lookAt(scope string, before look, now time.Duration) look {
	pids, err := cgroupfs.Processes(scope)
	found := look{until: now + believed}
	if err != nil || len(pids) == 0 {
		found.managed = before.managed
		if !found.managed {
			found.until = now + coming
		}
		return found
	}
	if len(pids) > fewProcesses {
		return found
	}
	for _, pid := range pids {
		p, err := proc.Open(pid)
		if err != nil {
			continue
		}
		stat, err := p.Stat()
		if err == nil && stat.Comm == field.ServiceManager {
			found.manager = process{pid, stat.StartTicks}
			found.managed = before.managed && before.manager == found.manager || hasNotifySocket(p)
			if !found.managed {
				found.until = now + coming
			}
		}
		p.Close()
		if found.managed {
			return found
		}
	}
	return found
}
