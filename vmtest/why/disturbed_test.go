// SPDX-License-Identifier: Apache-2.0

package why_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/await"
	"github.com/sdtrace/sdtrace/internal/why"
	"github.com/sdtrace/sdtrace/vmtest/pid1"
)

// another boots one more systemd, with a unit that runs a perl program, and a capture of it.
func another(t *testing.T, service []string, program string) (m *pid1.Systemd) {
	t.Helper()
	m = boot(t)
	mount, err := pid1.Cgroup2()
	if err != nil {
		t.Fatal(err)
	}
	s := scenario{name: "app", service: service, program: program}
	unit, program := s.file()
	for name, content := range map[string]string{
		m.Inside("/run/systemd/system/app.service"): unit, filepath.Join(m.Shared, "app.pl"): program, filepath.Join(m.Shared, "Notify.pm"): notify,
	} {
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	end, err := startCapture("-o", "json", "--cgroup", strings.TrimPrefix(m.Cgroup, mount))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := end(); err != nil {
			t.Error(err)
		}
	})
	systemctl(t, m, "daemon-reload")
	return m
}

func TestAServiceManagerThatDoesNotReadIsTheCause(t *testing.T) {
	declare(t)
	t.Parallel()
	m := another(t, []string{"NotifyAccess=all", "ExecStart=%P"}, `notify("READY=1"); sleep 1 until -e "/shared/go"; notify("STATUS=$_") for 1..2000; `+loop)
	systemctl(t, m, "start", "app")
	if a := ask(t, m, "app"); a.status != healthy {
		t.Errorf("it has status %d: %+v", a.status, a.Cause)
	}
	if err := m.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(m.Shared, "go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	var a answer
	await.UntilSeldomAsked(t, "a sender that hangs", func() bool {
		a = ask(t, m, "app")
		return a.Cause != nil && strings.Contains(a.Cause.Because, "hangs in its send")
	})
	if f := a.Cause; a.status != problem || f.Name != "receiver-does-not-read" || f.Certainty != why.Certain || !strings.Contains(f.Because, "stopped by a signal") {
		t.Errorf("status %d: %+v", a.status, f)
	}
	if err := m.Signal(unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	await.UntilSeldomAsked(t, "it is healthy again", func() bool { return ask(t, m, "app").status == healthy })
}

// What a capture does not get to know on a busy machine is not told, so that it may take more than one try.
func TestSendersThatAreOverAreTheCause(t *testing.T) {
	declare(t)
	t.Parallel()
	m := another(t, []string{"NotifyAccess=all", "ExecStart=%P"}, `notify("READY=1"); for my $try (1..`+strconv.Itoa(timesPlayed)+`) { sleep 1 until -e "/shared/go-$try";
for (1..3) { if (fork) { wait } else { notify("STATUS=Step $_"); exit } } open(my $done, ">", "/shared/done-$try"); } `+loop)
	systemctl(t, m, "start", "app")
	for try := 1; ; try++ {
		if err := m.Signal(unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(m.Shared, fmt.Sprintf("go-%d", try)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		await.Until(t, "the senders are over", func() bool {
			_, err := os.Stat(filepath.Join(m.Shared, fmt.Sprintf("done-%d", try)))
			return err == nil
		})
		if err := m.Signal(unix.SIGCONT); err != nil {
			t.Fatal(err)
		}
		complaint := awaitCase(t, m, "app.service", try, "the cause sender-gone", func(c *why.Case) bool {
			found := why.Explain(c)
			return len(found) > 0 && found[0].Cause == "sender-gone" && strings.Contains(found[0].Because, "Step 3")
		})
		if complaint == "" {
			return
		}
		if try == timesPlayed {
			t.Fatal(complaint)
		}
		t.Logf("tried once more: %s", complaint)
	}
}

// A service manager that reads as fast as it can is not said to hang, also where it comes to do nothing else.
func TestWhoSendsFasterThanIsReadIsNamed(t *testing.T) {
	declare(t)
	t.Parallel()
	m := another(t, []string{"NotifyAccess=all", "ExecStart=%P"}, `until (-e "/shared/enough") { notify("STATUS=$_") for 1..1000 } notify("READY=1"); `+loop)
	systemctl(t, m, "start", "--no-block", "app")
	await.UntilSeldomAsked(t, "the cause sends-too-fast", func() bool {
		a := ask(t, m, "app")
		if a.Cause != nil && a.Cause.Name == "receiver-does-not-read" && a.Cause.Certainty == why.Certain {
			t.Errorf("it says %+v", a.Cause)
		}
		return a.Cause != nil && a.Cause.Name == "sends-too-fast"
	})
	if err := os.WriteFile(filepath.Join(m.Shared, "enough"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	awaitNoFlood(t, m)
}

// More senders than it can read from keep a service manager from answering.
func TestAServiceManagerThatIsFloodedIsExplainedWithoutItsAnswer(t *testing.T) {
	declare(t)
	t.Parallel()
	m := another(t, []string{"NotifyAccess=all", "ExecStart=%P"}, `my $main = $$; fork for 1..3;
until (-e "/shared/enough") { notify("STATUS=$_") for 1..1000 } notify("READY=1") if $$ == $main; `+loop)
	systemctl(t, m, "start", "--no-block", "app")
	var a answer
	await.UntilSeldomAsked(t, "the cause sends-too-fast of a service manager that does not answer", func() bool {
		a = ask(t, m, "app")
		return a.Silent != "" && a.Cause != nil && a.Cause.Name == "sends-too-fast"
	})
	if a.status != problem || !strings.Contains(a.Cause.Because, "systemctl hangs") {
		t.Errorf("status %d: %+v", a.status, a.Cause)
	}
	if err := os.WriteFile(filepath.Join(m.Shared, "enough"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	awaitNoFlood(t, m)
}

// awaitNoFlood waits until the unit is up, and nobody is said to send too fast.
func awaitNoFlood(t *testing.T, m *pid1.Systemd) {
	t.Helper()
	complaint := awaitCase(t, m, "app.service", timesPlayed, "it is up", func(c *why.Case) bool {
		return c.IsWell() && !slices.ContainsFunc(why.Explain(c), func(f why.Finding) bool { return f.Cause == "sends-too-fast" })
	})
	if complaint != "" {
		t.Fatal(complaint)
	}
}
