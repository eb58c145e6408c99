// SPDX-License-Identifier: Apache-2.0

//go:build linux

package boot_test

import (
	"os"
	"testing"
)

func TestBoot(t *testing.T) {
	if testing.Short() {
		t.Skip("not declared: boots a machine, minutes")
	}
	if os.Getenv("SDTRACE_VM") == "1" {
		t.Skip("not declared: boots a machine itself")
	}
	r := runMachine(t, []step{
		{"systemctl is-system-running --wait"},
		{"systemctl --failed --no-legend"},
		{"systemd-analyze; systemd-analyze blame | head -40"},
		{"systemctl list-units --type=service --no-legend"},
		{"systemctl show '*.service' -p Id,Type,ActiveState,SubState,MainPID,NotifyAccess"},
		{"cat /proc/1/mountinfo | head; docker info | head -60"},
		{"journalctl -b -p warning --no-pager | tail -60"},
	})
	os.WriteFile("/tmp/boot-capture.json", r.capture, 0o644)
	for _, w := range r.walked {
		t.Logf("# %s  [%d, %.1f s]\n%s", w.Line, w.Status, w.Took, w.Output)
	}
	t.Logf("console:\n%s", r.console)
}
