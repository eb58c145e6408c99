// SPDX-License-Identifier: Apache-2.0

//go:build linux

package why

import (
	"fmt"
	"slices"

	"github.com/sdtrace/sdtrace/internal/access"
	"github.com/sdtrace/sdtrace/internal/field"
	"github.com/sdtrace/sdtrace/pkg/events"
)

// leadsElsewhere is seen by a NOTIFY_SOCKET of the main process that another process reads than the service manager,
// and that is no relay.
func leadsElsewhere(c *Case) *Finding {
	p := c.Main()
	if !c.silent() || p == nil || !p.Elsewhere || p.Leads.State != access.OK || p.Executed == nil || p.Executed.NotifySocket == nil ||
		slices.Contains(field.Relays, p.To.Comm) {
		return nil
	}
	who := "another process"
	if p.To.PID != 0 {
		who = name(p.To.Comm, p.To.PID)
	}
	return &Finding{
		Certainty: Certain,
		Because: fmt.Sprintf("NOTIFY_SOCKET=%s of %s does not lead to the service manager: %s reads there",
			events.Escape(*p.Executed.NotifySocket), p, who),
		Change: "do not set NOTIFY_SOCKET for the service, or let that process pass messages on (sdtrace relay)",
	}
}
