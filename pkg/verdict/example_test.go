// SPDX-License-Identifier: Apache-2.0

package verdict_test

import (
	"fmt"

	"github.com/sdtrace/sdtrace/pkg/events"
	"github.com/sdtrace/sdtrace/pkg/verdict"
)

// A helper of a service says that the service is ready, and the main process says it in its own way.
func ExampleJudge() {
	main := uint32(7650)
	unit := &verdict.Unit{
		Name: "web.service", Type: "notify", NotifyAccess: "main", MainPID: &main, SubState: "start",
	}
	for _, said := range []struct {
		pid     uint32
		payload string
	}{{7734, "READY=1"}, {7650, "READY=true"}, {7650, "READY=1"}} {
		d := &verdict.Datagram{PID: said.pid, Text: new(events.Text)}
		d.Text.Split([]byte(said.payload), false)
		verdicts, after := verdict.Judge(d, verdict.Manager{Version: 252}, unit)
		for _, v := range verdicts {
			fmt.Printf("%s=%s of %d: %s: %s\n", v.Assignment.Key, v.Assignment.Value, said.pid, v.Outcome, v.Reason)
		}
		unit = after
	}
	// Output:
	// READY=1 of 7734: ignored: it counts as from 7734, and NotifyAccess=main takes 7650, the main process
	// READY=true of 7650: no effect: only READY=1 means ready
	// READY=1 of 7650: heeded: the service has started
}
