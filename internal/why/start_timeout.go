// SPDX-License-Identifier: Apache-2.0

//go:build linux

package why

import (
	"fmt"
	"slices"
)

// startTimeout is seen by a start that did not become ready in time, and nothing else that explains it.
func startTimeout(c *Case) *Finding {
	if c.Service == nil || !c.Notifies() {
		return nil
	}
	if !c.IsOver() || c.Service.Result != "timeout" || c.Service.Active >= c.Began() {
		return nil
	}
	f := &Finding{
		Certainty: likelyUnless(c.Captured()),
		Because:   fmt.Sprintf("%s did not say READY=1 within TimeoutStartSec=%s%s", c.Unit, Span(c.Service.StartTimeout), uncaptured(c)),
		Change: "let it say READY=1, or set Type=exec if it never does; if it only takes longer, raise " +
			"TimeoutStartSec= or send EXTEND_TIMEOUT_USEC=",
	}
	if len(c.Starts) > 0 {
		f.Because += fmt.Sprintf("; earlier starts took %s to %s", Span(slices.Min(c.Starts)), Span(slices.Max(c.Starts)))
	}
	return f
}
