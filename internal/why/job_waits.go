// SPDX-License-Identifier: Apache-2.0

//go:build linux

package why

import (
	"fmt"
	"strings"
)

// jobWaits is seen by a job of the unit that waits for those of others.
func jobWaits(c *Case) *Finding {
	if c.Phase() != Waiting || len(c.JobWaits) == 0 {
		return nil
	}
	return &Finding{
		Certainty: Certain,
		Because:   fmt.Sprintf("%s has not begun to start: its job waits for %s (After=)", c.Unit, strings.Join(c.JobWaits, ", ")),
		Change:    "ask why " + c.JobWaits[0] + " does not become ready",
	}
}
