// SPDX-License-Identifier: Apache-2.0

//go:build linux

package why

import (
	"fmt"
	"slices"
	"time"
)

// patience is how long a start may take at least before it is worth a word.
const patience = 2 * time.Second

// silentStart is seen by a start that takes its time without READY=1, although nothing is in the way.
func silentStart(c *Case) *Finding {
	p := c.Main()
	if !c.silent() || p == nil || c.Latest("READY") != nil {
		return nil
	}
	const share, without = 10, 10 * time.Second // a part of the limit, or for none
	enough := without
	if limit, _ := c.Limit(); limit != 0 {
		enough = max(patience, limit/share)
	}
	if len(c.Starts) > 0 {
		enough = max(enough, 2*slices.Max(c.Starts))
	}
	if c.For() < enough {
		return nil
	}
	f := &Finding{
		Certainty: Likely,
		Because: fmt.Sprintf("%s has not said READY=1 since its start %s ago%s, and nothing is in its way: it is not "+
			"ready yet, or nothing tells it to notify",
			p, Span(c.For()), uncaptured(c)),
		Change: "see its log, and how its documentation has it notify (a flag, a setting, a build with systemd); if it " +
			"never does, set Type=exec",
	}
	if n := len(c.Said); n > 0 {
		last := &c.Said[n-1]
		f.Because += fmt.Sprintf("; what it said last is %s, of %s", quoted(last.Text()), last.Who())
	}
	return f
}
