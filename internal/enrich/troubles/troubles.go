// SPDX-License-Identifier: Apache-2.0

// Package troubles says of sends that have failed why: it looks at the sender at once, which is often over a
// moment later.
package troubles

import (
	"cmp"
	"time"

	"github.com/sdtrace/sdtrace/internal/access"
	"github.com/sdtrace/sdtrace/internal/budget"
	"github.com/sdtrace/sdtrace/internal/proc"
	"github.com/sdtrace/sdtrace/pkg/events"
)

const (
	// patience is how long a look may keep the stream waiting. The file system that a sender has chosen may answer
	// late, or never.
	patience = 50 * time.Millisecond
	// stuckMax is how many looks are left behind that do not end. From then on nobody is looked at.
	stuckMax = 4
)

// Stage says why sends have failed.
type Stage struct {
	budget budget.Budget
	stuck  []chan string
}

// Do looks at the sender of a send, or connect, that has failed.
func (s *Stage) Do(r *events.Record) {
	e := r.Event
	if e == nil || e.Call == events.CallSocket {
		return
	}
	switch e.Result.Errno {
	case "ENOENT", "ENOTDIR", "EACCES", "ECONNREFUSED", "EPROTOTYPE":
	default:
		return
	}
	began := proc.BootTime()
	if !s.isFree() || !s.budget.Allows(began) {
		return
	}
	found := make(chan string, 1)
	sender, address := e.Sender, cmp.Or(e.Socket.Address, e.Socket.Bound)
	go func() { found <- look(&sender, address) }()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case e.Trouble = <-found:
	case <-timer.C:
		s.stuck = append(s.stuck, found)
	}
	s.budget.Spend(proc.BootTime() - began)
}

// isFree reports whether not too many looks are left behind.
func (s *Stage) isFree() bool {
	rest := s.stuck[:0]
	for _, found := range s.stuck {
		select {
		case <-found:
		default:
			rest = append(rest, found)
		}
	}
	s.stuck = rest
	return len(rest) < stuckMax
}

// look says why the sender does not reach an address, "" if it is not the same process any more.
func look(sender *events.Sender, address events.Address) string {
	p, err := proc.Open(int(sender.PID))
	if err != nil {
		return ""
	}
	defer p.Close()
	if stat, err := p.Stat(); err != nil || !stat.StartedAt(sender.StartTime) {
		return ""
	}
	return access.TroubleAt(p, address)
}
