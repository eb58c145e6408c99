// SPDX-License-Identifier: Apache-2.0

//go:build linux

package why

// noUnixSockets is seen by RestrictAddressFamilies=, which leaves no trace of a socket(2) that it refuses.
func noUnixSockets(c *Case) *Finding {
	if !c.silent() || !c.Service.NoUnixSockets {
		return nil
	}
	return &Finding{
		Certainty: Certain,
		Because:   "RestrictAddressFamilies= leaves out AF_UNIX: no process of " + c.Unit + " can make a socket to say READY=1 with",
		Change:    "add AF_UNIX to RestrictAddressFamilies=",
	}
}
