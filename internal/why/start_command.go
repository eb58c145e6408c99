// SPDX-License-Identifier: Apache-2.0

//go:build linux

package why

import "fmt"

// startCommand is seen by the state of a unit whose type waits for no message.
func startCommand(c *Case) *Finding {
	if c.Phase() != Starting || c.Notifies() {
		return nil
	}
	f := &Finding{
		Certainty: Certain, Note: c.For() < patience,
		Because: fmt.Sprintf("Type=%s waits for ExecStart= to end, which runs for %s%s", c.Service.Now.Type, Span(c.For()), control(c)),
		Change:  "let it end; for a program that stays in the foreground, set Type=exec or notify",
	}
	if c.Service.Now.Type == "dbus" {
		f.Because = fmt.Sprintf("Type=dbus waits for the name of BusName= for %s", Span(c.For()))
		f.Change = "let the program take the name, or correct BusName="
	}
	return f
}
