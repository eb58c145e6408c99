// SPDX-License-Identifier: Apache-2.0

//go:build linux

package why

import (
	"fmt"

	"github.com/sdtrace/sdtrace/pkg/events"
)

// mainPIDUndone is seen by a MAINPID= that was heeded, another main process since, and a PIDFile= that names that.
func mainPIDUndone(c *Case) *Finding {
	if c.Service == nil || c.Service.Now.PIDFile == "" {
		return nil
	}
	for i := range c.Said {
		s := &c.Said[i]
		line := s.Line("MAINPID", "")
		if line == nil || s.Verdict.Named == nil || s.Verdict.Named.PID == 0 {
			continue
		}
		named := s.Verdict.Named
		told := name(named.Comm, named.PID)
		if line.Rule == "D21p" && line.Cure != "" {
			return &Finding{
				Certainty: Certain, Because: fmt.Sprintf("MAINPID=%s of %s was heeded and will be undone: %s", line.Value, s.Who(), line.Reason),
				Change: line.Cure,
			}
		}
		if line.Outcome != events.Heeded && line.Outcome != events.Unknown || !revoked(c, i, named.PID) {
			continue
		}
		f := &Finding{
			Certainty: Likely,
			Because: fmt.Sprintf("MAINPID=%s of %s was heeded, and %s was the main process, but then undone: PIDFile=%s "+
				"still named the old process "+
				"when the service manager read it at the end of the reload", line.Value, s.Who(), told, c.Service.Now.PIDFile),
			Change: "write the process id into the file of PIDFile= before sending MAINPID=, or do without PIDFile=",
		}
		if last := c.Latest("READY"); last != nil && last.Event.Time.After(s.Event.Time) && last.Is("READY", "1", events.Ignored) {
			f.Because += "; so READY=1 of " + last.Who() + " is ignored: it is not the main process"
		}
		return f
	}
	return nil
}

// revoked reports whether the main process that a message has named is none any more, although it has said no other.
func revoked(c *Case, at int, named uint32) bool {
	for _, s := range c.Said[at+1:] {
		if _, again := s.Value("MAINPID"); again {
			return false
		}
		if v := s.Verdict; v != nil && v.MainBefore != nil {
			return v.MainBefore.PID != named
		}
	}
	now := c.Service.Now.MainPID
	return now != nil && *now != named && *now != 0
}
