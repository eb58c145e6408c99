// SPDX-License-Identifier: Apache-2.0

//go:build linux

package why

import "fmt"

// results say what a Result= means that has nothing to do with messages (systemd.exec(5)).
var results = map[string]string{
	"start-limit-hit": "it was started too often in a short time, and is not started any more (StartLimitBurst=)",
	"resources":       "the service manager could not start it: a resource was missing",
	"oom-kill":        "a process of it was killed because memory was short",
	"exec-condition":  "ExecCondition= was against it",
	"watchdog":        "no ping came in time (WatchdogSec=)",
	"timeout":         "an operation took longer than its limit",
	"protocol":        "it did not do what its Type= asks for",
}

// failedOtherwise is seen by a unit that has failed.
func failedOtherwise(c *Case) *Finding {
	if c.Service == nil || c.Service.Result == "success" || c.Service.Result == "" || c.Phase() != Failed && c.Phase() != Restarting {
		return nil
	}
	why, ok := results[c.Service.Result]
	if !ok {
		why = fmt.Sprintf("its main process ended (%s)", ended(c))
	}
	return &Finding{
		Certainty: Certain, Because: fmt.Sprintf("%s has failed with result %q: %s", c.Unit, c.Service.Result, why),
		Change: "see journalctl -u " + c.Unit,
	}
}
