// SPDX-License-Identifier: Apache-2.0

//go:build linux

package why

import (
	"fmt"
	"strconv"
	"time"

	"github.com/sdtrace/sdtrace/pkg/events"
	"github.com/sdtrace/sdtrace/pkg/verdict"
)

// mainPIDRefused is seen by the verdict on MAINPID=.
func mainPIDRefused(c *Case) *Finding {
	s := c.Latest("MAINPID", "MAINPIDFD")
	if s == nil {
		return nil
	}
	for _, key := range []string{"MAINPID", "MAINPIDFD"} {
		l := s.Line(key, "")
		if l != nil && l.Outcome == events.Unknown && c.isNotMain(l.Value) && c.Now.Sub(s.Event.Time) > time.Second {
			return inNamespace(c, l.Value, &Finding{
				Certainty: Likely,
				Because: fmt.Sprintf("%s=%s of %s was not taken: the main process is still %d where the service manager is",
					key, l.Value, s.Who(), c.Service.Main),
				Change: "name a process in the control group of the service, by its number in the pid namespace of the service manager",
			})
		}
		if l == nil || l.Outcome != events.Ignored && (l.Outcome != events.NoEffect || l.Cure == "") {
			continue
		}
		return inNamespace(c, l.Value, &Finding{
			Certainty: sure(c, l), Because: fmt.Sprintf("%s=%s of %s was not taken: %s", key, l.Value, s.Who(), l.Reason), Change: l.Cure,
		})
	}
	return nil
}

// inNamespace adds to a finding whose number it was that was not taken: that of a process in its own pid namespace, where
// it is one.
func inNamespace(c *Case, pid string, f *Finding) *Finding {
	for i := range c.Processes {
		p := &c.Processes[i]
		if p.PIDNS == 0 || c.Manager.PIDNS == 0 || p.PIDNS == c.Manager.PIDNS || strconv.FormatUint(uint64(p.NSPID), 10) != pid {
			continue
		}
		f.Because += fmt.Sprintf("; %s is the number of %s in its own pid namespace, and the service manager takes "+
			"numbers as those in its own",
			pid, p)
		f.Change = "leave MAINPID= out, or let sdtrace relay translate it"
		break
	}
	return f
}

// isNotMain reports whether the unit has a main process, and that has another number for the service manager.
func (c *Case) isNotMain(pid string) bool {
	return !c.IsOver() && c.Service != nil && c.Service.Main != 0 && pid != strconv.FormatUint(uint64(c.Service.Main), 10) && c.Service.Now.PIDFile == ""
}

// sure is how certain a verdict is. That the unit is as that says proves which service manager has received the
// message, which the verdict alone may not know.
func sure(c *Case, l *events.LineVerdict) Certainty {
	if l.Likely && (c.Manager.Version > verdict.Newest || c.Awaits() == "" && !c.IsOver()) {
		return Likely
	}
	return Certain
}
