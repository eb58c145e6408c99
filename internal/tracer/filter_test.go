// SPDX-License-Identifier: Apache-2.0

package tracer_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/await"
	"github.com/sdtrace/sdtrace/internal/tracer"
	"github.com/sdtrace/sdtrace/pkg/events"
	"github.com/sdtrace/sdtrace/vmtest"
)

// crowd is who sends in the filter tests, always the same.
type crowd struct {
	// alpha is in sdt/alpha.service, and where there is cgroup v1 in
	// docker/alpha of its pids controller; beta, another user in another network
	// namespace, in sdt/alpha.service/sub; gamma in sdt/alpha.service-not,
	// delta in sdt/alpha.service/late, which is made anew after each Open.
	alpha, beta, gamma, delta *agent

	slice, home, late cgroup
	v1Home            *cgroup

	one, two, abstract, deaf *receiver
	sends                    []send
}

// send is a datagram of the crowd.
type send struct {
	name    string
	by      *agent
	to      []byte
	payload string
	// connected sockets send by write(2).
	connected bool
	fails     unix.Errno
}

func gather(t *testing.T) *crowd {
	t.Helper()
	cr := &crowd{
		one: listenPath(t, "f/one/notify.sock"), two: listenPath(t, "f/two/notify.sock"),
		abstract: listen(t, abstractAddr("f-abstract"), unix.SOCK_DGRAM),
		deaf:     listenPath(t, "f/deaf/notify.sock"),
	}
	cr.deaf.dropAll()
	h := v2(t)
	cr.slice = h.makeCgroup(t, "filter.slice")
	cr.home = h.makeCgroup(t, "filter.slice/alpha.service")
	sub := h.makeCgroup(t, "filter.slice/alpha.service/sub")
	sibling := h.makeCgroup(t, "filter.slice/alpha.service-not")
	cr.late = cgroup{dir: filepath.Join(cr.home.dir, "late"), path: filepath.Join(cr.home.path, "late")}
	if h, ok := v1(t, "pids"); ok {
		in := h.makeCgroup(t, "docker/alpha")
		cr.v1Home = &in
	}

	cr.alpha = startAgent(t, agentSpec{comm: "sdt-alpha"})
	join(t, cr.home.dir, cr.alpha.pid)
	if cr.v1Home != nil {
		join(t, cr.v1Home.dir, cr.alpha.pid)
	}
	beta := agentSpec{comm: "sdt-beta", uid: 4242, gid: 4242}
	beta.attr.Cloneflags = unix.CLONE_NEWNET
	cr.beta = startAgent(t, beta)
	join(t, sub.dir, cr.beta.pid)
	cr.gamma = startAgent(t, agentSpec{comm: "sdt-alphabet"})
	join(t, sibling.dir, cr.gamma.pid)
	cr.delta = startAgent(t, agentSpec{comm: "sdt-delta", uid: 7, gid: 7})

	a := cr.alpha
	cr.sends = []send{
		{name: "ready", by: a, to: cr.one.addr, payload: "READY=1"},
		{name: "ready second", by: a, to: cr.one.addr, payload: "STATUS=a\nREADY=1"},
		{name: "ready after CR", by: a, to: cr.one.addr, payload: "STATUS=b\rREADY=1\r"},
		{name: "ready after 4000 bytes", by: a, to: cr.one.addr, payload: "STATUS=" + strings.Repeat("x", 4000) + "\nREADY=1"},
		{name: "XREADY", by: a, to: cr.one.addr, payload: "XREADY=1"},
		{name: "READYX", by: a, to: cr.one.addr, payload: "READYX=1"},
		{name: "READY in a value", by: a, to: cr.one.addr, payload: "STATUS=READY=1"},
		{name: "READY without =", by: a, to: cr.one.addr, payload: "READY\nERRNO=2"},
		{name: "READY after an escaped LF", by: a, to: cr.one.addr, payload: "STATUS=c\\\nREADY=1"},
		{name: "watchdog to two", by: a, to: cr.two.addr, payload: "WATCHDOG=1"},
		{name: "abstract", by: a, to: cr.abstract.addr, payload: "X_A_KEY_OF_MORE_THAN_A_FEW_BYTES=1"},
		{name: "abstract, connected", by: a, to: cr.abstract.addr, payload: "STOPPING=1", connected: true},
		{name: "nowhere", by: a, to: pathAddr(filepath.Join(root, "f/nowhere/notify.sock")), payload: "MAINPID=7", fails: unix.ENOENT},
		{name: "deaf", by: a, to: cr.deaf.addr, payload: "STATUS=is anybody there"},
		{name: "beta", by: cr.beta, to: cr.one.addr, payload: "STATUS=from beta"},
		{name: "beta ready, connected", by: cr.beta, to: cr.two.addr, payload: "READY=1", connected: true},
		{name: "gamma", by: cr.gamma, to: cr.one.addr, payload: "STATUS=from gamma"},
		{name: "delta", by: cr.delta, to: cr.one.addr, payload: "BUSERROR=from delta"},
	}
	return cr
}

// all are the agents.
func (cr *crowd) all() []*agent { return []*agent{cr.alpha, cr.beta, cr.gamma, cr.delta} }

// send lets everybody send.
func (cr *crowd) send(t *testing.T) {
	t.Helper()
	if err := os.Mkdir(cr.late.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	join(t, cr.late.dir, cr.delta.pid)
	for _, s := range cr.sends {
		s.by.must(t, step{Op: "socket", Sock: "s", Type: unix.SOCK_DGRAM})
		do := step{Op: "sendto", Sock: "s", Addr: s.to, Parts: parts(s.payload)}
		if s.connected {
			s.by.must(t, step{Op: "connect", Sock: "s", Addr: s.to})
			do.Op, do.Addr = "write", nil
		}
		if o := s.by.do(t, do); o.Errno != s.fails {
			t.Fatalf("%s: %v", s.name, o.Errno)
		}
		s.by.must(t, step{Op: "close", Sock: "s"})
		for _, r := range []*receiver{cr.one, cr.two, cr.abstract} {
			r.drain()
		}
	}
	join(t, v2(t).dir, cr.delta.pid)
	if err := os.Remove(cr.late.dir); err != nil {
		t.Fatal(err)
	}
}

// name tells which of the crowd's datagrams an event is.
func (cr *crowd) name(pid uint32, payload string) string {
	for _, s := range cr.sends {
		if s.by.pid == pid && s.payload == payload {
			return s.name
		}
	}
	return fmt.Sprintf("%q of %d", payload, pid)
}

// only are the names of the sends that a condition holds for.
func (cr *crowd) only(keep func(send) bool) []string {
	var names []string
	for _, s := range cr.sends {
		if keep(s) {
			names = append(names, s.name)
		}
	}
	return names
}

func (cr *crowd) by(agents ...*agent) []string {
	return cr.only(func(s send) bool { return slices.Contains(agents, s.by) })
}

func (cr *crowd) to(r ...*receiver) []string {
	return cr.only(func(s send) bool {
		return slices.ContainsFunc(r, func(r *receiver) bool { return string(s.to) == string(r.addr) })
	})
}

func TestFilters(t *testing.T) {
	vmtest.OnlyOn(t, "the same programs decide on each", "6.12-amd64", "sid-arm64", "prove:5.10-amd64",
		"prove:6.1-amd64", "prove:sid-amd64", "prove:6.1-arm64", "prove:6.12-arm64")
	ready := []string{"ready", "ready second", "ready after CR", "ready after 4000 bytes", "beta ready, connected"}
	type filterTest struct {
		name   string
		filter func(cr *crowd) tracer.Filter
		want   func(cr *crowd) []string
	}
	single := []filterTest{
		{
			"one of two pids",
			func(cr *crowd) tracer.Filter { return tracer.Filter{PIDs: []uint32{cr.beta.pid, cr.delta.pid}} },
			func(cr *crowd) []string { return cr.by(cr.beta, cr.delta) },
		},
		{
			"uid",
			func(*crowd) tracer.Filter { return tracer.Filter{UIDs: []uint32{4242}} },
			func(cr *crowd) []string { return cr.by(cr.beta) },
		},
		{
			"comm, of the process, not its beginning",
			func(*crowd) tracer.Filter { return tracer.Filter{Comms: []string{"sdt-alpha", workerComm}} },
			func(cr *crowd) []string { return cr.by(cr.alpha) },
		},
		{
			"netns",
			func(cr *crowd) tracer.Filter {
				return tracer.Filter{NetNS: []uint32{netns(cr.beta)}}
			},
			func(cr *crowd) []string { return cr.by(cr.beta) },
		},
		{
			"socket patterns",
			func(cr *crowd) tracer.Filter {
				return tracer.Filter{Sockets: []string{cr.deaf.path(), "*/f/tw?/*", "@" + abstractPrefix + "f-abs*", root + "/f/one/notify.soc"}}
			},
			func(cr *crowd) []string { return cr.to(cr.two, cr.abstract, cr.deaf) },
		},
		{
			"key",
			func(*crowd) tracer.Filter { return tracer.Filter{Keys: []string{"READY"}} },
			func(*crowd) []string { return ready },
		},
		{
			"one of two keys",
			func(*crowd) tracer.Filter {
				return tracer.Filter{Keys: []string{"BUSERROR", "X_A_KEY_OF_MORE_THAN_A_FEW_BYTES", "X_A", "WATCH"}}
			},
			func(*crowd) []string { return []string{"abstract", "delta"} },
		},
		{
			"cgroup, by its directory",
			func(cr *crowd) tracer.Filter { return tracer.Filter{Cgroups: []string{cr.home.dir}} },
			func(cr *crowd) []string { return cr.by(cr.alpha, cr.beta, cr.delta) },
		},
		{
			"cgroup, by its path",
			func(cr *crowd) tracer.Filter { return tracer.Filter{Cgroups: []string{cr.home.path + "/sub"}} },
			func(cr *crowd) []string { return cr.by(cr.beta) },
		},
		{
			"component",
			func(*crowd) tracer.Filter {
				return tracer.Filter{Units: []string{"lat?", "alpha.service-*", "alpha"}}
			},
			func(cr *crowd) []string { return cr.by(cr.gamma, cr.delta) },
		},
		{
			"nobody's comm and uid",
			func(*crowd) tracer.Filter { return tracer.Filter{Comms: []string{"sdt-alpha"}, UIDs: []uint32{4242}} },
			func(*crowd) []string { return nil },
		},
	}
	// Each kind once, and a cgroup of v1, which is looked for in its own way.
	combined := []filterTest{
		{
			"cgroup v1",
			func(cr *crowd) tracer.Filter {
				if cr.v1Home == nil {
					return tracer.Filter{}
				}
				return tracer.Filter{Cgroups: []string{filepath.Dir(cr.v1Home.dir)}}
			},
			func(cr *crowd) []string { return cr.by(cr.alpha) },
		},
		{
			"one component of each list",
			func(*crowd) tracer.Filter {
				return tracer.Filter{Units: []string{"alpha.service", "su?"}, Containers: []string{"late", "sub", "filter"}}
			},
			func(cr *crowd) []string { return cr.by(cr.beta, cr.delta) },
		},
		{
			"pid, netns and key",
			func(cr *crowd) tracer.Filter {
				return tracer.Filter{PIDs: []uint32{cr.beta.pid}, NetNS: []uint32{netns(cr.beta)}, Keys: []string{"READY"}}
			},
			func(*crowd) []string { return []string{"beta ready, connected"} },
		},
		{
			"cgroup, uid and socket",
			func(cr *crowd) tracer.Filter {
				return tracer.Filter{Cgroups: []string{cr.home.dir}, UIDs: []uint32{4242, 7}, Sockets: []string{cr.one.path()}}
			},
			func(*crowd) []string { return []string{"beta", "delta"} },
		},
		{
			"failed, comm and pid",
			func(cr *crowd) tracer.Filter {
				return tracer.Filter{Failed: true, Comms: []string{"sdt-alpha"}, PIDs: []uint32{cr.alpha.pid, cr.beta.pid}}
			},
			// deaf is added where the backend can know.
			func(*crowd) []string { return []string{"nowhere"} },
		},
	}
	eachBackend(t, func(t *testing.T, backend string) {
		cr := gather(t)
		tests := combined
		if exhaustive(backend) {
			tests = append(single, combined...)
		}
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				filter := test.filter(cr)
				if test.name == "cgroup v1" && cr.v1Home == nil {
					t.Skip("not declared: the v1 pids controller is not mounted")
				}
				want := test.want(cr)
				if filter.Failed && backend == "fentry" {
					want = append(want, "deaf")
				}
				c := openCapture(t, tracer.Options{Backend: backend, Filter: filter})
				checkFiltered(t, c, cr, want)
			})
		}
	})
}

// netns is the inode number of an agent's network namespace.
func netns(a *agent) uint32 {
	var st unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d/ns/net", a.pid), &st); err != nil {
		panic(err)
	}
	return uint32(st.Ino)
}

// checkFiltered lets the crowd send and compares what comes through, and the
// counters of what does not.
func checkFiltered(t *testing.T, c *capture, cr *crowd, want []string) {
	t.Helper()
	// Others may notify on this machine while the test runs, so that counters
	// rise more than by our own datagrams, but not every time.
	what := fmt.Sprintf("%d more are counted that come through, and %d that are held back", len(want), len(cr.sends)-len(want))
	await.Until(t, what, func() bool {
		before, err := c.Stats()
		if err != nil {
			t.Fatal(err)
		}
		cr.send(t)
		events := c.buffered(t)
		after, err := c.Stats()
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range from(events, cr.all()...) {
			got = append(got, cr.name(e.Sender.PID, string(e.Payload)))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("(-want +captured):\n%s", diff)
		}
		captured, filtered := after.Captured-before.Captured, after.Filtered-before.Filtered
		wantCaptured, wantFiltered := uint64(len(want)), uint64(len(cr.sends)-len(want))
		if captured < wantCaptured || filtered < wantFiltered {
			t.Fatalf("%d came through and %d were held back, counted %d and %d", wantCaptured, wantFiltered, captured, filtered)
		}
		return captured == wantCaptured && filtered == wantFiltered
	})
}

// A service whose control group is removed and made again is still in the group that was asked for.
func TestAControlGroupThatIsMadeAgainIsTheSame(t *testing.T) {
	vmtest.OnlyOn(t, "a tracepoint that all have", "sid-amd64", "prove:5.10-amd64")
	eachBackend(t, func(t *testing.T, backend string) {
		r := listenPath(t, "again-group/notify.sock")
		in := v2(t).makeCgroup(t, "again.slice/again.service")
		c := openCapture(t, tracer.Options{Backend: backend, Filter: tracer.Filter{Cgroups: []string{in.dir}}})
		var want []string
		for i := range 3 {
			a := startAgent(t, agentSpec{comm: "sdt-again"})
			join(t, in.dir, a.pid)
			payload := fmt.Sprint("STATUS=life ", i)
			a.must(t,
				step{Op: "socket", Sock: "s", Type: unix.SOCK_DGRAM},
				step{Op: "sendto", Sock: "s", Addr: r.addr, Parts: parts(payload)})
			want = append(want, payload)
			join(t, v2(t).dir, a.pid)
			a.must(t, step{Op: "sendto", Sock: "s", Addr: r.addr, Parts: parts("STATUS=elsewhere")})
			if err := os.Remove(in.dir); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(in.dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		var got []string
		for _, e := range c.buffered(t) {
			got = append(got, string(e.Payload))
		}
		expect(t, "captured", got, want)
	})
}

// A number that was given away is another process.
func TestAnotherProcessWithTheNumberIsNotTheOneAskedFor(t *testing.T) {
	vmtest.OnlyOn(t, "when a process was started is told by each", "5.10-amd64")
	eachBackend(t, func(t *testing.T, backend string) {
		r := listenPath(t, "given-away/notify.sock")
		say := func(a *agent, payload string) {
			a.must(t,
				step{Op: "socket", Sock: "s", Type: unix.SOCK_DGRAM},
				step{Op: "sendto", Sock: "s", Addr: r.addr, Parts: parts(payload)})
		}
		first := startAgent(t, agentSpec{comm: "sdt-first"})
		c := openCapture(t, tracer.Options{Backend: backend, Filter: tracer.Filter{PIDs: []uint32{first.pid}}})
		say(first, "STATUS=first")
		pid := first.pid
		first.kill()
		another := func() *agent {
			if err := os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(strconv.Itoa(int(pid)-1)), 0); err != nil {
				t.Fatal(err)
			}
			return startAgent(t, agentSpec{comm: "sdt-second"})
		}
		var second *agent
		await.Until(t, "another process gets the number", func() bool {
			second = another()
			return second.pid == pid
		})
		say(second, "STATUS=second")
		got := c.buffered(t)
		if len(got) != 1 || string(got[0].Payload) != "STATUS=first" {
			t.Errorf("captured %d events: %+v", len(got), got)
		}
	})
}

func TestUnknownCgroupIsNamedInTheError(t *testing.T) {
	eachBackend(t, func(t *testing.T, backend string) {
		missing := filepath.Join(v2(t).dir, "sdt-there-is-no-such-cgroup")
		tr, err := tracer.Open(tracer.Options{Backend: backend, Filter: tracer.Filter{Cgroups: []string{missing}}})
		if err == nil {
			_ = tr.Close()
			t.Fatal("opened, though the cgroup is not there")
		}
		if !strings.Contains(err.Error(), missing) {
			t.Errorf("the error does not name the cgroup: %v", err)
		}
	})
}

// TestWhichDatagramsCount is about the default: notifications, and nothing else.
func TestWhichDatagramsCount(t *testing.T) {
	type class int
	const (
		never class = iota
		always
		// byReceiver: it takes the receiver's own name to know, which the
		// tracepoint backend may not have.
		byReceiver
		neverByReceiver
	)
	path := func(name string) []byte { return pathAddr(filepath.Join(root, "w", name)) }
	tests := []struct {
		name    string
		to      []byte
		payload string
		class   class
	}{
		{"manager's socket", path("run/systemd/notify"), "FOO=bar", always},
		{"container's host socket", path("run/host/notify"), "FOO=bar", always},
		{"container's own socket", path("run/notify/notify.sock"), "FOO=bar", always},
		{"any notify.sock, empty", path("notify.sock"), "", always},
		{"any notify.sock, binary", path("notify.sock"), "\x00\xff", always},
		{"name ends alike", path("xnotify.sock"), "FOO=bar", never},
		{"name begins alike", path("notify.socket"), "FOO=bar", never},
		{"odd socket, odd key", path("odd"), "FOO=bar", never},
		{"odd socket, empty", path("odd"), "", never},
		{"odd socket, key", path("odd"), "READY=1", always},
		{"odd socket, key of another case", path("odd"), "ready=1", never},
		{"odd socket, key after a space", path("odd"), " READY=1", never},
		{"odd socket, key without =", path("odd"), "READY", never},
		{"odd socket, longer key", path("odd"), "READYNESS=1", never},
		{"odd socket, key second", path("odd"), "FOO=bar\nREADY=1", never},
		{"odd socket, private key", path("odd"), "X_FOO=1", always},
		{"odd socket, syslog", path("odd"), "<13>READY=1", never},
		{"odd socket, key behind many empty lines", path("odd"), strings.Repeat("\n", 40) + "READY=1", always},
		{"odd socket, key behind more than is looked at first", path("odd"), strings.Repeat("\r\n", 1000) + "X_FOO=1", always},
		{"odd socket, odd key behind many empty lines", path("odd"), strings.Repeat("\n", 40) + "MESSAGE=1", never},
		{"odd socket, nothing but empty lines", path("odd"), strings.Repeat("\n", 40), never},
		{"notify socket, odd key behind many empty lines", path("notify.sock"), strings.Repeat("\n", 40) + "FOO=1", always},
		{"abstract socket, odd key", abstractAddr("w-odd"), "FOO=bar", never},
		{"abstract socket, key", abstractAddr("w-odd"), "EXTEND_TIMEOUT_USEC=5", always},
		{"journal", path("run/systemd/journal/socket"), "ERRNO=5\nMESSAGE=x", never},
		{"journal, clearly", path("run/systemd/journal/socket"), "READY=1", never},
		{"journal's syslog", path("run/systemd/journal/dev-log"), "STATUS=x", never},
		{"link to a notify socket", path("link-to-notify"), "FOO=bar", byReceiver},
		{"link to a notify socket, odd key behind many empty lines", path("link-to-notify"), strings.Repeat("\n", 9) + "FOO=1", byReceiver},
		{"link to a notify socket that is called like the journal's", path("dev/log"), "READY=1", byReceiver},
		{"way to a notify socket through the journal's directory", pathAddr(root + "/w/run/systemd/journal/../../../notify.sock"), "READY=1", byReceiver},
		{"link to the journal", path("link-to-journal"), "READY=1", neverByReceiver},
	}
	links := map[string]string{
		"link-to-notify":  "notify.sock",
		"link-to-journal": "run/systemd/journal/socket",
		"dev/log":         "notify.sock",
	}
	eachBackend(t, func(t *testing.T, backend string) {
		a := startAgent(t, agentSpec{comm: "sdt-counts"})
		for _, everything := range []bool{false, true} {
			if everything && !exhaustive(backend) {
				continue // the programs do not look any further
			}
			t.Run(fmt.Sprintf("all %v", everything), func(t *testing.T) {
				c := unfiltered(t, backend)
				if everything {
					c = openCapture(t, tracer.Options{Backend: backend, All: true})
				}
				receivers := map[string]*receiver{}
				for _, test := range tests {
					name := addressText(test.to)
					isLink := links[strings.TrimPrefix(name, filepath.Join(root, "w")+"/")] != "" || filepath.Clean(name) != name
					if receivers[name] == nil && !isLink {
						receivers[name] = listen(t, test.to, unix.SOCK_DGRAM)
					}
				}
				for from, to := range links {
					at := filepath.Join(root, "w", from)
					if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
						t.Fatal(err)
					}
					if err := os.Remove(at); err != nil && !os.IsNotExist(err) {
						t.Fatal(err)
					}
					if err := os.Symlink(filepath.Join(root, "w", to), at); err != nil {
						t.Fatal(err)
					}
				}
				for _, test := range tests {
					for _, connected := range []bool{false, true} {
						a.must(t, step{Op: "socket", Sock: "s", Type: unix.SOCK_DGRAM})
						s := step{Op: "sendto", Sock: "s", Addr: test.to, Parts: parts(test.payload)}
						if connected {
							a.must(t, step{Op: "connect", Sock: "s", Addr: test.to})
							s.Op, s.Addr = "write", nil
						}
						a.must(t, s, step{Op: "close", Sock: "s"})
						for _, r := range receivers {
							r.drain()
						}
						got := from(c.buffered(t), a)
						captured := len(got) == 1
						switch {
						case len(got) > 1:
							t.Errorf("%s, connected %v: captured %d times", test.name, connected, len(got))
						case everything || test.class == always:
							if !captured {
								t.Errorf("%s, connected %v: not captured", test.name, connected)
							}
						case test.class == never && captured:
							t.Errorf("%s, connected %v: captured", test.name, connected)
						case !c.Knows().Receivers && !connected:
						case test.class == byReceiver && !captured:
							t.Errorf("%s, connected %v: not captured", test.name, connected)
						case test.class == neverByReceiver && captured:
							t.Errorf("%s, connected %v: captured", test.name, connected)
						}
						if captured && string(got[0].Payload) != test.payload {
							t.Errorf("%s, connected %v: captured %q", test.name, connected, got[0].Payload)
						}
					}
				}
			})
		}
	})
}

// TestSocketOfAnEnvironmentCounts is about processes that were given a
// NOTIFY_SOCKET with a name of its own.
func TestSocketOfAnEnvironmentCounts(t *testing.T) {
	vmtest.OnlyOn(t, "/proc, from the oldest to the newest", "sid-amd64", "prove:5.10-amd64")
	eachBackend(t, func(t *testing.T, backend string) {
		r := listenPath(t, "env/some-name")
		abstract := listen(t, abstractAddr("env"), unix.SOCK_DGRAM)
		other := listenPath(t, "env/some-name-else")
		var a *agent
		for _, address := range []string{addressText(abstract.addr), r.path()} {
			a = startAgent(t, agentSpec{comm: "sdt-env", env: []string{"NOTIFY_SOCKET=" + address}})
		}
		c := openCapture(t, tracer.Options{Backend: backend})
		a.must(t,
			step{Op: "socket", Sock: "s", Type: unix.SOCK_DGRAM},
			step{Op: "sendto", Sock: "s", Addr: r.addr, Parts: parts("FOO=path")},
			step{Op: "sendto", Sock: "s", Addr: other.addr, Parts: parts("FOO=other")},
			step{Op: "sendto", Sock: "s", Addr: abstract.addr, Parts: parts("FOO=abstract")})
		var got []string
		for _, e := range from(c.buffered(t), a) {
			got = append(got, string(e.Payload))
		}
		if diff := cmp.Diff([]string{"FOO=path", "FOO=abstract"}, got); diff != "" {
			t.Errorf("(-want +captured):\n%s", diff)
		}
	})
}

// TestSocketOfALaterEnvironmentCounts sends until the process that began after the capture
// was looked at.
func TestSocketOfALaterEnvironmentCounts(t *testing.T) {
	vmtest.OnlyOn(t, "/proc, from the oldest to the newest", "sid-amd64", "prove:5.10-amd64")
	eachBackend(t, func(t *testing.T, backend string) {
		c := unfiltered(t, backend)
		r := listenPath(t, "env/later-name")
		r.dropAll() // its queue does not fill up
		a := startAgent(t, agentSpec{comm: "sdt-later", env: []string{"NOTIFY_SOCKET=" + r.path()}})
		a.must(t, step{Op: "socket", Sock: "s", Type: unix.SOCK_DGRAM})
		await.Until(t, "its datagrams count", func() bool {
			a.must(t, step{Op: "sendto", Sock: "s", Addr: r.addr, Parts: parts("FOO=later")})
			return len(from(c.buffered(t), a)) > 0
		})
	})
}

// TestOwnProcessIsNeverCaptured holds that a tracer does not see what its own
// process sends, in any thread, but does see its children.
func TestOwnProcessIsNeverCaptured(t *testing.T) {
	eachBackend(t, func(t *testing.T, backend string) {
		c := named(t, backend)
		r := listenPath(t, "own/notify.sock")
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = unix.Close(fd) }()
		done := make(chan error)
		for range 4 {
			go func() { done <- unix.Sendto(fd, []byte("READY=1"), 0, &unix.SockaddrUnix{Name: r.path()}) }()
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		if err := connectTo(fd, r.addr); err != nil {
			t.Fatal(err)
		}
		if _, err := unix.Write(fd, []byte("READY=1")); err != nil {
			t.Fatal(err)
		}
		if got := r.drain(); len(got) != 5 {
			t.Fatalf("sent 5, received %q", got)
		}
		if got := c.collect(t); len(got) != 0 {
			t.Errorf("captured %d of the tracer's own datagrams, the first: %s", len(got), describe(got[0]))
		}
	})
}

// Who was told that there is more to read, and writes out nothing until then, is told when that
// is not so.
func TestAReaderIsToldBeforeItWaitsBehindWhatIsNotAccepted(t *testing.T) {
	vmtest.OnlyOn(t, "what reads the ring buffer", "sid-amd64", "prove:5.10-amd64")
	eachBackend(t, func(t *testing.T, backend string) {
		r := listenPath(t, "accepted/notify.sock")
		r.dropAll()
		c := openCapture(t, tracer.Options{
			Backend: backend, Filter: tracer.Filter{Sockets: []string{r.path()}},
			Accept: func(e *events.Event) bool { return string(e.Payload) == "READY=1" },
		})
		a := startAgent(t, agentSpec{comm: "sdt-accepted"})
		a.must(t, step{Op: "socket", Sock: "s", Type: unix.SOCK_DGRAM})
		for _, payload := range []string{"READY=1", "FOO=1"} {
			a.must(t, step{Op: "sendto", Sock: "s", Addr: r.addr, Parts: parts(payload)})
		}
		item, err := c.ReadOrIdle()
		if err != nil || item.Event == nil || item.Event.Seq != 1 {
			t.Fatalf("read %+v, %v", item, err)
		}
		if item, err := c.ReadOrIdle(); !errors.Is(err, tracer.ErrIdle) {
			t.Fatalf("read %+v, %v", item, err)
		}
		stats, err := c.Stats()
		if err != nil || stats.Captured != 1 || stats.Filtered == 0 && !mayMiss() {
			t.Errorf("counted %+v, %v", stats, err)
		}
	})
}
