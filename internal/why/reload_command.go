// SPDX-License-Identifier: Apache-2.0

//go:build linux

package why

import "fmt"

// reloadCommand is seen by the state.
func reloadCommand(c *Case) *Finding {
	if c.Phase() != Reloading {
		return nil
	}
	return &Finding{
		Certainty: Certain,
		Because:   fmt.Sprintf("ExecReload= runs for %s%s: the reload is over when that ends", Span(c.For()), control(c)),
		Change:    "let ExecReload= end",
		Note:      c.For() < beginsWithin,
	}
}
