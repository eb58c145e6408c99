// SPDX-License-Identifier: Apache-2.0

//go:build linux

package why

import (
	"strings"
	"testing"
	"time"

	"github.com/sdtrace/sdtrace/internal/access"
	"github.com/sdtrace/sdtrace/internal/systemd1"
	"github.com/sdtrace/sdtrace/pkg/events"
	"github.com/sdtrace/sdtrace/pkg/verdict"
)

// now is when the cases are looked at, and booted the same by CLOCK_MONOTONIC.
var now = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

const (
	booted = time.Hour
	main   = 812
)

func ptr[T any](v T) *T { return &v }

// in is a Type=notify service in a state since ten seconds, whose main process app[812] has all that it takes.
func in(active, sub string) *Case {
	s := &systemd1.Service{
		LoadState: "loaded", ID: "app.service", ActiveState: active, Result: "success", Slice: "system.slice", Program: "/usr/bin/app",
		Changed: booted - 10*time.Second, Left: booted - 10*time.Second, MainStarted: booted - 10*time.Second,
		StartTimeout: 90 * time.Second, StopTimeout: 90 * time.Second, RunTimeout: verdict.Never, ReloadSignal: 1,
		Now: verdict.Unit{Name: "app.service", Type: "notify", NotifyAccess: "main", SubState: sub, MainPID: ptr(uint32(main)), ControlPID: ptr(uint32(0))},
	}
	if active != "activating" {
		s.Active, s.Pinged = s.Changed, s.Changed
	}
	socket := "/run/systemd/notify"
	p := called("app", main)
	p.Main, p.Executed, p.Now, p.Leads.State = true, &Environment{NotifySocket: &socket}, &Environment{NotifySocket: &socket}, access.OK
	return &Case{
		Now: now, Monotonic: booted, Unit: "app.service", Service: s, Processes: []Process{p},
		Manager: Manager{PID: 1, Version: 257, State: 'S', NotifySocket: events.Address(socket), Inode: 7, MntNS: 1, PIDNS: 1},
		Sources: []Source{{Name: "a capture", Since: now.Add(-time.Minute), Covers: true}},
	}
}

func starting() *Case { return in("activating", "start") }

// failed is one that has failed with a result.
func failed(result string) *Case {
	c := in("failed", "failed")
	c.Service.Result, c.Service.Active, c.Processes = result, 0, nil
	return c
}

func called(comm string, pid uint32) Process {
	return Process{
		Process: events.Process{Comm: comm, PID: pid}, NSPID: pid, PPID: 1, Exe: "/usr/bin/" + comm, MntNS: 1, PIDNS: 1, Signals: true, Caught: 1,
	}
}

// say adds a message of a process to a case, some time ago.
func (c *Case) say(pid uint32, text string, ago time.Duration) *Said {
	e := &events.Event{
		Time: c.Now.Add(-ago), Payload: []byte(text), Sender: events.Sender{PID: pid, TID: pid, NSPID: pid, Comm: "app", MntNS: 1, PIDNS: 1},
		Socket: events.Socket{Address: "/run/systemd/notify", Inode: 7},
	}
	if pid != main {
		e.Sender.Comm = "helper"
	}
	e.TextOf()
	c.Said = append(c.Said, Said{Event: e})
	return &c.Said[len(c.Said)-1]
}

// judged adds the verdict on the first line of a message.
func (s *Said) judged(outcome events.Outcome, rule, reason, cure string) *Said {
	a, _ := s.Event.TextOf().Lines[0].Assignment()
	s.Verdict = &events.Verdict{
		From:       events.Process{PID: s.Event.Sender.PID, Comm: s.Event.Sender.Comm},
		MainBefore: &events.Process{PID: main, Comm: "app"},
		Lines:      []events.LineVerdict{{Assignment: a, Outcome: outcome, Rule: rule, Reason: reason, Cure: cure}},
	}
	return s
}

func (s *Said) heeded() *Said { return s.judged(events.Heeded, "", "", "") }

func (s *Said) failed(errno string) *Said {
	s.Event.Result.Errno = errno
	return s
}

// example is a case in which a cause is seen, and one that is nearly the same in which it is not.
type example struct {
	cause     string
	certainty Certainty
	note      bool
	words     []string
	seen      func() *Case
	not       func() *Case
}

// change returns a case that is changed.
func change(c *Case, how func(c *Case)) *Case {
	how(c)
	return c
}

func watched(interval time.Duration) *Case {
	return change(in("active", "running"), func(c *Case) { c.Service.Now.Watchdog = &interval })
}

// waiting is a unit whose main process waits in a send, while so many messages wait for the service manager.
func waiting(queued uint32) *Case {
	return change(starting(), func(c *Case) {
		c.Processes[0].Sends = true
		c.Manager.Queued, c.Manager.MaxQueued = &queued, ptr(uint32(512))
	})
}

// refusedAt has a helper that is over have failed at an abstract socket, in a network namespace.
func refusedAt(netns uint64) func(c *Case) {
	return func(c *Case) {
		c.Processes[0].NetNS, c.Manager.NetNS = netns, 1
		s := c.say(900, "READY=1", time.Second).failed("ECONNREFUSED")
		s.Event.Socket, s.Event.Trouble = events.Socket{Address: "@sdt-notify"}, "nobody reads from @sdt-notify"
	}
}

// toRelay has the main process say READY=1 to a relay, in which something else is so.
func toRelay(also func(s *Said)) func(c *Case) {
	return func(c *Case) {
		s := c.say(main, "READY=1", 2*time.Second)
		s.Event.Socket = events.Socket{Address: "/run/relay.sock", Inode: 9}
		also(s)
	}
}

var examples = []example{
	{
		cause: "receiver-does-not-read", certainty: Certain, words: []string{"systemd[1]", "stopped by a signal", "513 messages", "kill -CONT 1"},
		seen: func() *Case {
			return change(starting(), func(c *Case) {
				c.Manager.State, c.Manager.Silent = 'T', "it is stopped"
				c.Manager.Queued, c.Manager.MaxQueued = ptr(uint32(513)), ptr(uint32(512))
			})
		},
		not: func() *Case {
			return change(starting(), func(c *Case) { c.Service, c.Manager.Silent = nil, "it is busy" })
		},
	},
	{
		cause: "sends-too-fast", certainty: Likely, words: []string{"app[812] waits in its send for room in the queue of systemd[1], where 513 messages are", "send less often"},
		seen: func() *Case { return waiting(513) },
		not:  func() *Case { return waiting(0) }, // it waits for the journal, or another one
	},
	{
		cause: "sends-too-fast", certainty: Likely, words: []string{"it reads", "it answers nothing else (systemctl hangs)", "send less often"},
		seen: func() *Case {
			return change(waiting(513), func(c *Case) { c.Service, c.Manager.Silent, c.Manager.Floods = nil, "it has no time", true })
		},
		not: func() *Case {
			return change(waiting(0), func(c *Case) { c.Service, c.Manager.Silent = nil, "it has no time" })
		},
	},
	{
		cause: "job-waits", certainty: Certain, words: []string{"waits for db.service"},
		seen: func() *Case {
			return change(in("inactive", "dead"), func(c *Case) { c.Service.Job, c.JobWaits = 4, []string{"db.service"} })
		},
		not: func() *Case { return in("inactive", "dead") },
	},
	{
		cause: "not-loaded", certainty: Certain, words: []string{"is masked", "systemctl unmask app.service"},
		seen: func() *Case { return change(in("inactive", "dead"), func(c *Case) { c.Service.LoadState = "masked" }) },
		not:  func() *Case { return in("inactive", "dead") },
	},
	{
		cause: "main-pid-undone", certainty: Likely, words: []string{"MAINPID=900", "then undone", "/run/app.pid", "READY=1 of helper[900] is ignored"},
		seen: func() *Case { return handedOver("/run/app.pid") },
		not:  func() *Case { return handedOver("") },
	},
	{
		cause: "main-pid-refused", certainty: Certain, words: []string{"MAINPID=900 of app[812] was not taken", "does not belong"},
		seen: func() *Case {
			return change(starting(), func(c *Case) {
				c.say(main, "MAINPID=900", time.Second).judged(events.Ignored, "D19", "the process does not belong to the service", "name another")
			})
		},
		not: func() *Case {
			return change(starting(), func(c *Case) { c.say(main, "MAINPID=900", time.Second).heeded() })
		},
	},
	{
		cause: "main-pid-refused", certainty: Certain,
		words: []string{"MAINPID=2 of app[812] was not taken", "2 is the number of helper[900] in its own pid namespace", "sdtrace relay"},
		seen: func() *Case {
			return change(starting(), func(c *Case) {
				helper := called("helper", 900)
				helper.NSPID, helper.PIDNS = 2, 5
				c.Processes = append(c.Processes, helper)
				c.say(main, "MAINPID=2", time.Second).judged(events.Ignored, "D15", "there is no such process", "send another")
			})
		},
		not: func() *Case {
			return change(starting(), func(c *Case) { c.say(main, "MAINPID=2", time.Second).heeded() })
		},
	},
	{
		cause: "not-delivered", certainty: Certain, words: []string{"app[812]", "READY=1", "ENOENT", "its root directory is /etc/app", "bind the socket there"},
		seen: func() *Case {
			return change(starting(), func(c *Case) { c.Processes[0].Root = "/etc/app"; c.say(main, "READY=1", time.Second).failed("ENOENT") })
		},
		not: func() *Case {
			return change(starting(), func(c *Case) {
				c.say(main, "READY=1", 2*time.Second).failed("ENOENT")
				c.say(main, "READY=1", time.Second)
			})
		},
	},
	{
		cause: "sender-gone", certainty: Likely, words: []string{"STATUS=Done of helper[900] is lost", "sd_notify_barrier(3)"},
		seen: func() *Case {
			return change(in("active", "running"), func(c *Case) { c.say(900, "STATUS=Done", time.Second).Gone = true })
		},
		not: func() *Case {
			return change(in("active", "running"), func(c *Case) { c.say(900, "STATUS=Done", time.Second) })
		},
	},
	{
		cause: "no-handler", certainty: Certain, words: []string{"app[812] does not handle SIGHUP"},
		seen: func() *Case {
			return change(in("reloading", "reload-signal"), func(c *Case) { c.Service.Now.Type, c.Processes[0].Caught = "notify-reload", 0 })
		},
		not: func() *Case {
			return change(in("reloading", "reload-signal"), func(c *Case) {
				c.Service.Now.Type, c.Processes[0].Caught, c.Processes[0].Blocked = "notify-reload", 0, 1
			})
		},
	},
	{
		cause: "reload-untimed", certainty: Certain, words: []string{"MONOTONIC_USEC= in the same message", "TimeoutStartSec=1m30s"},
		seen: func() *Case {
			return change(in("reloading", "reload-signal"), func(c *Case) { c.say(main, "RELOADING=1", time.Second) })
		},
		not: func() *Case {
			return change(in("reloading", "reload-signal"), func(c *Case) { c.say(main, "RELOADING=1\nMONOTONIC_USEC=3590000001", time.Second) })
		},
	},
	{
		cause: "ignored", certainty: Certain, words: []string{"READY=1 of helper[900] was ignored", "not the main process app[812]", "NotifyAccess=all"},
		seen: func() *Case {
			return change(starting(), func(c *Case) {
				c.say(900, "READY=1", time.Second).judged(events.Ignored, "D3", "it counts as from 900", "set NotifyAccess=all")
			})
		},
		not: func() *Case {
			return change(starting(), func(c *Case) {
				c.say(900, "READY=1", time.Second).judged(events.Ignored, "D3", "it counts as from 900", "set NotifyAccess=all")
				c.say(main, "READY=1", time.Second).heeded()
			})
		},
	},
	{
		cause: "not-heeded", certainty: Likely, words: []string{"READY=1 of helper[900] was sent 2.0s ago", "not the main process app[812]"},
		seen: func() *Case { return change(starting(), func(c *Case) { c.say(900, "READY=1", 2*time.Second) }) },
		not:  func() *Case { return change(starting(), func(c *Case) { c.say(main, "READY=1", 2*time.Second) }) },
	},
	{
		cause: "not-heeded", certainty: Likely, words: []string{"READY=1 of helper[900] was sent 2.0s ago", "the sender is in the container web", "sdtrace relay"},
		seen: func() *Case {
			return change(starting(), func(c *Case) {
				c.Service.Now.NotifyAccess = "all"
				c.say(900, "READY=1", 2*time.Second).Event.Sender.Identity = events.Identity{
					Cgroup: "/system.slice/docker-1.scope", Unit: "docker-1.scope", Container: &events.Container{Runtime: "docker", ID: "1", Name: "web"},
				}
			})
		},
		not: func() *Case {
			return change(starting(), func(c *Case) {
				c.Service.Now.NotifyAccess = "all"
				c.say(900, "READY=1", 2*time.Second).Event.Sender.Identity = events.Identity{Cgroup: "/system.slice/" + c.Unit, Unit: c.Unit}
			})
		},
	},
	{
		cause: "not-delivered", certainty: Certain, words: []string{"helper[900]", "could not send READY=1", "an abstract socket is there in its own network namespace alone"},
		seen: func() *Case { return change(starting(), refusedAt(2)) },
		not:  func() *Case { return change(starting(), func(c *Case) { c.say(main, "READY=1", time.Second) }) },
	},
	{
		cause: "sender-gone", certainty: Likely, words: []string{"READY=1 of app[812] is lost", "sd_notify_barrier(3)"},
		seen: func() *Case {
			return change(starting(), func(c *Case) { c.say(main, "READY=1", 2*time.Second).Gone = true })
		},
		not: func() *Case { return change(starting(), toRelay(func(s *Said) { s.Gone = true })) },
	},
	{
		cause: "not-heeded", certainty: Likely, words: []string{"READY=1 of app[812] was sent 2.0s ago", "the sender is in other.service"},
		seen: func() *Case {
			return change(starting(), func(c *Case) { c.say(main, "READY=1", 2*time.Second).Event.Sender.Unit = "other.service" })
		},
		not: func() *Case {
			return change(starting(), toRelay(func(s *Said) { s.Event.Sender.Unit = "other.service" }))
		},
	},
	{
		cause: "journal", certainty: Certain, words: []string{"a message of helper[900] was ignored", "by the journal, 2 times"},
		seen: func() *Case {
			return change(starting(), func(c *Case) {
				c.Processes = append(c.Processes, called("helper", 900))
				text := "app.service: Got notification message from PID 900, but reception only permitted for main PID 812"
				c.Journal = []Line{{Text: text}, {Text: "app.service: Changed start -> start"}, {Text: text}}
			})
		},
		not: func() *Case {
			return change(starting(), func(c *Case) { c.Journal = []Line{{Text: "Starting app.service..."}} })
		},
	},
	{
		cause: "relay-withholds", certainty: Likely, words: []string{"conmon[900] has read READY=1 of app[812]", "sdtrace relay"},
		seen: func() *Case {
			return change(starting(), func(c *Case) {
				s := c.say(main, "READY=1", time.Second)
				s.Withheld = &events.Withheld{Relay: events.Reader{Comm: "conmon", PID: 900}, Message: events.Message{{Key: "READY", Value: "1"}}}
			})
		},
		not: func() *Case { return change(starting(), func(c *Case) { c.say(main, "READY=1", time.Second) }) },
	},
	{
		cause: "start-pre", certainty: Certain, words: []string{"ExecStartPre= of the unit runs for 10s, app[812]"},
		seen: func() *Case {
			return change(in("activating", "start-pre"), func(c *Case) { c.Processes[0].Main, c.Processes[0].Control = false, true })
		},
		not: starting,
	},
	{
		cause: "start-post", certainty: Certain, words: []string{"ExecStartPost= runs for 10s"},
		seen: func() *Case { return in("activating", "start-post") }, not: starting,
	},
	{
		cause: "not-in-environment", certainty: Certain, words: []string{"app[812] was executed without NOTIFY_SOCKET"},
		seen: func() *Case { return change(starting(), func(c *Case) { c.Processes[0].Executed = new(Environment) }) },
		not:  func() *Case { return change(starting(), func(c *Case) { c.Processes[0].Executed = nil }) },
	},
	{
		cause: "no-unix-sockets", certainty: Certain, words: []string{"AF_UNIX"},
		seen: func() *Case { return change(starting(), func(c *Case) { c.Service.NoUnixSockets = true }) }, not: starting,
	},
	{
		cause: "leads-nowhere", certainty: Certain, words: []string{"uid 33 may not search the directory /run/systemd (mode 0700, of 0:0)", "chmod o+x /run/systemd"},
		seen: func() *Case {
			return change(starting(), func(c *Case) {
				c.Processes[0].UID = 33
				c.Processes[0].Leads = access.Reach{State: access.Forbidden, Denied: &access.Denied{Path: "/run/systemd", Mode: 0o700}}
			})
		},
		not: starting,
	},
	{
		cause: "leads-elsewhere", certainty: Certain, words: []string{"does not lead to the service manager", "supervisord[77] reads there"},
		seen: func() *Case {
			return change(starting(), func(c *Case) {
				c.Processes[0].Elsewhere, c.Processes[0].To = true, events.Process{Comm: "supervisord", PID: 77}
			})
		},
		not: func() *Case {
			return change(starting(), func(c *Case) {
				c.Processes[0].Elsewhere, c.Processes[0].To = true, events.Process{Comm: "conmon", PID: 77}
			})
		},
	},
	{
		cause: "variable-removed", certainty: Likely, words: []string{"app[812] said READY=1 and then no WATCHDOG=1", "removed NOTIFY_SOCKET", "runs out in 20s"},
		seen: func() *Case {
			return change(watched(30*time.Second), func(c *Case) { c.Processes[0].Now = new(Environment) })
		},
		not: func() *Case {
			return change(watched(30*time.Second), func(c *Case) { c.Processes[0].Now, c.Service.Pinged = new(Environment), booted-time.Second })
		},
	},
	{
		cause: "child-without-variable", certainty: Likely, words: []string{"sudo[812] has dropped NOTIFY_SOCKET", "app[900]", "User="},
		seen: func() *Case {
			return change(starting(), func(c *Case) {
				c.Processes[0].Comm = "sudo"
				child := called("app", 900)
				child.PPID, child.Executed = main, new(Environment)
				c.Processes = append(c.Processes, child)
			})
		},
		not: func() *Case {
			return change(starting(), func(c *Case) {
				child := called("app", 900)
				child.PPID, child.Executed = main, c.Processes[0].Executed
				c.Processes = append(c.Processes, child)
			})
		},
	},
	{
		cause: "container-client", certainty: Likely, words: []string{"docker[812] only asks a daemon for a container"},
		seen: func() *Case { return change(starting(), func(c *Case) { c.Processes[0].Comm = "docker" }) }, not: starting,
	},
	{
		cause: "reload-unsupported", certainty: Likely, words: []string{"app[812] has been told to reload 10s ago", "ExecReload="},
		seen: func() *Case { return in("reloading", "reload-signal") },
		not: func() *Case {
			return change(in("reloading", "reload-signal"), func(c *Case) { c.say(main, "RELOADING=1\nMONOTONIC_USEC=1", time.Second) })
		},
	},
	{
		cause: "reload-not-finished", certainty: Likely, words: []string{"app[812] has said RELOADING=1 10s ago and not READY=1 since"},
		seen: func() *Case {
			return change(in("reloading", "reload-notify"), func(c *Case) { c.say(main, "RELOADING=1", 10*time.Second) })
		},
		not: func() *Case {
			return change(in("reloading", "reload-notify"), func(c *Case) { c.say(main, "RELOADING=1", 10*time.Second); c.say(main, "READY=1", time.Second) })
		},
	},
	{
		cause: "reload-command", certainty: Certain, words: []string{"ExecReload= runs for 10s"},
		seen: func() *Case {
			return change(in("reloading", "reload"), func(c *Case) { c.Service.Now.ControlPID = ptr(uint32(900)) })
		},
		not: func() *Case {
			return change(in("reloading", "reload"), func(c *Case) { c.say(main, "RELOADING=1", time.Second) })
		},
	},
	{
		cause: "watchdog-of-another", certainty: Likely, words: []string{"WATCHDOG_PID=811 in the environment of app[812]"},
		seen: func() *Case {
			return change(watched(30*time.Second), func(c *Case) { c.Processes[0].Executed.WatchdogPID = ptr("811") })
		},
		not: func() *Case {
			return change(watched(30*time.Second), func(c *Case) { c.Processes[0].Executed.WatchdogPID = ptr("812") })
		},
	},
	{
		cause: "no-pings", certainty: Certain, words: []string{"app[812] has not sent WATCHDOG=1 since it is ready", "WatchdogSec=12s runs out in 2.0s"},
		seen: func() *Case {
			return change(watched(12*time.Second), func(c *Case) { c.Processes[0].Executed.WatchdogUSec = ptr("12000000") })
		},
		not: func() *Case { return watched(30 * time.Second) },
	},
	{
		cause: "ping-overdue", certainty: Likely, words: []string{"the last ping is 4.0s ago, before that they came every 2.0s", "WatchdogSec=5.0s runs out in 1.0s"},
		seen: func() *Case { return pinging(5*time.Second, 8*time.Second, 6*time.Second, 4*time.Second) },
		not:  func() *Case { return pinging(5*time.Second, 6*time.Second, 4*time.Second, 2*time.Second) },
	},
	{
		cause: "ping-overdue", certainty: Likely, words: []string{"; since then the main process is to be 900 (MAINPID= of app[812]), which has not pinged"},
		seen: func() *Case {
			return change(pinging(5*time.Second, 8*time.Second, 6*time.Second, 4*time.Second), func(c *Case) { c.say(main, "MAINPID=900", 5*time.Second) })
		},
		not: func() *Case {
			return change(pinging(5*time.Second, 6*time.Second, 4*time.Second), func(c *Case) {
				c.say(main, "MAINPID=900", 3*time.Second)
				c.say(900, "WATCHDOG=1", 2*time.Second)
				c.Service.Pinged = booted - 2*time.Second
			})
		},
	},
	{
		cause: "pings-too-rare", certainty: Certain, words: []string{"pings come up to 2.9s apart", "WatchdogSec=3.0s"},
		seen: func() *Case {
			return pinging(3*time.Second, 9*time.Second, 6100*time.Millisecond, 3200*time.Millisecond, 300*time.Millisecond)
		},
		not: func() *Case { return pinging(6*time.Second, 9*time.Second, 6*time.Second, 3*time.Second, 0) },
	},
	{
		cause: "exit-before-ready", certainty: Certain, words: []string{"ended (status 2) before READY=1", "journalctl -u app.service"},
		seen: func() *Case {
			return change(failed("exit-code"), func(c *Case) { c.Service.MainCode, c.Service.MainStatus = 1, 2 })
		},
		not: func() *Case {
			return change(failed("exit-code"), func(c *Case) { c.Service.Active = booted - 5*time.Second })
		},
	},
	{
		cause: "program-cannot-notify", certainty: Likely, words: []string{"app[812] has said nothing", "/usr/bin/app does not know the name NOTIFY_SOCKET", "Type=exec"},
		seen: func() *Case { return change(starting(), func(c *Case) { c.Processes[0].Notifies = Unable }) },
		not:  func() *Case { return change(starting(), func(c *Case) { c.Processes[0].Notifies = Able }) },
	},
	{
		cause: "stop-timeout", certainty: Likely, words: []string{"app[812] said STOPPING=1", "TimeoutStopSec=1m30s"},
		seen: func() *Case {
			return change(failed("timeout"), func(c *Case) {
				c.Service.Active = booted - 5*time.Second
				c.say(main, "STOPPING=1", time.Second).heeded()
			})
		},
		not: func() *Case {
			return change(failed("timeout"), func(c *Case) { c.Service.Active = booted - 5*time.Second })
		},
	},
	{
		cause: "start-command", certainty: Certain, words: []string{"Type=forking waits for ExecStart= to end, which runs for 10s"},
		seen: func() *Case { return change(starting(), func(c *Case) { c.Service.Now.Type = "forking" }) }, not: starting,
	},
	{
		cause: "silent", certainty: Likely, words: []string{"app[812] has not said READY=1 since its start 10s ago", "nothing is in its way", "STATUS=Loading, of app[812]"},
		seen: func() *Case {
			return change(starting(), func(c *Case) { c.say(main, "STATUS=Loading", 9*time.Second).heeded() })
		},
		not: func() *Case { return change(starting(), func(c *Case) { c.Starts = []time.Duration{6 * time.Second} }) },
	},
	{
		cause: "start-timeout", certainty: Certain, words: []string{"did not say READY=1 within TimeoutStartSec=1m30s", "earlier starts took 2.0s to 3.0s"},
		seen: func() *Case {
			return change(failed("timeout"), func(c *Case) { c.Starts = []time.Duration{3 * time.Second, 2 * time.Second} })
		},
		not: func() *Case {
			return change(failed("timeout"), func(c *Case) { c.Service.Active = booted - 5*time.Second })
		},
	},
	{
		cause: "stopping", certainty: Certain, words: []string{"helper[900] has said STOPPING=1", "waits for app[812] to end", "it is not the main process app[812]"},
		seen: func() *Case {
			return change(in("deactivating", "stop-sigterm"), func(c *Case) { c.say(900, "STOPPING=1", 10*time.Second).heeded() })
		},
		not: func() *Case { return in("active", "running") },
	},
	{
		cause: "not-stored", certainty: Certain, words: []string{`the file descriptor "one" of app[812] is not stored`, "FileDescriptorStoreMax=0"},
		seen: func() *Case {
			return change(in("active", "running"), func(c *Case) {
				c.say(main, "FDSTORE=1\nFDNAME=one", time.Second).judged(events.Ignored, "D24", "nothing is stored: FileDescriptorStoreMax=0", "set FileDescriptorStoreMax=")
			})
		},
		not: func() *Case {
			return change(in("active", "running"), func(c *Case) { c.say(main, "FDSTORE=1\nFDNAME=one", time.Second).heeded() })
		},
	},
	{
		cause: "ready-of-another", certainty: Likely, note: true, words: []string{"helper[900] said READY=1", "not its main process app[812]"},
		seen: func() *Case {
			return change(in("active", "running"), func(c *Case) { c.say(900, "READY=1", time.Second).heeded() })
		},
		not: func() *Case {
			return change(in("active", "running"), func(c *Case) { c.say(main, "READY=1", time.Second).heeded() })
		},
	},
	{
		cause: "failed-otherwise", certainty: Certain, words: []string{`failed with result "start-limit-hit"`, "started too often"},
		seen: func() *Case { return failed("start-limit-hit") }, not: func() *Case { return in("active", "running") },
	},
}

// handedOver is a service that has named another main process during a reload, and is back at the old one.
func handedOver(pidFile string) *Case {
	c := in("active", "running")
	c.Service.Now.PIDFile = pidFile
	c.say(main, "MAINPID=900", 3*time.Second).heeded().Verdict.Named = &events.Process{PID: 900, Comm: "app"}
	c.say(900, "READY=1", 2*time.Second).judged(events.Ignored, "D3", "it counts as from 900", "")
	return c
}

// pinging is a service with a watchdog that has sent pings some times ago.
func pinging(interval time.Duration, ago ...time.Duration) *Case {
	c := watched(interval)
	for _, d := range ago {
		c.say(main, "WATCHDOG=1", d).heeded()
		c.Service.Pinged = booted - d
	}
	return c
}

func TestEachCauseIsSeenWhereItIsAndNotWhereItIsNot(t *testing.T) {
	for _, e := range examples {
		t.Run(e.cause, func(t *testing.T) {
			found := Explain(e.seen())
			if len(found) == 0 {
				t.Fatal("nothing is found")
			}
			f := found[0]
			if f.Cause != e.cause || f.Certainty != e.certainty || f.Note != e.note {
				t.Errorf("found %+v", f)
			}
			for _, word := range e.words {
				if !strings.Contains(f.Because+"; "+f.Change, word) {
					t.Errorf("it does not say %q: %s; %s", word, f.Because, f.Change)
				}
			}
			for _, f := range Explain(e.not()) {
				if f.Cause == e.cause {
					t.Errorf("it is found where it is not: %s", f.Because)
				}
			}
		})
	}
}

func TestEveryCauseHasAnExample(t *testing.T) {
	shown := make(map[string]bool)
	for _, e := range examples {
		shown[e.cause] = true
	}
	for _, c := range causes {
		if !shown[c.name] {
			t.Errorf("there is no example of %s", c.name)
		}
		delete(shown, c.name)
	}
	for name := range shown {
		t.Errorf("there is no cause %s", name)
	}
}

func TestAServiceThatIsUpHasNoProblem(t *testing.T) {
	for _, kind := range []string{"simple", "exec", "oneshot", "forking", "dbus", "notify", "notify-reload", "idle"} {
		c := in("active", "running")
		c.Service.Now.Type = kind
		if found := Explain(c); len(found) > 0 || !c.IsWell() {
			t.Errorf("Type=%s: %+v", kind, found)
		}
	}
}

func TestAServiceManagerThatDoesNotAnswerIsNoCauseByItself(t *testing.T) {
	c := starting()
	c.Service, c.Manager.Silent, c.Manager.State = nil, "it has not answered in time", 'R'
	if found := Explain(c); len(found) > 0 {
		t.Errorf("found %+v", found)
	}
}

func TestTheCauseThatWasSeenWhileItHungExplainsTheFailure(t *testing.T) {
	c := failed("timeout")
	c.Before = change(starting(), func(c *Case) { c.Processes[0].Executed = new(Environment) })
	if found := Explain(c); len(found) == 0 || found[0].Cause != "not-in-environment" {
		t.Errorf("found %+v", found)
	}
}
