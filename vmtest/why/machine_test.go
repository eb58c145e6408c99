// SPDX-License-Identifier: Apache-2.0

package why_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/sdtrace/sdtrace/internal/await"
	"github.com/sdtrace/sdtrace/vmtest/pid1"
)

// A unit of a service manager in a machine or a container is asked for by the name of that. The control groups are
// those that systemd-nspawn --keep-unit and docker make.
func TestAServiceManagerIsFoundByTheNameOfItsMachineOrContainer(t *testing.T) {
	declare(t)
	t.Parallel()
	id := strings.Repeat("5d7ace", 11)[:64]
	for flag, where := range map[string]struct {
		below []string
		names []string
	}{
		"--machine":   {[]string{"machine.slice", "systemd-nspawn@sdtbox.service", "payload"}, []string{"sdtbox"}},
		"--container": {[]string{"docker-" + id + ".scope"}, []string{id[:12], id}},
	} {
		m := boot(t, where.below...)
		text, _ := (&scenario{name: "cleared", service: []string{"ExecStart=/usr/bin/env -i /usr/bin/sleep infinity"}}).file()
		if err := os.WriteFile(m.Inside("/run/systemd/system/cleared.service"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		systemctl(t, m, "daemon-reload")
		systemctl(t, m, "start", "--no-block", "cleared")
		for _, name := range where.names {
			await.UntilSeldomAsked(t, "the cause by "+flag, func() bool {
				out, status := run(t, "why", "-o", "json", flag, name, "cleared")
				var a answer
				if err := json.Unmarshal(out, &a); err != nil {
					t.Fatalf("%v: %q", err, out)
				}
				return status == problem && a.Cause != nil && a.Cause.Name == "not-in-environment"
			})
		}
	}
}

// boot boots one more of the usual systemd, until the end of the test.
func boot(t *testing.T, below ...string) *pid1.Systemd {
	t.Helper()
	m, err := usual.Another(below...)
	if m != nil {
		t.Cleanup(func() {
			if err := m.Stop(); err != nil {
				t.Error(err)
			}
		})
	}
	if err == nil {
		err = m.AwaitReady()
	}
	if err != nil {
		t.Fatal(err)
	}
	return m
}
