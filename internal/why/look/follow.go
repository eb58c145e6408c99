// SPDX-License-Identifier: Apache-2.0

//go:build linux

package look

import (
	"context"
	"fmt"
	"time"

	"github.com/sdtrace/sdtrace/internal/pause"
	"github.com/sdtrace/sdtrace/internal/proc"
	"github.com/sdtrace/sdtrace/internal/why"
)

const (
	// followEvery is how often it is looked how a start goes.
	followEvery = 100 * time.Millisecond
	// explainEvery is how often a unit is looked at closely that is not ready yet.
	explainEvery = time.Second
	// settleFor is how long verdicts on what was said last are waited for once a start is decided.
	settleFor = 400 * time.Millisecond
)

// Restart has the service manager restart a unit, or start it. The error is its own.
func (l *Looker) Restart(ctx context.Context, unit string) error {
	if l.conn == nil {
		return fmt.Errorf("the service manager does not answer: %s", l.silent)
	}
	return l.conn.Restart(ctx, unit)
}

// Follow waits for the start of a unit that begins after a time by CLOCK_MONOTONIC, and until that is decided: the
// unit is up, or has failed. It calls progress with each state that it sees; told are the captures. When the context
// ends before, the case is that of then. The error is that of [Looker.Unit].
func (l *Looker) Follow(ctx context.Context, unit string, after time.Duration, told Teller, progress func(*why.Case)) (*why.Case, error) {
	last := ""
	var before *why.Case
	var explained time.Duration
	for {
		// What was captured is wanted at the end alone.
		c, err := l.Unit(context.WithoutCancel(ctx), unit, nil)
		if err != nil {
			return nil, err
		}
		if c.Service == nil {
			return c, nil
		}
		if state := c.Service.ActiveState + c.Service.Now.SubState; state != last {
			last = state
			progress(c)
		}
		if c.Service.Left > after || c.Service.MainStarted > after {
			switch {
			case isDecided(c):
				goesOn := pause.For(ctx, settleFor)
				settled, err := l.Unit(context.WithoutCancel(ctx), unit, told)
				switch {
				case err != nil:
					return nil, err
				case isDecided(settled) || !goesOn:
					settled.Before = before
					return settled, nil
				}
				// The state was the one before the start: the service manager tells of a unit in two answers.
			case c.Phase() == why.Starting:
				if c.Monotonic-explained > explainEvery && c.For() > explainEvery {
					explained = c.Monotonic
					if hanging, err := l.Unit(context.WithoutCancel(ctx), unit, told); err == nil && hanging.Phase() == why.Starting {
						before = hanging
					}
				}
			}
		}
		if !pause.For(ctx, followEvery) {
			return l.Unit(context.WithoutCancel(ctx), unit, told)
		}
	}
}

// isDecided reports whether a start has come to its end.
func isDecided(c *why.Case) bool {
	switch c.Phase() {
	case why.Running, why.Failed, why.Restarting, why.Dead, why.Unasked:
		return true
	}
	return false
}

// Now is the time that [Looker.Follow] goes by.
func Now() time.Duration { return proc.Monotonic() }
