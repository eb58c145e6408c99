// SPDX-License-Identifier: Apache-2.0

package why_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sdtrace/sdtrace/internal/await"
	"github.com/sdtrace/sdtrace/internal/history"
	"github.com/sdtrace/sdtrace/internal/why/look"
	"github.com/sdtrace/sdtrace/vmtest/pid1"
)

// unit defines a unit that runs a perl program.
func unit(t *testing.T, m *pid1.Systemd, name, program string, service ...string) {
	t.Helper()
	s := scenario{name: name, unit: []string{"StartLimitIntervalSec=0"}, service: append(service, "ExecStart=%P"), program: program}
	text, program := s.file()
	for file, content := range map[string]string{m.Inside("/run/systemd/system/" + name + ".service"): text, filepath.Join(m.Shared, name+".pl"): program} {
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	systemctl(t, m, "daemon-reload")
}

// started is sdtrace with arguments, in the background.
type started struct {
	*exec.Cmd
	stdout bytes.Buffer
	errors string // a file
}

func begun(t *testing.T, m *pid1.Systemd, args ...string) *started {
	t.Helper()
	s := &started{
		Cmd:    exec.CommandContext(await.Context(t), sdtrace, append(args, "--manager", fmt.Sprint(m.PID()))...),
		errors: filepath.Join(t.TempDir(), "stderr"),
	}
	stderr, err := os.Create(s.errors)
	if err != nil {
		t.Fatal(err)
	}
	defer stderr.Close()
	s.Stdout, s.Stderr = &s.stdout, stderr
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	return s
}

// stderr is what it has written there by now.
func (s *started) stderr(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(s.errors)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// awaitWaiting waits until it says that it waits, and so captures.
func (s *started) awaitWaiting(t *testing.T) {
	t.Helper()
	await.Until(t, "it waits", func() bool { return strings.Contains(s.stderr(t), "sdtrace: waiting for ") })
}

// end waits for its end, and returns its exit status.
func (s *started) end() int {
	_ = s.Wait() // the status says it
	return s.ProcessState.ExitCode()
}

func TestARestartIsFollowedAndExplained(t *testing.T) {
	declare(t)
	t.Parallel()
	m := usual
	unit(t, m, "restarted", `unless (fork) { notify("READY=1"); exit } `+loop, "TimeoutStartSec=20")
	s := begun(t, m, "why", "-o", "json", "--restart", "restarted")
	if status := s.end(); status != problem {
		t.Errorf("it has status %d: %s", status, s.stderr(t))
	}
	var a answer
	if err := json.Unmarshal(s.stdout.Bytes(), &a); err != nil {
		t.Fatalf("%v: %q", err, s.stdout.String())
	}
	if f := a.Cause; f == nil || f.Name != "ignored" && f.Name != "not-heeded" || !strings.Contains(f.Because, "READY=1 of perl") {
		t.Errorf("it says %+v", a.Cause)
	}
	if !strings.Contains(s.stderr(t), "sdtrace: restarting restarted.service\n") || !strings.Contains(s.stderr(t), "waits for READY=1") {
		t.Errorf("it shows %q", s.stderr(t))
	}
	unit(t, m, "restarted", `notify("READY=1"); `+loop)
	if s := begun(t, m, "why", "--restart", "restarted"); s.end() != healthy || !strings.Contains(s.stdout.String(), "healthy: ") {
		t.Errorf("it says %s", s.stdout.String())
	}
}

func TestTheNextStartIsWaitedFor(t *testing.T) {
	declare(t)
	t.Parallel()
	m := managers[2]
	unit(t, m, "next", `sleep 1 until -e "/shared/next"; notify("READY=1"); `+loop)
	systemctl(t, m, "start", "--no-block", "next")
	for _, c := range []struct {
		args   []string
		status int
		says   string
	}{
		{[]string{"wait", "--unit", "next", "--timeout", "100ms", "READY"}, problem, "next.service: READY=1, not in time"},
		{[]string{"why", "--wait", "--timeout", "100ms", "next"}, unknown, "waiting for next.service to be started"},
		{[]string{"wait", "--unit", "not-there", "READY"}, unknown, "there is no such unit"},
	} {
		if s := begun(t, m, c.args...); s.end() != c.status || !strings.Contains(s.stderr(t), c.says) {
			t.Errorf("%q: status %d: %s", c.args, s.ProcessState.ExitCode(), s.stderr(t))
		}
	}
	s := begun(t, m, "wait", "--unit", "next", "READY")
	if err := os.WriteFile(filepath.Join(m.Shared, "next"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if status := s.end(); status != healthy {
		t.Errorf("status %d: %s", status, s.stderr(t))
	}
	if s := begun(t, m, "wait", "--unit", "next", "READY"); s.end() != healthy {
		t.Errorf("of a unit that is up: %s", s.stderr(t))
	}
	// It is up: only another start counts.
	next := begun(t, m, "wait", "--unit", "next", "--next", "READY")
	next.awaitWaiting(t)
	systemctl(t, m, "restart", "next")
	if status := next.end(); status != healthy {
		t.Errorf("status %d: %s", status, next.stderr(t))
	}
}

// A service that fails is not waited for any longer.
func TestAFailureEndsTheWait(t *testing.T) {
	declare(t)
	t.Parallel()
	m := usual
	unit(t, m, "failing", `notify("STATUS=No"); exit 3;`)
	s := begun(t, m, "wait", "--unit", "failing", "--next", "READY")
	s.awaitWaiting(t)
	systemctl(t, m, "start", "--no-block", "failing")
	if status := s.end(); status != problem || !strings.Contains(s.stderr(t), "it has failed: the main process of failing.service ended (status 3) before READY=1 (certain)") {
		t.Errorf("status %d: %s", status, s.stderr(t))
	}
}

// What a process says before the service manager has taken note of its start counts, and nothing of the life before.
func TestWhatIsSaidBeforeTheStartIsTakenNoteOfIsTold(t *testing.T) {
	declare(t)
	t.Parallel()
	m := usual
	unit(t, m, "early", `notify("READY=1"); `+loop)
	systemctl(t, m, "start", "early")
	for _, sooner := range []time.Duration{5 * time.Second, time.Millisecond} {
		await.UntilSeldomAsked(t, "READY=1 from before the start", func() bool {
			l := lookerOf(t, m)
			l.mu.Lock()
			defer l.mu.Unlock()
			c, err := l.Unit(t.Context(), "early.service", look.Running)
			if err != nil {
				t.Fatal(err)
			}
			began := c.Wall(c.Began())
			c, err = l.Unit(t.Context(), "early.service", func(ctx context.Context, texts ...string) []history.Told {
				all := look.Running(ctx, texts...)
				for i := range all {
					for _, r := range all[i].Records {
						if r.Event != nil && r.Event.Time.After(began) {
							r.Event.Time = began.Add(-sooner)
						}
					}
				}
				return all
			})
			if err != nil {
				t.Fatal(err)
			}
			if len(c.Said) > 1 {
				t.Fatalf("it has said %d messages in a life in which it said one", len(c.Said))
			}
			return len(c.Said) == 1 && c.Said[0].Event.Time.Before(began)
		})
		systemctl(t, m, "stop", "early")
		systemctl(t, m, "start", "early")
	}
}
