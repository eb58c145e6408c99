// SPDX-License-Identifier: Apache-2.0

package verdicts

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/proc"
	"github.com/sdtrace/sdtrace/internal/systemd1"
	"github.com/sdtrace/sdtrace/pkg/events"
	"github.com/sdtrace/sdtrace/pkg/verdict"
)

// sendLag is how long before the end of a send the datagram can have been read, where it is not known
// when it was queued: the reader may have taken the processor of the sender. A sender's own start, and its
// main process's, are later bounds.
const sendLag = 100 * time.Millisecond

// sendLagMax is how long that can be on a machine that has much more to do than it can: what would
// contradict a verdict only if it is not so long contradicts nothing.
const sendLagMax = 5 * time.Second

// datagram is one that waits for its verdict, with what is known of its sender by now.
type datagram struct {
	*message
	said verdict.Datagram
	from events.Process
	// unit is the one that it counts for: "" for none. known is whether that can be told.
	unit  string
	known bool
	// sent is when it can have been read, by CLOCK_MONOTONIC, at the earliest, and started when the
	// process did that it counts as from, by CLOCK_BOOTTIME; 0 when unknown.
	sent, started time.Duration
	// surely is when it cannot have been read yet, however long the sender had no processor.
	surely time.Duration
	// born is when the sender's process was started, by CLOCK_MONOTONIC.
	born time.Duration
	// ended is when the send had ended, by CLOCK_MONOTONIC.
	ended time.Duration
	// read is when it was read, by CLOCK_MONOTONIC; 0 when that is not known.
	read time.Duration
	// later are the keys that datagrams behind it say which may have been read by now, too. last says
	// that no status of theirs was heeded.
	later []string
	last  bool
	// assumed says that how much was stored before was told by [datagram.store].
	assumed bool

	judged judged
}

// datagram looks at the processes that a message is from and names.
func (m *manager) datagram(msg *message) *datagram {
	e := msg.event
	msg.mu.Lock()
	receipt := msg.receipt
	msg.mu.Unlock()
	d := &datagram{message: msg, said: *verdict.Of(e, receipt)}
	s := &e.Sender
	if m.pidns != 0 && uint64(s.PIDNS) == m.pidns && s.NSPID != 0 {
		m.sender(s.NSPID, s.PID)
	}
	if d.said.PID == 0 && e.Claimed != nil && e.Claimed.NSPID != 0 && s.PIDNS != 0 && uint64(s.PIDNS) == m.pidns {
		d.said.PID = m.find(e.Claimed.NSPID)
	}
	cgroup := ""
	if d.said.PID == s.PID {
		d.from = events.Process{PID: s.PID, Comm: s.Comm}
		if s.CgroupController == "" {
			cgroup = s.Cgroup
		}
		d.started = time.Duration(s.StartTime)
	} else {
		l := m.look(d.said.PID)
		d.from.PID, d.from.Comm = d.said.PID, l.comm
		cgroup, d.started = l.cgroup, time.Duration(l.started)*proc.Tick
	}
	if m.hasRoot {
		d.unit, d.known = unitOf(m.root, cgroup)
	}
	d.from.Unit = d.unit

	offset := proc.Suspended()
	end := e.BootTime - offset
	d.said.Read, d.ended, d.born = end, end, time.Duration(s.StartTime)-offset
	if e.Backend == "fentry" {
		d.sent, d.surely = end, end // it was queued then
	} else {
		d.sent, d.surely = max(end-sendLag, d.born), max(end-sendLagMax, d.born)
	}
	if receipt != nil {
		d.read = e.BootTime - offset + receipt.Time.Sub(e.Time)
		d.said.Read = d.read
		if d.said.PID == s.PID {
			gone := receipt.SenderExited != nil
			d.said.Gone = &gone
		}
	}
	if m.pidns != 0 && uint64(s.PIDNS) == m.pidns {
		foreign := false
		d.said.Foreign = &foreign
	}
	return d
}

// look is what is known of a process that lives; all is empty for another.
type look struct {
	comm, cgroup string
	started      uint64 // in [proc.Tick] of CLOCK_BOOTTIME
}

// look looks at a process, once for each batch.
func (m *manager) look(pid uint32) look {
	l, known := m.looks[pid]
	if !known {
		l = lookAt(pid)
		m.looks[pid] = l
	}
	return l
}

func lookAt(pid uint32) (l look) {
	p, err := proc.Open(int(pid))
	if err != nil || pid == 0 {
		return l
	}
	defer p.Close()
	stat, err := p.Stat()
	if err != nil {
		return l
	}
	l = look{comm: stat.Comm, started: stat.StartTicks}
	l.cgroup, _ = p.Cgroup()
	return l
}

// lives reports whether the process that the datagram counts as from is there still.
func (d *datagram) lives(m *manager) bool {
	return d.started != 0 && m.look(d.from.PID).started == uint64(d.started/proc.Tick)
}

// name looks at the process that MAINPID= names, now that the unit is as it is.
func (d *datagram) name(m *manager, now *systemd1.Service) {
	pid, named := d.said.MainPID()
	if !named || d.passesMain(m) {
		return
	}
	d.said.Main = new(verdict.Process)
	host := m.find(pid)
	p, err := proc.Open(int(host))
	if err != nil || host == 0 {
		// It may be over since.
		switch {
		case now == nil || now.MainExited >= d.sent:
			d.said.Main = nil
		case now.Main == pid && now.Now.MainPID != nil:
			*d.said.Main = verdict.Process{PID: *now.Now.MainPID, Unit: now.Now.Name}
		}
		return
	}
	defer p.Close()
	stat, err := p.Stat()
	if err != nil {
		d.said.Main = nil
		return
	}
	cgroup, _ := p.Cgroup()
	unit, _ := unitOf(m.root, cgroup)
	*d.said.Main = verdict.Process{PID: host, Unit: unit, Zombie: stat.State == 'Z'}
	if fd, err := unix.PidfdOpen(int(host), 0); err == nil {
		defer unix.Close(fd)
		d.said.Main.FDID = proc.PIDFDInode(fd)
	}
}

// passesMain reports whether a pidfd that came with the datagram says which process the main one is to be.
func (d *datagram) passesMain(m *manager) bool {
	if d.said.Text == nil || m.conn.Version < passesMainSince {
		return false
	}
	value, says := d.said.Text.Lookup("MAINPIDFD")
	return says && value == "1"
}

// passesMainSince is the version of systemd from which on MAINPIDFD= counts.
const passesMainSince = 257

// nameByEffect is the process that the pidfd of a datagram refers to if that is seen by what came of it.
func (d *datagram) nameByEffect(before *verdict.Unit, now *systemd1.Service) {
	if before == nil || now == nil || !isThere(now.Now.MainPID) || before.MainPID == nil || *before.MainPID == *now.Now.MainPID ||
		d.again("MAINPID") || d.again("MAINPIDFD") {
		return
	}
	d.said.Main = &verdict.Process{PID: *now.Now.MainPID, Unit: now.Now.Name}
}

// since reports whether the datagram, or one behind it, has an assignment with a key.
func (d *datagram) since(key string) bool {
	if d.said.Text == nil || slices.Contains(d.later, key) {
		return true // or it is not known
	}
	_, says := d.said.Text.Lookup(key)
	return says
}

// areQuiet reports whether nothing that datagrams say changes what a service manager tells of a unit.
func areQuiet(batch []*datagram) bool {
	return !slices.ContainsFunc(batch, func(d *datagram) bool { return !isQuiet(d.said.Text) })
}

// isQuiet reports whether a text, nil when unknown, holds pings and barriers only.
func isQuiet(text *events.Text) bool {
	return text != nil && !slices.ContainsFunc(text.Lines, func(l events.Line) bool {
		return l.Text != "WATCHDOG=1" && l.Text != "BARRIER=1"
	})
}

// finish is the verdict, given the unit's state before and what the service manager tells now, either
// nil when unknown. It returns the state afterwards.
func (d *datagram) finish(m *manager, before *verdict.Unit, now *systemd1.Service) *verdict.Unit {
	if before == nil && d.known && d.unit == "" || before == nil && d.unit != "" {
		before = &verdict.Unit{Name: d.unit}
	}
	if d.passesMain(m) {
		d.nameByEffect(before, now)
	}
	lines, after := d.decide(m, before, now)
	v := &events.Verdict{
		Seq: d.event.Seq, Send: d.event, Manager: events.VerdictManager{PID: m.pid, Version: m.conn.Version}, Unit: d.unit, From: d.from,
	}
	v.Lines = lines
	if main := d.said.Main; main != nil {
		v.Named = m.process(main.PID)
		v.Named.Unit = main.Unit
	}
	v.MainBefore, v.MainAfter = m.mainOf(before), m.mainOf(after)
	if v.Contradicted() {
		m.refuted = append(m.refuted, refuted{d, v, time.Now().Add(refutedAfter)})
		return after
	}
	d.tell(v)
	return after
}

// store adds to a unit behind a datagram how much is stored then, if nothing in it was stored before: one
// that was is not stored again (systemd: service_add_fd_store). It reports whether it did.
func (d *datagram) store(verdicts []verdict.Verdict, before, after *verdict.Unit) bool {
	if before == nil || after == nil || before.FDStored == nil || after.FDStored != nil || after.FDStoreMax == nil ||
		d.said.FDs == nil || !slices.ContainsFunc(verdicts, func(v verdict.Verdict) bool {
		return v.Assignment.Key == "FDSTORE" && v.Outcome == verdict.Heeded
	}) {
		return false
	}
	stored := min(*before.FDStored+uint32(*d.said.FDs), *after.FDStoreMax)
	after.FDStored = &stored
	return true
}

// tell gives the stage the verdict.
func (m *message) tell(v *events.Verdict) {
	m.mu.Lock()
	m.verdict = v
	m.mu.Unlock()
}

// mainOf names the main process of a unit, nil when it is not known.
func (m *manager) mainOf(u *verdict.Unit) *events.Process {
	if u == nil || u.MainPID == nil || *u.MainPID == verdict.Over {
		return nil
	}
	return m.process(*u.MainPID)
}

// process names a process.
func (m *manager) process(pid uint32) *events.Process {
	return &events.Process{PID: pid, Comm: m.look(pid).comm}
}

// decide returns the verdicts line by line. What is not known about the sender and the unit, and can
// be seen by what came of it, is found out by that.
func (d *datagram) decide(m *manager, before *verdict.Unit, now *systemd1.Service) ([]events.LineVerdict, *verdict.Unit) {
	manager := verdict.Manager{Version: m.conn.Version, PID: m.pid}
	no, yes := false, true
	assume := func(gone, stopping *bool) ([]verdict.Verdict, *verdict.Unit, effect) {
		said, unit := d.said, before
		if said.Gone == nil {
			said.Gone = gone
		}
		if unit != nil && unit.Stopping == nil {
			assumed := *unit
			assumed.Stopping = stopping
			unit = &assumed
		}
		verdicts, after := verdict.Judge(&said, manager, unit)
		d.judged = judged{verdicts, unit, after}
		return verdicts, after, d.effect(now)
	}
	if d.said.Gone == nil && d.lives(m) {
		d.said.Gone = &no
	}
	verdicts, after, seen := assume(&no, &no)
	switch {
	case seen.some && !seen.contradicted:
	case seen.contradicted && d.said.Gone == nil:
		verdicts, after, seen = assume(&yes, &no)
	case seen.contradicted && before != nil && before.Stopping == nil:
		verdicts, after, seen = assume(&no, &yes)
	case !seen.contradicted && (d.said.Gone == nil || before != nil && before.Stopping == nil):
		verdicts, after, seen = assume(nil, nil)
	}
	lines := make([]events.LineVerdict, len(verdicts))
	for i, v := range verdicts {
		lines[i] = events.LineVerdict{
			Assignment: v.Assignment, Outcome: events.Outcome(v.Outcome.String()), Rule: v.Rule, Reason: v.Reason, Cure: v.Cure,
			Likely: v.Likely || d.likely || d.assumed && v.Assignment.Key == "FDSTORE", Confirmed: seen.lines[i],
		}
	}
	return lines, after
}

// judged is what was judged last of a datagram, and the unit before and after it.
type judged struct {
	verdicts      []verdict.Verdict
	before, after *verdict.Unit
}

// effect is what the unit's properties show of verdicts.
type effect struct {
	lines              []*bool // nil: nothing
	some, contradicted bool
}

// effect compares verdicts with what the service manager tells now; nothing is told of what later
// datagrams say again.
func (d *datagram) effect(now *systemd1.Service) effect {
	verdicts, before, after := d.judged.verdicts, d.judged.before, d.judged.after
	seen := effect{lines: make([]*bool, len(verdicts))}
	if now == nil || before == nil || after == nil {
		return seen
	}
	// Another life, or the end of one, may have taken away what was shown.
	settled := now.Changed < d.sent && now.MainStarted < d.sent && now.MainExited < d.sent
	for i, v := range verdicts {
		if v.Outcome != verdict.Heeded {
			continue
		}
		var shown, refuted bool
		switch key := v.Assignment.Key; {
		case key == "READY" || key == "RELOADING" || key == "STOPPING":
			moves := before.SubState != "" && after.SubState != before.SubState
			refuted = moves && now.Changed < d.surely
			shown = moves && now.Changed >= d.sent && (after.SubState == now.Now.SubState || key == "READY" && now.Active >= d.sent)
		case key == "WATCHDOG" && v.Assignment.Value == "1":
			shown = now.Pinged >= d.sent
			// WATCHDOG_USEC=0 takes the time away again.
			refuted = settled && now.Pinged < d.surely && !d.since("WATCHDOG_USEC")
		case d.again(key):
		case key == "STATUS":
			shown = now.Now.StatusText != nil && *now.Now.StatusText == v.Assignment.Value
			refuted = !shown && settled
		case key == "MAINPID":
			shown = now.Now.MainPID != nil && d.said.Main != nil && *now.Now.MainPID == d.said.Main.PID
			refuted = !shown && settled && now.Now.MainPID != nil
		case key == "NOTIFYACCESS":
			shown = now.Now.NotifyAccess == v.Assignment.Value
		}
		if shown || refuted {
			seen.lines[i] = &shown
			seen.some = seen.some || shown
			seen.contradicted = seen.contradicted || refuted
		}
	}
	return seen
}

// again reports whether a later datagram that was read by now may say a key again.
func (d *datagram) again(key string) bool {
	return slices.Contains(d.later, key) && (key != "STATUS" || !d.last)
}
