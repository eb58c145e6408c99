// SPDX-License-Identifier: Apache-2.0

//go:build linux

package why

import "fmt"

// notLoaded is seen by a unit file that is bad or masked.
func notLoaded(c *Case) *Finding {
	if c.Service == nil {
		return nil
	}
	switch state := c.Service.LoadState; state {
	case "masked":
		return &Finding{
			Certainty: Certain, Because: c.Unit + " is masked, and cannot be started", Change: "systemctl unmask " + c.Unit,
		}
	case "bad-setting", "error":
		return &Finding{
			Certainty: Certain, Because: fmt.Sprintf("the service manager does not take the unit file of %s (%s)", c.Unit, state),
			Change: "see systemd-analyze verify " + c.Unit,
		}
	}
	return nil
}
