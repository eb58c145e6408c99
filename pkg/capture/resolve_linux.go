// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sdtrace/sdtrace/internal/cgroupfs"
	"github.com/sdtrace/sdtrace/internal/enrich/machines"
	"github.com/sdtrace/sdtrace/internal/enrich/names"
	"github.com/sdtrace/sdtrace/internal/enrich/verdicts"
	"github.com/sdtrace/sdtrace/internal/identity"
	"github.com/sdtrace/sdtrace/internal/tracer"
	"github.com/sdtrace/sdtrace/pkg/events"
)

// resolved is what a Match comes to on this machine.
type resolved struct {
	match   Match
	filter  tracer.Filter
	units   []unitMatch
	missing []string // what is asked for but not there yet, for people
	// containers are names that stand for no container yet.
	containers []string
	machines   *machines.Machines

	mu sync.RWMutex
	// aliases are the ids of containers, by the names that stand before a unit.
	aliases map[string]string
	// named are such names that stand for no container, or not yet.
	named []string
}

// resolve turns names into what the kernel can compare.
func resolve(ctx context.Context, m Match, machines *machines.Machines) (*resolved, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	r := &resolved{
		match: m,
		filter: tracer.Filter{
			Cgroups: m.Cgroups, PIDs: m.PIDs, UIDs: m.UIDs, Comms: m.Comms, NetNS: m.NetNS,
			Sockets: m.Sockets, Keys: m.Keys, Failed: m.Failed,
		},
		machines: machines,
	}
	if slices.ContainsFunc(m.Comms, isGlob) {
		r.filter.Comms = nil // the kernel compares whole names
	}
	for _, pid := range m.PIDs {
		if text, missing := notRunning(pid); missing {
			r.missing = append(r.missing, text)
		}
	}
	if err := r.resolveUnits(ctx, m.Units); err != nil {
		return nil, err
	}
	return r, r.resolveContainers(ctx, m.Containers)
}

// seesAll reports whether nothing is left out.
func (r *resolved) seesAll() bool {
	return r.filter.Empty() && len(r.containers)+len(r.match.Comms)+len(r.match.WithoutKeys) == 0
}

func (r *resolved) resolveUnits(ctx context.Context, units []string) (err error) {
	if r.units, err = parseUnits(units); err != nil {
		return err
	}
	for i := range r.units {
		u := &r.units[i]
		r.filter.Units = append(r.filter.Units, u.names...)
		running, what := tracer.HasCgroup(u.names), "unit "+u.names[0]
		if u.machine != "" && !u.isPattern() {
			if running, err = r.findMachine(ctx, u.machine); err != nil {
				return err
			}
			what = "machine " + u.machine
		}
		if !running {
			r.missing = append(r.missing, what+" is not running: waiting for it to start")
		}
	}
	return nil
}

// findMachine reports whether there is a control group that a machine of that name can have.
func (r *resolved) findMachine(ctx context.Context, name string) (running bool, err error) {
	patterns := []string{name, name + ".service", name + ".scope"}
	if of, err := identity.ContainerPatterns(name); err == nil {
		patterns = append(patterns, of...)
	}
	switch id, err := names.Resolve(ctx, name); {
	case err == nil:
		r.call(name, id)
		of, err := identity.ContainerPatterns(id)
		return err == nil && tracer.HasCgroup(of), nil
	case errors.Is(err, names.ErrNotFound):
		r.named = append(r.named, name)
		return tracer.HasCgroup(patterns), nil
	default:
		return false, err
	}
}

// call notes that a container has a name.
func (r *resolved) call(name, id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.aliases == nil {
		r.aliases = make(map[string]string)
	}
	r.aliases[identity.MachineOf("/"+id)] = name
}

// alias is what the machine at a root is called beside its own name, "" for nothing.
func (r *resolved) alias(root string) string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.aliases[identity.MachineOf(root)]
}

// accept decides on what the kernel let pass because it cannot judge it: whose a unit of that name in the
// cgroup path is, globs for names of processes, keys that are not wanted, and what cannot be parsed; nil when there is nothing to
// decide.
func (r *resolved) accept() func(*events.Event) bool {
	byComm := slices.ContainsFunc(r.match.Comms, isGlob)
	if len(r.units)+len(r.match.Keys)+len(r.match.WithoutKeys) == 0 && !byComm {
		return nil
	}
	return func(e *events.Event) bool {
		return (!byComm || r.match.commMatches(e.Sender.Comm)) && r.match.isWithout(e) && r.match.saysKeys(e) && r.unitMatches(e)
	}
}

// unitMatches reports whether an event is of a unit that is wanted.
func (r *resolved) unitMatches(e *events.Event) bool {
	cgroup := e.Sender.Cgroup
	if len(r.units) == 0 || cgroup == "" {
		return true // who hides his control group is shown
	}
	var roots []string
	if e.Sender.CgroupController == "" {
		roots = r.machines.RootsOf(cgroup)
	}
	return slices.ContainsFunc(r.units, func(u unitMatch) bool { return u.matches(cgroup, roots, r.alias) })
}

// wanted returns what of units is wanted without a datagram.
func (r *resolved) wanted() verdicts.Wanted {
	judge := &afterwards{Match: r.match, units: r.units}
	judge.Cgroups = nil
	for _, cgroup := range r.match.Cgroups {
		judge.Cgroups = append(judge.Cgroups, strings.TrimPrefix(cgroup, cgroupfs.Mount()))
	}
	if len(r.match.Containers) > 0 {
		judge.containers = [][]string{r.filter.Containers}
	}
	root := func(cgroup string) bool {
		return anyOf(judge.Cgroups, func(wanted string) bool { return isBelow(cgroup, wanted) || isBelow(wanted, cgroup) })
	}
	return verdicts.Wanted{Unit: judge.matchesUnit, Root: root, Hang: judge.matchesHang, Named: len(r.units) > 0}
}

func (r *resolved) resolveContainers(ctx context.Context, containers []string) error {
	for _, name := range containers {
		patterns, err := identity.ContainerPatterns(name)
		if err != nil {
			return &OptionError{"Containers", err}
		}
		byID, err := patternsOfContainer(ctx, name)
		if errors.Is(err, names.ErrNotFound) {
			r.containers = append(r.containers, name)
		} else if err != nil {
			return err
		}
		patterns = append(patterns, byID...)
		r.filter.Containers = append(r.filter.Containers, patterns...)
		if !tracer.HasCgroup(patterns) {
			r.missing = append(r.missing, fmt.Sprintf("container %s is not running: waiting for it to start", name))
		}
	}
	return nil
}

// patternsOfContainer are those of the id behind a name.
func patternsOfContainer(ctx context.Context, name string) ([]string, error) {
	id, err := names.Resolve(ctx, name)
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
func (r *resolved) awaitContainers(ctx context.Context, t *tracer.Tracer) error {
	tick := time.NewTicker(containerInterval)
	defer tick.Stop()
	for len(r.containers)+len(r.named) > 0 {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		var failed error
		r.containers = slices.DeleteFunc(r.containers, func(name string) bool {
			patterns, err := patternsOfContainer(ctx, name)
			if err != nil {
				return false // half-written state included
			}
			failed = errors.Join(failed, t.AddContainers(patterns))
			return true
		})
		if failed != nil {
			return failed
		}
		r.named = slices.DeleteFunc(r.named, func(name string) bool {
			id, err := names.Resolve(ctx, name)
			if err != nil {
				return false
			}
			r.call(name, id)
			return true
		})
	}
	return nil
}
