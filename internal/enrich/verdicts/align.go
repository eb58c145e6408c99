// SPDX-License-Identifier: Apache-2.0

package verdicts

import (
	"cmp"
	"slices"
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
	// entered are the states that the unit has entered since, in order, and timeout is after how long
	// it leaves one of waiting by itself.
	entered []systemd1.State
	timeout time.Duration
	// kind is the unit's Type=.
	kind string
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
}

const (
	// triesMax is how many steps are tried at most.
	triesMax = 2000
	// batchMax is how many datagrams are aligned at most.
	batchMax = 64
)

// align returns the states before the datagrams, given the one that the unit was in at first; Sub is ""
// for one that is not known.
func (a *alignment) align(from systemd1.State, unit *verdict.Unit) []systemd1.State {
	states := make([]systemd1.State, len(a.batch))
	if from.Sub == "" || len(a.batch) > batchMax {
		return states
	}
	a.states = make([]step, len(a.batch))
	a.step(0, from, unit)
	if a.tries <= triesMax {
		for i, s := range a.states {
			states[i] = s.State
		}
	}
	return states
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
		a.step(i, next[0], enter(before, next[0]))
	}
	// It was read in this state.
	if len(next) > 0 && next[0].Since < a.batch[i].bound {
		return
	}
	at := withState(fill(a.batch[i].unit, before, everything), state)
	verdicts, after := a.batch[i].lead(a.manager, at)
	a.way = append(a.way, step{state, verdicts})
	switch {
	case after == nil:
	case after.SubState == "": // it may lead anywhere
		a.step(i+1, state, after)
		if len(next) > 0 && next[0].Since >= a.batch[i].bound {
			a.step(i+1, next[0], enter(after, next[0]))
		}
	case after.SubState == state.Sub:
		a.step(i+1, state, after)
	case len(next) > 0 && next[0].Sub == after.SubState && next[0].Since >= a.batch[i].bound:
		a.step(i+1, next[0], enter(after, next[0]))
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
	timedOut := to.Since-from.Since >= a.timeout
	switch to.Sub {
	case "reload-notify":
		return false
	case "running", "start-post":
		switch from.Sub {
		case "start":
			return a.kind != "notify" && a.kind != "notify-reload"
		case "reload-signal", "reload-notify":
			return timedOut
		}
	}
	return true
}

// withState returns a unit that is in a state, with the processes that were told of that, where they are
// not known.
func withState(u *verdict.Unit, state systemd1.State) *verdict.Unit {
	in := *u
	in.SubState, in.ReloadBegan = state.Sub, nil
	if state.Sub == "reload-signal" {
		in.ReloadBegan = &state.Since
	}
	take(&in.MainPID, state.Main, true)
	take(&in.ControlPID, state.Control, true)
	return &in
}

// enter returns what was followed of a unit with the processes that were told of a state that it enters.
func enter(u *verdict.Unit, state systemd1.State) *verdict.Unit {
	if u == nil || state.Main == nil && state.Control == nil {
		return u
	}
	in := *u
	in.MainPID, in.ControlPID = cmp.Or(state.Main, u.MainPID), cmp.Or(state.Control, u.ControlPID)
	return &in
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
