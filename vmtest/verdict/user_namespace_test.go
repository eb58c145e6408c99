// SPDX-License-Identifier: Apache-2.0

package verdict_test

import (
	"fmt"
	"testing"

	"github.com/sdtrace/sdtrace/internal/await"
	"github.com/sdtrace/sdtrace/internal/systemd1"
	"github.com/sdtrace/sdtrace/pkg/events"
	"github.com/sdtrace/sdtrace/vmtest/pid1"
)

// A systemd in a machine of systemd-nspawn -U, or of a rootless engine, is asked, too, and what
// becomes of what its services say is known.
func TestAServiceManagerInAUserNamespaceIsAsked(t *testing.T) {
	eachManager(t, func(t *testing.T, m *pid1.Systemd) {
		ctx := await.Context(t)
		nested, err := m.Nest(ctx)
		if err != nil {
			t.Fatal(err)
		}
		bus, err := systemd1.Connect(ctx, nested.PID, "/run/systemd/notify")
		if err != nil {
			t.Fatal(err)
		}
		defer bus.Close()
		if bus.Version != m.Major {
			t.Errorf("systemd %d says it is %d", m.Major, bus.Version)
		}

		status := fmt.Sprintf("nested in %d", m.PID())
		run := nested.Command(ctx, "systemd-run", "--no-block", "--unit=say", "--property=DefaultDependencies=no",
			"--property=Type=notify", "--property=RemainAfterExit=yes",
			"systemd-notify", "--ready", "--status="+status)
		if out, err := run.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		said := message{payload: []byte("READY=1\nSTATUS=" + status)}
		for _, l := range live.take(t, nested.PID, said).Lines {
			if l.Outcome != events.Heeded || l.Confirmed == nil || !*l.Confirmed {
				t.Errorf("%s=%s: %s (%s), confirmed %v", l.Key, l.Value, l.Outcome, l.Reason, l.Confirmed)
			}
		}
	})
}
