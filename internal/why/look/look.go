// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package look finds out what there is to know of a unit, for package why: it asks the service manager, looks at the
// unit's processes, and takes what captures and the journal tell.
package look

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sdtrace/sdtrace/internal/access"
	"github.com/sdtrace/sdtrace/internal/cgroupfs"
	"github.com/sdtrace/sdtrace/internal/enrich/machines"
	"github.com/sdtrace/sdtrace/internal/history"
	"github.com/sdtrace/sdtrace/internal/proc"
	"github.com/sdtrace/sdtrace/internal/sockdiag"
	"github.com/sdtrace/sdtrace/internal/systemd1"
	"github.com/sdtrace/sdtrace/internal/why"
	"github.com/sdtrace/sdtrace/pkg/events"
)

// Looker looks at the units of one service manager.
type Looker struct {
	manager machines.Manager
	conn    *systemd1.Manager // nil: it does not answer
	silent  string            // why
	floods  atomic.Bool       // it works all the time, and its queue is never empty
	facts   why.Manager
	pidns   map[uint32]uint32 // the processes of its pid namespace by their numbers in it; nil: not looked for yet
	cancel  context.CancelFunc
	// programs knows which programs can notify: what loads libsystemd when it needs it has its name.
	programs *proc.Programs
}

const (
	// answerWithin is how long a service manager that does nothing may take to answer, which takes milliseconds, and
	// busyWithin one that is busy.
	answerWithin, busyWithin = 4 * time.Second, time.Minute
	// toldWithin is how long captures may take to tell, which takes milliseconds but for one that hangs.
	toldWithin = 2 * time.Second
	// processesMax is how many processes of a unit are looked at.
	processesMax = 128
	// programsMost is how many bytes of programs are read at most, which takes a tenth of a second, and programsWithin
	// how long that may take where a disk is slow.
	programsMost, programsWithin = 64 << 20, 2 * time.Second
)

// Teller tells what captures hold in the JSON of which one of some texts stands.
type Teller func(ctx context.Context, texts ...string) []history.Told

// Running asks the captures that run on this machine.
func Running(ctx context.Context, texts ...string) []history.Told {
	ctx, cancel := context.WithTimeout(ctx, toldWithin)
	defer cancel()
	return history.Ask(ctx, history.Dir, texts...)
}

// ErrNoUnit says that the service manager has no such unit.
var ErrNoUnit = errors.New("there is no such unit")

// New returns what looks at the units of a service manager. It may not answer, which is told in the cases. Call
// Close at the end.
func New(ctx context.Context, m machines.Manager) *Looker {
	l := &Looker{manager: m, programs: proc.NewPrograms("NOTIFY_SOCKET", "libsystemd.so")}
	l.facts = why.Manager{PID: m.PID, NotifySocket: m.NotifySocket}
	if p, err := proc.Open(m.PID); err == nil {
		l.facts.MntNS, _ = p.Inode("ns/mnt", "mnt")
		l.facts.NetNS, _ = p.Inode("ns/net", "net")
		l.facts.PIDNS, _ = p.Inode("ns/pid", "pid")
		l.facts.Inode = access.ReachOf(p, m.NotifySocket).Inode
		p.Close()
	}
	if l.facts.State = stateOf(m.PID); l.facts.State == 'T' || l.facts.State == 't' {
		l.silent = "it is stopped"
		return l
	}
	// The connection ends with its context.
	ctx, l.cancel = context.WithCancel(ctx)
	answered := l.whileBusy(ctx, l.cancel)
	conn, err := systemd1.Connect(ctx, m.PID, m.NotifySocket)
	answered()
	if err != nil {
		l.cancel()
		l.silent = err.Error()
		if l.floods.Load() {
			l.silent = flooded
		}
		return l
	}
	l.conn, l.facts.Version = conn, conn.Version
	return l
}

// flooded says why a service manager does not answer that reads messages all the time, which come before questions
// (systemd: EVENT_PRIORITY_NOTIFY).
const flooded = "it reads messages, and has no time for questions"

// whileBusy calls cancel when the service manager has taken too long to answer: it has done nothing for a while, or there
// were messages in its queue each time. The returned function says that it has answered.
func (l *Looker) whileBusy(ctx context.Context, cancel func()) (answered func()) {
	done := make(chan struct{})
	go func() {
		began := time.Now()
		progress, empty := began, began
		var taken uint64
		tick := time.NewTicker(answerWithin / 4)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case now := <-tick.C:
				stat, err := statOf(l.manager.PID)
				if err != nil || stat.State == 'Z' || now.Sub(began) > busyWithin {
					cancel()
					return
				}
				works := stat.State == 'R' || stat.CPUTicks != taken
				if works {
					progress, taken = now, stat.CPUTicks
				}
				if queued, _ := l.queue(ctx); queued == 0 {
					empty = now
				}
				floods := works && now.Sub(empty) >= answerWithin
				l.floods.Store(floods)
				if floods || now.Sub(progress) >= answerWithin {
					cancel()
					return
				}
			}
		}
	}()
	return sync.OnceFunc(func() { close(done) })
}

// stateOf is the state of a process (proc_pid_stat(5)), 0 when it is not known.
func stateOf(pid int) byte {
	stat, err := statOf(pid)
	if err != nil {
		return 0
	}
	return stat.State
}

func statOf(pid int) (proc.Stat, error) {
	p, err := proc.Open(pid)
	if err != nil {
		return proc.Stat{}, err
	}
	defer p.Close()
	return p.Stat()
}

// Close ends the connection to the service manager.
func (l *Looker) Close() {
	if l.conn != nil {
		l.conn.Close()
		l.cancel()
	}
}

// Troubled returns the services that hang or have failed, as far as their states tell.
func (l *Looker) Troubled() (units []string) {
	if l.conn == nil {
		return nil
	}
	for _, u := range l.conn.Listed {
		switch u.Active {
		case "activating", "deactivating", "reloading", "refreshing", "failed":
			units = append(units, u.Unit)
		}
	}
	slices.Sort(units)
	return units
}

// Matching returns the services whose names match a pattern, as path.Match does, and that are loaded.
func (l *Looker) Matching(pattern string) (units []string) {
	if l.conn == nil {
		return nil
	}
	for _, u := range l.conn.Listed {
		if ok, err := path.Match(pattern, u.Unit); ok && err == nil {
			units = append(units, u.Unit)
		}
	}
	slices.Sort(units)
	return units
}

// Root is the root of the service manager's control groups, "" when it is not known, or all are below it.
func (l *Looker) Root() string {
	if l.manager.IsUser() || l.manager.Root == "/" {
		return "" // a user's unit may speak to others, too
	}
	return l.manager.Root
}

// Machine is the machine that the service manager is in, "" for the host's.
func (l *Looker) Machine() string { return l.manager.Machine }

// Silent is the case of a service manager that does not answer, nil if it does.
func (l *Looker) Silent() *why.Case {
	if l.conn != nil {
		return nil
	}
	c := &why.Case{Unit: "all units", Manager: l.facts}
	c.Now, c.Monotonic = proc.WallAndMonotonic()
	c.Manager.Silent = l.silent
	return c
}

// Unit looks at a unit. The error is [ErrNoUnit], or says that it cannot be looked at.
func (l *Looker) Unit(ctx context.Context, name string, told Teller) (*why.Case, error) {
	c := &why.Case{Unit: name, Manager: l.facts}
	c.Manager.State = stateOf(l.manager.PID)
	c.Manager.Silent = l.silent
	c.Now, c.Monotonic = proc.WallAndMonotonic()
	ctx, cancel := context.WithTimeout(ctx, busyWithin)
	defer cancel()
	lines := l.readJournal(ctx, name)
	cgroup := ""
	if l.conn != nil {
		var err error
		switch c.Service, c.JobWaits, err = l.ask(ctx, name); {
		case errors.Is(err, errSilent):
			c.Manager.Silent = err.Error()
			if l.floods.Load() {
				c.Manager.Silent = flooded
			}
		case err != nil:
			return nil, err
		default:
			cgroup, c.Unit = c.Service.Cgroup, cmp.Or(c.Service.ID, name)
		}
	}
	c.Now, c.Monotonic = proc.WallAndMonotonic()
	if cgroup == "" && c.Service != nil {
		cgroup = sliceOf(c.Service.Slice) + "/" + c.Unit // the one that it had
	}
	group := l.group(cgroup, c.Unit)
	l.processes(c, group)
	l.takeTold(ctx, c, group, told)
	if c.Manager.Silent != "" || c.Manager.State != 'S' && c.Manager.State != 'R' || slices.ContainsFunc(c.Processes, func(p why.Process) bool { return p.Sends }) {
		if queued, most := l.queue(ctx); most > 0 {
			c.Manager.Queued, c.Manager.MaxQueued = &queued, &most
		}
	}
	c.Manager.Floods = l.floods.Load()
	<-lines.done
	lines.put(c)
	return c, nil
}

// errSilent says that the service manager has not answered in time.
var errSilent = errors.New("it has not answered in time")

// ask asks the service manager for a unit, and what that waits for before it can be started. The error is [ErrNoUnit],
// errSilent, or says what is wrong with the name.
func (l *Looker) ask(ctx context.Context, name string) (service *systemd1.Service, waits []string, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer l.whileBusy(ctx, cancel)()
	service, err = l.conn.Service(ctx, name, l.host)
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, nil, errSilent
	case err != nil:
		return nil, nil, err
	case service.LoadState == "not-found" && service.ActiveState == "inactive":
		return nil, nil, ErrNoUnit
	}
	if service.Job != 0 && service.ActiveState == "inactive" {
		waits, _ = l.conn.JobWaits(ctx, service.Job) // it may be done by now
	}
	return service, waits, nil
}

// group is the control group of a unit below the root of the hierarchy.
func (l *Looker) group(cgroup, unit string) string {
	root := strings.TrimSuffix(l.manager.Root, "/")
	if cgroup == "" {
		cgroup = sliceOf("system.slice") + "/" + unit // as most are
	}
	if strings.HasPrefix(cgroup, root+"/") {
		return cgroup // a user's service manager tells the whole path
	}
	return root + cgroup
}

// sliceOf is the control group of a slice (systemd.slice(5)): that of a-b.slice is below that of a.slice.
func sliceOf(slice string) (cgroup string) {
	name, ok := strings.CutSuffix(slice, ".slice")
	if !ok || name == "-" {
		return ""
	}
	parts := strings.Split(name, "-")
	for i := range parts {
		cgroup += "/" + strings.Join(parts[:i+1], "-") + ".slice"
	}
	return cgroup
}

// host translates a process id of the service manager's pid namespace.
func (l *Looker) host(pid uint32) (*uint32, time.Duration) {
	host := pid
	if own, err := os.Readlink("/proc/self/ns/pid"); err != nil || own != fmt.Sprintf("pid:[%d]", l.facts.PIDNS) {
		if host = l.pidns[pid]; host == 0 || !l.isCalled(host, pid) {
			l.pidns = l.listNamespace() // it may be new
		}
		if host = l.pidns[pid]; host == 0 {
			return nil, 0
		}
	}
	p, err := proc.Open(int(host))
	if err != nil {
		return nil, 0
	}
	defer p.Close()
	stat, err := p.Stat()
	if err != nil {
		return nil, 0
	}
	return &host, started(stat)
}

// isCalled reports whether a process has a number in the service manager's pid namespace.
func (l *Looker) isCalled(host, pid uint32) bool {
	p, err := proc.Open(int(host))
	if err != nil {
		return false
	}
	defer p.Close()
	status, err := p.Status()
	return err == nil && uint32(status.NSPID) == pid
}

// started is when a process was, by CLOCK_MONOTONIC.
func started(stat proc.Stat) time.Duration {
	return time.Duration(stat.StartTicks)*proc.Tick - proc.Suspended()
}

// listNamespace lists the processes in the service manager's pid namespace by their numbers in it.
func (l *Looker) listNamespace() map[uint32]uint32 {
	found := make(map[uint32]uint32)
	all, err := proc.PIDs("/")
	if err != nil {
		return found
	}
	for _, pid := range all {
		p, err := proc.Open(pid)
		if err != nil {
			continue
		}
		if inode, err := p.Inode("ns/pid", "pid"); err == nil && inode == l.facts.PIDNS {
			if status, err := p.Status(); err == nil {
				found[uint32(status.NSPID)] = uint32(pid)
			}
		}
		p.Close()
	}
	return found
}

// processes looks at the processes in a control group and below it.
func (l *Looker) processes(c *why.Case, group string) {
	if group == "" || group == "/" {
		return
	}
	pids := cgroupfs.ProcessesBelow(group, processesMax)
	if c.Service != nil && c.Service.Now.MainPID != nil && !slices.Contains(pids, int(*c.Service.Now.MainPID)) {
		pids = append(pids, int(*c.Service.Now.MainPID)) // which is in another control group, as of a session
	}
	may := proc.Reading{Bytes: programsMost, Until: time.Now().Add(programsWithin)}
	for _, pid := range pids {
		p, err := proc.Open(pid)
		if err != nil {
			continue
		}
		found, err := l.process(p, c)
		if err == nil && c.Awaits() == "READY=1" {
			found.Notifies = l.ability(p, &may)
		}
		p.Close()
		const pam = "(sd-pam)" // which stays, to close the session (PAMName=)
		if err == nil && found.Comm != pam {
			c.Processes = append(c.Processes, found)
		}
	}
	slices.SortStableFunc(c.Processes, func(a, b why.Process) int {
		switch {
		case a.Main != b.Main && a.Main:
			return -1
		case a.Main != b.Main:
			return 1
		}
		return cmp.Compare(a.PID, b.PID)
	})
}

// ability says whether a program can notify.
func (l *Looker) ability(p proc.Process, may *proc.Reading) why.Ability {
	able, err := l.programs.Know(p, may)
	switch {
	case err != nil:
		return why.Unknown
	case able:
		return why.Able
	}
	return why.Unable
}

// process looks at one. The error is that it is gone.
func (l *Looker) process(p proc.Process, c *why.Case) (found why.Process, err error) {
	stat, err := p.Stat()
	if err != nil {
		return found, err
	}
	found = why.Process{
		Process: events.Process{PID: uint32(p.PID), Comm: stat.Comm},
	}
	if status, err := p.Status(); err == nil {
		found.PPID, found.NSPID, found.UID = uint32(status.PPID), uint32(status.NSPID), status.FSUID
		found.Caught, found.Blocked, found.Signals = status.Caught, status.Blocked, true
	}
	if s := c.Service; s != nil {
		found.Main = is(s.Now.MainPID, p.PID)
		found.Control = is(s.Now.ControlPID, p.PID)
	}
	found.Exe, _ = p.Link("exe")
	found.Root = access.Root(p)
	found.MntNS, _ = p.Inode("ns/mnt", "mnt")
	found.NetNS, _ = p.Inode("ns/net", "net")
	found.PIDNS, _ = p.Inode("ns/pid", "pid")
	found.Sends = len(p.ThreadsIn(proc.SendWaits...)) > 0
	if label, err := p.Read("attr/current"); err == nil {
		found.Label = strings.Trim(string(label), "\x00\n")
	}
	if found.Unexecuted = isUnexecuted(stat.Comm, found.Exe); found.Unexecuted {
		return found, nil // its environment is that of the service manager still
	}
	if environ, err := p.Read("environ"); err == nil && proc.IsEnvironment(environ) {
		found.Executed = environment(func(name string) (string, bool) { return proc.Variable(environ, name) })
	}
	if now, err := p.Variables(variables...); err == nil {
		found.Now = environment(func(name string) (string, bool) { value, ok := now[name]; return value, ok })
	}
	env := cmp.Or(found.Executed, found.Now)
	if env == nil || env.NotifySocket == nil {
		return found, nil
	}
	address := events.Address(*env.NotifySocket)
	found.Leads = access.ReachOf(p, address)
	if found.Leads.State == access.OK && l.facts.Inode != 0 && found.Leads.Inode != 0 && found.Leads.Inode != l.facts.Inode {
		found.Elsewhere, found.To = true, l.holder(found.Leads.Inode)
	}
	return found, nil
}

// isUnexecuted reports whether a process is the service manager's fork, named after what it is to execute (systemd:
// exec_child, rename_process_from_path).
func isUnexecuted(comm, exe string) bool {
	return strings.HasPrefix(comm, "(") && slices.Contains([]string{"systemd", "systemd-executor"}, path.Base(exe))
}

func is(pid *uint32, of int) bool { return pid != nil && *pid == uint32(of) }

// variables are those that are about notifications.
var variables = []string{"NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"}

func environment(find func(name string) (string, bool)) *why.Environment {
	get := func(name string) *string {
		if value, ok := find(name); ok {
			return &value
		}
		return nil
	}
	return &why.Environment{NotifySocket: get(variables[0]), WatchdogPID: get(variables[1]), WatchdogUSec: get(variables[2])}
}

// holder is the process with the lowest number that has a socket open, the zero value if none is found.
func (l *Looker) holder(inode uint32) (found events.Process) {
	all, err := proc.PIDs("/")
	if err != nil {
		return found
	}
	slices.Sort(all)
	for _, pid := range all {
		p, err := proc.Open(pid)
		if err != nil {
			continue
		}
		if p.Holds(inode) {
			found.PID = uint32(pid)
			found.Comm, _ = p.Comm()
		}
		p.Close()
		if found.PID != 0 {
			return found
		}
	}
	return found
}

// queue asks how many messages wait for the service manager, and how many can; 0 when that is not known.
func (l *Looker) queue(ctx context.Context) (queued, most uint32) {
	if l.facts.Inode == 0 {
		return 0, 0
	}
	queues, err := sockdiag.Queues(ctx)
	if err != nil {
		return 0, 0
	}
	q := queues[l.facts.Inode]
	return q.Datagrams, q.Limit
}

// takeTold takes over what captures have told of the unit.
func (l *Looker) takeTold(ctx context.Context, c *why.Case, group string, told Teller) {
	if told == nil {
		return
	}
	began := time.Time{}
	if c.Service != nil && c.Began() != 0 {
		const slack = 10 * time.Millisecond // between two clocks
		began = c.Wall(c.Began()).Add(-slack)
	}
	// What is from the unit's own control group, or about the unit, or from children of its processes.
	texts := []string{string(jsonText(c.Unit))}
	for i := range c.Processes {
		texts = append(texts, fmt.Sprintf(`"ppid":%d,`, c.Processes[i].PID), fmt.Sprintf(`"claimed":{"pid":%d,`, c.Processes[i].PID))
	}
	if main := c.Main(); main != nil && why.IsContainerClient(main.Comm) {
		texts = append(texts, `"container":{`)
	}
	for _, t := range told(ctx, texts...) {
		source := why.Source{Name: t.Name(), Since: t.Began, Filters: t.Filters, Covers: t.Covers(group), Lost: t.Lost}
		before := len(c.Said) + len(c.News) + len(c.Hangs)
		bySeq := make(map[uint64]int)
		for i := range t.Records {
			r := &t.Records[i]
			switch {
			case r.Event != nil:
				if l.isOf(c, group, r.Event) && (r.Event.Time.After(began) || l.isEarly(c, r.Event, began)) {
					bySeq[r.Event.Seq] = len(c.Said)
					c.Said = append(c.Said, why.Said{Event: r.Event, Source: len(c.Sources)})
				}
			case r.Verdict != nil:
				at, known := bySeq[r.Verdict.Seq]
				if !known && r.Verdict.Send != nil && l.isCounted(c, r.Verdict) &&
					(r.Verdict.Send.Time.After(began) || l.isEarly(c, r.Verdict.Send, began)) {
					at, known = len(c.Said), true
					bySeq[r.Verdict.Seq] = at
					c.Said = append(c.Said, why.Said{Event: r.Verdict.Send, Source: len(c.Sources)})
				}
				if known {
					c.Said[at].Verdict = r.Verdict
				}
			case r.Withheld != nil:
				if at, known := bySeq[r.Withheld.Seq]; known {
					c.Said[at].Withheld = r.Withheld
				}
			case r.Unit != nil:
				if r.Unit.Manager.PID == uint32(l.manager.PID) && nameOf(&r.Unit.Identity) == c.Unit && r.Unit.Time.After(began) {
					c.News = append(c.News, r.Unit)
				}
			case r.Hang != nil:
				const lately = 5 * time.Second
				if within(group, r.Hang.Sender.Cgroup) && c.Now.Sub(r.Hang.Time) < lately && !r.Hang.Since.Before(began) {
					c.Hangs = append(c.Hangs, r.Hang)
				}
			}
		}
		if source.Covers || len(c.Said)+len(c.News)+len(c.Hangs) > before {
			c.Sources = append(c.Sources, source) // another one is about other units
		}
	}
	for i := range c.Said {
		s := &c.Said[i].Event.Sender
		p, err := proc.Open(int(s.PID))
		if err != nil {
			c.Said[i].Gone = true
			continue
		}
		stat, err := p.Stat()
		c.Said[i].Gone = err != nil || s.StartTime != 0 && !stat.StartedAt(s.StartTime)
		p.Close()
	}
	slices.SortStableFunc(c.Said, func(a, b why.Said) int { return a.Event.Time.Compare(b.Event.Time) })
	c.Said = merged(c.Said)
	c.Hangs = slices.DeleteFunc(c.Hangs, func(h *events.Hang) bool { return isOver(h, c.Said) })
}

// isOver reports whether a send that hung is over: its thread has sent something since then.
func isOver(h *events.Hang, said []why.Said) bool {
	const clocks = time.Millisecond
	return slices.ContainsFunc(said, func(s why.Said) bool {
		return s.Event.Sender.TID == h.Sender.TID && s.Event.Time.After(h.Since.Add(clocks))
	})
}

// merged are messages in order, those that several captures tell of as one: not each capture knows what became of it.
func merged(all []why.Said) (said []why.Said) {
	told := make([][]int, 0, len(all)) // the captures that have told of each
	for _, s := range all {
		i := slices.IndexFunc(said, func(other why.Said) bool { return isSame(other.Event, s.Event) })
		for i >= 0 && i < len(said) && (slices.Contains(told[i], s.Source) || !isSame(said[i].Event, s.Event)) {
			i++ // that one is another message with the same text
		}
		if i < 0 || i == len(said) {
			said, told = append(said, s), append(told, []int{s.Source})
			continue
		}
		told[i] = append(told[i], s.Source)
		said[i].Verdict = cmp.Or(said[i].Verdict, s.Verdict)
		said[i].Withheld = cmp.Or(said[i].Withheld, s.Withheld)
	}
	return said
}

// isSame reports whether two captures can have taken the same datagram. Each has a clock of its own, and none is off by
// more than that.
func isSame(a, b *events.Event) bool {
	const clocks = 50 * time.Millisecond
	return a.Sender.TID == b.Sender.TID && a.Time.Sub(b.Time).Abs() < clocks && string(a.Payload) == string(b.Payload)
}

// jsonText is how a text stands in JSON, without the quotes.
func jsonText(text string) []byte {
	quoted, err := json.Marshal(text)
	if err != nil {
		return []byte(text)
	}
	return quoted[1 : len(quoted)-1]
}

func nameOf(id *events.Identity) string { return cmp.Or(id.UserUnit, id.Unit) }

// within reports whether a control group is another one or below it.
func within(group, cgroup string) bool {
	return group != "" && (cgroup == group || strings.HasPrefix(cgroup, group+"/"))
}

// isOf reports whether a datagram is from the unit.
func (l *Looker) isOf(c *why.Case, group string, e *events.Event) bool {
	if id := &e.Sender.Identity; nameOf(id) == c.Unit && id.Machine == l.manager.Machine && (id.UserUnit != "") == l.manager.IsUser() {
		return true
	}
	if within(group, e.Sender.Cgroup) {
		return true
	}
	// What a container says that a client in the unit has asked for, as far as can be told.
	if main := c.Main(); main != nil && why.IsContainerClient(main.Comm) && e.Sender.Container != nil {
		return true
	}
	// One that has gone to another control group, and its children.
	return slices.ContainsFunc(c.Processes, func(p why.Process) bool {
		return e.Sender.PPID == p.PID || e.Claimed != nil && e.Claimed.PID == p.PID
	})
}

// isEarly reports whether a datagram is of the life of the unit that has begun then, though it was sent before: a service
// manager takes note of a life when it has forked the first process (systemd: service_spawn), which on a busy machine may
// have said something by then.
func (l *Looker) isEarly(c *why.Case, e *events.Event, began time.Time) bool {
	const spawn = 10 * time.Second
	if c.Service == nil || !e.Time.After(began.Add(-spawn)) {
		return false
	}
	main, s := c.Service.LatestMain, &e.Sender
	switch {
	case is(main, int(s.PID)), is(main, int(s.PPID)):
		return true
	case s.NSPID != 0 && s.NSPID == c.Service.LatestNumber && uint64(s.PIDNS) == l.facts.PIDNS:
		return true
	}
	return slices.ContainsFunc(c.Processes, func(p why.Process) bool { return p.PID == s.PID })
}

// isCounted reports whether a datagram counts for the unit, or its service manager thinks so.
func (l *Looker) isCounted(c *why.Case, v *events.Verdict) bool {
	return v.Manager.PID == uint32(l.manager.PID) && v.Unit == c.Unit
}
