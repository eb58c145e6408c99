// SPDX-License-Identifier: Apache-2.0

package verdict_test

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/await"
	"github.com/sdtrace/sdtrace/pkg/verdict"
)

// service are the lines of a service with these settings, whose main process is an agent.
func service(settings ...string) []string { return append(settings, "ExecStart=%A main") }

func (u *unit) systemctl(t *testing.T, args ...string) {
	t.Helper()
	if _, err := u.m.Systemctl(await.Context(t), append(args, u.name+".service")...); err != nil {
		t.Fatal(err)
	}
}

// starting starts the unit, and returns when its main process is there.
func starting(t *testing.T, u *unit) {
	t.Helper()
	u.systemctl(t, "start", "--no-block")
	u.agent(t, "main")
}

// running is starting, and READY=1.
func running(t *testing.T, u *unit) {
	t.Helper()
	starting(t, u)
	main := u.agent(t, "main")
	main.do(t, order{Send: []byte("READY=1")})
	main.do(t, order{Barrier: true})
}

// then says something more from the main process.
func then(before func(*testing.T, *unit), payload string) func(*testing.T, *unit) {
	return func(t *testing.T, u *unit) {
		t.Helper()
		before(t, u)
		main := u.agent(t, "main")
		u.stopping = u.stopping || strings.Contains(payload, "STOPPING=1")
		main.do(t, order{Send: u.fill(t, []byte(payload))})
		main.do(t, order{Barrier: true})
	}
}

// withChild has the main process start another.
func withChild(before func(*testing.T, *unit)) func(*testing.T, *unit) {
	return func(t *testing.T, u *unit) {
		t.Helper()
		before(t, u)
		u.agent(t, "main").do(t, order{Fork: "child"})
		u.agent(t, "child")
	}
}

// await waits for a state.
func (u *unit) await(t *testing.T, state string) {
	t.Helper()
	await.Until(t, u.name+" is in state "+state, func() bool { return u.show(t)["SubState"] == state })
}

// reload is running, and asked to reload.
func reload(t *testing.T, u *unit) {
	t.Helper()
	running(t, u)
	u.systemctl(t, "reload", "--no-block")
	u.await(t, "reload-signal")
}

// ignoring is starting with a main process that ignores SIGHUP.
func ignoring(t *testing.T, u *unit) {
	t.Helper()
	starting(t, u)
	u.agent(t, "main").do(t, order{Ignore: int(unix.SIGHUP)})
	u.ignoring = true
}

// withOther starts another service, whose agent is other.
func withOther(before func(*testing.T, *unit)) func(*testing.T, *unit) {
	return func(t *testing.T, u *unit) {
		t.Helper()
		before(t, u)
		other := define(t, u.m, u.name+"other", service("Type=simple")...)
		starting(t, other)
		u.mu.Lock()
		defer u.mu.Unlock()
		u.came["other"] = other.came["main"]
	}
}

// withLoose is withChild, and the child is in a control group that is no unit's.
func withLoose(before func(*testing.T, *unit)) func(*testing.T, *unit) {
	return func(t *testing.T, u *unit) {
		t.Helper()
		withChild(before)(t, u)
		dir := filepath.Join(u.m.Cgroup, "loose")
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			t.Fatal(err)
		}
		pid := strconv.Itoa(u.agent(t, "child").host)
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(pid), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func say(payload string) order { return order{Send: []byte(payload)} }

var scenarios = []scenario{
	{
		name: "ready", service: service("Type=notify"), prepare: starting, order: say("READY=1\nSTATUS=up"),
		want: always("READY=1 heeded D4, STATUS=up heeded S0"),
	},
	{
		name: "ready again", service: service("Type=notify"), prepare: running, order: say("READY=1"),
		want: always("READY=1 no effect D5d"),
	},
	{
		name: "ready of another type", service: service("Type=simple", "NotifyAccess=main"), prepare: starting, order: say("READY=1"),
		want: always("READY=1 no effect D5"),
	},
	{
		name: "misspelt", service: service("Type=notify"), prepare: starting,
		order: say("READY=true\nready=1\n READY=1\nREADY\nREADY=1 \nX_MINE=1\nWHAT=1\nEXIT_STATUS=0"),
		want: always("READY=true no effect K1, ready=1 no effect K2, READY=1 no effect K2, READY= no effect K1, READY=1  no effect K1, " +
			"X_MINE=1 no effect K4, WHAT=1 no effect K5, EXIT_STATUS=0 no effect K5"),
	},
	{
		name: "child, main", service: service("Type=notify"), prepare: withChild(starting), from: "child", order: say("READY=1"),
		want: always("READY=1 ignored D3"),
	},
	{
		name: "child, all", service: service("Type=notify", "NotifyAccess=all"), prepare: withChild(starting), from: "child", order: say("READY=1"),
		want: always("READY=1 heeded D4"),
	},
	{
		name: "child, exec", service: service("Type=notify", "NotifyAccess=exec"), prepare: withChild(starting), from: "child", order: say("READY=1"),
		want: always("READY=1 ignored D3"),
	},
	{
		name: "none", service: service("Type=simple", "NotifyAccess=none"), prepare: starting, order: say("STATUS=x"),
		want: always("STATUS=x ignored D3"),
	},
	{
		name: "start-pre, all", service: service("Type=notify", "NotifyAccess=all", "ExecStartPre=%A pre"), from: "pre",
		prepare: func(t *testing.T, u *unit) { u.systemctl(t, "start", "--no-block"); u.agent(t, "pre") },
		order:   say("READY=1\nSTATUS=early"), want: always("READY=1 no effect D6, STATUS=early heeded S0"),
	},
	{
		name: "start-pre, main", service: service("Type=notify", "ExecStartPre=%A pre"), from: "pre",
		prepare: func(t *testing.T, u *unit) { u.systemctl(t, "start", "--no-block"); u.agent(t, "pre") },
		order:   say("STATUS=early"), want: always("STATUS=early ignored D3"),
	},
	{
		name: "start-pre, exec", service: service("Type=notify", "NotifyAccess=exec", "ExecStartPre=%A pre"), from: "pre",
		prepare: func(t *testing.T, u *unit) { u.systemctl(t, "start", "--no-block"); u.agent(t, "pre") },
		order:   say("STATUS=early\nMAINPID={pre}"), want: always("STATUS=early heeded S0, MAINPID={pre} no effect D21"),
	},
	{
		name: "two statuses", service: service("Type=notify"), prepare: running, order: say("STATUS=one\nSTATUS=one"),
		want: always("STATUS=one heeded S0, STATUS=one no effect K3"),
	},
	{
		name: "keys alone", service: service("Type=notify"), prepare: running, order: say("STATUS\nSTATUS=one\nERRNO\nERRNO=2\nMAINPID"),
		want: always("STATUS= no effect K0, STATUS=one heeded S0, ERRNO= no effect K0, ERRNO=2 heeded S0, MAINPID= no effect K0"),
	},
	{
		name: "the same status", service: service("Type=notify"), prepare: then(running, "STATUS=one"), order: say("STATUS=one"),
		want: always("STATUS=one no effect S1"),
	},
	{
		name: "no text", service: service("Type=notify"), prepare: running, order: say("STATUS=\xff"),
		want: always("STATUS=\xff ignored S2"),
	},
	{
		name: "reloading", service: service("Type=notify"), prepare: running, order: say("RELOADING=1"),
		want: always("RELOADING=1 heeded D13"),
	},
	{
		name: "reloaded", service: service("Type=notify"), prepare: then(running, "RELOADING=1"), order: say("READY=1"),
		want: always("READY=1 heeded D5a"),
	},
	{
		name: "reloading again", service: service("Type=notify"), prepare: then(running, "RELOADING=1"), order: say("RELOADING=1"),
		want: always("RELOADING=1 no effect D13a"),
	},
	{
		name: "reloading before ready", service: service("Type=notify"), prepare: starting, order: say("RELOADING=1"),
		want: always("RELOADING=1 no effect D13b"),
	},
	{
		name: "stopping", service: service("Type=notify"), prepare: running, order: say("STOPPING=1"),
		want: always("STOPPING=1 heeded D14"),
	},
	{
		name: "stopping twice", service: service("Type=notify"), prepare: then(running, "STOPPING=1"), order: say("STOPPING=1"),
		want: always("STOPPING=1 no effect D14a"),
	},
	{
		name: "stopping before ready", service: service("Type=notify"), prepare: starting, order: say("STOPPING=1"),
		want: always("STOPPING=1 no effect D14b"),
	},
	{
		name: "ready and stopping", service: service("Type=notify"), prepare: starting, order: say("READY=1\nSTOPPING=1"),
		want: always("READY=1 ignored D7a, STOPPING=1 no effect D14b"),
	},
	{
		name: "stopping and ready", service: service("Type=notify"), prepare: starting, order: say("STOPPING=1\nREADY=1"),
		want: map[int]string{
			0:   "STOPPING=1 ignored D7a, READY=1 heeded D4",
			253: "STOPPING=1 no effect D14b, READY=1 ignored D7a",
		},
	},
	{
		name: "errno", service: service("Type=notify"), prepare: running, order: say("ERRNO=ENOENT\nBUSERROR=org.Err\nVARLINKERROR=x.Err"),
		want: map[int]string{
			0:   "ERRNO=ENOENT heeded S0, BUSERROR=org.Err no effect K6, VARLINKERROR=x.Err no effect K6",
			257: "ERRNO=ENOENT heeded S0, BUSERROR=org.Err heeded S0, VARLINKERROR=x.Err heeded S0",
		},
	},
	{
		name: "no errno", service: service("Type=notify"), prepare: running, order: say("ERRNO=4096\nBUSERROR=it's"),
		want: map[int]string{
			0:   "ERRNO=4096 no effect D28, BUSERROR=it's no effect K6",
			257: "ERRNO=4096 no effect D28, BUSERROR=it's no effect D28",
		},
	},
	{
		name: "octal errno", service: service("Type=notify"), prepare: running, order: say("ERRNO= 010"),
		want: always("ERRNO= 010 heeded S0"),
	},
	{
		name: "main process", service: service("Type=notify"), prepare: withChild(running), order: say("MAINPID={child}"),
		want: always("MAINPID={child} heeded D21"),
	},
	{
		name: "the same main process", service: service("Type=notify"), prepare: running, order: say("MAINPID={main}"),
		want: always("MAINPID={main} no effect D21a"),
	},
	{
		name: "manager as main process", service: service("Type=notify"), prepare: running, order: say("MAINPID=1"),
		want: always("MAINPID=1 ignored D16"),
	},
	{
		name: "nobody as main process", service: service("Type=notify"), prepare: running, order: say("MAINPID=99999"),
		want: map[int]string{0: "MAINPID=99999 ignored D18", 253: "MAINPID=99999 ignored D15"},
	},
	{
		name: "no main process", service: service("Type=notify"), prepare: running, order: say("MAINPID=abc\nMAINPID=0"),
		want: always("MAINPID=abc no effect D15, MAINPID=0 no effect K3"),
	},
	{
		name: "main process and ready", service: service("Type=notify", "NotifyAccess=all"), prepare: withChild(starting), from: "child",
		order: say("READY=1\nMAINPID={child}"), want: always("READY=1 heeded D4, MAINPID={child} heeded D21"),
	},
	{
		name: "access", service: service("Type=notify", "NotifyAccess=all"), prepare: running, order: say("NOTIFYACCESS=main"), since: 254,
		want: always("NOTIFYACCESS=main heeded N0"),
	},
	{
		name: "access that is so", service: service("Type=notify"), prepare: running, order: say("NOTIFYACCESS=main"), since: 254,
		want: always("NOTIFYACCESS=main no effect N1"),
	},
	{
		name: "no access", service: service("Type=notify"), prepare: running, order: say("NOTIFYACCESS=bogus"), since: 254,
		want: always("NOTIFYACCESS=bogus no effect N2"),
	},
	{
		name: "access before it came", service: service("Type=notify"), prepare: running, order: say("NOTIFYACCESS=all"),
		want: map[int]string{0: "NOTIFYACCESS=all no effect K6", 254: "NOTIFYACCESS=all heeded N0"},
	},
	{
		name: "no watchdog", service: service("Type=notify"), prepare: running, order: say("WATCHDOG=1\nWATCHDOG_USEC=5s"),
		want: always("WATCHDOG=1 no effect D23, WATCHDOG_USEC=5s no effect D28"),
	},
	{
		name: "watchdog", service: service("Type=notify", "WatchdogSec=100"), prepare: running, order: say("WATCHDOG=1"),
		want: always("WATCHDOG=1 heeded D23a"),
	},
	{
		name: "watchdog that is triggered", service: service("Type=notify"), prepare: running, order: say("WATCHDOG=trigger"), ends: true,
		want: always("WATCHDOG=trigger heeded D25"),
	},
	{
		name: "extension with a unit", service: service("Type=notify"), prepare: starting, order: say("EXTEND_TIMEOUT_USEC=5s"),
		want: always("EXTEND_TIMEOUT_USEC=5s no effect D28"),
	},
	{
		name: "nothing stored", service: service("Type=notify"), prepare: running, order: order{Send: []byte("FDSTORE=1"), FDs: 1},
		want: always("FDSTORE=1 ignored D26"),
	},
	{
		name: "stored", service: service("Type=notify", "FileDescriptorStoreMax=2"), prepare: running,
		order: order{Send: []byte("FDSTORE=1\nFDNAME=a"), FDs: 1}, want: always("FDSTORE=1 heeded D26a, FDNAME=a heeded D26a"),
	},
	{
		name: "stored in part", service: service("Type=notify", "FileDescriptorStoreMax=2"), prepare: running,
		order: order{Send: []byte("FDSTORE=1\nFDPOLL=0"), FDs: 3}, want: always("FDSTORE=1 heeded D26d, FDPOLL=0 heeded D26a"),
	},
	{
		name: "stored without descriptors", service: service("Type=notify", "FileDescriptorStoreMax=2"), prepare: running,
		order: say("FDSTORE=1"), want: always("FDSTORE=1 no effect D27"),
	},
	{
		name: "removed without a name", service: service("Type=notify", "FileDescriptorStoreMax=2"), prepare: running,
		order: say("FDSTOREREMOVE=1"), want: always("FDSTOREREMOVE=1 no effect D28"),
	},
	{
		name: "barrier and more", service: service("Type=notify"), prepare: starting, order: order{Send: []byte("BARRIER=1\nREADY=1"), FDs: 1},
		want: always("BARRIER=1 ignored R7a, READY=1 ignored R7a"),
	},
	{
		name: "barrier without a descriptor", service: service("Type=notify"), prepare: starting, order: say("BARRIER=1"),
		want: always("BARRIER=1 no effect R7b"),
	},
	{
		name: "NUL", service: service("Type=notify"), prepare: starting, order: say("READY=1\x00STATUS=x"),
		want: always("= ignored R6"),
	},
	{
		name: "backslash", service: service("Type=notify"), prepare: starting, order: say("READY=1\\"),
		want: always("= ignored R6a"),
	},
	{
		name: "empty", service: service("Type=notify"), prepare: starting, order: say("\n"),
		want: always("= no effect R0"),
	},
	{
		name: "ready after stopping", service: service("Type=notify"), prepare: then(starting, "STOPPING=1"), order: say("READY=1"),
		want: map[int]string{0: "READY=1 heeded D4", 259: "READY=1 ignored D7"},
	},
	{
		name: "reload answered", service: service("Type=notify-reload"), since: 253, prepare: reload,
		order: say("RELOADING=1\nMONOTONIC_USEC={now}"), want: always("RELOADING=1 heeded D12, MONOTONIC_USEC={now} heeded D12"),
	},
	{
		name: "reload answered at once", service: service("Type=notify-reload"), since: 253, prepare: reload,
		order: say("RELOADING=1\nREADY=1\nMONOTONIC_USEC={now}"),
		want:  always("RELOADING=1 heeded D12, READY=1 heeded D12, MONOTONIC_USEC={now} heeded D12"),
	},
	{
		name: "reload answered without time", service: service("Type=notify-reload"), since: 253, prepare: reload,
		order: say("RELOADING=1"), want: always("RELOADING=1 no effect D11"),
	},
	{
		name: "reload answered with a time before", service: service("Type=notify-reload"), since: 253, prepare: reload,
		order: say("RELOADING=1\nMONOTONIC_USEC=1"), want: always("RELOADING=1 no effect D11, MONOTONIC_USEC=1 no effect D11"),
	},
	{
		name: "reload answered with no time", service: service("Type=notify-reload"), since: 253, prepare: reload,
		order: say("RELOADING=1\nMONOTONIC_USEC=now"), want: always("RELOADING=1 no effect D11, MONOTONIC_USEC=now no effect D28"),
	},
	{
		name: "time in another datagram", service: service("Type=notify-reload"), since: 253, prepare: then(reload, "RELOADING=1"),
		order: say("MONOTONIC_USEC={now}"), want: always("MONOTONIC_USEC={now} no effect D11"),
	},
	{
		name: "ready before reloading", service: service("Type=notify-reload"), since: 253, prepare: reload,
		order: say("READY=1"), want: always("READY=1 no effect D11"),
	},
	{
		name: "stopping while reloading", service: service("Type=notify-reload"), since: 253, prepare: reload,
		order: say("STOPPING=1"), want: always("STOPPING=1 heeded D14"),
	},
	{
		name: "end of a reload", service: service("Type=notify-reload"), since: 253,
		prepare: then(reload, "RELOADING=1\nMONOTONIC_USEC={now}"), order: say("READY=1"), want: always("READY=1 heeded D5a"),
	},
	{
		name: "reload signal ignored", service: service("Type=notify-reload"), since: 253, prepare: ignoring, order: say("READY=1"),
		want: map[int]string{0: "READY=1 heeded D4", 262: "READY=1 ignored D8"}, ends: true,
	},
	{
		name: "reloaded at once", service: service("Type=notify"), prepare: running, order: say("RELOADING=1\nREADY=1\nSTATUS=again"),
		want: map[int]string{
			0:   "RELOADING=1 ignored D7a, READY=1 no effect D5d, STATUS=again heeded S0",
			253: "RELOADING=1 heeded D12a, READY=1 no effect D5d, STATUS=again heeded S0",
		},
	},
	{
		name: "ready while ExecReload runs", service: service("Type=notify", "ExecReload=%A reload"),
		prepare: func(t *testing.T, u *unit) {
			running(t, u)
			u.systemctl(t, "reload", "--no-block")
			u.agent(t, "reload")
		},
		order: say("READY=1\nRELOADING=1"),
		want:  map[int]string{0: "READY=1 ignored D7a, RELOADING=1 no effect D13a", 253: "READY=1 no effect D5b, RELOADING=1 no effect D13a"},
	},
	{
		name: "control process as main process", service: service("Type=notify", "ExecStartPost=%A post"),
		prepare: func(t *testing.T, u *unit) { running(t, u); u.agent(t, "post") }, order: say("MAINPID={post}"),
		want: always("MAINPID={post} ignored D17"),
	},
	{
		name: "ready in start-post", service: service("Type=notify", "ExecStartPost=%A post"),
		prepare: func(t *testing.T, u *unit) { running(t, u); u.agent(t, "post") }, order: say("READY=1\nSTOPPING=1\nRELOADING=1"),
		want: map[int]string{
			0:   "READY=1 ignored D7a, STOPPING=1 ignored D7a, RELOADING=1 no effect D13b",
			253: "READY=1 ignored D7a, STOPPING=1 no effect D14b, RELOADING=1 ignored D7a",
		},
	},
	{
		name: "ready with ExecStartPost", service: service("Type=notify", "ExecStartPost=%A post"), prepare: starting, order: say("READY=1"),
		want: always("READY=1 heeded D4"),
	},
	{
		name: "control process, exec", service: service("Type=notify", "NotifyAccess=exec", "ExecStartPost=%A post"), from: "post",
		prepare: func(t *testing.T, u *unit) { running(t, u); u.agent(t, "post") }, order: say("STATUS=post"),
		want: always("STATUS=post heeded S0"),
	},
	{
		name: "foreign main process, root", service: service("Type=notify"), prepare: withOther(running), order: say("MAINPID={other}"),
		want: always("MAINPID={other} heeded D20"),
	},
	{
		name: "foreign main process, user", service: service("Type=notify", "User=web"), prepare: withOther(running),
		order: say("MAINPID={other}"), want: always("MAINPID={other} ignored D19"),
	},
	{
		name: "own main process, user", service: service("Type=notify", "User=web"), prepare: withChild(running),
		order: say("MAINPID={child}"), want: always("MAINPID={child} heeded D21"),
	},
	{
		name: "claimed main process", service: service("Type=notify"), prepare: withOther(starting), from: "other", claims: "main",
		order: say("READY=1"), want: always("READY=1 heeded D4"),
	},
	{
		name: "claimed child", service: service("Type=notify"), prepare: withChild(starting), claims: "child",
		order: say("READY=1"), want: always("READY=1 ignored D3"),
	},
	{
		name: "another unit's", service: service("Type=notify", "NotifyAccess=all"), prepare: withLoose(starting), from: "child",
		order: say("READY=1"), in: "-.slice", want: always("READY=1 ignored D1"),
	},
	{
		name: "sender that is gone", service: service("Type=notify", "NotifyAccess=all"), prepare: starting,
		order: order{Send: []byte("READY=1"), Lone: true}, want: always("READY=1 ignored D2"),
	},
	{
		name: "sender outside", service: service("Type=notify", "NotifyAccess=all"), prepare: starting, from: host,
		order: say("READY=1"), want: always("READY=1 ignored R5"),
	},
	{
		name: "main process by its pidfd", service: service("Type=notify"), since: 257, prepare: withChild(running), passes: "child",
		order: order{Send: []byte("MAINPIDFD=1\nMAINPID={main}"), FDs: 1},
		want:  always("MAINPIDFD=1 heeded D21, MAINPID={main} ignored D28"),
	},
	{
		name: "main process without its pidfd", service: service("Type=notify"), since: 257, prepare: running,
		order: say("MAINPIDFD=1"), want: always("MAINPIDFD=1 no effect D28"),
	},
	{
		name: "descriptors for nothing", service: service("Type=notify", "FileDescriptorStoreMax=2"), prepare: running,
		order: order{Send: []byte("STATUS=x\nFDNAME=y\nFDPOLL=0"), FDs: 1},
		want:  always("STATUS=x heeded S0, FDNAME=y no effect D27, FDPOLL=0 no effect D27"),
	},
	{
		name: "full store", service: service("Type=notify", "FileDescriptorStoreMax=1"),
		prepare: func(t *testing.T, u *unit) {
			running(t, u)
			u.agent(t, "main").do(t, order{Send: []byte("FDSTORE=1"), FDs: 1})
			u.agent(t, "main").do(t, order{Barrier: true})
		},
		order: order{Send: []byte("FDSTORE=1"), FDs: 1}, want: always("FDSTORE=1 ignored D26"),
	},
	{
		name: "bad name in the store", service: service("Type=notify", "FileDescriptorStoreMax=2"), prepare: running,
		order: order{Send: []byte("FDSTORE=1\nFDNAME=a:b"), FDs: 1}, want: always("FDSTORE=1 heeded D26a, FDNAME=a:b no effect D28"),
	},
	{
		name: "restarts", service: service("Type=notify"), prepare: running, order: say("RESTART_RESET=1"),
		want: map[int]string{0: "RESTART_RESET=1 no effect K6", 258: "RESTART_RESET=1 heeded W2"},
	},
	{
		name: "watchdog of another interval", service: service("Type=notify"), prepare: running,
		order: say("WATCHDOG=1\nWATCHDOG_USEC=100000000\nWATCHDOG=1"),
		want:  always("WATCHDOG=1 no effect D23, WATCHDOG_USEC=100000000 heeded W0, WATCHDOG=1 no effect K3"),
	},
	{
		name: "watchdog of no interval", service: service("Type=notify", "WatchdogSec=100"), prepare: running, order: say("WATCHDOG=yes"),
		want: always("WATCHDOG=yes no effect D28"),
	},
	{
		name: "extension", service: service("Type=notify", "TimeoutStartSec=90"), prepare: starting, order: say("EXTEND_TIMEOUT_USEC=100000000"),
		know: deadlines(90*time.Second, verdict.Never), want: always("EXTEND_TIMEOUT_USEC=100000000 heeded E0"),
	},
	{
		name: "shorter extension", service: service("Type=notify", "TimeoutStartSec=90"), prepare: starting, order: say("EXTEND_TIMEOUT_USEC=1000"),
		know: deadlines(90*time.Second, verdict.Never), want: always("EXTEND_TIMEOUT_USEC=1000 no effect E3"),
	},
	{
		name: "extension of no timeout", service: service("Type=notify"), prepare: running, order: say("EXTEND_TIMEOUT_USEC=1000"),
		know: deadlines(verdict.Never, verdict.Never), want: always("EXTEND_TIMEOUT_USEC=1000 no effect E2"),
	},
	{
		name: "extension by nothing", service: service("Type=notify"), prepare: starting, order: say("EXTEND_TIMEOUT_USEC=0"),
		want: always("EXTEND_TIMEOUT_USEC=0 no effect E1"),
	},
	{
		name: "access taken away", service: service("Type=notify", "NotifyAccess=all"), since: 254, prepare: then(running, "NOTIFYACCESS=none"),
		order: say("STATUS=x"), want: always("STATUS=x ignored D3"),
	},
	{
		name: "access in the same datagram", service: service("Type=notify"), since: 254, prepare: starting,
		order: say("NOTIFYACCESS=none\nREADY=1\nSTATUS=x"),
		want:  always("NOTIFYACCESS=none heeded N0, READY=1 heeded D4, STATUS=x heeded S0"),
	},
	{
		name: "longest", service: service("Type=notify"), prepare: starting, order: say("READY=1\n" + "X_A=" + strings.Repeat("x", 4084)),
		want: always("READY=1 heeded D4, X_A=" + strings.Repeat("x", 4084) + " no effect K4"),
	},
	{
		name: "too long", service: service("Type=notify"), prepare: starting, order: say("READY=1\n" + "X_A=" + strings.Repeat("x", 4085)),
		want: always("= ignored R3"),
	},
	{
		name: "carriage returns", service: service("Type=notify"), prepare: starting, order: say("READY=1\r\nSTATUS=x\r"),
		want: always("READY=1 heeded D4, STATUS=x heeded S0"),
	},
}

// deadlines are how long the unit's timeouts run on, which no property tells.
func deadlines(state, watchdog time.Duration) func(*verdict.Unit, *verdict.Datagram) {
	return func(u *verdict.Unit, d *verdict.Datagram) {
		for at, in := range map[**time.Duration]time.Duration{&u.Deadline: state, &u.WatchdogDeadline: watchdog} {
			if in != verdict.Never {
				in += d.Read
			}
			*at = &in
		}
	}
}
