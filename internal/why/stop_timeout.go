// SPDX-License-Identifier: Apache-2.0

//go:build linux

package why

import (
	"fmt"

	"github.com/sdtrace/sdtrace/pkg/events"
)

// stopTimeout is seen by a unit that was killed while it was stopping by its own word.
func stopTimeout(c *Case) *Finding {
	if !c.IsOver() || c.Service.Result != "timeout" {
		return nil
	}
	s := c.Latest("STOPPING")
	if s == nil || !s.Is("STOPPING", "1", events.Heeded) {
		return nil
	}
	return &Finding{
		Certainty: Likely,
		Because: fmt.Sprintf("%s said STOPPING=1, from which on TimeoutStopSec=%s counts, and the unit was killed when that was over",
			s.Who(), Span(c.Service.StopTimeout)),
		Change: "raise TimeoutStopSec=, send EXTEND_TIMEOUT_USEC= while it stops, or say STOPPING=1 later",
	}
}
