// SPDX-License-Identifier: Apache-2.0

package tracer_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/pkg/events"
	"github.com/sdtrace/sdtrace/vmtest"
)

// who is what an event says about a sender that need not live any more.
type who struct {
	PID, TID, NSPID, PPID, UID uint32
	Comm, Cgroup               string
	CgroupID                   uint64
}

func whoOf(e *events.Event) who {
	s := e.Sender
	return who{s.PID, s.TID, s.NSPID, s.PPID, s.UID, s.Comm, s.Cgroup, s.CgroupID}
}

// discard receives and throws away whatever arrives until the test ends.
func (r *receiver) discard(t *testing.T) {
	t.Helper()
	fd, err := unix.Dup(r.fd)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "receiver")
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 64)
		for {
			if _, err := f.Read(buf); err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		_ = f.Close()
		<-done
	})
}

func TestTenThousandShortLivedSenders(t *testing.T) {
	vmtest.OnlyOn(t, "what remembers processes asks the kernel for no more than the others", "5.10-amd64", "prove:sid-amd64")
	total, round := 10_000, 500
	if inVM {
		total, round = 500, 100
	}
	eachBackend(t, func(t *testing.T, backend string) {
		c := named(t, backend)
		r := listenPath(t, "many/notify.sock")
		r.discard(t)
		type spawner struct {
			*agent
			in cgroup
			id uint64
		}
		var spawners []spawner
		for _, name := range []string{"a.service", "b.service", "b.service/sub", "deep.slice/deep-er.slice/run-" + strings.Repeat("r", 80) + ".scope"} {
			in := v2(t).makeCgroup(t, "many.slice/"+name)
			a := startAgent(t, agentSpec{comm: "sdt-spawner"})
			join(t, in.dir, a.pid)
			spawners = append(spawners, spawner{a, in, in.id(t)})
		}
		uids := []int{0, 1000, 65534, 1 << 31, 70000}
		comms := []string{"one", "fifteen bytes 15", "three)( 3", "four", "five\n5", "six", "seven"}
		want := map[string]who{}
		got := map[string]who{}
		unread := 0
		for first := 0; first < total; first += round {
			s := spawners[first/round%len(spawners)]
			o := s.must(t, step{Op: "spawn", Addr: r.addr, Spawn: &spawn{Count: round, First: first, UIDs: uids, Comms: comms}})
			for i, pid := range o.PIDs {
				comm := comms[i%len(comms)]
				want[spawnID(first+i)] = who{
					PID: uint32(pid), TID: uint32(pid), NSPID: uint32(pid), PPID: s.pid, UID: uint32(uids[i%len(uids)]),
					Comm: comm[:min(15, len(comm))], Cgroup: s.in.path, CgroupID: s.id,
				}
			}
			for _, e := range c.collect(t) {
				if e.Payload == nil && mayMiss() {
					unread++
					continue
				}
				if _, ok := got[string(e.Payload)]; ok {
					t.Errorf("captured twice: %s", describe(e))
				}
				got[string(e.Payload)] = whoOf(e)
				if e.Result.Failed() {
					t.Errorf("the datagram arrived, captured as failed: %s", describe(e))
				}
			}
		}
		// What the kernel skipped is counted; collect fails where it must not skip.
		if len(want) != total || len(got)+unread+int(c.missed) != total {
			t.Errorf("%d processes sent a datagram, %d captured, %d without payload, %d missed",
				len(want), len(got), unread, c.missed)
		}
		wrong := 0
		for id, w := range want {
			if _, ok := got[id]; !ok {
				continue // counted above
			}
			if diff := cmp.Diff(w, got[id]); diff != "" {
				wrong++
				if wrong <= 5 {
					t.Errorf("%s (-want +captured):\n%s", id, diff)
				}
			}
		}
		if wrong > 0 {
			t.Errorf("%d of %d are wrong", wrong, total)
		}
	})
}

func TestShortLivedCgroups(t *testing.T) {
	vmtest.OnlyOn(t, "the same programs read it on each", "5.10-amd64", "sid-amd64", "prove:6.1-amd64", "prove:6.12-amd64",
		"prove:6.1-arm64", "prove:6.12-arm64", "prove:sid-arm64")
	count := 50
	if inVM {
		count = 10
	}
	eachBackend(t, func(t *testing.T, backend string) {
		c := named(t, backend)
		r := listenPath(t, "brief/notify.sock")
		r.discard(t)
		a := startAgent(t, agentSpec{comm: "sdt-brief"})
		var want, got []who
		for i := range count {
			in := v2(t).makeCgroup(t, fmt.Sprintf("brief.slice/run-%d.scope", i))
			id := in.id(t)
			o := a.must(t, step{Op: "spawn", Addr: r.addr, Spawn: &spawn{
				Count: 1, First: i, UIDs: []int{0}, Comms: []string{"sdt-fly"}, Cgroup: in.dir,
			}})
			if err := os.Remove(in.dir); err != nil {
				t.Fatal(err)
			}
			pid := uint32(o.PIDs[0])
			want = append(want, who{PID: pid, TID: pid, NSPID: pid, PPID: a.pid, Comm: "sdt-fly", Cgroup: in.path, CgroupID: id})
		}
		for _, e := range c.collect(t) {
			got = append(got, whoOf(e))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +captured):\n%s", diff)
		}
	})
}

// TestCgroupPathOfAnyLength goes to the ends of what a cgroup can be called.
func TestCgroupPathOfAnyLength(t *testing.T) {
	vmtest.OnlyOn(t, "the loop that walks up the tree",
		"5.10-amd64", "sid-amd64", "sid-arm64", "prove:6.1-amd64", "prove:6.12-amd64", "prove:6.1-arm64")
	eachBackend(t, func(t *testing.T, backend string) {
		c := named(t, backend)
		r := listenPath(t, "long/notify.sock")
		for _, name := range []string{
			"x",
			strings.Repeat("n", 255),
			strings.Repeat("n", 254) + "/" + strings.Repeat("m", 255),
			strings.Repeat("d/", 20) + "leaf",
			"with spaces \x1b and\xff bytes.service",
		} {
			in := v2(t).makeCgroup(t, name)
			a := startAgent(t, agentSpec{comm: "sdt-long"})
			join(t, in.dir, a.pid)
			a.must(t,
				step{Op: "socket", Sock: "s", Type: unix.SOCK_DGRAM},
				step{Op: "sendto", Sock: "s", Addr: r.addr, Parts: parts("READY=1")})
			r.drain()
			got := c.collect(t)
			if len(got) != 1 || got[0].Sender.Cgroup != in.path {
				t.Errorf("sent from %q, captured %+v", in.path, got)
			}
			a.stop()
		}
	})
}

// TestControllerPathWhenV2SaysNothing is about hosts with cgroup v1 or both:
// there v2 may say only "/".
func TestControllerPathWhenV2SaysNothing(t *testing.T) {
	eachBackend(t, func(t *testing.T, backend string) {
		c := named(t, backend)
		r := listenPath(t, "v1/notify.sock")
		tried := false
		for _, controller := range []string{"memory", "pids"} {
			h, ok := v1(t, controller)
			if !ok {
				continue
			}
			tried = true
			t.Run(controller, func(t *testing.T) {
				in := h.makeCgroup(t, "docker/v1-"+controller)
				a := startAgent(t, agentSpec{comm: "sdt-v1"})
				// The test may have been started in some cgroup.
				for _, other := range hierarchies(t) {
					join(t, other.dir, a.pid)
				}
				a.must(t, step{Op: "socket", Sock: "s", Type: unix.SOCK_DGRAM})
				send := step{Op: "sendto", Sock: "s", Addr: r.addr, Parts: parts("READY=1")}

				a.must(t, send)
				join(t, in.dir, a.pid)
				a.must(t, send)
				both := v2(t).makeCgroup(t, "both.service")
				join(t, both.dir, a.pid)
				a.must(t, send)

				type place struct{ Cgroup, Controller string }
				want := []place{{v2(t).top, ""}, {in.path, controller}, {both.path, ""}}
				var got []place
				for _, e := range c.collect(t) {
					got = append(got, place{e.Sender.Cgroup, e.Sender.CgroupController})
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("in no cgroup, in a v1 cgroup, in a v2 cgroup as well (-want +captured):\n%s", diff)
				}
				a.stop()
			})
		}
		if !tried {
			t.Skip("not declared: no cgroup v1 hierarchy of a controller is mounted")
		}
	})
}

// What a process executes without giving up its number, nor its name, is another program.
func TestExeOfASenderThatHasExecutedAnotherProgram(t *testing.T) {
	vmtest.OnlyOn(t, "where the kernel counts what a process executes", "5.10-amd64", "sid-amd64")
	eachBackend(t, func(t *testing.T, backend string) {
		c := named(t, backend)
		r := listenPath(t, "executed/notify.sock")
		program, err := os.ReadFile("/proc/self/exe")
		if err != nil {
			t.Fatal(err)
		}
		other := filepath.Join(t.TempDir(), "other")
		if err := os.WriteFile(other, program, 0o755); err != nil {
			t.Fatal(err)
		}
		a := startAgent(t, agentSpec{comm: "sdt-execs"})
		say := func() string {
			a.must(t,
				step{Op: "socket", Sock: "s", Type: unix.SOCK_DGRAM},
				step{Op: "sendto", Sock: "s", Addr: r.addr, Parts: parts("READY=1")})
			got := c.collect(t)
			if len(got) != 1 {
				t.Fatalf("captured %d events", len(got))
			}
			return got[0].Sender.Exe
		}
		before := say()
		a.begin(t, step{Op: "execute", Path: other})
		if err := a.greet(); err != nil {
			t.Fatal(err)
		}
		if after := say(); after != other || before == other {
			t.Errorf("sent by %s, and by %s after it has executed %s", before, after, other)
		}
	})
}

// TestExeOfALivingSender holds Exe against the agent's own binary.
func TestExeOfALivingSender(t *testing.T) {
	eachBackend(t, func(t *testing.T, backend string) {
		c := named(t, backend)
		r := listenPath(t, "exe/notify.sock")
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		a := startAgent(t, agentSpec{comm: "sdt-exe"})
		a.must(t,
			step{Op: "socket", Sock: "s", Type: unix.SOCK_DGRAM},
			step{Op: "sendto", Sock: "s", Addr: r.addr, Parts: parts("READY=1")})
		got := c.collect(t)
		if want := filepath.Clean(exe); len(got) != 1 || got[0].Sender.Exe != want {
			t.Errorf("sent by %s, captured %+v", want, got)
		}
	})
}
