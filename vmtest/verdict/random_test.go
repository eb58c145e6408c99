// SPDX-License-Identifier: Apache-2.0

package verdict_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/await"
	"github.com/sdtrace/sdtrace/internal/proc"
	"github.com/sdtrace/sdtrace/pkg/verdict"
	"github.com/sdtrace/sdtrace/vmtest"
	"github.com/sdtrace/sdtrace/vmtest/pid1"
)

const (
	// inOneLife is how many messages a service sends before it is started anew.
	inOneLife = 20
	// storeMax is its FileDescriptorStoreMax=.
	storeMax = 3
)

// phrases are what random messages are made of; {main} and {child} are process ids.
var phrases = []string{
	"READY=1", "READY=1", "READY=true", "ready=1", "RELOADING=1", "RELOADING=1", "STOPPING=1", "STOPPING=0",
	"STATUS=", "STATUS=one", "STATUS=two", "STATUS=a\\\\b", "STATUS=\\\"quoted\\\"", "STATUS=\xff", "STATUS=\xef\xbf\xbf", "STATUS=é",
	"ERRNO=0", "ERRNO=2", "ERRNO=ENOENT", "ERRNO=EWOULDBLOCK", "ERRNO=ENOTSUP", "ERRNO=EOPNOTSUPP", "ERRNO=EUCLEAN", "ERRNO=EDEADLOCK",
	"ERRNO=0x10", "ERRNO=010", "ERRNO=4095", "ERRNO=4096", "ERRNO=-1", "ERRNO= 7", "ERRNO=7 ", "ERRNO=",
	"BUSERROR=a.b", "BUSERROR=", "BUSERROR=a'b", "VARLINKERROR=c", "VARLINKERROR=\xe9",
	"MAINPID={main}", "MAINPID={child}", "MAINPID=1", "MAINPID=0", "MAINPID=-1", "MAINPID=x", "MAINPID=4194303", "MAINPID=+{child}",
	"NOTIFYACCESS=all", "NOTIFYACCESS=main", "NOTIFYACCESS=exec", "NOTIFYACCESS=All", "NOTIFYACCESS=",
	"WATCHDOG=1", "WATCHDOG=yes", "WATCHDOG_USEC=100000000", "WATCHDOG_USEC=0", "WATCHDOG_USEC=1s",
	"EXTEND_TIMEOUT_USEC=5s", "EXTEND_TIMEOUT_USEC=0", "MONOTONIC_USEC=1", "MONOTONIC_USEC=x", "RESTART_RESET=1",
	"FDSTORE=1", "FDSTORE=1", "FDSTORE=yes", "FDNAME=a", "FDNAME=a:b", "FDPOLL=0", "EXIT_STATUS=1", "X_MINE=1", "WHAT=1", "junk", "STATUS", "ERRNO", "MAINPID", "NOTIFYACCESS", "=", "",
}

// separators are between them.
var separators = []string{"\n", "\n", "\n", "\r", "\r\n", "\n\n"}

func randomMessage(r *rand.Rand) []byte {
	var b strings.Builder
	for range 1 + r.IntN(4) {
		b.WriteString(phrases[r.IntN(len(phrases))])
		b.WriteString(separators[r.IntN(len(separators))])
	}
	return []byte(b.String())
}

// TestRandomMessagesLeadWhereTheyArePredictedTo follows services by the verdicts on what they say
// alone, and compares where that leads with where systemd is, and the verdicts with those of a capture.
func TestRandomMessagesLeadWhereTheyArePredictedTo(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not declared: needs root")
	}
	if testing.Short() {
		t.Skip("not declared: a minute and more")
	}
	vmtest.Natively(t, "systemd decides, without programs in the kernel")
	lives := 2_000 / inOneLife / len(suites)
	if vmtest.Long() {
		lives *= 500
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	t.Cleanup(func() { randomLive.check(t) })
	for _, m := range managers {
		t.Run(m.Version, func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, uint64(m.Major)))
			u := define(t, m, "random", "Type=notify", "NotifyAccess=all", fmt.Sprintf("FileDescriptorStoreMax=%d", storeMax),
				"TimeoutSec=infinity", "ExecStart=%A main")
			for i := range lives {
				if u.live(t, m, r); t.Failed() {
					t.Fatalf("in life %d of %d", i, lives)
				}
			}
		})
	}
}

// live starts the service, has it say things, and ends it.
func (u *unit) live(t *testing.T, m *pid1.Systemd, r *rand.Rand) {
	t.Helper()
	u.mu.Lock()
	clear(u.came)
	u.mu.Unlock()
	withChild(starting)(t, u)
	u.stopping = false
	state := u.state(t)
	state.ConfiguredAccess = "all"
	var lines []string
	var said []message
	unknown := 0
	for range inOneLife {
		from := u.agent(t, []string{"main", "child"}[r.IntN(2)])
		o := order{Send: u.fill(t, randomMessage(r)), FDs: r.IntN(3)}
		d := u.datagram(t, from, &o)
		stored := *state.FDStored
		verdicts, after := verdict.Judge(d, verdict.Manager{Version: m.Major, PID: uint32(m.PID())}, state)
		line := fmt.Sprintf("%s: %q, %d descriptors:", from.Name, o.Send, o.FDs)
		for _, v := range verdicts {
			line += fmt.Sprintf(" %s=%s %s %s;", v.Assignment.Key, v.Assignment.Value, v.Outcome, v.Rule)
			if v.Outcome == verdict.Unknown {
				unknown++
			}
		}
		lines = append(lines, line)
		said = append(said, message{o.Send, from.host, proc.BootTime(), verdicts})
		// All descriptors are different ones.
		if after.FDStored == nil {
			stored = min(storeMax, stored+uint32(o.FDs))
			after.FDStored = &stored
		}
		from.do(t, o)
		state = after
	}
	u.agent(t, "main").do(t, order{Barrier: true})
	got, want := followed(u.state(t), m.Major), followed(state, m.Major)
	if diff := gocmp.Diff(want, got); diff != "" || unknown > 0 {
		t.Errorf("%d unknown; where it led (-predicted +systemd):\n%s%s", unknown, diff, strings.Join(lines, "\n"))
	}
	for i, message := range said {
		for _, other := range randomLive.compare(t, m, message) {
			t.Logf("message %d of process %d: %s\n%s", i, message.pid, other, strings.Join(lines, "\n"))
		}
	}
	// Not by systemctl kill: systemd 262 kills the control group (cgroup.kill), and then the kernel now and
	// then what is forked into it for the next life (Linux 6.18: cgroup_post_fork).
	for _, name := range []string{"main", "child"} {
		if err := unix.Kill(u.agent(t, name).host, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			t.Fatal(err)
		}
	}
	// Systemd 247 does not notice the end of a service that is reloading.
	u.systemctl(t, "stop")
	_, _ = m.Systemctl(await.Context(t), "reset-failed", u.name+".service") // it may not have failed
	await.Until(t, "its descriptors are gone", func() bool { return *u.state(t).FDStored == 0 })
	for _, name := range []string{"main", "child"} {
		pid := u.agent(t, name).host
		await.Until(t, name+" is over", func() bool { return errors.Is(unix.Kill(pid, 0), unix.ESRCH) })
	}
}

// followed is what the verdicts tell of a unit.
func followed(u *verdict.Unit, version int) map[string]any {
	all := map[string]any{
		"SubState": u.SubState, "MainPID": *u.MainPID, "FDStored": *u.FDStored, "StatusText": *u.StatusText, "StatusErrno": *u.StatusErrno,
	}
	if version >= 254 {
		all["NotifyAccess"] = u.NotifyAccess
	}
	if version >= 257 {
		all["BusError"], all["VarlinkError"] = *u.StatusBusError, *u.StatusVarlinkError
	}
	return all
}
