// SPDX-License-Identifier: Apache-2.0

package relay_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/await"
	"github.com/sdtrace/sdtrace/pkg/relay"
	"github.com/sdtrace/sdtrace/vmtest"
)

// rig is a relay between containers and a host.
type rig struct {
	t      testing.TB
	host   *host
	socket string // of the only container
	relay  *relay.Relay
	cancel context.CancelFunc
	done   chan error

	mu        sync.Mutex
	decisions []relay.Decision
	changed   chan struct{}
}

type option func(*relay.Config)

func withRule(rule string) option {
	return func(c *relay.Config) {
		if err := c.Policy.Set(rule); err != nil {
			panic(err)
		}
	}
}

func withContainer(container relay.Container, access relay.Access) option {
	return func(c *relay.Config) {
		c.Members[0].Container, c.Members[0].Access = container, access
	}
}

// newRig runs a relay with a host that listens.
func newRig(t testing.TB, options ...option) *rig {
	t.Helper()
	r := newWaitingRig(t, options...)
	r.run()
	return r
}

// newWaitingRig is one of which the relay does not run yet.
func newWaitingRig(t testing.TB, options ...option) *rig {
	t.Helper()
	dir := shortDir(t)
	r := &rig{t: t, socket: filepath.Join(dir, "c.sock"), changed: make(chan struct{}, 1)}
	r.host = newHost(t, filepath.Join(dir, "h.sock"))
	r.open(options...)
	return r
}

// shortDir is a temporary directory of which the name leaves room in sun_path.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "relay") //nolint:usetesting // T.TempDir keeps other users out
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// start makes the relay and runs it.
func (r *rig) start(options ...option) {
	r.t.Helper()
	r.open(options...)
	r.run()
}

// open makes the relay: what is sent to it waits for run.
func (r *rig) open(options ...option) {
	r.t.Helper()
	upstream, err := relay.ParseAddress(r.host.path)
	if err != nil {
		r.t.Fatal(err)
	}
	config := relay.Config{
		Upstream: upstream, Policy: relay.DefaultPolicy(),
		Members:    []relay.Member{{Listen: r.socket}},
		OnDecision: r.decide,
	}
	for _, option := range options {
		option(&config)
	}
	r.relay, err = relay.New(config)
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) run() {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel, r.done = cancel, make(chan error, 1)
	go func() { r.done <- r.relay.Run(ctx) }()
	r.t.Cleanup(func() { _ = r.stop() })
}

// stop ends the relay. The host has to read, or be away, for this to be quick.
func (r *rig) stop() error {
	r.t.Helper()
	if r.cancel == nil {
		return nil
	}
	if r.host.fd >= 0 {
		quit := make(chan struct{})
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			for {
				select {
				case <-quit:
					return
				default:
				}
				if m, ok := r.host.receive(1); ok {
					m.closeFDs()
				}
			}
		}()
		defer func() { close(quit); <-gone }()
	}
	r.cancel()
	r.cancel = nil
	err := <-r.done
	return errors.Join(err, r.relay.Close())
}

func (r *rig) decide(d relay.Decision) {
	d.Value = slices.Clone(d.Value)
	r.mu.Lock()
	r.decisions = append(r.decisions, d)
	r.mu.Unlock()
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// awaitDecision waits for a verdict, and forgets those up to it.
func (r *rig) awaitDecision(key relay.Key, verdict relay.Verdict, reason relay.Reason) relay.Decision {
	r.t.Helper()
	timeout := await.Context(r.t)
	for {
		r.mu.Lock()
		for i, d := range r.decisions {
			if d.Key == key && d.Verdict == verdict && d.Reason == reason {
				r.decisions = slices.Delete(r.decisions, 0, i+1)
				r.mu.Unlock()
				return d
			}
		}
		seen := fmt.Sprint(r.decisions)
		r.mu.Unlock()
		select {
		case <-r.changed:
		case <-timeout.Done():
			r.t.Fatalf("no decision %v %v (%v), only %s", key, verdict, reason, seen)
		}
	}
}

func TestWhatTheContainerSaysReachesTheHost(t *testing.T) {
	for _, test := range []struct{ name, sent, want string }{
		{"ready", "READY=1", "READY=1"},
		{"ready on a later line", "STATUS=hi\nREADY=1", "READY=1\nSTATUS=hi"},
		{"ready far into the datagram", "STATUS=" + strings.Repeat("x", 3000) + "\nREADY=1", "READY=1\nSTATUS=" + strings.Repeat("x", 3000)},
		{"ready that is only text", "STATUS=not READY=1 yet", "STATUS=not READY=1 yet"},
		{"status", "STATUS=Serving", "STATUS=Serving"},
		{"watchdog", "WATCHDOG=1", "WATCHDOG=1"},
		{"errno", "ERRNO=2", "ERRNO=2"},
		{"bus error", "BUSERROR=org.freedesktop.DBus.Error.TimedOut", "BUSERROR=org.freedesktop.DBus.Error.TimedOut"},
		{"varlink error", "VARLINKERROR=io.example.Error", "VARLINKERROR=io.example.Error"},
		{"exit status", "EXIT_STATUS=3", "EXIT_STATUS=3"},
		{"extend", "EXTEND_TIMEOUT_USEC=1000000", "EXTEND_TIMEOUT_USEC=1000000"},
		{"newline at the end", "READY=1\n", "READY=1"},
		{"carriage returns", "STATUS=a\rNOTIFYACCESS=all", "STATUS=a"},
		{"escaped key", "NOTIFY\\ACCESS=all\nREADY=1", "READY=1"},
		{"escaped newline", "STATUS=a\\\nMAINPID=1", "STATUS=a MAINPID=1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t)
			startAgent(t).send(r.socket, test.sent)
			r.host.expect(test.want)
		})
	}
}

func TestReadyIsForwardedEveryTime(t *testing.T) {
	r := newRig(t)
	a := startAgent(t)
	for range 20 {
		a.send(r.socket, "READY=1")
		r.host.expect("READY=1")
	}
	select {
	case <-r.relay.Ready():
	default:
		t.Error("Ready is not closed")
	}
}

func TestNothingEndsTheRelay(t *testing.T) {
	r := newRig(t)
	a := startAgent(t)
	for _, test := range []struct {
		payload string
		fds     []string
		key     relay.Key
		reason  relay.Reason
	}{
		{"", nil, relay.KeyNone, relay.ReasonEmpty},
		{"STATUS=" + strings.Repeat("x", 5000) + "\nREADY=1", nil, relay.KeyNone, relay.ReasonTooLong},
		{"READY=1\x00STATUS=x", nil, relay.KeyNone, relay.ReasonNUL},
		{"READY=1\nSTATUS=x\\", nil, relay.KeyNone, relay.ReasonTrailingBackslash},
		{"READY=1\nBARRIER=1", []string{"pipe"}, relay.KeyNone, relay.ReasonExtraLines},
		{"BARRIER=1", nil, relay.KeyBarrier, relay.ReasonFDCount},
		{"BARRIER=1", []string{"pipe", "pipe"}, relay.KeyBarrier, relay.ReasonFDCount},
		{"NOTIFYACCESS=all", nil, relay.KeyNone, relay.ReasonNothingLeft},
		{"STATUS=a", []string{"pipe"}, relay.KeyNone, relay.ReasonUnusedFDs},
	} {
		a.send(r.socket, test.payload, test.fds...)
		d := r.awaitDecision(test.key, relay.Denied, test.reason)
		if d.PID != a.pid {
			t.Errorf("%q: refused of pid %d, want %d", test.payload, d.PID, a.pid)
		}
	}
	r.host.expect("STATUS=a")
	a.send(r.socket, "READY=1")
	r.host.expect("READY=1")
}

func TestADatagramWhoseFDsTheKernelCannotDeliverIsRefused(t *testing.T) {
	r := newRig(t)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	a := startAgent(t)
	low := unix.Rlimit{Cur: 3, Max: limit.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	restore := func() { _ = unix.Setrlimit(unix.RLIMIT_NOFILE, &limit) }
	defer restore()
	a.send(r.socket, "READY=1", slices.Repeat([]string{"memfd"}, 40)...)
	r.awaitDecision(relay.KeyNone, relay.Denied, relay.ReasonControlTruncated)
	restore()
	a.send(r.socket, "STATUS=on")
	r.host.expect("STATUS=on")
}

func openFDs(t testing.TB) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestEveryUserCanSend(t *testing.T) {
	r := newRig(t)
	user := startAgent(t)
	user.do(order{Do: "setuid", PID: 1000})
	mapped := startAgent(t, "--user", "--map-root-user", "--pid", "--fork", "--kill-child")
	for _, a := range []*agent{user, mapped} {
		a.send(r.socket, "STATUS=me")
		r.host.expect("STATUS=me")
	}
}

func TestTheHostCanComeLateAndBeRestarted(t *testing.T) {
	dir := shortDir(t)
	r := &rig{t: t, socket: filepath.Join(dir, "c.sock"), changed: make(chan struct{}, 1)}
	r.host = &host{t: t, path: filepath.Join(dir, "h.sock"), fd: -1}
	t.Cleanup(r.host.close)
	r.start()
	a := startAgent(t)
	a.send(r.socket, "READY=1")
	r.awaitDecision(relay.KeyNone, relay.Held, relay.ReasonUpstream)
	for i := range 3 {
		r.host.listen()
		r.host.expect("READY=1")
		r.host.close()
		a.send(r.socket, "STATUS=down "+strconv.Itoa(i))
		a.send(r.socket, "READY=1")
		r.host.listen()
		r.host.expect("STATUS=down " + strconv.Itoa(i))
		r.host.expect("READY=1")
		r.host.close()
		a.send(r.socket, "READY=1")
	}
	r.host.listen()
	r.host.expect("READY=1")
}

func TestAStuckHostStallsNoContainer(t *testing.T) {
	vmtest.Natively(t, "no kernel is asked")
	r := newRig(t)
	a := startAgent(t)
	// Far more than fit into the host's queue (net.unix.max_dgram_qlen).
	a.send(r.socket, "RELOADING=1\nMONOTONIC_USEC=1")
	const n = 1500
	for i := range n {
		a.do(order{Do: "send", Socket: r.socket, Payload: fmt.Appendf(nil, "STATUS=%d", i), Block: true})
		a.do(order{Do: "send", Socket: r.socket, Payload: []byte("WATCHDOG=1"), Block: true})
		if i == n/2 {
			a.do(order{Do: "send", Socket: r.socket, Payload: []byte("READY=1"), Block: true})
		}
	}
	a.sendWaiting(r.socket, "READY=1\nSTATUS=end")
	var got []string
	for {
		m := r.host.next()
		got = append(got, m.text)
		if m.text == "READY=1\nSTATUS=end" {
			break
		}
	}
	if len(got) > 2000 {
		t.Errorf("%d datagrams reached the host: nothing was coalesced", len(got))
	}
	ready := slices.Index(got, "READY=1")
	if ready < 0 {
		t.Fatalf("READY=1 is lost among %d", len(got))
	}
	if !strings.HasPrefix(got[0], "RELOADING=1") {
		t.Errorf("the first datagram is %q", got[0])
	}
	last := -1
	for i, text := range got {
		if value, found := strings.CutPrefix(text, "STATUS="); found {
			number, err := strconv.Atoi(value)
			if err != nil {
				continue
			}
			if number <= last {
				t.Errorf("STATUS=%d came after STATUS=%d", number, last)
			}
			if i < ready && number > n/2 || i > ready && number <= n/2 {
				t.Errorf("STATUS=%d is on the wrong side of READY=1", number)
			}
			last = number
		}
	}
	if last != n-1 {
		t.Errorf("the last status is %d, want %d", last, n-1)
	}
}

func TestABarrierIsReleasedWhenTheHostHasReadWhatCameBefore(t *testing.T) {
	r := newRig(t)
	a := startAgent(t)
	a.send(r.socket, "READY=1")
	released := make(chan answer, 1)
	go func() { released <- a.do(order{Do: "barrier", Socket: r.socket, Payload: []byte("BARRIER=1")}) }()
	r.host.expect("READY=1")
	m := r.host.expect("BARRIER=1")
	if len(m.fds) != 1 {
		t.Fatalf("the host's barrier has %d fds", len(m.fds))
	}
	select {
	case <-released:
		t.Fatal("released before the host let go")
	default:
	}
	m.closeFDs()
	if got := <-released; !got.Released {
		t.Fatal("not released")
	}
	r.awaitDecision(relay.KeyBarrier, relay.Released, relay.ReasonNone)
}

func TestTheStoreTakesFDsWithinTheQuota(t *testing.T) {
	r := newRig(t, withRule("FDSTORE allow max-fds=3"), withRule("FDSTOREREMOVE allow"), withRule("FDNAME allow prefix=web-"))
	a := startAgent(t)
	a.send(r.socket, "FDSTORE=1\nFDNAME=a", "memfd", "memfd")
	m := r.host.expect("FDSTORE=1\nFDNAME=web-a")
	if len(m.fds) != 2 {
		t.Fatalf("%d fds arrived, want 2", len(m.fds))
	}
	m.closeFDs()
	a.send(r.socket, "FDSTORE=1\nFDNAME=b", "memfd", "memfd")
	r.awaitDecision(relay.KeyFDStore, relay.Denied, relay.ReasonQuota)
	a.send(r.socket, "FDSTOREREMOVE=1\nFDNAME=a")
	r.host.expect("FDSTOREREMOVE=1\nFDNAME=web-a")
	a.send(r.socket, "FDSTORE=1\nFDNAME=b", "memfd", "memfd")
	r.host.expect("FDSTORE=1\nFDNAME=web-b").closeFDs()
}

func TestNoFDIsLeaked(t *testing.T) {
	r := newRig(t, withRule("FDSTORE allow"))
	a := startAgent(t)
	a.send(r.socket, "READY=1")
	r.host.expect("READY=1")
	before := len(openFDs(t))
	for range 50 {
		a.send(r.socket, "STATUS=x", "memfd", "pipe")
		r.host.expect("STATUS=x")
		a.send(r.socket, "FDSTORE=1", "memfd")
		r.host.expect("FDSTORE=1").closeFDs()
		a.send(r.socket, "BARRIER=1", "memfd")
		r.host.expect("BARRIER=1").closeFDs()
		a.send(r.socket, "MAINPIDFD=1", "pidfd")
		r.host.next().closeFDs()
		a.send(r.socket, "BARRIER=1\nREADY=1", "pipe")
		a.send(r.socket, "", "pipe")
		a.send(r.socket, "NOTIFYACCESS=all", "memfd")
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	// The sockets of relay and host are gone, and nothing else is left.
	if after := len(openFDs(t)); after > before {
		t.Errorf("%d file descriptors are open, %d before", after, before)
	}
}

var ownNamespaces = []string{"--pid", "--fork", "--kill-child", "--mount-proc", "--net"}

func TestAProcessOfTheContainerIsMadeTheMainProcess(t *testing.T) {
	a := startAgent(t, ownNamespaces...)
	r := newRig(t, withContainer(relay.Container{PID: a.pid}, relay.AccessAll))
	child := a.do(order{Do: "child"}).PID
	a.send(r.socket, fmt.Sprintf("READY=1\nMAINPID=%d", child))
	m := r.host.next()
	first, rest, _ := strings.Cut(m.text, "\n")
	host, err := strconv.Atoi(strings.TrimPrefix(first, "MAINPID="))
	if err != nil || !strings.HasSuffix(rest, "READY=1") {
		t.Fatalf("the host got %q, want MAINPID first, then READY=1", m.text)
	}
	if m.pid != os.Getpid() {
		t.Errorf("sent by pid %d, want the relay %d", m.pid, os.Getpid())
	}
	if got := innerPID(t, host); got != child {
		t.Errorf("MAINPID=%d is process %d of the container, want %d", host, got, child)
	}
	// From now on the host heeds, with NotifyAccess=main, that process.
	a.send(r.socket, "STATUS=after")
	if m := r.host.expect("STATUS=after"); m.pid != host {
		t.Errorf("sent as pid %d, want the main process %d", m.pid, host)
	}
	a.do(order{Do: "reap", PID: child})
	a.send(r.socket, "STATUS=gone")
	if m := r.host.expect("STATUS=gone"); m.pid != os.Getpid() {
		t.Errorf("sent as pid %d, want the relay %d, as the main process is gone", m.pid, os.Getpid())
	}
}

// moveToCgroup moves a process to a cgroup of its own, and returns the path of that.
func moveToCgroup(t testing.TB, pid int) string {
	t.Helper()
	cgroup := makeCgroup(t)
	enterCgroup(t, cgroup, pid)
	return cgroup
}

// cgroupRoot is where cgroup v2 is mounted.
func cgroupRoot() string {
	const hybrid = "/sys/fs/cgroup/unified"
	if _, err := os.Stat(hybrid); err == nil {
		return hybrid
	}
	return "/sys/fs/cgroup"
}

// makeCgroup makes a cgroup, which is removed at the end: what is still in it then leaves it.
func makeCgroup(t testing.TB) (path string) {
	t.Helper()
	path = fmt.Sprintf("/sdtrace-relay-%d", os.Getpid())
	dir := cgroupRoot() + path
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		left, _ := os.ReadFile(dir + "/cgroup.procs")
		for pid := range strings.Lines(string(left)) {
			_ = os.WriteFile(cgroupRoot()+"/cgroup.procs", []byte(pid), 0o644)
		}
		os.Remove(dir)
	})
	return path
}

func enterCgroup(t testing.TB, path string, pid int) {
	t.Helper()
	if err := os.WriteFile(cgroupRoot()+path+"/cgroup.procs", []byte(strconv.Itoa(pid)), 0o644); err != nil {
		t.Fatal(err)
	}
}

func innerPID(t testing.TB, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if numbers, found := strings.CutPrefix(line, "NSpid:"); found {
			fields := strings.Fields(numbers)
			n, _ := strconv.Atoi(fields[len(fields)-1])
			return n
		}
	}
	return 0
}

func TestAProcessOutsideIsNeverMadeTheMainProcess(t *testing.T) {
	a := startAgent(t, ownNamespaces...)
	r := newRig(t, withContainer(relay.Container{PID: a.pid}, relay.AccessAll))
	// The numbers mean nothing inside, though there are such processes outside.
	for _, number := range []int{os.Getpid(), a.pid, 99999999} {
		a.send(r.socket, fmt.Sprintf("MAINPID=%d\nSTATUS=s", number))
		r.host.expect("STATUS=s")
	}
	r.awaitDecision(relay.KeyMainPID, relay.Denied, relay.ReasonNoSuchProcess)

	outside := startAgent(t)
	moveToCgroup(t, outside.pid)
	all := newRig(t)
	outside.send(all.socket, fmt.Sprintf("MAINPID=%d\nSTATUS=s", os.Getppid()))
	all.host.expect("STATUS=s")
	all.awaitDecision(relay.KeyMainPID, relay.Denied, relay.ReasonForeignProcess)
}

func TestAPidfdOfTheContainerIsTheMainProcess(t *testing.T) {
	a := startAgent(t, ownNamespaces...)
	r := newRig(t, withContainer(relay.Container{PID: a.pid}, relay.AccessAll))
	a.send(r.socket, "MAINPIDFD=1", "pidfd")
	m := r.host.next()
	if !strings.HasPrefix(m.text, fmt.Sprintf("MAINPID=%d\n", a.pid)) || !strings.Contains(m.text, "MAINPIDFD=1") || len(m.fds) != 1 {
		t.Fatalf("the host got %q with %d fds, want MAINPID=%d and MAINPIDFD=1", m.text, len(m.fds), a.pid)
	}
	m.closeFDs()
	a.send(r.socket, "MAINPIDFD=1", "memfd")
	r.awaitDecision(relay.KeyMainPIDFD, relay.Denied, relay.ReasonInvalid)
}

func TestAStrangerIsNotHeard(t *testing.T) {
	a := startAgent(t, ownNamespaces...)
	r := newRig(t, withContainer(relay.Container{PID: a.pid}, relay.AccessAll))
	stranger := startAgent(t)
	neighbour := startAgent(t, ownNamespaces...)
	for _, s := range []*agent{stranger, neighbour} {
		s.send(r.socket, "READY=1")
		r.awaitDecision(relay.KeyNone, relay.Denied, relay.ReasonNotMember)
	}
	a.send(r.socket, "STATUS=me")
	r.host.expect("STATUS=me")
}

func TestAccess(t *testing.T) {
	a := startAgent(t, ownNamespaces...)
	nsenter := []string{"nsenter", "--target", strconv.Itoa(a.pid), "--pid", "--net"}
	for _, test := range []struct {
		access           relay.Access
		main, exec, fork bool
	}{
		{relay.AccessAll, true, true, true},
		{relay.AccessExec, true, true, false},
		{relay.AccessMain, true, false, false},
	} {
		r := newRig(t, withContainer(relay.Container{PID: a.pid}, test.access))
		executed := runAsAgent(t, command(append(nsenter, os.Args[0])...))
		// A grandchild: its parent is in the container.
		forked := runAsAgent(t, command(append(nsenter, "unshare", "--fork", os.Args[0])...))
		for _, sender := range []struct {
			agent   *agent
			allowed bool
			name    string
		}{{a, test.main, "main"}, {executed, test.exec, "exec"}, {forked, test.fork, "fork"}} {
			sender.agent.send(r.socket, "STATUS="+sender.name)
			if sender.allowed {
				r.host.expect("STATUS=" + sender.name)
				continue
			}
			want := relay.ReasonNotMain
			if test.access == relay.AccessExec {
				want = relay.ReasonNotExec
			}
			r.awaitDecision(relay.KeyNone, relay.Denied, want)
		}
	}
}

// Whoever makes himself a pid namespace, in the container or beside it, is number 1 there, and not the container's main
// process.
func TestNumberOneOfAnotherNamespaceIsNotTheMainProcess(t *testing.T) {
	for _, first := range []string{"main", "nested"} {
		t.Run("the first is "+first, func(t *testing.T) {
			a := startAgent(t, ownNamespaces...)
			cgroup := moveToCgroup(t, a.pid)
			r := newRig(t, withContainer(relay.Container{Cgroup: cgroup}, relay.AccessMain))
			nested := runAsAgent(t, command("nsenter", "--target", strconv.Itoa(a.pid), "--pid", "--net",
				"unshare", "--pid", "--fork", "--kill-child", os.Args[0]))
			beside := startAgent(t, ownNamespaces...)
			for _, other := range []*agent{nested, beside} {
				for _, pid := range tree(t, other.cmd.Process.Pid) {
					enterCgroup(t, cgroup, pid)
				}
				if other.self.PID != 1 {
					t.Fatalf("it is number %d of its pid namespace", other.self.PID)
				}
			}
			if first == "main" {
				a.send(r.socket, "STATUS=main")
				r.host.expect("STATUS=main")
			}
			for _, other := range []*agent{nested, beside} {
				other.send(r.socket, "STATUS=other")
				r.awaitDecision(relay.KeyNone, relay.Denied, relay.ReasonNotMain)
			}
			a.send(r.socket, "STATUS=main")
			r.host.expect("STATUS=main")
		})
	}
}

// tree is a process and what descends from it.
func tree(t testing.TB, pid int) []int {
	t.Helper()
	all := []int{pid}
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, field := range strings.Fields(string(children)) {
		child, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, tree(t, child)...)
	}
	return all
}

// The first to send is not the container because of that.
func TestASenderInANamespaceOfItsOwnDoesNotLockTheContainerOut(t *testing.T) {
	a := startAgent(t, ownNamespaces...)
	r := newRig(t, withContainer(relay.Container{Adopt: true}, relay.AccessAll))
	nested := runAsAgent(t, command("nsenter", "--target", strconv.Itoa(a.pid), "--pid", "--net",
		"unshare", "--pid", "--fork", "--kill-child", os.Args[0]))
	for _, sender := range []*agent{nested, a} {
		sender.send(r.socket, "STATUS=inside")
		r.host.expect("STATUS=inside")
	}
}

// As for systemd: a service below an init of its container's says which process it is.
func TestTheProcessThatWasNamedIsTheMainOneFromThenOn(t *testing.T) {
	a := startAgent(t, ownNamespaces...)
	r := newRig(t, withContainer(relay.Container{PID: a.pid}, relay.AccessMain))
	service := runAsAgent(t, command("nsenter", "--target", strconv.Itoa(a.pid), "--pid", "--net", os.Args[0]))
	service.send(r.socket, "STATUS=not yet")
	r.awaitDecision(relay.KeyNone, relay.Denied, relay.ReasonNotMain)
	a.send(r.socket, fmt.Sprintf("READY=1\nMAINPID=%d", service.self.PID))
	below := tree(t, service.cmd.Process.Pid) // nsenter forks
	if m := r.host.next(); !strings.Contains(m.text, fmt.Sprintf("MAINPID=%d\n", below[len(below)-1])) {
		t.Fatalf("the host got %q", m.text)
	}
	service.send(r.socket, "STOPPING=1")
	r.host.expect("STOPPING=1")
}

func TestTheClockOfTheContainerIsTranslated(t *testing.T) {
	a := startAgent(t, "--time", "--monotonic", "100000", "--pid", "--fork", "--kill-child")
	r := newRig(t, withContainer(relay.Container{PID: a.pid}, relay.AccessAll))
	inside := a.do(order{}).Monotonic
	before := startAgent(t).self.Monotonic
	if inside < before+90_000*1_000_000 {
		t.Fatalf("the container is not in a time namespace: %d µs inside, %d outside", inside, before)
	}
	a.send(r.socket, fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", inside))
	m := r.host.next()
	value, found := strings.CutPrefix(m.text, "RELOADING=1\nMONOTONIC_USEC=")
	usec, err := strconv.ParseUint(value, 10, 64)
	if !found || err != nil || usec != inside-100_000*1_000_000 {
		t.Errorf("the host got %q, want MONOTONIC_USEC=%d", m.text, inside-100_000*1_000_000)
	}
}
