// SPDX-License-Identifier: Apache-2.0

package tracer_test

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/await"
	"github.com/sdtrace/sdtrace/internal/tracer"
	"github.com/sdtrace/sdtrace/pkg/events"
	"github.com/sdtrace/sdtrace/vmtest"
)

// fate is the part of a receipt that does not depend on when things happen.
type fate struct {
	Kind                        events.ReceiptKind
	Payload                     string
	PID, TID                    uint32
	Comm                        string
	Bytes                       uint32
	Errno                       string
	Truncated, ControlTruncated bool
	SenderExited                bool
}

func fateOf(r *events.Receipt) fate {
	f := fate{
		Kind: r.Kind, Payload: string(r.Send.Payload), PID: r.By.PID, TID: r.By.TID, Comm: r.By.Comm,
		Errno: r.Errno, Truncated: r.Truncated, ControlTruncated: r.ControlTruncated, SenderExited: r.SenderExited != nil,
	}
	if r.Bytes != nil {
		f.Bytes = *r.Bytes
	}
	return f
}

// checkFates holds the receipts for what an agent sent against what they must be.
func checkFates(t *testing.T, c *capture, a *agent, want ...fate) {
	t.Helper()
	c.collect(t)
	var got []fate
	for _, r := range c.receiptsFor(a) {
		if r.Delay < 0 || r.Delay > time.Minute || r.Time.Before(r.Send.Time.Add(-r.Send.Result.Latency)) {
			t.Errorf("%s at %v, %v in the queue, sent at %v", r.Kind, r.Time, r.Delay, r.Send.Time)
		}
		got = append(got, fateOf(r))
	}
	if c.incomplete(t) {
		return
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// incomplete reports whether a kernel that may do so missed something, and counted it.
func (c *capture) incomplete(t *testing.T) bool {
	t.Helper()
	if c.missed+c.unfollowed == 0 {
		return false
	}
	if !mayMiss() {
		t.Errorf("%d datagrams and %d receipts are missing", c.missed, c.unfollowed)
	}
	return true
}

// here is what a receipt says of this thread, which is locked until the test ends.
func here(t *testing.T, kind events.ReceiptKind) fate {
	t.Helper()
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	return fate{Kind: kind, PID: uint32(os.Getpid()), TID: uint32(unix.Gettid()), Comm: strings.TrimSuffix(string(comm), "\n")}
}

// eachFollowing runs f for each backend that tells what becomes of datagrams.
func eachFollowing(t *testing.T, f func(t *testing.T, c *capture)) {
	t.Helper()
	eachBackend(t, func(t *testing.T, backend string) {
		c := named(t, backend)
		if backend != "fentry" {
			if c.Knows().Receipts {
				t.Fatalf("the %s backend says that it follows datagrams", backend)
			}
			t.Skip("not declared: this backend sees only sends")
		}
		if !c.Knows().Receipts {
			t.Fatal("the fentry backend does not follow datagrams on this kernel")
		}
		f(t, c)
	})
}

func TestEveryWayToReadIsSeen(t *testing.T) {
	const payload = "READY=1\nSTATUS=read me"
	size := uint32(len(payload))
	buffer := func(n int) []byte { return make([]byte, n) }
	control := func(n int) []byte { return make([]byte, n) }
	tests := []struct {
		name string
		fds  []string
		read func(fd int) error
		want func(f *fate)
	}{
		{"read", nil, func(fd int) error { _, err := unix.Read(fd, buffer(4096)); return err }, func(*fate) {}},
		{"readv", nil, func(fd int) error { _, err := unix.Readv(fd, [][]byte{buffer(3), buffer(4096)}); return err }, func(*fate) {}},
		{"recvfrom", nil, func(fd int) error { _, _, err := unix.Recvfrom(fd, buffer(4096), 0); return err }, func(*fate) {}},
		{"recvmsg", nil, func(fd int) error { _, _, _, _, err := unix.Recvmsg(fd, buffer(4096), control(256), 0); return err }, func(*fate) {}},
		{"recvmsg with descriptors", []string{"memfd", "socket"}, func(fd int) error {
			_, n, _, _, err := unix.Recvmsg(fd, buffer(4096), control(256), unix.MSG_CMSG_CLOEXEC)
			if n == 0 && err == nil {
				err = unix.ENOMSG
			}
			return err
		}, func(*fate) {}},
		{"a buffer that is too short", nil, func(fd int) error { _, _, err := unix.Recvfrom(fd, buffer(7), 0); return err }, func(f *fate) {
			f.Bytes, f.Truncated = 7, true
		}},
		{"a buffer that is too short, and MSG_TRUNC", nil, func(fd int) error { _, _, err := unix.Recvfrom(fd, buffer(7), unix.MSG_TRUNC); return err }, func(f *fate) {
			f.Truncated = true
		}},
		{"no buffer at all", nil, func(fd int) error { _, _, err := unix.Recvfrom(fd, nil, 0); return err }, func(f *fate) {
			f.Bytes, f.Truncated = 0, true
		}},
		{"no room for descriptors", []string{"memfd"}, func(fd int) error { _, _, _, _, err := unix.Recvmsg(fd, buffer(4096), nil, 0); return err }, func(f *fate) {
			f.ControlTruncated = true
		}},
		{"memory that cannot be written to", nil, func(fd int) error {
			_, _, errno := unix.Syscall6(unix.SYS_RECVFROM, uintptr(fd), 8, 4096, 0, 0, 0)
			if errno == unix.EFAULT {
				return nil
			}
			return unix.EPROTO
		}, func(f *fate) { f.Bytes, f.Errno = 0, "EFAULT" }},
		{"looked at before it is read", nil, func(fd int) error {
			for range 2 {
				if _, _, err := unix.Recvfrom(fd, buffer(4096), unix.MSG_PEEK); err != nil {
					return err
				}
			}
			_, err := unix.Read(fd, buffer(4096))
			return err
		}, func(*fate) {}},
	}
	eachFollowing(t, func(t *testing.T, c *capture) {
		a := startAgent(t, agentSpec{comm: "sdt-followed"})
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				want := here(t, events.ReceiptRead)
				want.Payload, want.Bytes = payload, size
				test.want(&want)
				r := listenPath(t, "read/notify.sock")
				a.must(t,
					step{Op: "socket", Sock: "s", Type: unix.SOCK_DGRAM},
					step{Op: "sendmsg", Sock: "s", Addr: r.addr, Parts: parts(payload), FDs: test.fds},
					step{Op: "close passed"})
				if err := test.read(r.fd); err != nil {
					t.Fatal(err)
				}
				checkFates(t, c, a, want)
			})
		}
		t.Run("recvmmsg", func(t *testing.T) {
			want := here(t, events.ReceiptRead)
			r := listenPath(t, "read/notify.sock")
			a.must(t, step{Op: "socket", Sock: "s", Type: unix.SOCK_DGRAM}, step{Op: "connect", Sock: "s", Addr: r.addr})
			var wants []fate
			for _, payload := range []string{"READY=1", "", "STOPPING=1"} {
				a.must(t, step{Op: "send", Sock: "s", Parts: parts(payload)})
				want.Payload, want.Bytes = payload, uint32(len(payload))
				wants = append(wants, want)
			}
			if n := receiveMany(t, r.fd, 8); n != len(wants) {
				t.Fatalf("received %d datagrams", n)
			}
			checkFates(t, c, a, wants...)
		})
	})
}

// receiveMany calls recvmmsg(2) once.
func receiveMany(t *testing.T, fd, most int) int {
	t.Helper()
	type mmsghdr struct {
		hdr unix.Msghdr
		n   uint32
		_   [4]byte
	}
	msgs, iovs := make([]mmsghdr, most), make([]unix.Iovec, most)
	for i := range msgs {
		buf := make([]byte, 64)
		iovs[i].Base = &buf[0]
		iovs[i].SetLen(len(buf))
		msgs[i].hdr.Iov = &iovs[i]
		msgs[i].hdr.SetIovlen(1)
	}
	n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&msgs[0])), uintptr(most), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	return int(n)
}

func TestWhatNobodyReadsIsReported(t *testing.T) {
	eachFollowing(t, func(t *testing.T, c *capture) {
		a := startAgent(t, agentSpec{comm: "sdt-unread"})
		send := func(t *testing.T, addr []byte, payload string) {
			a.must(t,
				step{Op: "socket", Sock: "s", Type: unix.SOCK_DGRAM},
				step{Op: "sendto", Sock: "s", Addr: addr, Parts: parts(payload)})
		}
		t.Run("closed with data queued", func(t *testing.T) {
			want := here(t, events.ReceiptUnread)
			r := listen(t, abstractAddr("unread"), unix.SOCK_DGRAM)
			send(t, r.addr, "READY=1")
			send(t, r.addr, "STATUS=second")
			r.close()
			first, second := want, want
			first.Payload, second.Payload = "READY=1", "STATUS=second"
			checkFates(t, c, a, first, second)
		})
		t.Run("only looked at", func(t *testing.T) {
			want := here(t, events.ReceiptUnread)
			want.Payload = "READY=1"
			r := listenPath(t, "unread/notify.sock")
			send(t, r.addr, "READY=1")
			if _, _, err := unix.Recvfrom(r.fd, make([]byte, 64), unix.MSG_PEEK); err != nil {
				t.Fatal(err)
			}
			r.close()
			checkFates(t, c, a, want)
		})
		t.Run("the receiver is killed", func(t *testing.T) {
			victim := startAgent(t, agentSpec{comm: "sdt-victim"})
			addr := pathAddr(filepath.Join(root, "victim-notify.sock"))
			t.Cleanup(func() { _ = os.Remove(addressText(addr)) })
			tid := victim.tid(t)
			victim.must(t,
				step{Op: "socket", Sock: "own", Type: unix.SOCK_DGRAM},
				step{Op: "bind", Sock: "own", Addr: addr})
			send(t, addr, "READY=1")
			victim.kill()
			c.collect(t)
			got := c.receiptsFor(a)
			// Any thread of it may have been the last.
			if !c.incomplete(t) && (len(got) != 1 || got[0].Kind != events.ReceiptUnread || got[0].By.PID != victim.pid || got[0].By.Comm != "sdt-victim") {
				t.Errorf("of %d (%d) got %+v", victim.pid, tid, got)
			}
		})
		t.Run("still queued", func(t *testing.T) {
			r := listenPath(t, "queued/notify.sock")
			c.collect(t)
			before := c.Unread()
			send(t, r.addr, "READY=1")
			checkFates(t, c, a)
			// The sentinel was closed unread, and so is not one of them.
			if got := c.Unread() - before; !c.incomplete(t) && got != 1 {
				t.Errorf("%d more are unread", got)
			}
		})
	})
}

func TestFailedSendsHaveNoReceipts(t *testing.T) {
	eachFollowing(t, func(t *testing.T, c *capture) {
		a := startAgent(t, agentSpec{comm: "sdt-failing"})
		r := listenPath(t, "failing/notify.sock")
		calls := fill(t, a, r)
		want := here(t, events.ReceiptRead)
		want.Payload, want.Bytes = "STATUS=fill", uint32(len("STATUS=fill"))
		var wants []fate
		for range calls - 1 {
			wants = append(wants, want)
		}
		if got := len(r.drain()); got != calls-1 {
			t.Fatalf("%d calls, %d arrived", calls, got)
		}
		r.dropAll()
		a.must(t,
			step{Op: "socket", Sock: "s", Type: unix.SOCK_DGRAM},
			step{Op: "sendto", Sock: "s", Addr: r.addr, Parts: parts("STATUS=dropped")})
		checkFates(t, c, a, wants...)
	})
}

func TestASendThatHadToWaitIsFollowed(t *testing.T) {
	eachFollowing(t, func(t *testing.T, c *capture) {
		a := startAgent(t, agentSpec{comm: "sdt-waiting"})
		r := listenPath(t, "waiting/notify.sock")
		fill(t, a, r)
		c.collect(t)
		a.must(t, step{Op: "socket", Sock: "s", Type: unix.SOCK_DGRAM})
		o := a.must(t, step{Op: "blocked threads", Sock: "s", Addr: r.addr, Parts: parts("READY=1"), N: 1})
		blockedIn(t, a, o.PIDs)
		// What happens now is told apart from the beginning of the call by any clock.
		await.Pass(50 * time.Millisecond)
		c.collect(t)
		room := clock()
		r.drain()
		a.must(t, step{Op: "join blocked threads"})
		r.drain()
		c.collect(t)
		got := c.receiptsFor(a)
		if c.incomplete(t) {
			return
		}
		last := got[len(got)-1]
		queued := last.Time.Add(-last.Delay)
		if string(last.Send.Payload) != "READY=1" || last.Kind != events.ReceiptRead || queued.Before(room.Add(-time.Millisecond)) {
			t.Errorf("the last was %+v, queued %v after there was room, sent %s", last, queued.Sub(room), describe(last.Send))
		}
	})
}

func TestASenderThatIsGoneIsToldOf(t *testing.T) {
	eachFollowing(t, func(t *testing.T, c *capture) {
		a := startAgent(t, agentSpec{comm: "sdt-leaving"})
		want := here(t, events.ReceiptRead)
		r := listenPath(t, "leaving/notify.sock")
		a.must(t,
			step{Op: "socket", Sock: "s", Type: unix.SOCK_DGRAM},
			step{Op: "sendto", Sock: "s", Addr: r.addr, Parts: parts("READY=1")},
			step{Op: "sendto", Sock: "s", Addr: r.addr, Parts: parts("STOPPING=1")})
		first := make([]byte, 64)
		if _, err := unix.Read(r.fd, first); err != nil {
			t.Fatal(err)
		}
		a.kill()
		r.drain()
		alive, gone := want, want
		alive.Payload, alive.Bytes = "READY=1", 7
		gone.Payload, gone.Bytes, gone.SenderExited = "STOPPING=1", 10, true
		checkFates(t, c, a, alive, gone)
	})
}

func TestABarrierPassesWhenThePipeIsClosedEverywhere(t *testing.T) {
	eachFollowing(t, func(t *testing.T, c *capture) {
		a := startAgent(t, agentSpec{comm: "sdt-barrier"})
		for _, test := range []struct {
			name, payload string
			barrier       bool
		}{
			{"BARRIER=1", "BARRIER=1", true},
			{"with more in it", "STATUS=x\nBARRIER=1", true},
			{"a pipe to be stored", "FDSTORE=1\nFDNAME=p", false},
		} {
			t.Run(test.name, func(t *testing.T) {
				want := here(t, events.ReceiptRead)
				r := listenPath(t, "barrier/notify.sock")
				a.must(t,
					step{Op: "socket", Sock: "s", Type: unix.SOCK_DGRAM},
					step{Op: "sendmsg", Sock: "s", Addr: r.addr, Parts: parts(test.payload), FDs: []string{"pipe"}},
					step{Op: "close passed"})
				control := make([]byte, 64)
				_, n, _, _, err := unix.Recvmsg(r.fd, make([]byte, 64), control, unix.MSG_CMSG_CLOEXEC)
				if err != nil {
					t.Fatal(err)
				}
				messages, err := unix.ParseSocketControlMessage(control[:n])
				if err != nil {
					t.Fatal(err)
				}
				fds, err := unix.ParseUnixRights(&messages[0])
				if err != nil {
					t.Fatal(err)
				}
				copied, err := unix.Dup(fds[0])
				if err != nil {
					t.Fatal(err)
				}
				want.Payload, want.Bytes = test.payload, uint32(len(test.payload))
				_ = unix.Close(fds[0])
				checkFates(t, c, a, want)
				_ = unix.Close(copied)
				if !test.barrier {
					checkFates(t, c, a)
					return
				}
				want.Kind, want.Bytes = events.ReceiptBarrier, 0
				checkFates(t, c, a, want)
			})
		}
	})
}

func TestReceiptsComeOnlyForWhatIsShown(t *testing.T) {
	vmtest.OnlyOn(t, "the same programs decide on each", "sid-amd64", "prove:5.10-amd64")
	eachBackend(t, func(t *testing.T, backend string) {
		if backend != "fentry" {
			t.Skip("not declared: this backend sees only sends")
		}
		for name, filter := range map[string]tracer.Filter{
			"by a key":             {Keys: []string{"READY"}},
			"of those that failed": {Failed: true},
		} {
			t.Run(name, func(t *testing.T) {
				r := listenPath(t, "shown/notify.sock")
				filter.Sockets = []string{r.path()}
				c := openCapture(t, tracer.Options{Backend: backend, Filter: filter})
				a := startAgent(t, agentSpec{comm: "sdt-shown"})
				a.must(t, step{Op: "socket", Sock: "s", Type: unix.SOCK_DGRAM})
				for _, payload := range []string{"STATUS=1", "READY=1", "STATUS=2"} {
					a.must(t, step{Op: "sendto", Sock: "s", Addr: r.addr, Parts: parts(payload)})
					r.drain()
				}
				shown := c.buffered(t)
				got := c.receiptsFor(a)
				if len(got) != len(shown) && !c.incomplete(t) {
					t.Errorf("%d events, %d receipts", len(shown), len(got))
				}
			})
		}
	})
}

func TestOnlyWhatIsOfInterestIsFollowed(t *testing.T) {
	vmtest.OnlyOn(t, "the same programs decide on each", "sid-amd64", "prove:5.10-amd64")
	eachBackend(t, func(t *testing.T, backend string) {
		for _, test := range []struct {
			name, payload string
			addr          []byte
			followed      bool
		}{
			{"by what it says", "READY=1", abstractAddr("interest"), true},
			{"by the name of the socket", "FOO=1", pathAddr(filepath.Join(root, "interest/notify.sock")), true},
			{"neither", "FOO=1", abstractAddr("interest"), false},
		} {
			t.Run(test.name, func(t *testing.T) {
				r := listen(t, test.addr, unix.SOCK_DGRAM)
				a := startAgent(t, agentSpec{comm: "sdt-interest"})
				c := openCapture(t, tracer.Options{Backend: backend, Filter: tracer.Filter{PIDs: []uint32{a.pid}}})
				a.must(t,
					step{Op: "socket", Sock: "s", Type: unix.SOCK_DGRAM},
					step{Op: "sendto", Sock: "s", Addr: r.addr, Parts: parts(test.payload)})
				got, err := c.Followed(a.pid)
				if err != nil {
					t.Fatal(err)
				}
				want := test.followed && c.Knows().Receipts
				if want && mayMiss() {
					return
				}
				if got != want {
					t.Errorf("followed: %v, want %v", got, want)
				}
			})
		}
	})
}

// Readers on another CPU are often faster than the senders' own return.
func TestEveryDatagramOfAFloodHasOneReceipt(t *testing.T) {
	vmtest.OnlyOn(t, "the ring buffer, from the oldest to one that preempts itself", "sid-amd64", "prove:5.10-amd64")
	each := 100_000
	if inVM {
		each = 5_000
	}
	eachBackend(t, func(t *testing.T, backend string) {
		if backend != "fentry" {
			t.Skip("not declared: this backend sees only sends")
		}
		r := listen(t, pathAddr(filepath.Join(base, "read-flood")), unix.SOCK_DGRAM)
		c := openCapture(t, tracer.Options{
			Backend: backend, RingSize: 64 << 20, Filter: tracer.Filter{Sockets: []string{r.path()}},
		})
		r.discard(t)
		var agents []*agent
		for range 2 {
			a := startAgent(t, agentSpec{comm: "sdt-flood"})
			a.must(t, step{Op: "socket", Sock: "s", Type: unix.SOCK_DGRAM})
			a.begin(t, step{Op: "flood", Sock: "s", Addr: r.addr, Parts: parts("FLOOD=1"), N: each})
			agents = append(agents, a)
		}
		delivered := 0
		for _, a := range agents {
			o, err := a.finish()
			if err != nil || o.N == 0 {
				t.Fatalf("the flood ended after %d datagrams: %v", o.N, err)
			}
			a.stop() // see stop
			delivered += o.N
		}
		var shown uint64
		arrived := map[uint64]bool{}
		receipts := map[uint64]int{}
		var stats tracer.Stats
		// The last ones are read by now, or soon.
		for {
			var err error
			for _, e := range c.buffered(t) {
				shown++
				if !e.Result.Failed() {
					arrived[e.Seq] = true
				}
			}
			for _, got := range c.receipts {
				receipts[got.Seq]++
			}
			c.receipts = nil
			if stats, err = c.Stats(); err != nil {
				t.Fatal(err)
			}
			if len(receipts) >= len(arrived) || stats.Receipts > 0 || stats.Missed > 0 {
				break
			}
		}
		_, lost, _ := lostIn(t, c)
		t.Logf("%d delivered, %d receipts, %+v", delivered, len(receipts), stats)
		if sent := uint64(len(agents) * each); shown+lost != sent {
			t.Errorf("%d sent, but %d shown and %d lost", sent, shown, lost)
		}
		if mayMiss() && (lost > 0 || stats.Receipts > 0) {
			t.Skip("not declared: this kernel skips programs, and counts it")
		}
		if lost > 0 || stats.Receipts > 0 || len(arrived) != delivered || len(receipts) != delivered {
			t.Errorf("of %d that were delivered, %d are shown, %d have receipts", delivered, len(arrived), len(receipts))
		}
		for seq, n := range receipts {
			if n != 1 {
				t.Fatalf("%d receipts for event %d", n, seq)
			}
		}
	})
}

// A trampoline is entered with the call: who waited in it before is not seen to return.
func TestAReaderThatWaitedBeforeTheCaptureIsCounted(t *testing.T) {
	vmtest.OnlyOn(t, "a trampoline is entered with the call, with and without preemption", "6.12-amd64", "sid-amd64", "sid-arm64",
		"prove:5.10-amd64", "prove:6.1-amd64", "prove:6.12-arm64")
	eachFollowing(t, func(t *testing.T, _ *capture) {
		r := listenPath(t, "waited/notify.sock")
		if err := unix.SetNonblock(r.fd, false); err != nil {
			t.Fatal(err)
		}
		a := startAgent(t, agentSpec{comm: "sdt-late"})
		tid, read := make(chan int), make(chan error)
		go func() {
			runtime.LockOSThread()
			tid <- unix.Gettid()
			for range 2 {
				_, err := unix.Read(r.fd, make([]byte, 64))
				read <- err
			}
		}()
		reader := <-tid
		await.Until(t, "the reader waits", func() bool { return inSyscall(t, uint32(os.Getpid()), reader, unix.SYS_READ) })
		c := openCapture(t, tracer.Options{Backend: "fentry", Filter: tracer.Filter{PIDs: []uint32{a.pid}}})
		a.must(t, step{Op: "socket", Sock: "s", Type: unix.SOCK_DGRAM})
		for _, payload := range []string{"READY=1", "STOPPING=1"} {
			a.must(t, step{Op: "sendto", Sock: "s", Addr: r.addr, Parts: parts(payload)})
			if err := <-read; err != nil {
				t.Fatal(err)
			}
		}
		stats, err := c.Stats()
		if err != nil {
			t.Fatal(err)
		}
		if stats.Receipts == 0 {
			t.Errorf("nothing is said to be missing: %+v", stats)
		}
	})
}
