// SPDX-License-Identifier: Apache-2.0

package why_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/await"
	"github.com/sdtrace/sdtrace/internal/enrich/machines"
	"github.com/sdtrace/sdtrace/internal/proc"
	"github.com/sdtrace/sdtrace/internal/why"
	"github.com/sdtrace/sdtrace/internal/why/look"
	"github.com/sdtrace/sdtrace/vmtest/document"
	"github.com/sdtrace/sdtrace/vmtest/pid1"
)

// answer is what "sdtrace why -o json" says, as far as it is looked at.
type answer struct {
	Unit, Health, Silent string
	SubState             string `json:"sub_state"`
	Cause                *finding
	Also                 []finding
	status               int
}

type finding struct {
	Name            string
	Certainty       why.Certainty
	Because, Change string
	Note            bool
}

// The exit statuses.
const healthy, problem, unknown = 0, 3, 4

// ask asks for a unit.
func ask(t *testing.T, m *pid1.Systemd, unit string, args ...string) (a answer) {
	t.Helper()
	out, status := run(t, append([]string{"why", "-o", "json", "--manager", fmt.Sprint(m.PID()), unit}, args...)...)
	if err := json.Unmarshal(out, &a); err != nil {
		t.Fatalf("%v: %q", err, out)
	}
	a.status = status
	return a
}

// run runs sdtrace, and returns what it has written to stdout, and its exit status.
func run(t *testing.T, args ...string) ([]byte, int) {
	t.Helper()
	looks <- struct{}{}
	defer func() { <-looks }()
	cmd := exec.CommandContext(await.Context(t), sdtrace, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() == 1 || exit.ExitCode() == 2) {
		t.Fatalf("sdtrace %q: %v: %s", args, err, stderr.String())
	}
	return stdout.Bytes(), cmd.ProcessState.ExitCode()
}

// looker looks at the units of a service manager, for one test at a time.
type looker struct {
	mu sync.Mutex
	*look.Looker
}

// lookers are those of the service managers that were asked, by process id.
var lookers = struct {
	mu  sync.Mutex
	all map[int]*looker
}{all: make(map[int]*looker)}

func lookerOf(t *testing.T, m *pid1.Systemd) *looker {
	t.Helper()
	lookers.mu.Lock()
	defer lookers.mu.Unlock()
	if l := lookers.all[m.PID()]; l != nil {
		return l
	}
	p, err := proc.Open(m.PID())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	manager, ok := machines.ManagerOf(p)
	if !ok {
		t.Fatalf("process %d is no service manager", m.PID())
	}
	l := &looker{Looker: look.New(context.Background(), manager)}
	lookers.all[m.PID()] = l
	return l
}

// looks are how many tests look at once: there are more of them than processors.
var looks = make(chan struct{}, 4)

// awaitCase looks at a unit as sdtrace why does, until the case is as it should be. It gives up sooner in a try that is
// not the last one, and says then what the case is instead.
func awaitCase(t *testing.T, m *pid1.Systemd, unit string, try int, what string, ok func(c *why.Case) bool) (complaint string) {
	t.Helper()
	said, patience := "nothing", await.Patience
	if try < timesPlayed {
		patience = time.Minute
	}
	if await.HoldsWithin(patience, func() bool {
		l := lookerOf(t, m)
		l.mu.Lock()
		defer l.mu.Unlock()
		c, err := l.Unit(context.Background(), unit, look.Running)
		if err != nil {
			t.Fatal(err)
		}
		said = string(why.AppendJSON(nil, c, why.Explain(c)))
		return c.Service != nil && ok(c)
	}) {
		return ""
	}
	return fmt.Sprintf("gave up waiting: %s: %s", what, said)
}

// file is the unit file of a scenario, and its program as a file of that name.
func (s *scenario) file() (unit, program string) {
	run := "/usr/bin/perl -I/shared -MNotify /shared/" + s.name + ".pl"
	lines := append([]string{"[Unit]", "DefaultDependencies=no"}, s.unit...)
	lines = append(lines, "[Service]")
	if !slices.ContainsFunc(s.service, func(line string) bool { return strings.HasPrefix(line, "Type=") }) {
		lines = append(lines, "Type=notify")
	}
	lines = append(lines, s.service...)
	if s.program != "" {
		program = s.program + "\n"
	}
	return strings.ReplaceAll(strings.Join(lines, "\n"), "%P", run) + "\n", program
}

// appliesTo reports whether it is so with a systemd.
func (s *scenario) appliesTo(m *pid1.Systemd) bool {
	isOutermost := m == managers[0] || m == managers[len(managers)-1]
	return m.Major >= s.since && (s.before == 0 || m.Major < s.before) && (s.everywhere || !isOutermost)
}

// define writes all scenarios as units, and has systemd read them.
func define(t *testing.T, m *pid1.Systemd) {
	t.Helper()
	for i := range scenarios {
		unit, program := scenarios[i].file()
		if err := os.WriteFile(m.Inside("/run/systemd/system/"+scenarios[i].name+".service"), []byte(unit), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(m.Shared, scenarios[i].name+".pl"), []byte(program), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	systemctl(t, m, "daemon-reload")
}

func systemctl(t *testing.T, m *pid1.Systemd, args ...string) {
	t.Helper()
	if _, err := m.Systemctl(await.Context(t), args...); err != nil {
		t.Fatal(err)
	}
}

// Each cause is found while the unit hangs, or when it has failed, with the certainty that it has, and no other one
// is claimed for certain in its place.
func TestEachCauseIsFoundAndSaid(t *testing.T) {
	declare(t)
	told := &guide{texts: make(map[string]string)}
	t.Run("all", func(t *testing.T) {
		for _, m := range managers {
			t.Run(m.Version, func(t *testing.T) {
				t.Parallel()
				define(t, m)
				for i := range scenarios {
					s := &scenarios[i]
					t.Run(s.name, func(t *testing.T) {
						if !s.appliesTo(m) {
							t.Skipf("not declared: it is not so with systemd %s", m.Version)
						}
						t.Parallel()
						for n := 1; ; n++ {
							s.play(t, m)
							if told.add(t, s, m) || n == timesPlayed {
								break
							}
							t.Log("played once more: docs/why.md says something else")
							s.forget(t, m)
						}
					})
				}
			})
		}
	})
	if !t.Failed() {
		document.Check(t, whyDocument, "causes", told.String())
	}
}

// play starts the unit, and waits until it is explained. What a capture did not get to know on a busy machine, as who
// sent a message, the answer leaves out: then it is played once more.
func (s *scenario) play(t *testing.T, m *pid1.Systemd) {
	t.Helper()
	for n := 1; ; n++ {
		complaint := s.playOnce(t, m, n)
		switch {
		case complaint == "":
			return
		case n == timesPlayed:
			t.Fatal(complaint)
		}
		t.Logf("played once more: %s", complaint)
		s.forget(t, m)
	}
}

// timesPlayed is how often a scenario is played at most.
const timesPlayed = 3

// forget ends the unit, so that it can be played once more.
func (s *scenario) forget(t *testing.T, m *pid1.Systemd) {
	t.Helper()
	for _, verb := range []string{"kill --signal=KILL", "stop", "reset-failed"} {
		_, _ = m.Systemctl(await.Context(t), append(strings.Fields(verb), s.name+".service")...) // which of them there is to do depends
	}
}

func (s *scenario) playOnce(t *testing.T, m *pid1.Systemd, try int) (complaint string) {
	t.Helper()
	unit := s.name + ".service"
	systemctl(t, m, "start", "--no-block", unit)
	if s.then != "" {
		if complaint := awaitCase(t, m, unit, try, "it is "+s.in, func(c *why.Case) bool { return c.Service.Now.SubState == s.in }); complaint != "" {
			return complaint
		}
		systemctl(t, m, s.then, "--no-block", unit)
	}
	complaint = awaitCase(t, m, unit, try, "the cause "+s.cause, func(c *why.Case) bool {
		found := why.Explain(c)
		return len(found) > 0 && found[0].Cause == s.cause && found[0].Note == s.well &&
			(s.in == "" || s.then != "" || c.Service.Now.SubState == s.in) &&
			(s.afterwards == "" || c.Service.Now.SubState == s.afterwards)
	})
	if complaint != "" {
		return complaint
	}
	a := ask(t, m, unit)
	f := a.finding(s.well)
	if f == nil || f.Name != s.cause {
		return fmt.Sprintf("it says %+v of %+v", f, a)
	}
	if s.certainty != "" && f.Certainty != s.certainty {
		return fmt.Sprintf("it is %s: %s", f.Certainty, f.Because)
	}
	for _, word := range s.words {
		if !strings.Contains(f.Because+"; "+f.Change, word) {
			return fmt.Sprintf("it does not say %q: %s; %s", word, f.Because, f.Change)
		}
	}
	health, status := "problem", problem
	if s.well {
		health, status = "healthy", healthy
	}
	if a.status != status || a.Health != health {
		return fmt.Sprintf("it is %s, with status %d", a.Health, a.status)
	}
	return ""
}

// finding is the cause, or the first note.
func (a *answer) finding(note bool) *finding {
	if !note {
		return a.Cause
	}
	if i := slices.IndexFunc(a.Also, func(f finding) bool { return f.Note }); i >= 0 {
		return &a.Also[i]
	}
	return nil
}

const whyDocument = "../../docs/why.md"

// guide is what docs/why.md says of the causes.
type guide struct {
	mu    sync.Mutex
	texts map[string]string
}

// add takes note of what is said of a scenario, by the oldest systemd with which it is so, of 252 on. It reports whether
// that stands in the document.
func (g *guide) add(t *testing.T, s *scenario, m *pid1.Systemd) bool {
	t.Helper()
	if i := slices.IndexFunc(managers[1:], s.appliesTo); s.title == "" || managers[1:][i] != m {
		return true
	}
	// What is said at first can lack a verdict still.
	const asked = 8
	for n := 1; ; n++ {
		text, isThere := s.documented(t, m)
		if n < asked && !isThere {
			await.Pass(time.Second / 4)
			continue
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		g.texts[s.name] = text
		return isThere
	}
}

// documented is the scenario as docs/why.md shows it, and whether that stands there.
func (s *scenario) documented(t *testing.T, m *pid1.Systemd) (section string, isThere bool) {
	t.Helper()
	text, _ := run(t, "why", "--color", "never", "--manager", fmt.Sprint(m.PID()), s.name)
	unit, program := s.file()
	unit = strings.Replace(unit, "[Unit]\nDefaultDependencies=no\n[Service]\n", "", 1)
	var b strings.Builder
	fmt.Fprintf(&b, "### %s\n\n```ini\n%s```\n", s.title, unit)
	if program != "" {
		fmt.Fprintf(&b, "\n```perl\n%s```\n", program)
	}
	fmt.Fprintf(&b, "\n```console\n# sdtrace why %s\n%s```\n", s.name, text)
	return b.String(), document.Updates() || document.Holds(t, whyDocument, b.String())
}

// String is the section, in the order of the scenarios.
func (g *guide) String() string {
	var all []string
	for i := range scenarios {
		if text := g.texts[scenarios[i].name]; text != "" {
			all = append(all, text)
		}
	}
	return strings.Join(all, "\n")
}

// storeRole is the first argument of this binary when it is a service that sends a file descriptor to be stored.
const storeRole = "store"

// claimRole is the first argument of this binary when it says READY=1 as the process whose number comes next.
const claimRole = "claim"

func playClaim(pid string) error {
	n, err := strconv.ParseInt(pid, 10, 32)
	if err != nil {
		return err
	}
	socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	to := &unix.SockaddrUnix{Name: os.Getenv("NOTIFY_SOCKET")}
	if err := unix.Sendmsg(socket, []byte("READY=1"), unix.UnixCredentials(&unix.Ucred{Pid: int32(n)}), to, 0); err != nil {
		return err
	}
	return unix.Pause() // until it is killed
}

func playStore() error {
	socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	one, err := unix.MemfdCreate("one", unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	to := &unix.SockaddrUnix{Name: os.Getenv("NOTIFY_SOCKET")}
	if err := unix.Sendmsg(socket, []byte("FDSTORE=1\nFDNAME=one"), unix.UnixRights(one), to, 0); err != nil {
		return err
	}
	if err := unix.Sendto(socket, []byte("READY=1"), 0, to); err != nil {
		return err
	}
	return unix.Pause() // until it is killed
}
