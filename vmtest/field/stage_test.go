// SPDX-License-Identifier: Apache-2.0

package field_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sdtrace/sdtrace/internal/await"
	"github.com/sdtrace/sdtrace/pkg/events"
	"github.com/sdtrace/sdtrace/pkg/inventory"
	"github.com/sdtrace/sdtrace/vmtest"
	"github.com/sdtrace/sdtrace/vmtest/pid1"
)

// stage is a systemd in whose services the scenarios play, one after the other.
type stage struct {
	m        *pid1.Systemd
	suite    string
	webs     *net.UnixListener
	captured chan *events.Event // what was sent below its control group
	holders  map[uint64]string  // of sockets, by inode
	owners   map[string]string  // of sockets, by address; "" if several have it
	curtains int                // how often it was told apart what comes before and after
	wrong    []string           // events whose sender is not named as it should be

	// Of the scenario that plays.
	began  time.Time
	lines  []line
	app    *app
	logged int // length of the console's text when it began
}

// app is the web that runs.
type app struct {
	conn    *net.UnixConn
	notices chan notice // closed at its end
}

// curtain tells scenarios apart in the stream of what was captured.
const curtain = "X_CURTAIN="

// everyUnit lets units start in a system whose basic.target never is, and keeps what they print.
const everyUnit = "[Unit]\nDefaultDependencies=no\n" +
	"[Service]\nStandardOutput=append:/shared/" + unitsLog + "\nStandardError=inherit\n"

const unitsLog = "units.log"

func newStage(m *pid1.Systemd, suite string) (*stage, error) {
	s := &stage{m: m, suite: suite, captured: make(chan *events.Event, 1<<16)}
	socket := filepath.Join(m.Shared, webSocket)
	var err error
	if s.webs, err = net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: socket}); err != nil {
		return nil, err
	}
	if err := os.Chmod(socket, 0o777); err != nil {
		return nil, err
	}
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	bundle, err := json.Marshal(webBundle())
	if err != nil {
		return nil, err
	}
	image, err := vmtest.ProgramArchive("web", program)
	if err != nil {
		return nil, err
	}
	for name, content := range map[string][]byte{
		"/run/systemd/system/service.d/10-field.conf": []byte(everyUnit),
		"/run/systemd/system/socket.d/10-field.conf":  []byte("[Unit]\nDefaultDependencies=no\n"),
		"/run/systemd/system/curtain@.service": []byte("[Service]\nType=oneshot\nNotifyAccess=all\n" +
			"ExecStart=systemd-notify --no-block " + curtain + "%i\n"),
		"/web/rootfs/web":  program,
		"/web/config.json": bundle,
		"/web/image.tar":   image,
	} {
		if err := s.write(name, content); err != nil {
			return nil, err
		}
	}
	if err := os.Chmod(m.Inside("/web/rootfs/web"), 0o755); err != nil {
		return nil, err
	}
	if err := os.Link(m.Inside("/web/rootfs/web"), m.Inside("/usr/bin/web")); err != nil {
		return nil, err
	}
	for _, dir := range []string{"proc", "dev", "run", "shared", "tmp"} {
		if err := os.Mkdir(m.Inside("/web/rootfs/"+dir), 0o755); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *stage) close() { s.webs.Close() }

// write makes a file and its directories in the root of systemd.
func (s *stage) write(name string, content []byte) error {
	file := s.m.Inside(name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, content, 0o644)
}

// webBundle is the OCI bundle in /web.
func webBundle() specs.Spec {
	spec := specs.Spec{
		Version: "1.0.2",
		Process: &specs.Process{Args: []string{"/web"}, Cwd: "/", Env: []string{"PATH=/"}},
		Root:    &specs.Root{Path: "rootfs", Readonly: false},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"mode=755"}},
			{Destination: "/run", Type: "tmpfs", Source: "tmpfs", Options: []string{"mode=755"}},
			{Destination: "/shared", Type: "bind", Source: "/shared", Options: []string{"bind"}},
		},
		Linux: &specs.Linux{},
	}
	for _, kind := range []specs.LinuxNamespaceType{
		specs.PIDNamespace, specs.MountNamespace, specs.IPCNamespace, specs.UTSNamespace, specs.NetworkNamespace,
	} {
		spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: kind})
	}
	return spec
}

// play runs a scenario and returns what it came to.
func (s *stage) play(t *testing.T, scenario *scenario, want, wantLost []string) []line {
	t.Helper()
	ctx := t.Context()
	for _, f := range scenario.files {
		if err := s.write(path(f.Name), f.Data); err != nil {
			t.Fatal(err)
		}
	}
	s.script(t, ctx, scenario.before)
	t.Cleanup(func() { s.clear(t, scenario) })
	if output, err := s.m.Command(ctx, "systemctl", "daemon-reload").CombinedOutput(); err != nil {
		t.Fatalf("systemctl daemon-reload: %v\n%s", err, output)
	}
	s.holders, s.owners = map[uint64]string{}, map[string]string{}
	s.drawCurtain(t, ctx)
	s.began, s.lines, s.app = now(), nil, nil
	s.logged = len(s.m.Console.String())
	for _, next := range want {
		if text, ok := strings.CutPrefix(next, maybe); ok {
			s.follows(t, ctx, text)
			continue
		}
		got := s.follow(t, ctx, next)
		s.lines = append(s.lines, got)
		if got.short() != next && got.String() != next {
			break
		}
	}
	// Whatever else there was comes before the curtain.
	s.lines = append(s.lines, s.drawCurtain(t, ctx)...)

	var got []string
	for i, l := range s.lines {
		text := l.short()
		if i < len(want) && l.String() == want[i] {
			text = want[i]
		}
		got = append(got, text)
		t.Logf("%7.3f  %s", l.at.Seconds(), l)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s\nAll of it:\n%s\nThe console:\n%s\nWhat units printed:\n%s",
			scenario.name, diff, strings.Join(got, "\n"), s.m.Console.String()[s.logged:], s.printed())
	}
	if diff := cmp.Diff(wantLost, lost(s.lines)); diff != "" && !t.Failed() {
		t.Errorf("%s: what is lost (-want +got):\n%s", scenario.name, diff)
	}
	return s.lines
}

// maybe is before what a program says or does not, as it comes.
const maybe = "(maybe) "

// follows adds a line for what may have been sent by now, and whatever else was.
func (s *stage) follows(t *testing.T, ctx context.Context, want string) {
	t.Helper()
	came := s.drawCurtain(t, ctx)
	if len(came) == 0 || len(came) == 1 && came[0].short() == want {
		came = []line{{at: now().Sub(s.began), text: maybe + want}}
	}
	s.lines = append(s.lines, came...)
}

// printed is what units have printed since the last time.
func (s *stage) printed() string {
	text, err := os.ReadFile(filepath.Join(s.m.Shared, unitsLog))
	if err != nil {
		return err.Error()
	}
	if err := os.Truncate(filepath.Join(s.m.Shared, unitsLog), 0); err != nil {
		return err.Error()
	}
	return string(text)
}

var (
	saying = regexp.MustCompile(`^web -> [^:]*: (.*)$`)
	inUnit = regexp.MustCompile(`^(\S+\.(?:service|scope)): `)
)

// follow does what a line says, or waits for what it is about, and returns what there was.
func (s *stage) follow(t *testing.T, ctx context.Context, want string) line {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, await.Patience)
	defer cancel()
	if script, ok := strings.CutPrefix(want, "$ "); ok {
		l := line{at: now().Sub(s.began), text: want}
		s.script(t, ctx, script)
		return l
	}
	switch {
	case strings.HasPrefix(want, "web: starts"):
		return s.startOfWeb(ctx)
	case strings.HasPrefix(want, "web: exits "):
		return s.endOfWeb(t, ctx, want)
	case strings.HasPrefix(want, "web: "):
		return s.noticeOfWeb(ctx)
	case strings.HasPrefix(want, "systemd logs: "):
		return s.logLine(ctx, strings.TrimPrefix(want, "systemd logs: "))
	case inUnit.MatchString(want):
		return s.stateOf(ctx, want)
	}
	if m := saying.FindStringSubmatch(want); m != nil {
		if err := s.tell(say1(m[1])); err != nil {
			return s.line("web is not told: " + err.Error())
		}
	}
	return s.nextSent(ctx)
}

func (s *stage) line(text string) line { return line{at: now().Sub(s.began), text: text} }

// now is for the times in the guide's log, which no test looks at.
func now() time.Time {
	return time.Now() //nolint:forbidigo // see above
}

// say1 is the order to say what a line holds.
func say1(text string) order {
	var o order
	text, _, _ = strings.Cut(text, " FAILED ")
	for {
		rest, kind, found := cutLast(text, " +")
		if !found {
			break
		}
		text, o.With = rest, append([]string{kind}, o.With...)
	}
	say, err := strconv.Unquote(`"` + strings.ReplaceAll(text, `"`, `\"`) + `"`)
	if err != nil {
		say = text
	}
	o.Say = say
	return o
}

func cutLast(text, separator string) (before, after string, found bool) {
	i := strings.LastIndex(text, separator)
	if i < 0 {
		return text, "", false
	}
	return text[:i], text[i+len(separator):], true
}

func (s *stage) tell(o order) error {
	if s.app == nil {
		return errors.New("it has not started")
	}
	return json.NewEncoder(s.app.conn).Encode(o)
}

func (s *stage) startOfWeb(ctx context.Context) line {
	accepted := make(chan *net.UnixConn, 1)
	deadline, _ := ctx.Deadline()
	_ = s.webs.SetDeadline(deadline)
	go func() {
		conn, err := s.webs.AcceptUnix()
		if err != nil {
			conn = nil
		}
		accepted <- conn
	}()
	conn := <-accepted
	if conn == nil {
		return s.line("web: does not start")
	}
	s.app = &app{conn: conn, notices: make(chan notice, 16)}
	go func(notices chan<- notice) {
		defer close(notices)
		for read := json.NewDecoder(bufio.NewReader(conn)); ; {
			var n notice
			if read.Decode(&n) != nil {
				return
			}
			notices <- n
		}
	}(s.app.notices)
	select {
	case n := <-s.app.notices:
		switch {
		case n.Socket == nil:
			return s.line("web: " + n.Text)
		case *n.Socket == "":
			return s.line("web: starts without NOTIFY_SOCKET")
		}
		if err := s.learnHolders(ctx); err != nil {
			return s.line("web starts, but " + err.Error())
		}
		return s.line("web: starts with NOTIFY_SOCKET=" + *n.Socket)
	case <-ctx.Done():
		return s.line("web: says nothing")
	}
}

// learnHolders notes who holds which socket, while they do: the reader of a datagram may be gone
// before a capture that only sees sends can look.
func (s *stage) learnHolders(ctx context.Context) error {
	inv, err := inventory.Take(ctx, inventory.Options{All: true})
	if err != nil {
		return err
	}
	for _, socket := range inv.Sockets {
		if len(socket.Holders) == 0 {
			continue
		}
		comm := socket.Holders[0].Comm
		s.holders[uint64(socket.Inode)] = comm
		if owner, found := s.owners[string(socket.Address)]; found && owner != comm {
			comm = "" // another one in another namespace
		}
		s.owners[string(socket.Address)] = comm
	}
	return nil
}

func (s *stage) noticeOfWeb(ctx context.Context) line {
	if s.app == nil {
		return s.line("web: has not started")
	}
	select {
	case n, ok := <-s.app.notices:
		if !ok {
			return s.line("web: has ended")
		}
		return s.line("web: " + n.Text)
	case <-ctx.Done():
		return s.line("web: says nothing")
	}
}

func (s *stage) endOfWeb(t *testing.T, ctx context.Context, want string) line {
	t.Helper()
	var status int
	if _, err := fmt.Sscanf(want, "web: exits %d", &status); err != nil {
		t.Fatalf("%q: %v", want, err)
	}
	if err := s.tell(order{Exit: &status}); err != nil {
		return s.line("web is not told: " + err.Error())
	}
	for {
		if l := s.noticeOfWeb(ctx); l.text == "web: has ended" {
			l.text = want
			return l
		} else if l.text == "web: says nothing" {
			return l
		}
	}
}

var pids = regexp.MustCompile(`\b(PID|process) \d+`)

// logLine waits until systemd logs something.
func (s *stage) logLine(ctx context.Context, want string) line {
	found := s.m.Console.Await(ctx, func(all string) bool {
		return strings.Contains(pids.ReplaceAllString(all[s.logged:], "$1 <pid>"), want)
	})
	if !found {
		return s.line("systemd does not log it")
	}
	return s.line("systemd logs: " + want)
}

// stateOf asks systemd about a unit until it says what it should. Of what was sent before,
// systemd knows already: it asks its notify socket before its bus.
func (s *stage) stateOf(ctx context.Context, want string) line {
	unit := inUnit.FindStringSubmatch(want)[1]
	for last := s.line(unit + ": unknown"); ; {
		state, err := s.state(ctx, unit)
		if ctx.Err() != nil {
			return last
		}
		if err != nil {
			state = err.Error()
		}
		if last = s.line(unit + ": " + state); last.text == want {
			return last
		}
	}
}

func (s *stage) state(ctx context.Context, unit string) (string, error) {
	out, err := s.m.Systemctl(ctx, "show", unit, "--property=ActiveState,SubState,Result,MainPID,StatusText,NotifyAccess,NFileDescriptorStore")
	if err != nil {
		return "", err
	}
	p := map[string]string{}
	for l := range strings.Lines(out) {
		key, value, _ := strings.Cut(strings.TrimSpace(l), "=")
		p[key] = value
	}
	text := fmt.Sprintf("%s (%s)", p["ActiveState"], p["SubState"])
	if p["Result"] != "success" && p["Result"] != "" {
		text += ", result " + p["Result"]
	}
	if p["MainPID"] != "0" && p["MainPID"] != "" {
		comm, err := os.ReadFile(s.m.Inside("/proc/" + p["MainPID"] + "/comm"))
		if err != nil {
			return "", err
		}
		text += ", main process " + strings.TrimSpace(string(comm))
	}
	if p["StatusText"] != "" {
		text += fmt.Sprintf(", status %q", p["StatusText"])
	}
	if n := p["NFileDescriptorStore"]; n != "0" && n != "" {
		text += ", " + n + " stored"
	}
	return text, nil
}

// nextSent waits for the next datagram.
func (s *stage) nextSent(ctx context.Context) line {
	select {
	case e := <-s.captured:
		return s.lineOf(e)
	case <-ctx.Done():
		return s.line("no datagram is sent")
	}
}

func (s *stage) lineOf(e *events.Event) line {
	return line{at: e.Time.Sub(s.began), sent: s.describe(e)}
}

// drawCurtain returns what was sent up to now and not yet looked at.
func (s *stage) drawCurtain(t *testing.T, ctx context.Context) (rest []line) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, await.Patience)
	defer cancel()
	s.curtains++
	mark := curtain + strconv.Itoa(s.curtains)
	if output, err := s.m.Command(ctx, "systemctl", "start", fmt.Sprintf("curtain@%d.service", s.curtains)).CombinedOutput(); err != nil {
		t.Fatalf("telling scenarios apart: %v\n%s", err, output)
	}
	for {
		select {
		case e := <-s.captured:
			if string(e.Payload) == mark {
				return rest
			}
			rest = append(rest, s.lineOf(e))
		case <-ctx.Done():
			t.Fatalf("the capture does not see %s", mark)
		}
	}
}

// script runs a shell in the namespaces of systemd, and fails the test if that fails.
func (s *stage) script(t *testing.T, ctx context.Context, script string) {
	t.Helper()
	if strings.TrimSpace(script) == "" {
		return
	}
	cmd := s.m.Command(ctx, "sh", "-ec", script)
	cmd.Env = append(cmd.Env, "HOME=/root")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", script, err, output)
	}
}

// clear ends what a scenario has left.
func (s *stage) clear(t *testing.T, scenario *scenario) {
	t.Helper()
	// That of the test has ended.
	ctx, cancel := context.WithTimeout(context.Background(), await.Patience)
	defer cancel()
	var units []string
	for _, f := range scenario.files {
		if !strings.HasPrefix(f.Name, "/") {
			units = append(units, strings.TrimSuffix(strings.TrimSuffix(f.Name, ".container"), ".kube"))
		}
	}
	if len(units) > 0 {
		_, _ = s.m.Systemctl(ctx, append([]string{"kill", "--signal=KILL"}, units...)...)
		_, _ = s.m.Systemctl(ctx, append([]string{"stop"}, units...)...)
		_, _ = s.m.Systemctl(ctx, append([]string{"reset-failed"}, units...)...)
	}
	if s.app != nil {
		s.app.conn.Close()
	}
	s.script(t, ctx, scenario.after)
	for _, f := range scenario.files {
		if err := os.Remove(s.m.Inside(path(f.Name))); err != nil {
			t.Error(err)
		}
	}
	// What connected and was not waited for.
	_ = s.webs.SetDeadline(now())
	for {
		conn, err := s.webs.AcceptUnix()
		if err != nil {
			break
		}
		conn.Close()
	}
}
