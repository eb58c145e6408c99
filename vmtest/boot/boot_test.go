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
	text, err := os.ReadFile("testdata/tutorial.md")
	if err != nil {
		t.Fatal(err)
	}
	tutorial, err := parseSession(string(text))
	if err != nil {
		t.Fatal(err)
	}
	r := runMachine(t, append([]step{
		{Line: "systemctl is-system-running --wait"},
		{Line: "systemctl --failed --no-legend"},
		{Line: "journalctl -u docker --no-pager | tail -30"},
		{Line: "systemctl show '*' -p Id,Type,ActiveState,SubState,MainPID,NotifyAccess,After"},
	}, tutorial.steps...))
	os.WriteFile("/tmp/boot-capture.json", r.capture, 0o644)
	os.WriteFile("/tmp/boot-tutorial.md", []byte(tutorial.render(r.walked[4:])), 0o644)
	os.WriteFile("/tmp/boot-show", []byte(r.walked[3].Output), 0o644)
	for _, w := range r.walked {
		t.Logf("%7.1f# %s  [%d, %.1f s]\n%s", w.Began.Seconds(), w.Line, w.Status, w.Took.Seconds(), w.Output)
		for _, w := range w.Meanwhile {
			t.Logf("%7.1f     # %s  [%d, %.1f s]", w.Began.Seconds(), w.Line, w.Status, w.Took.Seconds())
		}
	}
	t.Logf("console:\n%s", r.console)
}
