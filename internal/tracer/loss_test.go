// SPDX-License-Identifier: Apache-2.0

package tracer_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/await"
	"github.com/sdtrace/sdtrace/internal/tracer"
	"github.com/sdtrace/sdtrace/vmtest"
)

// lostIn is what a capture's counters say was lost.
func lostIn(t *testing.T, c *capture) (captured, lost uint64, s tracer.Stats) {
	t.Helper()
	s, err := c.Stats()
	if err != nil {
		t.Fatal(err)
	}
	return s.Captured, s.RingFull + s.Missed, s
}

func TestNothingIsLostInSilence(t *testing.T) {
	vmtest.OnlyOn(t, "the ring buffer, from the oldest to one that preempts itself", "sid-amd64", "prove:5.10-amd64")
	each := 25_000
	switch {
	case inVM:
		each = 2_000 // a hundred times what the ring has room for, together
	case vmtest.Long():
		each = 250_000
	}
	for _, reading := range []bool{false, true} {
		name := "reader stopped"
		if reading {
			name = "reader running"
		}
		t.Run(name, func(t *testing.T) {
			eachBackend(t, func(t *testing.T, backend string) {
				// A name and payloads that mean nothing to the shared tracers,
				// which need not suffer.
				r := listen(t, pathAddr(filepath.Join(base, "flood")), unix.SOCK_DGRAM)
				// Every send succeeds, and no queue fills up.
				r.dropAll()
				c := openCapture(t, tracer.Options{
					Backend: backend, RingSize: 64 << 10,
					Filter: tracer.Filter{Sockets: []string{r.path()}},
				})
				// Records of two sizes, so that the ring wraps anywhere.
				payloads := []string{"FLOOD=1", "FLOOD=" + strings.Repeat("long", 500)}
				type end struct {
					outcome
					err error
				}
				// More than processors: a kernel that preempts itself skips several programs for one of them at a time.
				floods := append(slices.Clone(payloads), payloads...)
				ends := make(chan end, len(floods))
				for _, payload := range floods {
					a := startAgent(t, agentSpec{comm: "sdt-flood"})
					a.must(t, step{Op: "socket", Sock: "s", Type: unix.SOCK_DGRAM})
					a.begin(t, step{Op: "flood", Sock: "s", Addr: r.addr, Parts: parts(payload), N: each})
					go func() {
						o, err := a.finish()
						a.stop() // see stop
						ends <- end{o, err}
					}()
				}
				read := map[string]uint64{}
				take := func() {
					for _, e := range c.buffered(t) {
						read[string(e.Payload)]++
						if e.Payload == nil && mayMiss() {
							continue // see mayMiss
						}
						if e.Result.Bytes == nil || int(*e.Result.Bytes) != len(e.Payload) || e.Result.Delivered != nil && *e.Result.Delivered {
							t.Errorf("sent, and dropped by the receiver's filter, captured %+v", e.Result)
						}
					}
				}
				for running := len(floods); running > 0; {
					if reading && len(ends) == 0 {
						take()
						continue
					}
					e := <-ends
					if e.err != nil || e.N != each {
						t.Fatalf("the flood ended after %d datagrams: %v", e.N, e.err)
					}
					running--
				}
				take()

				sent := uint64(len(floods) * each)
				captured, lost, stats := lostIn(t, c)
				t.Logf("sent %d, %+v", sent, stats)
				if captured+lost != sent {
					t.Errorf("%d sent, but %d captured and %d lost make %d", sent, captured, lost, captured+lost)
				}
				total := uint64(0)
				for _, payload := range payloads {
					total += read[payload]
				}
				if mayMiss() {
					total += read[""]
					delete(read, "")
				}
				if total != captured || len(read) > len(payloads) {
					t.Errorf("%d captured, %d read, of %d kinds", captured, total, len(read))
				}
				if c.lost != lost {
					t.Errorf("%d lost, %d reported by Read", lost, c.lost)
				}
				if !reading && stats.RingFull == 0 {
					t.Error("the ring was never full: this test shows nothing")
				}

				// The capture goes on where there is room again.
				a := startAgent(t, agentSpec{comm: "sdt-after"})
				a.must(t,
					step{Op: "socket", Sock: "s", Type: unix.SOCK_DGRAM},
					step{Op: "sendto", Sock: "s", Addr: r.addr, Parts: parts("READY=1")})
				if got := c.buffered(t); len(got) != 1 || string(got[0].Payload) != "READY=1" {
					t.Errorf("after the flood, captured %d events", len(got))
				}
			})
		})
	}
}

// What is lost when the ring buffer runs short is lost by who sends the most.
func TestWhoFloodsLosesHisOwnMessages(t *testing.T) {
	vmtest.OnlyOn(t, "who a control group belongs to", "sid-amd64", "prove:5.10-amd64")
	const honest = 100
	eachBackend(t, func(t *testing.T, backend string) {
		r := listen(t, pathAddr(filepath.Join(base, "crowd-"+backend)), unix.SOCK_DGRAM)
		r.dropAll() // no queue fills up
		c := openCapture(t, tracer.Options{Backend: backend, RingSize: 1 << 20, Filter: tracer.Filter{Sockets: []string{r.path()}}})
		groups := []cgroup{v2(t).makeCgroup(t, "flood.service"), v2(t).makeCgroup(t, "honest.service")}
		var agents []*agent
		for i, comm := range []string{"sdt-flood", "sdt-honest"} {
			a := startAgent(t, agentSpec{comm: comm})
			join(t, groups[i].dir, a.pid)
			a.must(t, step{Op: "socket", Sock: "s", Type: unix.SOCK_DGRAM})
			agents = append(agents, a)
		}
		// More than the ring has room for, and nobody reads: it is as full as the one who floods can make it.
		flood := step{Op: "flood", Sock: "s", Addr: r.addr, Parts: parts("FLOOD=1"), N: 10_000}
		if o := agents[0].must(t, flood); o.N != flood.N {
			t.Fatalf("%d of %d sent", o.N, flood.N)
		}
		for range honest {
			agents[1].must(t, step{Op: "sendto", Sock: "s", Addr: r.addr, Parts: parts("READY=1")})
		}
		got := len(from(c.buffered(t), agents[1]))
		_, lost, stats := lostIn(t, c)
		t.Logf("%d honest ones captured, %+v", got, stats)
		if got != honest && uint64(honest-got) > stats.Missed {
			t.Errorf("%d of %d honest ones were captured", got, honest)
		}
		if stats.RingFull == 0 || c.lost != lost {
			t.Errorf("lost %d, reported %d: this test shows nothing", lost, c.lost)
		}
		if len(c.by) != 1 || c.by[0].Cgroup != groups[0].path || c.by[0].Count != stats.RingFull {
			t.Errorf("it is said to have been lost by %+v, want %s alone", c.by, groups[0].path)
		}
	})
}

// blockedIn waits until all the threads sleep in sendto(2).
func blockedIn(t *testing.T, a *agent, tids []int) {
	t.Helper()
	for _, tid := range tids {
		await.Until(t, "a thread sleeps in sendto", func() bool { return inSyscall(t, a.pid, tid, unix.SYS_SENDTO) })
	}
}

// However many threads of one user wait in a send, they take the place of nobody else's message.
func TestThreadsThatWaitInASendLoseNoMessage(t *testing.T) {
	vmtest.OnlyOn(t, "what is noted of a send that waits, with and without preemption",
		"6.12-amd64", "sid-amd64", "prove:5.10-amd64")
	threads, others := 200, 20
	if vmtest.Long() || vmtest.All() {
		threads = 5000 // a machine of 1 GiB has no more than 7,900
	}
	eachBackend(t, func(t *testing.T, backend string) {
		crowded, r := listenPath(t, "crowd/notify.sock"), listenPath(t, "other/notify.sock")
		a := startAgent(t, agentSpec{comm: "sdt-crowd"})
		c := openCapture(t, tracer.Options{Backend: backend, Filter: tracer.Filter{Sockets: []string{crowded.path(), r.path()}}})
		sent := fill(t, a, crowded) + threads + others
		a.must(t, step{Op: "socket", Sock: "s", Type: unix.SOCK_DGRAM})
		o := a.must(t, step{Op: "blocked threads", Sock: "s", Addr: crowded.addr, Parts: parts("STATUS=crowd"), N: threads})
		blockedIn(t, a, o.PIDs)
		other := startAgent(t, agentSpec{comm: "sdt-other"})
		other.must(t, step{Op: "socket", Sock: "s", Type: unix.SOCK_DGRAM})
		for range others {
			other.must(t, step{Op: "sendto", Sock: "s", Addr: r.addr, Parts: parts("READY=1")})
			r.drain()
		}
		got := from(c.buffered(t), other)
		if len(got) != others {
			t.Errorf("beside %d threads that wait, %d of %d messages were captured", threads, len(got), others)
		}
		for _, e := range got {
			if string(e.Payload) != "READY=1" || string(e.Socket.Address) != r.path() {
				t.Errorf("captured %q to %s", e.Payload, e.Socket.Address)
			}
		}
		crowded.discard(t)
		if o := a.must(t, step{Op: "join blocked threads"}); o.N != threads {
			t.Fatalf("%d of %d blocked sends succeeded", o.N, threads)
		}
		a.stop()
		c.buffered(t)
		if captured, lost, stats := lostIn(t, c); captured+lost != uint64(sent) || lost != 0 && !mayMiss() {
			t.Errorf("%d sent, %+v", sent, stats)
		}
	})
}

// Hundreds of senders on a few processors, of which the kernel may preempt each between any two hooks: no event is lost, comes
// twice, or says what another one sent.
func TestACrowdOfSendersIsNotMixedUp(t *testing.T) {
	vmtest.OnlyOn(t, "programs that are preempted, and some that are not", "sid-amd64", "prove:6.12-amd64", "prove:5.10-amd64")
	threads, each, times := 100, 10, 1
	if vmtest.Long() || vmtest.All() {
		threads, times = 500, 50
	}
	eachBackend(t, func(t *testing.T, backend string) {
		for range times {
			var receivers []*receiver
			var messages []message
			const readers = 4
			for i := range readers {
				receivers = append(receivers, listenPath(t, fmt.Sprintf("mixed-%d/notify.sock", i)))
			}
			for i := range threads {
				messages = append(messages, message{Addr: receivers[i%readers].addr})
			}
			a := startAgent(t, agentSpec{comm: "sdt-mixed"})
			c := openCapture(t, tracer.Options{Backend: backend, Filter: tracer.Filter{PIDs: []uint32{a.pid}}})
			for _, r := range receivers {
				r.discard(t)
			}
			o := a.must(t, step{Op: "send at once", Msgs: messages, N: each})
			if o.N != threads*each {
				t.Fatalf("%d of %d sends succeeded", o.N, threads*each)
			}
			a.stop()
			seen := make(map[string]bool)
			for _, e := range c.buffered(t) {
				var tid uint32
				var n int
				if _, err := fmt.Sscanf(string(e.Payload), "STATUS=%d %d", &tid, &n); err != nil || tid != e.Sender.TID {
					t.Errorf("thread %d sent %q", e.Sender.TID, e.Payload)
				}
				if to := e.Socket; to.Address != "" && to.Bound != "" && to.Address != to.Bound {
					t.Errorf("to %s, which is bound to %s", to.Address, to.Bound)
				}
				if seen[string(e.Payload)] {
					t.Errorf("twice: %s", e.Payload)
				}
				seen[string(e.Payload)] = true
			}
			captured, lost, stats := lostIn(t, c)
			t.Logf("%d sent, %+v", o.N, stats)
			if len(seen) != int(captured) || int(captured+lost) != o.N || lost != 0 && !mayMiss() {
				t.Errorf("%d sent, %d seen, %d captured, %d lost", o.N, len(seen), captured, lost)
			}
		}
	})
}

// Another program at the same function makes some kernels skip the programs that run at its end,
// for whoever is inside (kernel: bpf_tramp_image_put).
func TestASendDuringWhichAnotherProgramIsAttachedIsCounted(t *testing.T) {
	eachBackend(t, func(t *testing.T, backend string) {
		if backend != "fentry" {
			t.Skip("not declared: another program at a tracepoint changes nothing")
		}
		if !vmtest.KernelAtLeast(5, 12) {
			t.Skip("not declared: this kernel reuses the code that the send returns to")
		}
		r := listenPath(t, "attached/notify.sock")
		c := openCapture(t, tracer.Options{Backend: backend, Filter: tracer.Filter{Sockets: []string{r.path()}}})
		filler, a := startAgent(t, agentSpec{comm: "sdt-filler"}), startAgent(t, agentSpec{comm: "sdt-blocked"})
		sent := fill(t, filler, r) + 1
		a.must(t, step{Op: "socket", Sock: "s", Type: unix.SOCK_DGRAM})
		o := a.must(t, step{Op: "blocked threads", Sock: "s", Addr: r.addr, Parts: parts("READY=1"), N: 1})
		blockedIn(t, a, o.PIDs)
		attachAnother(t, "unix_dgram_sendmsg")
		r.drain()
		a.must(t, step{Op: "join blocked threads"})
		a.stop()
		c.buffered(t)
		captured, lost, stats := lostIn(t, c)
		t.Logf("sent %d, %+v", sent, stats)
		if sum := captured + lost; sum < uint64(sent) || sum > uint64(sent) && !mayMiss() {
			t.Errorf("%d sent, but %d captured and %d lost make %d", sent, captured, lost, sum)
		}
	})
}

// attachAnother attaches a program that does nothing to a kernel function.
func attachAnother(t *testing.T, function string) {
	t.Helper()
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.Tracing, AttachType: ebpf.AttachTraceFEntry, AttachTo: function, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	l, err := link.AttachTracing(link.TracingOptions{Program: program})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
}

func TestKilledBlockedSenderLeaksNothing(t *testing.T) {
	vmtest.OnlyOn(t, "what is noted of a send that waits, with and without preemption",
		"5.10-amd64", "sid-amd64", "sid-arm64", "prove:6.1-amd64", "prove:6.12-amd64", "prove:6.1-arm64", "prove:6.12-arm64")
	const rounds = 20
	eachBackend(t, func(t *testing.T, backend string) {
		r := listenPath(t, "killed/notify.sock")
		c := openCapture(t, tracer.Options{
			Backend: backend, Filter: tracer.Filter{Sockets: []string{r.path()}},
		})
		a := startAgent(t, agentSpec{comm: "sdt-filler"})
		fill(t, a, r)
		for range rounds {
			victim := startAgent(t, agentSpec{comm: "sdt-victim"})
			victim.must(t, step{Op: "socket", Sock: "s", Type: unix.SOCK_DGRAM})
			o := victim.must(t, step{Op: "blocked threads", Sock: "s", Addr: r.addr, Parts: parts("STOPPING=1"), N: 1})
			blockedIn(t, victim, o.PIDs)
			victim.kill()
			// The send ended, though nobody got to know its result.
			got := from(c.buffered(t), victim)
			if len(got) != 1 || string(got[0].Payload) != "STOPPING=1" || !got[0].Result.Failed() {
				t.Errorf("killed in a send, captured %d events: %+v", len(got), got)
			}
		}
		r.drain()
		a.must(t, step{Op: "socket", Sock: "s", Type: unix.SOCK_DGRAM})
		const after = 100
		for range after {
			a.must(t, step{Op: "sendto", Sock: "s", Addr: r.addr, Parts: parts("READY=1")})
			r.drain()
		}
		if got := len(c.buffered(t)); got != after {
			t.Errorf("%d sent after all were killed, %d captured", after, got)
		}
		if _, lost, stats := lostIn(t, c); lost != 0 {
			t.Errorf("lost: %+v", stats)
		}
	})
}
