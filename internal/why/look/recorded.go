// SPDX-License-Identifier: Apache-2.0

//go:build linux

package look

import (
	"slices"
	"time"

	"github.com/sdtrace/sdtrace/internal/history"
	"github.com/sdtrace/sdtrace/internal/systemd1"
	"github.com/sdtrace/sdtrace/internal/why"
	"github.com/sdtrace/sdtrace/pkg/events"
	"github.com/sdtrace/sdtrace/pkg/verdict"
)

// bootedFor is when the end of a capture is by a clock that begins somewhere before it: times in a file are by the
// wall clock alone.
const bootedFor = 365 * 24 * time.Hour

// Recorded is the case of a unit as it was at the end of a capture that was written to a file. Its state is what
// was told of it last, else what its messages have led to. The error is [ErrNoUnit] if the capture holds nothing of
// it.
func Recorded(unit string, told history.Told) (*why.Case, error) {
	c := &why.Case{Unit: unit, Monotonic: bootedFor}
	c.Sources = []why.Source{{Name: told.Name(), Since: told.Began, Lost: told.Lost}}
	bySeq := make(map[uint64]int)
	for i := range told.Records {
		r := &told.Records[i]
		c.Now = r.Time()
		switch {
		case r.Event != nil && nameOf(&r.Event.Sender.Identity) == unit:
			bySeq[r.Event.Seq] = len(c.Said)
			c.Said = append(c.Said, why.Said{Event: r.Event})
		case r.Verdict != nil:
			at, known := bySeq[r.Verdict.Seq]
			if !known && r.Verdict.Send != nil && r.Verdict.Unit == unit {
				at, known = len(c.Said), true
				bySeq[r.Verdict.Seq] = at
				c.Said = append(c.Said, why.Said{Event: r.Verdict.Send})
			}
			if known {
				c.Said[at].Verdict = r.Verdict
				c.Manager.PID, c.Manager.Version = int(r.Verdict.Manager.PID), r.Verdict.Manager.Version
			}
		case r.Withheld != nil:
			if at, known := bySeq[r.Withheld.Seq]; known {
				c.Said[at].Withheld = r.Withheld
			}
		case r.Unit != nil && nameOf(&r.Unit.Identity) == unit:
			c.News = append(c.News, r.Unit)
			c.Manager.PID, c.Manager.Version = int(r.Unit.Manager.PID), r.Unit.Manager.Version
		case r.Hang != nil && nameOf(&r.Hang.Sender.Identity) == unit:
			c.Hangs = append(c.Hangs, r.Hang)
		}
	}
	if len(c.Said) == 0 && len(c.News) == 0 && len(c.Hangs) == 0 {
		return nil, ErrNoUnit
	}
	c.Service = recordedState(c)
	return c, nil
}

// recordedState is the service as it was at the end.
func recordedState(c *why.Case) *systemd1.Service {
	s := &systemd1.Service{
		LoadState: "loaded", ID: c.Unit, StartTimeout: verdict.Never, StopTimeout: verdict.Never,
		Now: verdict.Unit{Name: c.Unit}, ActiveState: "active",
	}
	mono := func(at time.Time) time.Duration { return bootedFor - c.Now.Sub(at) }
	var told time.Time
	if n := len(c.News); n > 0 {
		u := c.News[n-1]
		told = u.Time
		s.ActiveState, s.Now.SubState, s.Result, s.Now.Type = u.ActiveState, u.SubState, u.Result, u.Type
		if !u.Since.IsZero() {
			s.Changed = mono(u.Since)
			s.Pinged, s.Active = s.Changed, s.Changed
		}
		if u.Main != nil {
			main := u.Main.PID
			s.Now.MainPID = &main
		}
		if u.News == events.UnitOverdue {
			limit := u.Limit
			s.Now.Watchdog = &limit
		} else if u.Limit != 0 {
			s.StartTimeout = u.Limit
		}
	}
	// What was said since then has moved it on.
	for i := range c.Said {
		said := &c.Said[i]
		if v := said.Verdict; v != nil && v.MainAfter != nil {
			main := v.MainAfter.PID
			s.Now.MainPID = &main
		}
		if said.Event.Time.Before(told) {
			continue
		}
		switch {
		case said.Is("READY", "1", events.Heeded):
			s.ActiveState, s.Now.SubState, s.Changed = "active", "running", mono(said.Event.Time)
			s.Active = s.Changed
		case said.Is("RELOADING", "1", events.Heeded):
			s.ActiveState, s.Now.SubState, s.Changed = "reloading", "reload-notify", mono(said.Event.Time)
		case said.Is("STOPPING", "1", events.Heeded):
			s.ActiveState, s.Now.SubState, s.Changed = "deactivating", "stop-sigterm", mono(said.Event.Time)
		}
	}
	if s.Now.SubState == "" {
		s.Now.SubState = "running"
		if slices.ContainsFunc(c.Said, func(said why.Said) bool {
			_, ready := said.Value("READY")
			return ready || said.Event.Call != ""
		}) {
			s.ActiveState, s.Now.SubState = "activating", "start" // it said it, and not so that it was heeded
		}
	}
	return s
}
