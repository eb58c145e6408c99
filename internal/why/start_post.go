// SPDX-License-Identifier: Apache-2.0

//go:build linux

package why

import "fmt"

// startPost is seen by the state.
func startPost(c *Case) *Finding {
	if c.Phase() != Finishing {
		return nil
	}
	return &Finding{
		Certainty: Certain,
		Because: fmt.Sprintf("READY=1 was heeded, and ExecStartPost= runs for %s%s: the unit is active when that ends",
			Span(c.For()), control(c)),
		Change: "let ExecStartPost= end",
	}
}
