// SPDX-License-Identifier: Apache-2.0

//go:build linux

package why

import (
	"fmt"

	"github.com/sdtrace/sdtrace/pkg/events"
)

// notStored is seen by the verdict on FDSTORE=1.
func notStored(c *Case) *Finding {
	for i := range c.Said {
		s := &c.Said[i]
		l := s.Line("FDSTORE", "1")
		if l == nil || l.Outcome == events.Heeded || l.Outcome == events.Unknown {
			continue
		}
		what := "what " + s.Who() + " has sent with FDSTORE=1"
		if fd, ok := s.Value("FDNAME"); ok {
			what = fmt.Sprintf("the file descriptor %q of %s", fd, s.Who())
		}
		return &Finding{Certainty: sure(c, l), Because: fmt.Sprintf("%s is not stored: %s", what, l.Reason), Change: l.Cure}
	}
	return nil
}
