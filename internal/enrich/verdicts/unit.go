// SPDX-License-Identifier: Apache-2.0

package verdicts

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sdtrace/sdtrace/internal/proc"
	"github.com/sdtrace/sdtrace/internal/systemd1"
	"github.com/sdtrace/sdtrace/pkg/verdict"
)

// unit is one whose datagrams are followed.
type unit struct {
	name string
	// after is the unit behind the latest datagram, nil when unknown, and changes what
	// [systemd1.Manager.Changes] was then.
	after   *verdict.Unit
	changes uint64
	// led is where the datagrams have led to by the rules alone, and asked when the service manager
	// was asked then, by CLOCK_MONOTONIC. What was sent before, and came after, may be a part of what
	// after is.
	led   *verdict.Unit
	asked time.Duration
	// recent are the latest datagrams, before which the unit was base and in the state from: those that
	// come next may have been read before the service manager was asked.
	recent []aligned
	from   systemd1.State
	base   *verdict.Unit
	// state is the one that the unit was in at asked.
	state systemd1.State
	// run is when the run began that after is about, and given what its main process was given, which has
	// been looked at as this one.
	run    time.Duration
	given  given
	looked uint32
}

// judge finds the verdicts on datagrams in the order in which they were sent. now is what the service
// manager has told after it had read all of them, at asked, nil when nothing has changed since the
// latest; it may have read others, too, which say the keys beyond.
func (u *unit) judge(m *manager, batch []*datagram, beyond []string, now *systemd1.Service, asked time.Duration) {
	later := slices.Clone(beyond)
	status := len(batch)
	if !slices.Contains(beyond, "STATUS") {
		status = lastStatus(batch, now)
	}
	for i, d := range slices.Backward(batch) {
		// That which is shown was said last of those that were heeded.
		d.later, d.last = slices.Clip(later), i >= status
		later = addKeys(later, d.said.Text)
		d.name(m, now)
	}
	if now == nil {
		for _, d := range batch {
			u.after = d.finish(m, u.after, nil)
		}
		u.led = u.after
		return
	}
	entered := m.entered(u.name)
	u.look(now, entered)
	if u.run != now.Left {
		if isOfRun(now, batch[0]) {
			u.after, u.recent = u.fresh(m, now), nil
			u.led = u.after
		}
		u.run = now.Left
	}
	a := alignment{
		manager: verdict.Manager{Version: m.conn.Version, PID: m.pid}, now: now, began: m.began, open: len(beyond) > 0,
		all: entered, runs: runsOf(entered, now), given: u.given,
	}
	units, latest := u.align(m, &a, batch)
	led := u.lead(&a, units, latest)
	before, assumed := u.after, false
	for i := range units {
		d := &units[i]
		before, latest = a.into(before, latest, d), d
		d.followed = before
		d.assumed = assumed && d.unit.FDStored == nil
		at := fill(withState(d.unit, d.state), before, led)
		before = d.finish(m, at, now)
		assumed = d.store(d.judged.verdicts, at, before) || d.assumed
	}
	u.forgetOldest()
	// What the service manager tells is what counts; the rest was followed.
	after := now.Now
	if before != nil {
		after.Stopping, after.Deadline, after.WatchdogDeadline = before.Stopping, before.Deadline, before.WatchdogDeadline
	}
	u.after, u.led, u.asked = &after, before, asked
	u.state = systemd1.State{Sub: now.Now.SubState, Since: now.Changed}
}

// align finds what is known of the unit before each of some datagrams, and the state that it was in. latest is
// the one before them.
func (u *unit) align(m *manager, a *alignment, batch []*datagram) (units []aligned, latest *aligned) {
	now, entered := a.now, a.all
	renamed := batch[0].since("MAINPID") || batch[0].since("MAINPIDFD")
	configured := configuredAccess(entered)
	units = make([]aligned, len(batch))
	for i, d := range batch {
		bound := max(d.bound(now, renamed), d.forkedFor(entered))
		at := now.At(bound, d.since)
		at.ConfiguredAccess = configured
		if _, names := d.said.MainPID(); names && at.PIDFile != "" {
			at.PIDFileNames = m.namedIn(at.PIDFile)
		}
		tell(at, now)
		if now.Left < bound {
			tellStored(at, now, batch[i:])
		}
		if isKnown(now.Now.Frozen, false) && bound > m.conn.Since && !m.conn.WasFrozen(u.name) {
			at.Frozen = now.Now.Frozen
		}
		units[i] = aligned{datagram: d, bound: bound, unit: at}
	}
	latest = &aligned{bound: u.asked, state: u.state}
	from, base := u.begin(now, entered, m.conn.Since, units[0])
	for _, state := range entered {
		if state.Sub == from.Sub && state.Since == from.Since {
			from = state // with what was told in it
		}
	}
	a.batch, a.entered = append(slices.Clone(u.recent), units...), since(entered, now, from.Since)
	first := &a.batch[0]
	// It was over, and has been started since with the sender in it: a process is forked just before the
	// state is entered in which it runs, and nothing is read in between.
	if systemd1.IsOver(from.Sub) && len(a.entered) > 0 && first.born > from.Since {
		from = a.entered[0]
	}
	base = cmp.Or(base, first.unit)
	entersFirst := len(u.recent) == 0 && from.Since > u.asked // nothing was said in this state before
	if entersFirst {
		base = a.through(base, u.state, from)
	}
	switch {
	case first.bound < m.conn.Since && now.Changed >= first.bound:
		// Not all states were signalled that it has entered since, so only the first one is known.
		a.forget()
		first.state = from
	case len(entered) == systemd1.StatesMax && from.Since < entered[0].Since:
		a.forget() // some are not remembered any more
	default:
		a.align(from, base)
	}
	first.enters = len(u.recent) == 0 && first.state.Sub != "" && first.state.Since > u.asked
	for i := range a.batch[1:] {
		before, d := a.batch[i].state, &a.batch[i+1]
		d.enters = before.Sub != "" && d.state.Sub != "" && d.state.Since != before.Since
	}
	if n := len(u.recent); n > 0 {
		latest = &a.batch[n-1]
	}
	units = a.batch[len(u.recent):]
	u.recent, u.from, u.base = a.batch, from, base
	if len(u.recent) > batchMax {
		u.recent = nil
	}
	return units, latest
}

// forgetOldest leaves so many recent datagrams that others can be aligned with them.
func (u *unit) forgetOldest() {
	if len(u.recent) <= recentMax {
		return
	}
	for i := len(u.recent) - recentMax; i < len(u.recent); i++ {
		if d := &u.recent[i]; d.state.Sub != "" && d.followed != nil {
			u.recent, u.from, u.base = slices.Clone(u.recent[i:]), d.state, d.followed
			return
		}
	}
}

// begin returns the state that the unit was in before datagrams, of which the first was read at a time or
// later, and what was known of it: before the recent ones if there are any, which may have been read
// later than that. Sub is "" when it is not known.
func (u *unit) begin(
	now *systemd1.Service, entered []systemd1.State, connected time.Duration, first aligned,
) (from systemd1.State, base *verdict.Unit) {
	bound := first.bound
	if u.asked != 0 && u.asked < bound {
		u.recent = nil // all of that was read before
		return u.state, u.after
	}
	if u.asked != 0 {
		// What was told then may be the outcome of these already.
		u.after = u.led
	}
	if len(u.recent) > 0 {
		return u.from, u.base
	}
	if now.Changed < bound {
		return systemd1.State{Sub: now.Now.SubState, Since: now.Changed}, u.after
	}
	for _, state := range entered {
		if state.Since < bound && (!state.Before || connected < bound) {
			from = state
		}
	}
	if from.Sub == "" && first.unit.SubState != "" {
		from = systemd1.State{Sub: first.unit.SubState, Since: bound - 1}
		if from.Sub == "start" {
			from.Since = max(now.Left, now.MainStarted)
		}
	}
	return from, u.after
}

// configuredAccess is NotifyAccess= of a unit that has entered states, without what it has said; "" when that is not
// known.
func configuredAccess(entered []systemd1.State) (access string) {
	from := ""
	for _, state := range entered {
		if told := state.NotifyAccess; told != "" && begins(from, state.Sub) {
			if access != "" && access != told {
				return "" // another unit file was loaded
			}
			access = told
		}
		from = state.Sub
	}
	return access
}

// since are those of the states that a unit has entered which it has entered after a time, with the one
// that it is in now.
func since(entered []systemd1.State, now *systemd1.Service, at time.Duration) (states []systemd1.State) {
	for _, state := range entered {
		if state.Since > at && !state.Before {
			states = append(states, state)
		}
	}
	if len(states) == 0 && now.Changed > at || len(states) > 0 && states[len(states)-1].Since < now.Changed {
		states = append(states, systemd1.State{Sub: now.Now.SubState, Since: now.Changed})
	}
	return states
}

// lastStatus is the last of some datagrams with the status that the unit has now: -1 if none has it, and
// the number of datagrams when nothing can be said.
func lastStatus(batch []*datagram, now *systemd1.Service) int {
	if now == nil || now.Now.StatusText == nil || len(batch) > 0 && now.MainStarted >= batch[0].sent {
		return len(batch)
	}
	for i, d := range slices.Backward(batch) {
		if d.said.Text == nil {
			return len(batch)
		}
		if status, ok := d.said.Text.Lookup("STATUS"); ok && verdict.StatusText(status) == *now.Now.StatusText {
			return i
		}
	}
	return -1
}

// entered are the states that a unit has entered, as they were signalled, with processes in the initial
// pid namespace. One that is not there any more has sent nothing, or its number would be known.
func (m *manager) entered(name string) []systemd1.State {
	states := m.conn.States(name)
	for i := range states {
		for _, told := range []**uint32{&states[i].Main, &states[i].Control} {
			if isThere(*told) {
				*told, _ = m.host(**told)
				if *told == nil {
					over := verdict.Over
					*told = &over
				}
			}
		}
	}
	return states
}

// isOfRun reports whether a datagram was sent in the latest run of a unit.
func isOfRun(now *systemd1.Service, d *datagram) bool {
	return d.born > now.Left || isKnown(now.LatestMain, d.event.Sender.PID) && now.MainStarted > now.Left
}

// fresh is what is followed of a unit at the beginning of its latest run; nil if that has not been seen.
func (u *unit) fresh(m *manager, now *systemd1.Service) *verdict.Unit {
	if now.Left < m.began {
		return nil
	}
	run := newRun(u.name, u.given)
	return &run
}

// given is what the main process of a run was given when it was started; nil when that is not known.
type given struct {
	stored   *uint32        // how many file descriptors were in the store (sd_listen_fds(3))
	watchdog *time.Duration // the watchdog's interval, 0 for none (sd_watchdog_enabled(3))
}

// look finds what the main process of the latest run was given, once for each.
func (u *unit) look(now *systemd1.Service, entered []systemd1.State) {
	if u.run != now.Left {
		u.given, u.looked = given{}, 0
	}
	for _, state := range entered {
		if state.Since < now.Left || state.Before || !isThere(state.Main) {
			continue
		}
		// Another one than the service manager has started may have another environment, and one that is
		// forked and not executed yet has systemd's own: it is called "(PROGRAM)".
		if *state.Main != u.looked && same(state.Main, now.LatestMain) && !strings.HasPrefix(lookAt(*state.Main).comm, "(") {
			u.given, u.looked = givenTo(*state.Main, now.HasSockets), *state.Main
		}
		return
	}
}

// givenTo reads what a main process was given in its environment.
func givenTo(pid uint32, hasSockets bool) (g given) {
	p, err := proc.Open(int(pid))
	if err != nil {
		return g
	}
	defer p.Close()
	environ, err := p.Read("environ")
	if err != nil || !proc.IsEnvironment(environ) {
		return g
	}
	number := func(name string, bits int) (n uint64, ok bool) {
		text, passed := proc.Variable(environ, name)
		if !passed {
			return 0, true
		}
		n, err := strconv.ParseUint(text, 10, bits)
		return n, err == nil
	}
	if n, ok := number("LISTEN_FDS", 32); ok && !hasSockets {
		stored := uint32(n)
		g.stored = &stored
	}
	if usec, ok := number("WATCHDOG_USEC", 63); ok && usec <= uint64(verdict.Never/time.Microsecond) {
		interval := time.Duration(usec) * time.Microsecond
		g.watchdog = &interval
	}
	return g
}

// bound is when the service manager read a datagram at the earliest. renamed says that the main process
// may have become another one meanwhile by what datagrams say.
func (d *datagram) bound(now *systemd1.Service, renamed bool) time.Duration {
	at := d.sent
	if renamed {
		return at
	}
	// Its sender is the main process, or was it, which was started and the state entered, in which that
	// is running, before anything else was looked at (systemd: service_enter_start).
	if main := now.LatestMain; isThere(main) && *main == d.event.Sender.PID && now.MainStarted != 0 {
		at = max(at, now.MainStarted+1)
		if now.Left >= now.MainStarted {
			at = max(at, now.Left+1)
		}
		if now.Now.SubState == "start" {
			at = max(at, now.Changed+1)
		}
	}
	return at
}

// forkedFor is just after a unit has entered the state for which the sender was forked as the main process:
// nothing that it says can have been read before. It is 0 when that is not known.
func (d *datagram) forkedFor(entered []systemd1.State) time.Duration {
	for _, state := range slices.Backward(entered) {
		if state.Sub == "start" && state.Main != nil && *state.Main == d.event.Sender.PID {
			return state.Since + 1
		}
	}
	return 0
}

// tell adds to a unit what its properties do not tell at once.
func tell(u *verdict.Unit, now *systemd1.Service) {
	if pid := u.MainPID; isThere(pid) && now.ReloadSignal != 0 {
		if p, err := proc.Open(int(*pid)); err == nil {
			if s, err := p.Status(); err == nil {
				handled := (s.Caught|s.Blocked)&(1<<(now.ReloadSignal-1)) != 0
				u.ReloadHandled = &handled
			}
			p.Close()
		}
	}
	if u.Watchdog != nil && *u.Watchdog == 0 {
		u.WatchdogDeadline = &never
	}
}

var never = verdict.Never

// tellStored adds how much is stored before some datagrams, if that is less than fits in behind them,
// too: then there was room all the time.
func tellStored(u *verdict.Unit, now *systemd1.Service, batch []*datagram) {
	stored, most := now.Now.FDStored, u.FDStoreMax
	if u.FDStored != nil || stored == nil || most == nil || *stored >= *most || batch[0].since("FDSTOREREMOVE") {
		return
	}
	before := *stored
	for _, d := range batch {
		if d.said.FDs == nil {
			return
		}
		before -= min(before, uint32(*d.said.FDs))
	}
	u.FDStored = &before
}

// led says of which properties of a unit one knows where they were led to by datagrams: to what the
// service manager tells now.
type led struct{ main, control, access, watchdog, stored, status, errno, bus, varlink bool }

// everything is what is taken over when it is only asked where datagrams lead to.
var everything = led{true, true, true, true, true, true, true, true, true}

// lead follows datagrams from where the unit was, and compares.
func (u *unit) lead(a *alignment, units []aligned, latest *aligned) led {
	at := u.after
	for i := range units {
		d := &units[i]
		at, latest = a.into(at, latest, d), d
		_, at = d.lead(a.manager, fill(withState(d.unit, d.state), at, everything))
	}
	n := &a.now.Now
	return led{
		main: same(at.MainPID, n.MainPID), control: same(at.ControlPID, n.ControlPID),
		access: at.NotifyAccess != "" && at.NotifyAccess == n.NotifyAccess, watchdog: same(at.Watchdog, n.Watchdog),
		stored: same(at.FDStored, n.FDStored), status: same(at.StatusText, n.StatusText),
		errno: same(at.StatusErrno, n.StatusErrno), bus: same(at.StatusBusError, n.StatusBusError),
		varlink: same(at.StatusVarlinkError, n.StatusVarlinkError),
	}
}

func same[T comparable](a, b *T) bool { return a != nil && b != nil && *a == *b }

// fill returns a unit with what is not known of it taken from where it was followed to, as far as
// that has led to what is so now.
func fill(at, followed *verdict.Unit, to led) *verdict.Unit {
	if followed == nil {
		return at
	}
	u := *at
	take(&u.MainPID, followed.MainPID, to.main)
	take(&u.ControlPID, followed.ControlPID, to.control)
	take(&u.Watchdog, followed.Watchdog, to.watchdog)
	take(&u.FDStored, followed.FDStored, to.stored)
	take(&u.StatusText, followed.StatusText, to.status)
	take(&u.StatusErrno, followed.StatusErrno, to.errno)
	take(&u.StatusBusError, followed.StatusBusError, to.bus)
	take(&u.StatusVarlinkError, followed.StatusVarlinkError, to.varlink)
	if u.NotifyAccess == "" && to.access {
		u.NotifyAccess = followed.NotifyAccess
	}
	take(&u.Stopping, followed.Stopping, true)
	take(&u.Deadline, followed.Deadline, u.SubState == followed.SubState)
	take(&u.WatchdogDeadline, followed.WatchdogDeadline, true)
	return &u
}

// take takes over what is known, where nothing is and it may be.
func take[T any](to **T, from *T, may bool) {
	if *to == nil && may {
		*to = from
	}
}
