// SPDX-License-Identifier: Apache-2.0

package render

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sdtrace/sdtrace/internal/field"
	"github.com/sdtrace/sdtrace/pkg/events"
)

// repeats counts what units say again and again. Of each kind of message the first ones are shown,
// and then a count, after a minute and more and more rarely as it goes on.
type repeats struct {
	units map[string]*repeating
	next  time.Time // when the first count is due, zero: none
}

// repeating is what one unit says again and again.
type repeating struct {
	kinds  map[string]*kind
	due    time.Time // zero: nothing is counted
	period time.Duration
}

// kind is a kind of message of a unit.
type kind struct {
	kindName
	shown int
	last  time.Time // when it was said last
	like  line      // the latest that was counted

	count   int
	since   time.Time     // since when it is counted
	gap     time.Duration // the longest between two
	senders map[string]struct{}
}

const (
	// showRoutine and showOther are how many of a kind are shown before they are counted.
	showRoutine, showOther = 1, 3
	// seldom is when a message is shown in any case that is no routine.
	seldom = time.Minute
	// firstCount is how long it is counted before that is told, lastCount how long at most: the time
	// doubles.
	firstCount, lastCount = time.Minute, 8 * time.Minute
	// repeatingMax and kindsMax are how many units and kinds of a unit are counted at most.
	repeatingMax, kindsMax = 4096, 32
	// sendersMax is how many senders are told apart.
	sendersMax = 1000
)

// kindName is what messages have in common that are counted together.
type kindName struct {
	name    string
	routine bool   // it is said all the time when all is well
	failed  string // how the call failed, "" for not at all
	word    string // what is not heeded of it, "" for nothing
}

// telling are the keys with values that make another message of one.
var telling = []string{
	"BARRIER", "FDPOLL", "FDSTORE", "FDSTOREREMOVE", "NOTIFYACCESS", "READY", "RELOADING", "STOPPING", "WATCHDOG",
}

// kindOf returns the kind of what r holds: of a datagram, the verdict on one, or news of a unit. v is the verdict in the
// first case, nil for none. ok is false for what is never only counted.
func kindOf(r *events.Record, v *events.Verdict) (k kindName, ok bool) {
	if u := r.Unit; u != nil {
		// That it is waited for is told more and more rarely.
		return kindName{name: "unit " + string(u.News) + " " + u.Result}, u.News != events.UnitWaits
	}
	e, late := r.Event, ""
	if r.Verdict != nil {
		e, v, late = r.Verdict.Send, r.Verdict, "late "
	}
	if e == nil || v != nil && v.Contradicted() {
		return k, false
	}
	if e.Result.Failed() {
		k.failed = string(appendResult(nil, e.Result, nil))
	}
	name := append([]byte(late), k.failed...)
	text := e.TextOf()
	k.routine = !e.Result.Failed() && len(text.Lines) > 0
	ping := false
	for _, l := range text.Lines {
		a, _ := l.Assignment()
		if slices.Contains(telling, a.Key) {
			name = append(append(name, '\n'), l.Text...)
		} else {
			name = append(append(name, '\n'), a.Key...)
		}
		switch {
		case l.Text == "WATCHDOG=1":
			ping = true
		case l.Text == "BARRIER=1" && len(text.Lines) == 1:
			ping = true
		case l.Text == "FDSTORE=1" && e.Sender.Comm == field.Journal:
			ping = true
		case a.Key == "STATUS":
		default:
			k.routine = false
		}
	}
	if v != nil {
		for _, o := range outcomes {
			if o.outcome != events.Heeded && v.Any(o.outcome) {
				k.word = join(k.word, o.word)
				k.routine = k.routine && o.outcome == events.Unknown
			}
		}
		for _, l := range v.Lines {
			name = append(append(name, '\n'), l.Rule...)
		}
	}
	k.name, k.routine = string(name), k.routine && ping
	return k, true
}

// hides takes note of a line of a kind, and reports whether it is counted only.
func (r *repeats) hides(l *line, of kindName) bool {
	if r.units == nil {
		r.units = make(map[string]*repeating)
	}
	u := r.units[l.name]
	if u == nil {
		if len(r.units) >= repeatingMax {
			return false
		}
		u = &repeating{kinds: make(map[string]*kind), period: firstCount}
		r.units[l.name] = u
	}
	k := u.kinds[of.name]
	if k == nil {
		if len(u.kinds) >= kindsMax {
			u.forget()
		}
		k = &kind{kindName: of}
		u.kinds[of.name] = k
	}
	gap := l.at.Sub(k.last)
	show := showOther
	if k.routine {
		show = showRoutine
	} else if gap > seldom && k.count == 0 {
		k.shown = 0
	}
	k.last = l.at
	if k.shown < show {
		k.shown++
		return false
	}
	if k.count == 0 {
		k.since, k.gap, k.senders = l.at.Add(-gap), 0, make(map[string]struct{})
	}
	k.count++
	k.gap = max(k.gap, gap)
	k.like = *l
	if len(k.senders) < sendersMax {
		k.senders[l.sender] = struct{}{}
	}
	if u.due.IsZero() {
		u.due = l.at.Add(u.period)
		if r.next.IsZero() || u.due.Before(r.next) {
			r.next = u.due
		}
	}
	return true
}

// forget forgets the kinds of which nothing is counted.
func (u *repeating) forget() {
	for name, k := range u.kinds {
		if k.count == 0 {
			delete(u.kinds, name)
		}
	}
}

// due returns the counts that are due at a time, in order.
func (r *repeats) due(now time.Time) []line {
	if r.next.IsZero() || now.Before(r.next) {
		return nil
	}
	r.next = time.Time{}
	var lines []line
	for _, u := range r.units {
		if u.due.IsZero() {
			continue
		}
		if !now.Before(u.due) {
			lines = append(lines, u.counts(now)...)
			u.period = min(2*u.period, lastCount)
			continue
		}
		if r.next.IsZero() || u.due.Before(r.next) {
			r.next = u.due
		}
	}
	return inOrder(lines)
}

// of returns the counts of a unit, which begin anew, if there is something to count.
func (r *repeats) of(unit string, now time.Time) []line {
	u := r.units[unit]
	if u == nil || u.counted() < showOther {
		return nil
	}
	return inOrder(u.counts(now))
}

// counted is how many messages are counted now.
func (u *repeating) counted() (n int) {
	for _, k := range u.kinds {
		n += k.count
	}
	return n
}

// rest returns all counts until now.
func (r *repeats) rest(now time.Time) []line {
	var lines []line
	for _, u := range r.units {
		lines = append(lines, u.counts(now)...)
	}
	return inOrder(lines)
}

func inOrder(lines []line) []line {
	slices.SortStableFunc(lines, func(a, b line) int {
		return cmp.Or(strings.Compare(a.name, b.name), slices.Compare(a.payload, b.payload))
	})
	return lines
}

// counts returns a line for each kind that was counted until now.
func (u *repeating) counts(now time.Time) (lines []line) {
	for _, k := range u.kinds {
		if k.count == 0 {
			continue
		}
		l := k.like
		if k.count == 1 { // as if it had been shown, at its own time
			lines = append(lines, l)
			k.count, k.like, k.senders = 0, line{}, nil
			continue
		}
		note := fmt.Sprintf("in %s, gaps ≤ %s", l.at.Sub(k.since).Round(time.Second), k.gap.Round(10*time.Millisecond))
		if n := len(k.senders); n > 1 {
			note += fmt.Sprintf(", from %d processes", n)
		}
		if len(l.payload) == 0 {
			l.payload = l.notes
		}
		l.head = join(strconv.Itoa(k.count)+" ×", k.failed)
		l.notes = []string{join(k.word, note)}
		l.at = now
		lines = append(lines, l)
		k.count, k.like, k.senders = 0, line{}, nil
	}
	u.due = time.Time{}
	return lines
}
