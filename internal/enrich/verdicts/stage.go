// SPDX-License-Identifier: Apache-2.0

// Package verdicts says of the datagrams in a stream what the service managers that receive them
// make of them, and of their units what no datagram says. It asks these for the state of their units,
// beside the stream, which does not wait.
package verdicts

import (
	"cmp"
	"context"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sdtrace/sdtrace/internal/cgroupfs"
	"github.com/sdtrace/sdtrace/internal/field"
	"github.com/sdtrace/sdtrace/internal/identity"
	"github.com/sdtrace/sdtrace/internal/proc"
	"github.com/sdtrace/sdtrace/pkg/events"
	"github.com/sdtrace/sdtrace/pkg/verdict"
)

const (
	// Within is how long after a datagram its verdict is yielded, known or not.
	Within = 250 * time.Millisecond
	// pollEvery is how often it is looked for verdicts that have become known.
	pollEvery = 25 * time.Millisecond
	// givenUp is how long a verdict that was not known in time is waited for.
	givenUp = time.Minute
	// pendingMax is how many datagrams wait for a verdict at most.
	pendingMax = 1 << 14
)

// Stage finds a verdict for each datagram to a service manager.
type Stage struct {
	stop     context.CancelFunc
	ctx      context.Context
	workers  sync.WaitGroup
	options  Options
	managers map[uint32]*manager // by process id
	roots    map[string]rooted   // by the root of a service manager's control groups
	pending  []*message          // in order
	bySeq    map[uint64]*message
	wake     time.Time
	seen     atomic.Int64 // the time of the stream, in nanoseconds since 1970
}

// rooted is the service manager of a control group, as it was asked for last.
type rooted struct {
	pid   uint32 // 0: none
	until time.Duration
}

// message is a datagram to a service manager.
type message struct {
	event   *events.Event
	manager *manager
	likely  bool // that this is the one is not proven
	late    bool // that nothing is known yet has been said

	// mu guards what follows.
	mu      sync.Mutex
	receipt *events.Receipt
	verdict *events.Verdict // nil: not known yet
}

// Options say what a stream has and what is wanted of it.
type Options struct {
	// Receipts says that the stream tells when datagrams are read.
	Receipts bool
	// Wanted are the units of which is told what no message says.
	Wanted Wanted
}

// Wanted are units.
type Wanted struct {
	// Unit reports whether a unit of the service manager with that notify socket is one of them; it is
	// called from any goroutine.
	Unit func(unit *events.Identity, socket events.Address) bool
	// Root reports whether a unit of the service manager with that root of its control groups can be one of them.
	Root func(cgroup string) bool
	// Hang does so for a send that does not return.
	Hang func(*events.Hang) bool
	// Named is set if they were asked for by name.
	Named bool
}

// New returns a stage. Call Close at the end.
func New(options Options) *Stage {
	ctx, stop := context.WithCancel(context.Background())
	s := &Stage{
		ctx: ctx, stop: stop, options: options, managers: make(map[uint32]*manager),
		roots: make(map[string]rooted), bySeq: make(map[uint64]*message),
		wake: time.Now(),
	}
	// What they signal is known from the beginning then, of the system's in any case.
	scopes := append([]string{"/" + identity.InitScope}, cgroupfs.Named(identity.InitScope, groupsMax)...)
	for _, scope := range scopes {
		if !options.Wanted.Root(path.Dir(scope)) {
			continue // it is asked when it receives something that is captured
		}
		if pid := s.managerOf(scope); pid != 0 && len(s.managers) < managersMax {
			s.manager(pid, scope, socketOf(path.Dir(scope)))
		}
	}
	return s
}

const (
	// groupsMax is how many control groups are looked through for service managers.
	groupsMax = 4096
	// managersMax is how many service managers are connected to before they have received anything.
	managersMax = 64
)

// socketOf is the notify socket of the service manager that has its root at a control group.
func socketOf(root string) events.Address {
	uid, ofUser := strings.CutPrefix(strings.TrimSuffix(path.Base(root), ".service"), "user@")
	if ofUser {
		return events.Address("/run/user/" + uid + "/systemd/notify")
	}
	return field.SystemSocket
}

// Close ends all questions.
func (s *Stage) Close() {
	s.stop()
	s.workers.Wait()
}

// Do takes note of a datagram to a service manager, and of what became of one.
func (s *Stage) Do(r *events.Record) {
	switch {
	case r.Event != nil:
		s.sent(r.Event)
	case r.Receipt != nil && r.Receipt.Kind == events.ReceiptRead:
		if m := s.bySeq[r.Receipt.Seq]; m != nil {
			m.mu.Lock()
			read := *r.Receipt
			m.receipt = &read
			m.mu.Unlock()
		}
	case r.Lost != nil && r.Lost.Count() > 0:
		for _, m := range s.managers {
			m.forget()
		}
	}
}

func (s *Stage) sent(e *events.Event) {
	if e.Result.Failed() || len(s.pending) >= pendingMax {
		return
	}
	to, proven := s.receiver(e)
	if to == nil {
		return
	}
	if r := e.Receiver; r != nil && r.Container != nil && r.Container.Name != "" {
		to.name(r.Container)
	}
	e.Awaited = true
	m := &message{event: e.Clone(), manager: to, likely: !proven}
	s.pending = append(s.pending, m)
	s.bySeq[e.Seq] = m
	if soon := e.Time.Add(pollEvery); soon.Before(s.wake) {
		s.wake = soon
	}
	to.take(m)
}

// receiver returns the service manager that receives a datagram, nil if none does. It is proven if the
// receiving socket is known; else it is the one that the sender belongs to, if the address is that of a
// service manager's socket: it takes a sender in a mount or network namespace, or below a root
// directory, of its own, for that to be another one.
func (s *Stage) receiver(e *events.Event) (to *manager, proven bool) {
	address := cmp.Or(e.Socket.Bound, e.Socket.Address)
	if !field.IsManagerSocket(string(address)) {
		return nil, false
	}
	if r := e.Receiver; r != nil && r.PID != 0 {
		if r.Comm != field.ServiceManager {
			return nil, false
		}
		return s.manager(r.PID, r.Cgroup, address), true
	}
	if e.Sender.Cgroup == "" || e.Sender.CgroupController != "" {
		return nil, false
	}
	// That of a user's service manager is below /run/user.
	ofUser := strings.HasPrefix(string(address), "/run/user/")
	for at := path.Clean(e.Sender.Cgroup); ; at = path.Dir(at) {
		scope := path.Join(at, identity.InitScope)
		if identity.IsUserManager(at) == ofUser && cgroupfs.Exists(scope) {
			if pid := s.managerOf(scope); pid != 0 {
				return s.manager(pid, scope, address), false
			}
		}
		if at == "/" || at == "." {
			return nil, false
		}
	}
}

const (
	// rootedFor is how long a control group is believed to have the same service manager.
	rootedFor = time.Second
	// rootsMax is how many control groups are remembered.
	rootsMax = 1024
	// fewProcesses is how many processes a service manager's own scope has at most.
	fewProcesses = 16
)

// managerOf is the process in a scope that is a service manager, 0 for none.
func (s *Stage) managerOf(scope string) uint32 {
	now := proc.BootTime()
	if r, known := s.roots[scope]; known && now < r.until {
		return r.pid
	}
	found := rooted{until: now + rootedFor}
	if pids, err := cgroupfs.Processes(scope); err == nil && len(pids) <= fewProcesses {
		for _, pid := range pids {
			if lookAt(uint32(pid)).comm == field.ServiceManager {
				found.pid = uint32(pid)
				break
			}
		}
	}
	if len(s.roots) >= rootsMax {
		clear(s.roots)
	}
	s.roots[scope] = found
	return found.pid
}

// manager returns the service manager that is a process.
func (s *Stage) manager(pid uint32, cgroup string, address events.Address) *manager {
	m := s.managers[pid]
	if m == nil || m.over() {
		m = newManager(pid, cgroup, address, s.options, func() time.Time { return time.Unix(0, s.seen.Load()) })
		s.managers[pid] = m
		s.workers.Go(func() { m.run(s.ctx) })
		s.workers.Go(func() { m.hangs(s.ctx) })
	}
	return m
}

// name says which container a service manager is in.
func (m *manager) name(c *events.Container) {
	named := *c
	m.mu.Lock()
	defer m.mu.Unlock()
	m.container = &named
}

// Wake is when to look for verdicts and news of units.
func (s *Stage) Wake() time.Time { return s.wake }

// Due returns the verdicts that have become known, and of datagrams that have waited for long that
// theirs is not.
func (s *Stage) Due(now time.Time) []events.Record {
	s.seen.Store(now.UnixNano())
	var due []events.Record
	s.pending = slices.DeleteFunc(s.pending, func(m *message) bool {
		m.mu.Lock()
		v := m.verdict
		m.mu.Unlock()
		since := now.Sub(m.event.Time)
		switch {
		case v != nil:
			v.Time = now
			due = append(due, events.Record{Verdict: v})
		case since >= givenUp:
		case since >= Within && !m.late:
			m.late = true
			due = append(due, events.Record{Verdict: m.unanswered(now)})
			return false
		default:
			return false
		}
		delete(s.bySeq, m.event.Seq)
		return true
	})
	for _, m := range s.managers {
		for _, u := range m.takeTold() {
			u.Time = now
			due = append(due, events.Record{Unit: u})
		}
		for _, h := range m.takeHung() {
			h.Time = now
			due = append(due, events.Record{Hang: h})
		}
	}
	s.wake = now.Add(watchEvery)
	if len(s.pending) > 0 {
		s.wake = now.Add(pollEvery)
	}
	return due
}

// unanswered is the verdict as long as the service manager has not said anything.
func (m *message) unanswered(now time.Time) *events.Verdict {
	v := m.unknown(now, "the service manager has not answered yet")
	v.Pending = true
	return v
}

// unknown is a verdict by which nothing is known, and why.
func (m *message) unknown(now time.Time, why string) *events.Verdict {
	v := &events.Verdict{Seq: m.event.Seq, Send: m.event, Time: now, Manager: events.VerdictManager{PID: m.manager.pid}}
	for _, line := range verdict.Of(m.event, nil).Lines() {
		v.Lines = append(v.Lines, events.LineVerdict{Assignment: line, Outcome: events.Unknown, Reason: why})
	}
	return v
}

// unitOf is the unit of a service manager that a control group belongs to: "" for none. ok is false
// when that cannot be told.
func unitOf(root, cgroup string) (unit string, ok bool) {
	below, ok := below(root, cgroup)
	if !ok || cgroup == "" {
		return "", cgroup != ""
	}
	return identity.Parse(below).Unit, true
}
