// SPDX-License-Identifier: Apache-2.0

package verdicts

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/sdtrace/sdtrace/internal/systemd1"
	"github.com/sdtrace/sdtrace/pkg/verdict"
)

// alignment finds the states that a unit was in before datagrams: the service manager signals which
// states the unit has entered, and the rules say which of these the datagrams lead to. What both agree on
// is known.
type alignment struct {
	manager verdict.Manager
	batch   []aligned
	// all are the states that the unit has entered, as far as they are known, and entered those since the
	// first of the datagrams, in order.
	all, entered []systemd1.State
	// runs are those of all with which a run of the unit has begun.
	runs []systemd1.State
	// given is what the main process of the latest run was given.
	given given
	// now is what the service manager has told then, and began when it was seen first.
	now   *systemd1.Service
	began time.Duration
	// open says that datagrams behind these may have led on.
	open bool

	found int
	// states are those before the datagrams, of all ways that were found: Sub is "" where they differ,
	// and the verdicts do with them.
	states []step
	way    []step // so far
	tries  int
}

// step is a datagram that was read in a state, by which these are the verdicts on it.
type step struct {
	systemd1.State
	verdicts []verdict.Verdict
}

// aligned is a datagram, when it was read at the earliest, by CLOCK_MONOTONIC, and what is known of the
// unit then by itself, the state aside.
type aligned struct {
	*datagram
	bound time.Duration
	unit  *verdict.Unit
	// state is the one that it was read in, Sub is "" when that is not known, and enters says that
	// nothing else was read in it before.
	state  systemd1.State
	enters bool
	// followed is the unit before it, as far as it was followed.
	followed *verdict.Unit
}

const (
	// triesMax is how many steps are tried at most.
	triesMax = 2000
	// batchMax is how many datagrams are aligned at most, and recentMax how many of these are not new.
	batchMax  = 64
	recentMax = 32
)

// align finds the states of the datagrams, given the one that the unit was in at first.
func (a *alignment) align(from systemd1.State, unit *verdict.Unit) {
	a.forget()
	if from.Sub == "" || len(a.batch) > batchMax {
		return
	}
	a.states = make([]step, len(a.batch))
	a.step(0, from, unit)
	if a.tries <= triesMax {
		for i, s := range a.states {
			a.batch[i].state = s.State
		}
	}
}

func (a *alignment) forget() {
	for i := range a.batch {
		a.batch[i].state = systemd1.State{}
	}
}

// step goes on with the datagram i, in a state.
func (a *alignment) step(i int, state systemd1.State, before *verdict.Unit) {
	if a.tries++; a.tries > triesMax {
		return
	}
	k := 0
	for k < len(a.entered) && a.entered[k].Since <= state.Since {
		k++
	}
	next := a.entered[k:]
	if i == len(a.batch) {
		for len(next) > 0 {
			if !a.open && !a.happens(state, next[0]) {
				return
			}
			state, next = next[0], next[1:]
		}
		a.note()
		return
	}
	// It entered the next state before it was read.
	if len(next) > 0 && a.happens(state, next[0]) && (a.batch[i].read == 0 || next[0].Since < a.batch[i].read) &&
		(i == 0 || next[0].Since >= a.batch[i-1].bound) {
		a.step(i, next[0], a.enter(before, next[0]))
	}
	// It was read in this state.
	if len(next) > 0 && next[0].Since < a.batch[i].bound {
		return
	}
	at := fill(withState(a.batch[i].unit, state), before, everything)
	verdicts, after := a.batch[i].lead(a.manager, at)
	a.way = append(a.way, step{state, verdicts})
	switch {
	case after == nil:
	case after.SubState == "": // it may lead anywhere
		a.step(i+1, state, after)
		if len(next) > 0 && next[0].Since >= a.batch[i].bound {
			a.step(i+1, next[0], a.enter(after, next[0]))
		}
	case after.SubState == state.Sub:
		a.step(i+1, state, after)
	case len(next) > 0 && next[0].Sub == after.SubState && next[0].Since >= a.batch[i].bound && !isByCommand(next[0]):
		a.step(i+1, next[0], a.enter(after, next[0]))
	}
	a.way = a.way[:len(a.way)-1]
}

// note takes note of a way to the end.
func (a *alignment) note() {
	for i, s := range a.way {
		known := &a.states[i]
		if a.found == 0 {
			*known = s
		} else if known.State != s.State && !slices.EqualFunc(known.verdicts, s.verdicts, saysTheSame) {
			*known = step{}
		}
	}
	a.found++
}

// saysTheSame reports whether two verdicts read the same.
func saysTheSame(a, b verdict.Verdict) bool {
	return a.Outcome == b.Outcome && a.Rule == b.Rule && a.Reason == b.Reason
}

// happens reports whether a unit can go from one state to another without a datagram that says so.
func (a *alignment) happens(from, to systemd1.State) bool {
	timedOut := to.Since-from.Since >= a.now.StartTimeout
	switch to.Sub {
	case "reload-notify":
		return false
	case "reload":
		return !isKnown(to.Control, 0) // that of ExecReload=
	case "running", "start-post":
		switch from.Sub {
		case "start":
			return a.now.Now.Type != "notify" && a.now.Now.Type != "notify-reload"
		case "reload":
			return timedOut || !isKnown(from.Control, 0)
		case "reload-signal", "reload-notify":
			return timedOut
		}
	case "stop-sigterm":
		// Nobody has asked for it, and the main process is there.
		alone := isKnown(to.HadJob, false) && isThere(to.Main)
		return from.Sub != "running" || !alone || a.now.RunTimeout != verdict.Never
	}
	return true
}

// isByCommand reports whether ExecReload= has led to a state.
func isByCommand(state systemd1.State) bool {
	return state.Sub == "reload" && isThere(state.Control)
}

// isThere reports whether a process is known to be one.
func isThere(pid *uint32) bool { return pid != nil && *pid != 0 }

func isKnown[T comparable](v *T, to T) bool { return v != nil && *v == to }

// withState returns a unit that is in a state.
func withState(u *verdict.Unit, state systemd1.State) *verdict.Unit {
	in := *u
	in.SubState, in.ReloadBegan = state.Sub, nil
	if state.Sub == "reload-signal" {
		// The signal was sent before the state was entered, and the service may have said when it
		// got it (systemd: service_enter_reload_signal).
		began := state.Since - sendLag
		in.ReloadBegan = &began
	}
	if in.ControlPID == nil && systemd1.HasNoControl(state.Sub, u.Type) {
		in.ControlPID = new(uint32)
	}
	return &in
}

// into returns what was followed of a unit until behind a datagram with what is known of the way to another.
func (a *alignment) into(u *verdict.Unit, before, d *aligned) *verdict.Unit {
	switch {
	case d.enters:
		return a.through(u, before.state, d.state)
	case d.state.Sub != "" && d.state.Since == before.state.Since:
		return u
	}
	for _, run := range a.runs {
		switch {
		case run.Since <= before.bound || d.read != 0 && run.Since >= d.read:
		case max(d.bound, d.born) <= run.Since, before.datagram != nil && before.born >= run.Since:
			return nil // it may have begun before, after or between them
		default:
			// What processes of the run before have said was read before their end.
			begun := a.begin(run.Since)
			u = a.enter(&begun, run)
		}
	}
	return u
}

// through returns what was followed of a unit in a state with what is known of those on the way to another.
func (a *alignment) through(u *verdict.Unit, from, to systemd1.State) *verdict.Unit {
	for _, state := range a.all {
		if state.Since > from.Since && state.Since < to.Since && !state.Before {
			u = a.enter(u, state)
		}
	}
	return a.enter(u, to)
}

// runsOf are the states with which runs of a unit have begun, in order.
func runsOf(entered []systemd1.State, now *systemd1.Service) (runs []systemd1.State) {
	from := ""
	for _, state := range entered {
		if !state.Before && begins(from, state.Sub) {
			runs = append(runs, state)
		}
		from = state.Sub
	}
	if now.Left != 0 && (len(runs) == 0 || runs[len(runs)-1].Since < now.Left) {
		runs = append(runs, systemd1.State{Since: now.Left})
	}
	return runs
}

// begins reports whether a run of a unit begins with a state after another one, "" for an unknown one. Some
// states in between may not have been signalled.
func begins(from, to string) bool {
	switch to {
	case "condition":
		return true
	case "start-pre":
		return from != "condition"
	case "start":
		return from != "condition" && from != "start-pre"
	case "start-post", "running", "exited":
		return systemd1.IsOver(from) || strings.HasPrefix(from, "stop") || strings.HasPrefix(from, "final")
	}
	return false
}

// enter returns what was followed of a unit with what is known of a state that it enters next.
func (a *alignment) enter(u *verdict.Unit, state systemd1.State) *verdict.Unit {
	if state.Sub == "" {
		return u
	}
	if u == nil {
		u = &verdict.Unit{Name: a.now.Now.Name}
	}
	in := *u
	if begins(u.SubState, state.Sub) {
		in = a.begin(state.Since)
	}
	in.ControlPID = cmp.Or(state.Control, in.ControlPID)
	// A datagram that has led there may have said more: the state is told before all of it is done (systemd:
	// job_finish_and_invalidate).
	if u.SubState != state.Sub {
		in.MainPID, in.NotifyAccess = cmp.Or(state.Main, in.MainPID), cmp.Or(state.NotifyAccess, in.NotifyAccess)
	}
	in.SubState = state.Sub
	in.Deadline = a.deadline(state)
	return &in
}

// begin is what is known of the unit when a run begins.
func (a *alignment) begin(since time.Duration) verdict.Unit {
	if since < a.now.Left {
		return newRun(a.now.Now.Name, given{})
	}
	return newRun(a.now.Now.Name, a.given)
}

// newRun is what is known of a unit that begins to start: what it has said is gone (systemd: service_start).
func newRun(name string, given given) verdict.Unit {
	no, none, errno := false, "", 0
	return verdict.Unit{
		Name: name, FDStored: given.stored, Watchdog: given.watchdog, Stopping: &no,
		StatusText: &none, StatusErrno: &errno, StatusBusError: &none, StatusVarlinkError: &none,
	}
}

// deadline is when the timeout of a state is over that was entered; nil when unknown.
func (a *alignment) deadline(state systemd1.State) *time.Duration {
	if state.Before || state.Since < a.began {
		return nil // it may have been extended
	}
	timeout := verdict.Never
	switch state.Sub {
	case "start", "reload-signal", "reload-notify":
		timeout = a.now.StartTimeout
	case "stop-sigterm", "stop-sigkill", "final-sigterm", "final-sigkill":
		timeout = a.now.StopTimeout
	case "running":
		if a.now.RunTimeout != verdict.Never {
			return nil
		}
	default:
		return nil
	}
	if timeout != verdict.Never {
		timeout += state.Since
	}
	return &timeout
}

// lead is where the datagram leads to by the rules, if its sender was there, and by which verdicts.
func (d *datagram) lead(manager verdict.Manager, at *verdict.Unit) ([]verdict.Verdict, *verdict.Unit) {
	said, no := d.said, false
	if said.Gone == nil {
		said.Gone = &no
	}
	if at != nil && at.Stopping == nil {
		in := *at
		in.Stopping = &no
		at = &in
	}
	verdicts, after := verdict.Judge(&said, manager, at)
	d.store(verdicts, at, after)
	return verdicts, after
}
