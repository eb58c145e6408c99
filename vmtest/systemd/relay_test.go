// SPDX-License-Identifier: Apache-2.0

package systemd_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/await"
	"github.com/sdtrace/sdtrace/vmtest"
)

// ahead is what most containers' clocks are ahead of systemd's, in seconds.
const ahead = 100000

var notifyUnit = unit{service: []string{"Type=notify"}, clock: ahead}

func TestContainerHasNamespacesOfItsOwn(t *testing.T) {
	eachVersion(t, func(t *testing.T, m *manager) {
		c := m.define(t, notifyUnit).started(t)
		if c.PID != 1 {
			t.Errorf("the container's first process is %d in its pid namespace", c.PID)
		}
		for name, inside := range c.Namespaces {
			link, err := os.Readlink(filepath.Join(m.Inside("/proc/1/ns"), name))
			if err != nil {
				t.Fatal(err)
			}
			if link == inside {
				t.Errorf("the container is in systemd's %s namespace", name)
			}
		}
	})
}

func TestUnitIsActiveWhenItsContainerIsReady(t *testing.T) {
	eachVersion(t, func(t *testing.T, m *manager) {
		s := m.define(t, notifyUnit)
		c, starting := s.start(t)
		c.tell(t, "STATUS=loading")
		s.expect(t, properties{"ActiveState": "activating", "SubState": "start", "StatusText": "loading"})
		c.notify(t, "STATUS=serving\nREADY=1")
		succeed(t, "systemctl start", starting)
		s.expect(t, properties{"ActiveState": "active", "SubState": "running", "StatusText": "serving"})
		succeed(t, "systemctl stop", s.do(t, "stop"))
		s.expect(t, properties{"ActiveState": "inactive", "Result": "success"})
	})
}

func TestContainerThatEndsBeforeReadyFailsTheUnit(t *testing.T) {
	tests := []struct {
		name           string
		status, passed int
	}{
		{"with an error", 7, 7},
		{"without an error", 0, 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			eachVersion(t, func(t *testing.T, m *manager) {
				u := notifyUnit
				u.service = append(u.service[:1:1], "TimeoutStartSec=infinity")
				u.silent, u.exitStatus = true, test.status
				s := m.define(t, u)
				if err := await.Receive(t, "systemctl start", s.do(t, "start")); err == nil {
					t.Error("systemctl start succeeded")
				}
				want := ending{Result: "exit-code", Code: "exited", Status: strconv.Itoa(test.passed)}
				if got := await.Receive(t, "the end", s.ended); got != want {
					t.Errorf("ended with %+v, want %+v", got, want)
				}
				if log := s.log(t); !strings.Contains(log, "READY=1") {
					t.Errorf("no line about READY=1 in:\n%s", indent(log))
				}
			})
		})
	}
}

func TestStoppingAUnitThatIsNotReadyIsNoFailure(t *testing.T) {
	eachVersion(t, func(t *testing.T, m *manager) {
		s := m.define(t, notifyUnit)
		_, starting := s.start(t)
		succeed(t, "systemctl stop", s.do(t, "stop"))
		if err := await.Receive(t, "systemctl start", starting); err == nil {
			t.Error("systemctl start succeeded")
		}
		s.expect(t, properties{"ActiveState": "inactive", "Result": "success"})
	})
}

// systemd takes a reload for done when the container says that it began after
// the request, in a clock that the container does not share.
func TestReload(t *testing.T) {
	var uptime unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &uptime); err != nil {
		t.Fatal(err)
	}
	for name, clock := range map[string]int{"clock ahead": ahead, "clock behind": -int(uptime.Sec / 2)} {
		t.Run(name, func(t *testing.T) {
			eachVersion(t, func(t *testing.T, m *manager) {
				if m.Major < 253 {
					t.Run("RELOADING without notify-reload", func(t *testing.T) { reloadItself(t, m, clock) })
					return
				}
				s := m.define(t, unit{service: []string{"Type=notify-reload", "TimeoutStartSec=30s"}, clock: clock})
				s.started(t)
				for range 3 {
					succeed(t, "systemctl reload", s.do(t, "reload"))
					s.expect(t, properties{"ActiveState": "active", "SubState": "running", "ReloadResult": "success"})
				}
			})
		})
	}
}

func reloadItself(t *testing.T, m *manager, clock int) {
	s := m.define(t, unit{service: []string{"Type=notify"}, clock: clock})
	c := s.started(t)
	c.tell(t, "RELOADING=1", "STATUS=rereading")
	s.expect(t, properties{"ActiveState": "reloading", "SubState": "reload", "StatusText": "rereading"})
	c.tell(t, "READY=1")
	s.expect(t, properties{"ActiveState": "active", "SubState": "running"})
}

func TestWatchdogLivesByTheContainersPings(t *testing.T) {
	eachVersion(t, func(t *testing.T, m *manager) {
		s := m.define(t, unit{service: []string{"Type=notify", "WatchdogSec=10s", "TimeoutAbortSec=1s"}, clock: ahead})
		c := s.started(t)
		c.call(t, request{Op: "ping", N: 24}) // every two and a half seconds
		c.barrier(t)
		s.expect(t, properties{"ActiveState": "active", "Result": "success", "NRestarts": "0"})
		if got := await.Receive(t, "the end", s.ended); got.Result != "watchdog" {
			t.Errorf("without pings the unit ended with %+v", got)
		}
	})
}

func TestStoredFilesComeBackAfterARestart(t *testing.T) {
	eachVersion(t, func(t *testing.T, m *manager) {
		s := m.define(t, unit{
			service: []string{"Type=notify", "FileDescriptorStoreMax=16"}, clock: ahead,
			policy: []string{"FDSTORE allow max-fds=2", `FDNAME allow prefix="web-"`},
		})
		c := s.started(t)
		kept := c.call(t, request{Op: "store", Args: []string{"state"}, N: 1}).Files[0]
		c.barrier(t)
		s.expect(t, properties{"NFileDescriptorStore": "1"})
		// Only one more fits into what the policy grants.
		c.call(t, request{Op: "store", Args: []string{"more"}, N: 3})
		c.barrier(t)
		s.expect(t, properties{"NFileDescriptorStore": "2"})

		restarting := s.do(t, "restart")
		c = s.container(t)
		c.notify(t, "READY=1")
		succeed(t, "systemctl restart", restarting)
		if got := c.Stored["web-state"]; got != kept {
			t.Errorf("web-state came back as %+v, want %+v; all: %+v", got, kept, c.Stored)
		}
	})
}

func TestPolicyDeniesStoringFilesByDefault(t *testing.T) {
	eachVersion(t, func(t *testing.T, m *manager) {
		s := m.define(t, unit{service: []string{"Type=notify", "FileDescriptorStoreMax=16"}, clock: ahead})
		c := s.started(t)
		c.call(t, request{Op: "store", Args: []string{"state"}, N: 1})
		c.barrier(t)
		s.expect(t, properties{"NFileDescriptorStore": "0"})
	})
}

// The container says MAINPID=1, as it sees itself. The same number is systemd
// to systemd.
func TestMainPIDIsHandedToTheContainer(t *testing.T) {
	tests := []struct {
		name string
		hand func(t *testing.T, c *container)
	}{
		{"by number", func(t *testing.T, c *container) { c.notify(t, "MAINPID=1", "READY=1", "STATUS=main") }},
		{"by pidfd", func(t *testing.T, c *container) {
			c.call(t, request{Op: "main", Args: []string{"MAINPIDFD=1\nREADY=1\nSTATUS=main"}})
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			eachVersion(t, func(t *testing.T, m *manager) {
				u := notifyUnit
				u.service = []string{"Type=notify", "NotifyAccess=main"}
				s := m.define(t, u)
				c, starting := s.start(t)
				if len(c.pids) != 3 || c.pids[2] != 1 {
					t.Fatalf("the container's process is %v", c.pids)
				}
				test.hand(t, c)
				succeed(t, "systemctl start", starting)
				main := strconv.Itoa(c.pids[1])
				s.expect(t, properties{"MainPID": main, "ActiveState": "active", "StatusText": "main"})
				// Messages of the main process alone count: the relay's has to be one.
				c.tell(t, "STATUS=still heard")
				s.expect(t, properties{"MainPID": main, "StatusText": "still heard"})
				succeed(t, "systemctl stop", s.do(t, "stop"))
				s.expect(t, properties{"ActiveState": "inactive", "Result": "success"})
			})
		})
	}
}

// systemd sends the signal to the container itself, and looks whether it has a
// handler for it.
func TestReloadOfAMainProcessInTheContainer(t *testing.T) {
	eachVersion(t, func(t *testing.T, m *manager) {
		if m.Major < 253 {
			t.Skip("not declared: Type=notify-reload needs systemd 253")
		}
		s := m.define(t, unit{service: []string{"Type=notify-reload", "NotifyAccess=main", "TimeoutStartSec=30s"}, clock: ahead})
		c, starting := s.start(t)
		c.notify(t, "MAINPID=1", "READY=1")
		succeed(t, "systemctl start", starting)
		succeed(t, "systemctl reload", s.do(t, "reload"))
		s.expect(t, properties{"MainPID": strconv.Itoa(c.pids[1]), "ActiveState": "active", "ReloadResult": "success"})
	})
}

func TestNotifyProgramInTheContainer(t *testing.T) {
	eachVersion(t, func(t *testing.T, m *manager) {
		s := m.define(t, notifyUnit)
		c, starting := s.start(t)
		// It ends once its barrier is passed.
		c.call(t, request{Op: "run", Args: []string{"systemd-notify", "--ready", "--status=by systemd-notify"}})
		s.expect(t, properties{"ActiveState": "active", "StatusText": "by systemd-notify"})
		succeed(t, "systemctl start", starting)
	})
}

// A barrier is passed when systemd has read what came before it, not when the
// relay has.
func TestBarrierWaitsForSystemd(t *testing.T) {
	eachVersion(t, func(t *testing.T, m *manager) {
		m = m.another(t)
		s := m.define(t, notifyUnit)
		c := s.started(t)
		if err := m.Signal(unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = m.Signal(unix.SIGCONT) })
		c.notify(t, "STATUS=unread")
		passed := c.begin(request{Op: "barrier"})
		for range 500 { // the relay's chance to be wrong
			c.call(t, request{Op: "hello"})
		}
		select {
		case <-passed:
			t.Fatal("the barrier was passed while systemd stood still")
		default:
		}
		if err := m.Signal(unix.SIGCONT); err != nil {
			t.Fatal(err)
		}
		finish(t, "the barrier", passed)
		s.expect(t, properties{"StatusText": "unread"})
	})
}

func TestExtendedStartOutlivesItsTimeout(t *testing.T) {
	eachVersion(t, func(t *testing.T, m *manager) {
		s, c, starting, u := startExtended(t, m)
		// Started later, with the same timeout.
		control := m.define(t, u)
		failing := control.do(t, "start")
		if got := await.Receive(t, "the control's end", control.ended); got.Result != "timeout" {
			t.Errorf("the control ended with %+v", got)
		}
		if err := await.Receive(t, "systemctl start", failing); err == nil {
			t.Error("the control started")
		}
		c.barrier(t)
		s.expect(t, properties{"ActiveState": "activating", "Result": "success"})
		c.notify(t, "READY=1")
		succeed(t, "systemctl start", starting)
	})
}

// startExtended starts a service whose container extends its timeout, the
// shortest that this machine can start a container in.
func startExtended(t *testing.T, m *manager) (*service, *container, <-chan error, unit) {
	t.Helper()
	for seconds := 2; ; seconds *= 4 {
		u := unit{service: []string{"Type=notify", fmt.Sprintf("TimeoutStartSec=%ds", seconds)}, clock: ahead}
		s := m.define(t, u)
		starting := s.do(t, "start")
		select {
		case c := <-s.containers:
			<-c.begin(request{Op: "notify", Args: []string{"EXTEND_TIMEOUT_USEC=60000000"}})
			<-c.begin(request{Op: "barrier"})
			if s.show(t, properties{"ActiveState": ""})["ActiveState"] == "activating" {
				return s, c, starting, u
			}
		case <-s.ended:
		}
		if seconds > 60 {
			t.Fatalf("no container within %d s", seconds)
		}
	}
}

func TestStoppingContainerStopsTheUnit(t *testing.T) {
	eachVersion(t, func(t *testing.T, m *manager) {
		s := m.define(t, notifyUnit)
		c := s.started(t)
		c.tell(t, "STOPPING=1", "STATUS=saving")
		s.expect(t, properties{"ActiveState": "deactivating", "SubState": "stop-sigterm", "StatusText": "saving"})
		c.begin(request{Op: "exit"})
		if got := (ending{"success", "exited", "0"}); await.Receive(t, "the end", s.ended) != got {
			t.Errorf("ended with %+v", got)
		}
	})
}

// A process beside the relay, even in the unit's cgroup, is not the container.
// Of one that is gone when the relay looks, only the cgroup is known.
func TestStrangerIsNotHeard(t *testing.T) {
	tests := []struct {
		name         string
		inUnit, stay bool
	}{
		{"beside the unit", false, true},
		{"beside the unit, gone", false, false},
		{"in the unit", true, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			eachVersion(t, func(t *testing.T, m *manager) {
				s := m.define(t, notifyUnit)
				c, starting := s.start(t)
				stranger := m.Command(t.Context(), "/roles", "send", "/run/"+s.name+"/notify.sock", "READY=1", "STATUS=stranger")
				if test.inUnit {
					group := s.show(t, properties{"ControlGroup": ""})["ControlGroup"]
					cgroup, err := os.Open(filepath.Join(m.Cgroup, group))
					if err != nil {
						t.Fatal(err)
					}
					defer cgroup.Close()
					stranger.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(cgroup.Fd())}
				}
				if test.stay {
					leave := stay(t, stranger)
					defer leave()
				} else {
					s.signal(t, "STOP")
					if out, err := stranger.CombinedOutput(); err != nil {
						t.Fatalf("the stranger could not send: %v: %s", err, out)
					}
					s.signal(t, "CONT")
				}
				c.tell(t, "STATUS=container")
				s.expect(t, properties{"ActiveState": "activating", "StatusText": "container"})
				c.notify(t, "READY=1")
				succeed(t, "systemctl start", starting)
			})
		})
	}
}

func TestSenderThatIsGoneIsHeard(t *testing.T) {
	if !vmtest.KernelAtLeast(6, 15) {
		t.Skip("not declared: the cgroup of a process that is gone needs 6.15")
	}
	eachVersion(t, func(t *testing.T, m *manager) {
		s := m.define(t, notifyUnit)
		c := s.started(t)
		s.signal(t, "STOP")
		c.call(t, request{Op: "run", Args: []string{"systemd-notify", "--no-block", "--status=last words"}})
		s.signal(t, "CONT")
		c.barrier(t)
		s.expect(t, properties{"StatusText": "last words"})
	})
}

// stay starts a sender that stays after it has sent, until it may leave.
func stay(t *testing.T, cmd *exec.Cmd) (leave func()) {
	t.Helper()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := stdout.Read(make([]byte, 1)); err != nil {
		t.Fatalf("the stranger could not send: %v, %v", err, cmd.Wait())
	}
	return func() {
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
}

// Files are stored while systemd executes itself anew, again and again: unlike a
// status, none of them can stand for another.
func TestNothingIsLostWhenSystemdReexecutes(t *testing.T) {
	const most = 5000
	eachVersion(t, func(t *testing.T, m *manager) {
		m = m.another(t)
		s := m.define(t, unit{
			service: []string{"Type=notify", fmt.Sprintf("FileDescriptorStoreMax=%d", most)}, clock: ahead,
			policy: []string{fmt.Sprintf("FDSTORE allow max-fds=%d", most)},
		})
		c := s.started(t)
		var over atomic.Bool
		n, storing := 0, make(chan error, 1)
		go func() {
			for n < most && !over.Load() {
				r, ok := <-c.begin(request{Op: "store", Args: []string{fmt.Sprintf("f%d", n)}, N: 20})
				n += len(r.Files)
				if ok && r.Error == "" {
					r, ok = <-c.begin(request{Op: "barrier"})
				}
				if !ok || r.Error != "" {
					storing <- fmt.Errorf("after %d files: %s", n, r.Error)
					return
				}
			}
			storing <- nil
		}()
		for range 3 {
			if _, err := m.Systemctl(t.Context(), "daemon-reexec"); err != nil {
				t.Fatal(err)
			}
			if err := m.AwaitReady(); err != nil {
				t.Fatal(err)
			}
		}
		over.Store(true)
		succeed(t, "storing", storing)
		c.tell(t, "STATUS=after")
		s.expect(t, properties{"NFileDescriptorStore": strconv.Itoa(n), "StatusText": "after", "ActiveState": "active"})
	})
}
