// SPDX-License-Identifier: Apache-2.0

package verdicts

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/sdtrace/sdtrace/internal/access"
	"github.com/sdtrace/sdtrace/internal/identity"
	"github.com/sdtrace/sdtrace/internal/proc"
	"github.com/sdtrace/sdtrace/internal/systemd1"
	"github.com/sdtrace/sdtrace/pkg/events"
	"github.com/sdtrace/sdtrace/pkg/verdict"
)

const (
	// watchEvery is how often it is looked what has become of the units.
	watchEvery = 250 * time.Millisecond
	// waitFirst is how long a unit is waited for until that is told first, and waitMost until it is told
	// again at most: the time doubles.
	waitFirst, waitMost = 2 * time.Second, 5 * time.Minute
	// askedAtOnce is how many services are asked for at once of which nothing is known yet.
	askedAtOnce = 4
	// isMax is how many units are told of when nothing is said.
	isMax = 8
	// connectFirst is when it is tried again to connect, and connectMost when at most: the time doubles.
	connectFirst, connectMost = time.Second, time.Minute
)

// watched is what is known of a service without a message.
type watched struct {
	name        string
	active, sub string
	since       time.Duration     // when it entered that, by CLOCK_MONOTONIC; 0 when unknown
	service     *systemd1.Service // as it was when it was asked for last, nil: never
	asked       time.Duration
	queued      bool // it is among those that are to be asked for
	failed      bool // it could not be asked for, and has not changed since

	main     uint32 // in the service manager's pid namespace
	hadMain  bool   // ever
	begins   bool   // it is being started, and has no main process yet
	restarts uint32
	result   string
	untold   bool // that it has failed, as long as it is not known what it is

	said   time.Duration // when it said something last, 0: never
	text   string        // that
	last   events.Process
	pinged time.Duration // when it said a ping last that was heeded
	pinger events.Process

	next, step time.Duration // when is told next that it is waited for
	overdue    time.Duration // the ping was told to be overdue that follows on this one
}

// unitsFollowed is how many services are watched at most.
const unitsFollowed = 16384

// watch takes note of what the service manager has told of its services, and tells what is news.
func (m *manager) watch(ctx context.Context) error {
	now := proc.Monotonic()
	if m.conn == nil {
		if now < m.connectNext {
			return nil
		}
		m.connectStep = min(max(2*m.connectStep, connectFirst), connectMost)
		m.connectNext = now + m.connectStep
		_ = m.connect(ctx) // it is tried again
		if m.conn == nil {
			return nil
		}
	}
	m.connectStep = 0
	m.beginToWatch()
	for _, n := range m.conn.News() {
		if w := m.unitNamed(n.Unit); w != nil {
			m.learn(w, n)
		}
	}
	if err := m.askForUnknown(ctx, now); err != nil {
		return err
	}
	for _, w := range m.watched {
		if err := m.lookForSilence(ctx, w, now); err != nil {
			return err
		}
	}
	m.tellHowItIs(now)
	return nil
}

// beginToWatch takes note of the services that were there when the connection was made.
func (m *manager) beginToWatch() {
	if m.watched != nil {
		return
	}
	m.watched = make(map[string]*watched)
	for _, l := range m.conn.Listed {
		w := m.unitNamed(l.Unit)
		if w == nil {
			return
		}
		w.active, w.sub = l.Active, l.Sub
		if id := m.identity(l.Unit, ""); l.Active != "inactive" && m.wanted.Unit(&id, m.address) {
			m.askLater(w)
		}
	}
}

// askLater has a service asked for when there is time.
func (m *manager) askLater(w *watched) {
	if !w.queued && !w.failed {
		w.queued = true
		m.unknown = append(m.unknown, w)
	}
}

// unitNamed is what is known of a service, nil if there are too many.
func (m *manager) unitNamed(name string) *watched {
	w := m.watched[name]
	if w == nil && len(m.watched) < unitsFollowed {
		w = &watched{name: name}
		m.watched[name] = w
	}
	return w
}

// learn takes note of what was told of a service.
func (m *manager) learn(w *watched, n systemd1.News) {
	if n.Active != w.active || n.Sub != w.sub || n.Since != w.since {
		w.active, w.sub, w.since, w.failed = n.Active, n.Sub, n.Since, false
		w.step, w.next = waitFirst, n.Since+waitFirst
		w.begins = w.begins || n.Active == "activating"
	}
	if n.Restarts != nil {
		w.restarts = *n.Restarts
	}
	if n.Result != "" && n.Result != w.result {
		w.result = n.Result
		switch w.untold = false; {
		case n.Result == "success":
		case m.isOfInterest(w):
			m.tellFailure(w)
		case w.service == nil:
			w.untold = true
			m.askLater(w)
		}
	}
	if n.Main == nil || *n.Main == w.main {
		return
	}
	w.main = *n.Main
	if w.main == 0 {
		return
	}
	if w.begins && w.hadMain && m.isOfInterest(w) {
		u := m.news(w, events.UnitStarted)
		u.Since = m.wall(w.since)
		m.tell(w, u)
	}
	w.begins, w.hadMain = false, true
}

// tellFailure tells that a service has failed.
func (m *manager) tellFailure(w *watched) {
	w.untold = false
	u := m.news(w, events.UnitFailed)
	u.Since = m.wall(w.since)
	m.tell(w, u)
}

// isOfInterest reports whether a service has to do with notifications, as far as is known.
func (m *manager) isOfInterest(w *watched) bool {
	switch {
	case m.wanted.Named, w.said != 0, w.service != nil && isNotify(w.service.Now.Type):
		return true
	}
	return slices.Contains([]string{"watchdog", "timeout", "protocol"}, w.result)
}

// isNotify reports whether services of a type say that they are ready.
func isNotify(kind string) bool { return kind == "notify" || kind == "notify-reload" }

// askForUnknown asks for some services of which nothing is known yet.
func (m *manager) askForUnknown(ctx context.Context, now time.Duration) error {
	for range min(askedAtOnce, len(m.unknown)) {
		if !m.budget.Allows(proc.BootTime()) {
			return nil
		}
		w := m.unknown[0]
		m.unknown, w.queued = m.unknown[1:], false
		if err := m.renew(ctx, w, now); err != nil {
			return err
		}
		if w.service != nil && w.since == 0 {
			w.since, w.step, w.next = w.service.Changed, waitFirst, now
			w.main, w.hadMain = w.service.Main, w.service.Main != 0
			w.restarts, w.result = w.service.Restarts, w.service.Result
		}
		if w.untold && m.isOfInterest(w) {
			m.tellFailure(w)
		}
	}
	return nil
}

// renew asks for a service. The error is that the service manager cannot be asked.
func (m *manager) renew(ctx context.Context, w *watched, now time.Duration) error {
	service, _, err := m.ask(ctx, w.name)
	w.asked = now
	if err != nil {
		// It is not there any more, or the connection is not.
		w.failed = true
		return m.conn.Sync(ctx)
	}
	w.service, w.failed = service, false
	return nil
}

// lookForSilence looks whether a service is waited for, or its next ping.
func (m *manager) lookForSilence(ctx context.Context, w *watched, now time.Duration) error {
	awaits, waits := awaited(w)
	if waits && now >= w.next && w.since != 0 && !w.failed {
		if w.service == nil || w.asked < w.since {
			if !m.budget.Allows(proc.BootTime()) {
				return nil
			}
			if err := m.renew(ctx, w, now); err != nil || w.failed {
				return err
			}
		}
		if !isNotify(w.service.Now.Type) && !m.wanted.Named {
			w.next = now + waitMost
			return nil
		}
		u := m.news(w, events.UnitWaits)
		u.Since, u.Awaits = m.wall(w.since), awaits
		u.Limit = limitOf(w, now-w.since)
		if w.said >= w.since && w.said != 0 {
			u.Said, u.Last = w.text, process(w.last)
		}
		m.tell(w, u)
		w.step = min(2*w.step, waitMost)
		w.next = now + w.step/2
	}
	return m.lookAtWatchdog(ctx, w, now)
}

// trouble says why a process cannot notify, "" if nothing is known.
func trouble(pid int) string {
	p, err := proc.Open(pid)
	if err != nil || pid == 0 {
		return ""
	}
	defer p.Close()
	return access.Trouble(p)
}

// awaited is what a service is waited for in its state.
func awaited(w *watched) (assignment string, waits bool) {
	switch w.sub {
	case "start":
		return "READY=1", w.active == "activating"
	case "reload-signal":
		return "RELOADING=1", true
	case "reload-notify":
		return "READY=1", true
	}
	return "", w.active == "deactivating"
}

// limitOf is how long a service may be in its state, 0 when that is over, for no limit, or when unknown.
func limitOf(w *watched, already time.Duration) time.Duration {
	limit := w.service.StartTimeout
	if w.active == "deactivating" {
		limit = w.service.StopTimeout
	}
	if limit >= verdict.Never || limit < already {
		return 0 // it has asked for more
	}
	return limit
}

// hasWatchdog reports whether pings are waited for in a state (systemd: service_start_watchdog).
func hasWatchdog(sub string) bool {
	return slices.Contains([]string{"start-post", "running", "reload", "reload-signal", "reload-notify"}, sub)
}

// lookAtWatchdog tells when most of the time for a ping is over.
func (m *manager) lookAtWatchdog(ctx context.Context, w *watched, now time.Duration) error {
	if w.service == nil || !hasWatchdog(w.sub) || w.service.Now.Watchdog == nil {
		return nil
	}
	limit := *w.service.Now.Watchdog
	if limit <= 0 || limit >= verdict.Never {
		return nil
	}
	late := func() bool { return lastPing(w) != 0 && now-lastPing(w) > limit/4*3 && w.overdue != lastPing(w) }
	if !late() || !m.budget.Allows(proc.BootTime()) {
		return nil
	}
	// Not every ping is seen.
	if err := m.renew(ctx, w, now); err != nil || w.failed || !late() || w.service.Now.SubState != w.sub {
		return err
	}
	w.overdue = lastPing(w)
	u := m.news(w, events.UnitOverdue)
	u.Since, u.Limit, u.Awaits = m.wall(w.overdue), limit, "WATCHDOG=1"
	if w.pinged != 0 {
		u.Last = process(w.pinger)
	}
	m.tell(w, u)
	return nil
}

// lastPing is when the time for the next ping began.
func lastPing(w *watched) time.Duration { return max(w.pinged, w.service.Pinged) }

// tellHowItIs tells of units that were asked for by name how they are, if nothing was to be told for a
// while.
func (m *manager) tellHowItIs(now time.Duration) {
	if m.toldHow || !m.wanted.Named || now < m.began+waitFirst || len(m.unknown) > 0 {
		return
	}
	m.toldHow = true
	told := 0
	for _, w := range m.watched {
		if told == isMax {
			return
		}
		if w.service == nil || w.next > m.began+waitFirst && w.step > waitFirst || w.said >= m.began {
			continue // it was told, or has said something
		}
		u := m.news(w, events.UnitIs)
		u.Since = m.wall(w.service.Changed)
		if m.tell(w, u) {
			told++
		}
	}
}

// heard takes note of what a service has said, when its verdict is known.
func (m *manager) heard(d *datagram) {
	d.mu.Lock()
	v := d.verdict
	d.mu.Unlock()
	if v == nil || d.unit == "" {
		return
	}
	m.beginToWatch()
	w := m.unitNamed(d.unit)
	if w == nil || d.ended < w.said || string(d.event.Payload) == "BARRIER=1" { // which says nothing of the unit
		return
	}
	w.said, w.text, w.last = d.ended, string(d.event.Payload), v.From
	if w.service == nil {
		m.askLater(w)
	}
	for _, l := range v.Lines {
		if l.Key == "WATCHDOG" && l.Value == "1" && l.Outcome == events.Heeded {
			w.pinged, w.pinger = d.ended, v.From
		}
		if l.Key == "WATCHDOG_USEC" && l.Outcome == events.Heeded {
			m.askLater(w)
		}
	}
}

// news is something to tell of a service, with what is known of it.
func (m *manager) news(w *watched, news events.UnitNews) *events.Unit {
	u := &events.Unit{
		News: news, Manager: events.VerdictManager{PID: m.pid, Version: m.conn.Version},
		ActiveState: w.active, SubState: w.sub, Result: w.result,
	}
	cgroup := ""
	if w.service != nil {
		u.Type, cgroup = w.service.Now.Type, w.service.Cgroup
	}
	u.Identity = m.identity(w.name, cgroup)
	restarts := w.restarts
	u.Restarts = &restarts
	return u
}

// mainProcess is the main process of a service, nil when it is not known.
func (m *manager) mainProcess(w *watched) *events.Process {
	if w.main == 0 {
		return new(events.Process)
	}
	host, _ := m.host(w.main)
	if host == nil {
		return nil
	}
	return &events.Process{PID: *host, Comm: lookAt(*host).comm, Unit: w.name}
}

// identity is that of a service in a control group, as the service manager calls it. Without one it is
// that of the control group that services have in the ordinary.
func (m *manager) identity(name, cgroup string) (id events.Identity) {
	if !m.hasRoot {
		return events.Identity{Unit: name}
	}
	path := cgroup
	if cgroup == "" {
		path = "/system.slice/" + name
	}
	if !strings.HasPrefix(path, m.root+"/") {
		path = m.root + path
	}
	id = identity.Below(m.root, path)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.container != nil {
		id.Container = m.container
	}
	return id
}

func process(p events.Process) *events.Process { return &p }

// wall is a time by CLOCK_MONOTONIC, the zero value for 0.
func (m *manager) wall(at time.Duration) time.Time {
	if at == 0 {
		return time.Time{}
	}
	wall, now := proc.WallAndMonotonic()
	return wall.Add(at - now)
}

// tell lets news be yielded, if they are wanted, with what takes a look at processes. It reports whether they are.
func (m *manager) tell(w *watched, u *events.Unit) (wanted bool) {
	if !m.wanted.Unit(&u.Identity, m.address) {
		return false
	}
	u.Main = m.mainProcess(w)
	if u.Main != nil && u.News == events.UnitWaits && u.Awaits != "" {
		u.Trouble = trouble(int(u.Main.PID))
	}
	if w.service == nil || w.service.Cgroup == "" {
		u.Cgroup, u.Slice = "", ""
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.told) < pendingMax {
		m.told = append(m.told, u)
	}
	return true
}

// takeTold takes what is to be yielded.
func (m *manager) takeTold() []*events.Unit {
	m.mu.Lock()
	defer m.mu.Unlock()
	told := m.told
	m.told = nil
	return told
}
