// SPDX-License-Identifier: Apache-2.0

//go:build linux

package why

import "fmt"

// startPre is seen by the state: READY=1 is not waited for yet.
func startPre(c *Case) *Finding {
	if c.Phase() != Preparing {
		return nil
	}
	f := &Finding{
		Certainty: Certain,
		Because: fmt.Sprintf("%s of the unit runs for %s%s: ExecStart= comes after it, and READY=1 counts from then "+
			"on", preparation(c), Span(c.For()), control(c)),
		Change: "let it end, or move what takes long to ExecStart=",
	}
	return f
}

func preparation(c *Case) string {
	if c.Service.Now.SubState == "condition" {
		return "ExecCondition="
	}
	return "ExecStartPre="
}

// control names the control process as a part of a sentence.
func control(c *Case) string {
	for i := range c.Processes {
		if p := &c.Processes[i]; p.Control {
			return ", " + p.String()
		}
	}
	return ""
}
