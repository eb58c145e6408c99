// SPDX-License-Identifier: Apache-2.0

//go:build linux

package why

import (
	"fmt"
	"slices"
)

// pingsTooRare is seen by pings with hardly less time between them than there is.
func pingsTooRare(c *Case) *Finding {
	interval, all := c.Watchdog(), c.intervals()
	const few = 3
	if interval == 0 || c.Phase() != Running || len(all) < few {
		return nil
	}
	longest := slices.Max(all)
	if longest < interval/10*8 {
		return nil
	}
	return &Finding{
		Certainty: Certain,
		Because: fmt.Sprintf("pings come up to %s apart, and WatchdogSec=%s ends the service when one is later than "+
			"that", Span(longest), Span(interval)),
		Change: "ping every half of WATCHDOG_USEC, or raise WatchdogSec=",
	}
}
