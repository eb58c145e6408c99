// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package conformance starts an application with a notify socket of its own and looks whether it speaks the protocol
// of sd_notify(3) right, and what systemd of each known version would make of what it says.
package conformance

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/glob"
	"github.com/sdtrace/sdtrace/internal/proc"
	"github.com/sdtrace/sdtrace/pkg/events"
)

// Options say what to start, and what is expected of it.
type Options struct {
	// Program is started with Args, of which the first is its name, and Env. NOTIFY_SOCKET is added, and for a
	// watchdog WATCHDOG_USEC and WATCHDOG_PID=Self, which the program that is started has to replace by its own
	// process id before it becomes the application.
	Program   string
	Args, Env []string
	Self      string
	// Expect are the assignments that have to come, in this order; * and ? in a value match any.
	Expect []events.Assignment
	// Within is how long they may take, and likewise the end after SIGTERM and each part of a reload.
	Within time.Duration
	// Watchdog is the interval in which pings have to come, 0 for none, and Intervals for how many of these they
	// are watched.
	Watchdog  time.Duration
	Intervals int
	// Reload is the signal that has to lead to a reload; 0 for none.
	Reload syscall.Signal
	// Access is NotifyAccess=: "main", "exec" or "all".
	Access string
}

// Point is one thing that was looked at.
type Point struct {
	// Name says what has to be so.
	Name string
	// OK is whether it is. Skipped says that it could not be looked at, because of a point before.
	OK, Skipped bool
	// Took is how long it took; 0 where there is nothing to be waited for.
	Took time.Duration
	// Details say more, a line each.
	Details []string
}

// Report is what came of it.
type Report struct {
	Points []Point
	// Notes are what is worth to know and no failure.
	Notes []string
	// Said is how many messages came.
	Said int
}

// OK reports whether all that was expected is so.
func (r *Report) OK() bool {
	return !slices.ContainsFunc(r.Points, func(p Point) bool { return !p.OK && !p.Skipped })
}

// trial is one under way.
type trial struct {
	Options
	report   Report
	socket   *socket
	cmd      *exec.Cmd
	pid      uint32
	began    time.Time
	said     []message
	versions []*simulated
	ended    chan struct{} // the application
	endedAs  error
	over     bool // it has ended, and all that it said was read
}

// Run starts the application, looks at what it says, and ends it. The error says that it could not be started, or
// that the context has ended.
func Run(ctx context.Context, options Options) (*Report, error) {
	dir, err := os.MkdirTemp("", "sdtrace-test-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // the application may change its user
		return nil, err
	}
	t := &trial{Options: options, ended: make(chan struct{})}
	if t.socket, err = listen(filepath.Join(dir, "notify")); err != nil {
		return nil, err
	}
	defer t.socket.close()
	if err := t.start(ctx); err != nil {
		return nil, err
	}
	defer t.kill()
	t.expect(ctx)
	t.pings(ctx)
	t.reload(ctx)
	t.stop(ctx)
	t.protocol()
	if err := ctx.Err(); err != nil {
		return nil, errors.New("interrupted")
	}
	t.report.Said = len(t.said)
	return &t.report, nil
}

// start starts the application in a process group of its own.
func (t *trial) start(ctx context.Context) error {
	t.cmd = exec.Command(t.Program)
	t.cmd.Args = t.Args
	t.cmd.Env = append(slices.Clone(t.Env), "NOTIFY_SOCKET="+t.socket.path)
	if t.Watchdog != 0 {
		t.cmd.Env = append(t.cmd.Env, "WATCHDOG_USEC="+strconv.FormatInt(t.Watchdog.Microseconds(), 10), "WATCHDOG_PID="+t.Self)
	}
	// What it writes is no part of the report.
	t.cmd.Stdin, t.cmd.Stdout, t.cmd.Stderr = os.Stdin, os.Stderr, os.Stderr
	t.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	t.began = time.Now()
	if err := startAsService(t.cmd); err != nil {
		return err
	}
	t.pid = uint32(t.cmd.Process.Pid)
	go func() {
		t.endedAs = t.cmd.Wait()
		close(t.ended)
	}()
	t.versions = simulate(t)
	context.AfterFunc(ctx, t.kill)
	return nil
}

// startAsService starts a program with the signals of a service: it ignores SIGPIPE alone, whatever this process was
// started with, as by nohup(1) (systemd.exec(5), IgnoreSIGPIPE=; systemd: exec_invoke).
func startAsService(cmd *exec.Cmd) error {
	// A signal that is caught here is at its default in a new program.
	caught := make(chan os.Signal, 1)
	for number := unix.SIGHUP; number < unix.SIGSYS; number++ {
		if number != unix.SIGPIPE && signal.Ignored(number) {
			signal.Notify(caught, number)
		}
	}
	defer signal.Stop(caught)
	return cmd.Start()
}

// kill ends what is left of the application.
func (t *trial) kill() {
	_ = unix.Kill(-int(t.pid), unix.SIGKILL) // it is gone, or going
	<-t.ended
}

func (t *trial) point(p Point) { t.report.Points = append(t.report.Points, p) }

// next waits for the next message until a time, and takes note of it. It returns nil when none came, with why.
func (t *trial) next(ctx context.Context, until time.Time) (*message, string) {
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	ended := t.ended
	for {
		if t.over {
			return nil, t.ending()
		}
		select {
		case m := <-t.socket.messages:
			if m.isMark {
				t.over = true
				continue
			}
			t.said = append(t.said, m)
			said := &t.said[len(t.said)-1]
			t.judge(said)
			return said, ""
		case <-ctx.Done():
			return nil, "interrupted"
		case <-timer.C:
			return nil, "not in time"
		case <-ended:
			ended = nil
			if t.lives() {
				continue // another process is the main one
			}
			// What it has said last is in the socket's queue, before this.
			if err := t.socket.mark(); err != nil {
				return nil, err.Error()
			}
		}
	}
}

// ending says how the application has ended.
func (t *trial) ending() string {
	if t.endedAs == nil {
		return "it has ended, with status 0"
	}
	return "it has ended: " + t.endedAs.Error()
}

// main is the main process: the application, or who it has said that it is.
func (t *trial) main() uint32 {
	main := t.pid
	for i := range t.said {
		if m := &t.said[i]; m.named != 0 {
			main = m.named
		}
	}
	return main
}

// expect waits for what has to come.
func (t *trial) expect(ctx context.Context) {
	until := t.began.Add(t.Within)
	why := ""
	var rest []events.Assignment // of the message that came last
	for _, want := range t.Expect {
		p := Point{Name: fmt.Sprintf("says %s within %s", text(want), t.Within)}
		var heard []string
		for !p.OK && why == "" {
			for len(rest) > 0 && !p.OK {
				line := rest[0]
				rest = rest[1:]
				p.OK = line.Key == want.Key && glob.Match(want.Value, line.Value)
				if !p.OK {
					heard = append(heard, text(line))
				}
			}
			if p.OK {
				m := &t.said[len(t.said)-1]
				p.Took = m.at.Sub(t.began)
				if refused := t.refusedNow(m, want.Key); refused != "" {
					p.OK = false
					p.Details = append(p.Details, refused)
				}
				break
			}
			var m *message
			if m, why = t.next(ctx, until); m != nil {
				rest = m.lines()
			}
		}
		if !p.OK && len(p.Details) == 0 {
			p.Details = append(p.Details, why)
			if len(heard) > 0 {
				p.Details = append(p.Details, "it said "+strings.Join(heard, ", "))
			}
		}
		t.point(p)
	}
}

// pings watches whether pings come in time.
func (t *trial) pings(ctx context.Context) {
	if t.Watchdog == 0 {
		return
	}
	p := Point{Name: fmt.Sprintf("sends WATCHDOG=1 at least every %s", t.Watchdog)}
	last := time.Now()
	if len(t.said) > 0 {
		last = t.said[len(t.said)-1].at
	}
	if !t.lives() {
		p.Skipped = true
		p.Details = append(p.Details, t.ending())
		t.point(p)
		return
	}
	end := last.Add(time.Duration(t.Intervals) * t.Watchdog)
	var longest time.Duration
	n := 0
	p.OK = true
	for p.OK && ctx.Err() == nil {
		m, why := t.next(ctx, minTime(end, last.Add(t.Watchdog)))
		now := time.Now()
		switch {
		case m != nil && m.has("WATCHDOG", "1"):
			longest = max(longest, m.at.Sub(last))
			last = m.at
			n++
			if longest > t.Watchdog {
				p.OK = false
			}
		case m != nil:
		case !t.lives():
			p.OK = false
			p.Details = append(p.Details, why)
		case !now.Before(last.Add(t.Watchdog)):
			p.OK = false
			p.Details = append(p.Details, fmt.Sprintf("no ping for %s: systemd would have killed it", t.Watchdog))
		}
		if !now.Before(end) {
			break
		}
	}
	if n > 0 {
		p.Details = append(p.Details, fmt.Sprintf("%d pings, up to %s apart", n, longest.Round(time.Millisecond)))
		if p.OK && longest > t.Watchdog/4*3 {
			t.report.Notes = append(t.report.Notes, fmt.Sprintf("pings come up to %s apart: sd_watchdog_enabled(3) asks "+
				"for half of WATCHDOG_USEC, %s",
				longest.Round(time.Millisecond), t.Watchdog/2))
		}
	}
	t.point(p)
}

func minTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func (t *trial) lives() bool {
	select {
	case <-t.ended:
		return t.main() != t.pid && unix.Kill(int(t.main()), 0) == nil
	default:
		return true
	}
}

// reload sends the signal, and looks for both messages.
func (t *trial) reload(ctx context.Context) {
	if t.Reload == 0 {
		return
	}
	signal := unix.SignalName(t.Reload)
	begin := Point{Name: fmt.Sprintf("says RELOADING=1 with MONOTONIC_USEC= in one message within %s of %s", t.Within, signal)}
	done := Point{Name: fmt.Sprintf("says READY=1 within %s of that", t.Within)}
	if !t.lives() {
		begin.Skipped, done.Skipped = true, true
		begin.Details = append(begin.Details, t.ending())
		t.point(begin)
		t.point(done)
		return
	}
	t.enterReload()
	sent, asked := proc.Monotonic(), time.Now()
	if err := unix.Kill(int(t.main()), t.Reload); err != nil {
		begin.Details = append(begin.Details, err.Error())
	}
	for until := asked.Add(t.Within); !begin.OK; {
		m, why := t.next(ctx, until)
		if m == nil {
			begin.Details = append(begin.Details, why)
			break
		}
		if !m.has("RELOADING", "1") {
			if _, timed := m.value("MONOTONIC_USEC"); timed {
				begin.Details = append(begin.Details, "MONOTONIC_USEC= came in a message without RELOADING=1")
			}
			continue
		}
		value, timed := m.value("MONOTONIC_USEC")
		usec, err := strconv.ParseUint(value, 10, 64)
		switch {
		case !timed:
			begin.Details = append(begin.Details, "RELOADING=1 came without MONOTONIC_USEC= in the same message")
		case err != nil:
			begin.Details = append(begin.Details, fmt.Sprintf("MONOTONIC_USEC=%s is no number", value))
		case int64(usec) < sent.Microseconds():
			begin.Details = append(begin.Details, fmt.Sprintf("MONOTONIC_USEC=%d is before the signal, at %d: take the "+
				"time by CLOCK_MONOTONIC when the reload begins",
				usec, sent.Microseconds()))
		case time.Duration(usec)*time.Microsecond > proc.Monotonic():
			begin.Details = append(begin.Details, fmt.Sprintf("MONOTONIC_USEC=%d is in the future: it is not by CLOCK_MONOTONIC", usec))
		default:
			begin.OK, begin.Took = true, m.at.Sub(asked)
			done.OK = m.has("READY", "1") // a reload that is over already
		}
		if !begin.OK {
			break
		}
	}
	t.point(begin)
	begun := time.Now()
	for until := begun.Add(t.Within); !done.OK; {
		m, why := t.next(ctx, until)
		if m == nil {
			done.Details = append(done.Details, why)
			break
		}
		if done.OK = m.has("READY", "1"); done.OK {
			done.Took = m.at.Sub(begun)
		}
	}
	t.point(done)
}

// stop sends SIGTERM, and waits for the end.
func (t *trial) stop(ctx context.Context) {
	p := Point{Name: fmt.Sprintf("ends within %s of SIGTERM", t.Within)}
	if !t.lives() {
		p.Skipped = true
		p.Details = append(p.Details, t.ending())
		t.point(p)
		return
	}
	main, asked := int(t.main()), time.Now()
	before := len(t.said)
	_ = unix.Kill(main, unix.SIGTERM) // it may have ended by now
	for until := asked.Add(t.Within); ; {
		m, why := t.next(ctx, until)
		if m != nil {
			continue
		}
		if p.OK = !t.lives(); p.OK {
			p.Took = time.Since(asked)
		} else {
			p.Details = append(p.Details, why)
		}
		break
	}
	if !slices.ContainsFunc(t.said[before:], func(m message) bool { return m.has("STOPPING", "1") }) {
		t.report.Notes = append(t.report.Notes, "it does not say STOPPING=1 when it ends, which is allowed")
	}
	t.point(p)
}

func text(a events.Assignment) string { return a.Key + "=" + a.Value }
