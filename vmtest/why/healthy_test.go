// SPDX-License-Identifier: Apache-2.0

package why_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sdtrace/sdtrace/internal/await"
	"github.com/sdtrace/sdtrace/vmtest"
	"github.com/sdtrace/sdtrace/vmtest/pid1"
)

// kinds are healthy services: what is in [Service], with %P for a program that says what is needed and goes on.
var kinds = []struct {
	name, program string
	service       []string
	since         int
}{
	{name: "simple", service: []string{"Type=simple", "ExecStart=/usr/bin/sleep infinity"}},
	{name: "exec", service: []string{"Type=exec", "ExecStart=/usr/bin/sleep infinity"}},
	{name: "idle", service: []string{"Type=idle", "ExecStart=/usr/bin/sleep infinity"}},
	{name: "oneshot", service: []string{"Type=oneshot", "RemainAfterExit=yes", "ExecStart=/usr/bin/true"}},
	{name: "gone", service: []string{"Type=oneshot", "ExecStart=/usr/bin/true"}},
	{name: "forking", service: []string{"Type=forking", `ExecStart=/bin/sh -c "sleep infinity & exit 0"`}},
	{name: "forking-pid-file", service: []string{"Type=forking", "PIDFile=/run/%p.pid", `ExecStart=/bin/sh -c "sleep infinity & echo $! >/run/%p.pid"`}},
	{name: "notify", program: `notify("READY=1");`},
	{name: "status", program: `notify("READY=1\nSTATUS=Up and running");`},
	{name: "chatty", program: `notify("STATUS=$_") for 1..20; notify("READY=1"); notify("STATUS=$_") for 1..20;`},
	{name: "script", service: []string{"Type=notify", "NotifyAccess=all", `ExecStart=/bin/sh -c "systemd-notify --ready --status=Up; exec sleep infinity"`}},
	{name: "watchdog", program: `$SIG{ALRM} = sub { notify("WATCHDOG=1"); alarm 1 }; notify("READY=1"); alarm 1;`, service: []string{"Type=notify", "WatchdogSec=1h", "ExecStart=%P"}},
	{
		name: "reloads", program: `$SIG{HUP} = sub { notify("RELOADING=1\nMONOTONIC_USEC=" . usec()); notify("READY=1") }; notify("READY=1");`,
		service: []string{"Type=notify-reload", "ExecStart=%P"}, since: 253,
	},
	{name: "successor", program: `my $child = fork; if ($child) { notify("MAINPID=$child\nREADY=1"); exit } else { sleep 1 while 1 }`, service: []string{"Type=notify", "ExecStart=%P", "SuccessExitStatus=0"}},
	{name: "helpers", program: `notify("READY=1"); for (1..3) { fork or last }`, service: []string{"Type=notify", "NotifyAccess=all", "ExecStart=%P"}},
	{name: "user", program: `notify("READY=1");`, service: []string{"Type=notify", "User=web", "ExecStart=%P"}},
	{name: "private", program: `notify("READY=1");`, service: []string{"Type=notify", "PrivateTmp=yes", "PrivateNetwork=yes", "ProtectSystem=strict", "ExecStart=%P"}},
	{
		name: "restarted", program: `unless (-e "/run/$ENV{NAME}") { open(my $f, ">", "/run/$ENV{NAME}"); exit 1 } notify("READY=1");`,
		service: []string{"Type=notify", "Environment=NAME=%p", "Restart=on-failure", "RestartSec=100ms", "ExecStart=%P"},
	},
	{name: "with-commands", program: `notify("READY=1");`, service: []string{"Type=notify", "ExecStartPre=/usr/bin/true", "ExecStart=%P", "ExecStartPost=/usr/bin/true", "ExecReload=/usr/bin/true"}},
	{name: "stored", service: []string{"Type=notify", "FileDescriptorStoreMax=8", "ExecStart=/roles " + storeRole}},
	// It has removed the variable, which keeps it from nothing.
	{name: "unset", program: `notify("READY=1"); delete $ENV{NOTIFY_SOCKET};`},
	{name: "extends", program: `notify("EXTEND_TIMEOUT_USEC=60000000"); notify("READY=1");`},
	{name: "access-none", service: []string{"Type=exec", "NotifyAccess=none", "ExecStart=/usr/bin/sleep infinity"}},
	{name: "access-all", service: []string{"Type=exec", "NotifyAccess=all", "ExecStart=/usr/bin/sleep infinity"}},
}

// copies are how many units there are of each kind for each service manager: three when make prove runs the tests.
func copies() int {
	if vmtest.Long() {
		return 3
	}
	return 1
}

// No problem is claimed of a unit that is healthy: of each of many kinds, and of 200 when make prove runs the tests. Of
// real daemons vmtest/boot asks.
func TestOfAHealthyUnitNoProblemIsClaimed(t *testing.T) {
	declare(t)
	t.Parallel()
	asked := 0
	for _, m := range managers {
		units := defineHealthy(t, m)
		systemctl(t, m, append([]string{"start", "--no-block"}, units...)...)
		await.UntilSeldomAsked(t, "all units are up", func() bool {
			states, err := m.Systemctl(await.Context(t), append([]string{"show", "--property=SubState", "--value"}, units...)...)
			if err != nil {
				t.Fatal(err)
			}
			up := 0
			for i, state := range strings.Fields(states) {
				if state == "running" || state == "exited" || state == "dead" && strings.HasPrefix(units[i], "well-gone") {
					up++
				}
			}
			return up == len(units)
		})
		all := askAll(t, m, units)
		asked += len(all)
		for _, a := range all {
			if a.Health != "healthy" || a.Cause != nil {
				t.Errorf("systemd %s, %s is %s: %+v", m.Version, a.Unit, a.Health, a.Cause)
			}
		}
	}
	if enough := 67 * copies(); asked < enough {
		t.Errorf("%d units were asked for", asked)
	}
}

// askAll asks for units, by one command.
func askAll(t *testing.T, m *pid1.Systemd, units []string) (all []answer) {
	t.Helper()
	out, _ := run(t, append([]string{"why", "-o", "json", "--manager", fmt.Sprint(m.PID())}, units...)...)
	for line := range bytes.Lines(out) {
		var a answer
		if err := json.Unmarshal(line, &a); err != nil {
			t.Fatalf("%v: %q", err, line)
		}
		all = append(all, a)
	}
	if len(all) != len(units) {
		t.Fatalf("%d answers for %d units", len(all), len(units))
	}
	return all
}

// defineHealthy defines the units, and returns their names.
func defineHealthy(t *testing.T, m *pid1.Systemd) (units []string) {
	t.Helper()
	for _, kind := range kinds {
		if m.Major < kind.since {
			continue
		}
		for i := range copies() {
			name := fmt.Sprintf("well-%s-%d", kind.name, i)
			service := kind.service
			if service == nil {
				service = []string{"Type=notify", "ExecStart=%P"}
			}
			s := scenario{name: name, service: slices.Clone(service), program: kind.program + " " + loop}
			text, program := s.file()
			text = strings.ReplaceAll(text, "%p", name)
			for file, content := range map[string]string{m.Inside("/run/systemd/system/" + name + ".service"): text, filepath.Join(m.Shared, name+".pl"): program} {
				if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			units = append(units, name+".service")
		}
	}
	systemctl(t, m, "daemon-reload")
	return units
}
