// SPDX-License-Identifier: Apache-2.0

package tracer_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/tracer"
	"github.com/sdtrace/sdtrace/pkg/events"
	"github.com/sdtrace/sdtrace/vmtest"
)

// seen is the part of an event that every capture of a send must get right.
type seen struct {
	Payload            string
	NoPayload          bool
	Size               uint32
	NoSize             bool
	Truncated          bool
	Address            string
	Type               string
	Bytes              uint32
	NoBytes            bool
	Errno              string
	PID, TID, UID, GID uint32
	NSPID, PPID        uint32
	Comm               string
	Backend            string
}

func see(e *events.Event) seen {
	s := seen{
		Payload: string(e.Payload), NoPayload: e.Payload == nil,
		NoSize: e.Size == nil, Truncated: e.Truncated,
		Address: string(e.Socket.Address), Type: e.Socket.Type,
		NoBytes: e.Result.Bytes == nil, Errno: e.Result.Errno,
		PID: e.Sender.PID, TID: e.Sender.TID, UID: e.Sender.UID, GID: e.Sender.GID,
		NSPID: e.Sender.NSPID, PPID: e.Sender.PPID,
		Comm: e.Sender.Comm, Backend: e.Backend,
	}
	if e.Size != nil {
		s.Size = *e.Size
	}
	if e.Result.Bytes != nil {
		s.Bytes = *e.Result.Bytes
	}
	return s
}

// sent is what an event must show of a successful send.
func sent(c *capture, a *agent, tid uint32, addr []byte, kind, payload string) seen {
	return seen{
		Payload: payload[:min(len(payload), events.MaxPayload)],
		Size:    uint32(len(payload)), Truncated: len(payload) > events.MaxPayload,
		Address: addressText(addr), Type: kind,
		Bytes: uint32(len(payload)),
		PID:   a.pid, TID: tid, UID: a.uid, GID: a.gid, NSPID: a.nspid, PPID: uint32(os.Getpid()),
		Comm: a.comm, Backend: c.backend,
	}
}

// payloads are what datagrams may hold.
func payloads() []string {
	return []string{
		"READY=1",
		"",
		"x",
		"READY=1\nSTATUS=up\n",
		"STATUS=\x00embedded\x00NUL\x00",
		"STATUS=one\r\nREADY=1\r",
		"STATUS=\x1b[31mred\x1b]0;title\x07\x1b[2J",
		"STATUS=\xff\xfe\xc3\x28\x80",
		"STATUS=" + strings.Repeat("4096", 1022) + "x",
		"STATUS=" + strings.Repeat("4097", 1022) + "xy",
		"STATUS=" + strings.Repeat("forty thousand..", 2499) + "123456789",
	}
}

// way is a way to send one datagram.
type way struct {
	op string
	// split cuts a payload into iovecs; nil: one piece.
	split func(payload string) [][]byte
	// connected and unconnected say with which sockets it can be used.
	connected, unconnected bool
	// noEmpty: the call sends nothing when there is nothing to send.
	noEmpty bool
	// max is how many bytes it moves into one datagram, 0 for any number.
	max int
	// kernelSide: the payload does not come from the buffers of the system
	// call, so a backend that looks at these cannot know it.
	kernelSide bool
}

// fiveParts cuts a payload into five uneven pieces.
func fiveParts(p string) [][]byte {
	n := len(p)
	cuts := []int{0, min(1, n), n / 4, n / 2, n - n/8, n}
	slices.Sort(cuts)
	var list [][]byte
	for i := range len(cuts) - 1 {
		list = append(list, []byte(p[cuts[i]:cuts[i+1]]))
	}
	return list
}

// withEmpty puts iovecs of length 0 before, between and after two halves.
func withEmpty(p string) [][]byte {
	half := len(p) / 2
	return [][]byte{{}, []byte(p[:half]), {}, {}, []byte(p[half:]), {}}
}

// namedWay is a way with what a test calls it.
type namedWay struct {
	name string
	way
}

var ways = []namedWay{
	{"send", way{op: "send", connected: true}},
	{"sendto", way{op: "sendto", unconnected: true}},
	{"sendmsg", way{op: "sendmsg", connected: true, unconnected: true}},
	{"sendmsg of 5 iovecs", way{op: "sendmsg", split: fiveParts, connected: true, unconnected: true}},
	{"sendmsg with empty iovecs", way{op: "sendmsg", split: withEmpty, connected: true, unconnected: true}},
	{"write", way{op: "write", connected: true}},
	{"writev", way{op: "writev", split: fiveParts, connected: true, noEmpty: true}},
	{"writev with empty iovecs", way{op: "writev", split: withEmpty, connected: true, noEmpty: true}},
	{"pwritev2", way{op: "pwritev2", split: fiveParts, connected: true, noEmpty: true}},
	{"io_uring send", way{op: "io_uring send", connected: true, kernelSide: true}},
	{"io_uring send async", way{op: "io_uring send async", connected: true, kernelSide: true}},
	{"io_uring write", way{op: "io_uring write", connected: true, kernelSide: true}},
	{"io_uring sendmsg", way{op: "io_uring sendmsg", split: fiveParts, connected: true, unconnected: true, kernelSide: true}},
	{"io_uring sendmsg async", way{op: "io_uring sendmsg async", split: fiveParts, connected: true, unconnected: true, kernelSide: true}},
	// A pipe holds a page in each of its buffers, and each buffer becomes a
	// datagram.
	{"splice", way{op: "splice", connected: true, noEmpty: true, max: 4096, kernelSide: true}},
	{"sendfile", way{op: "sendfile", connected: true, noEmpty: true, max: 4096, kernelSide: true}},
}

// target is a socket to send to.
type target struct {
	name string
	addr []byte
	kind int
	// everyWay: each way to send is tried, whether or not all combinations are.
	everyWay bool
}

func targets() []target {
	long := filepath.Join(root, "fills-sun_path")
	long += strings.Repeat("/", 108-len(long)-len("notify.sock")) + "notify.sock"
	longest := abstractAddr("longest-")
	longest = append(longest, strings.Repeat("n", 108-len(longest))...)
	return []target{
		{"path", pathAddr(filepath.Join(root, "way/notify.sock")), unix.SOCK_DGRAM, true},
		{"path that fills sun_path", []byte(long), unix.SOCK_DGRAM, false},
		{"path without terminator", []byte(filepath.Join(root, "bare/notify.sock")), unix.SOCK_DGRAM, false},
		{"abstract", abstractAddr("way"), unix.SOCK_DGRAM, false},
		{"abstract with NUL bytes", abstractAddr("a\x00b\x00\x00c\x00"), unix.SOCK_DGRAM, false},
		{"abstract that fills sun_path", longest, unix.SOCK_DGRAM, false},
		{"seqpacket", pathAddr(filepath.Join(root, "seq/notify.sock")), unix.SOCK_SEQPACKET, true},
		{"abstract seqpacket", abstractAddr("seq\x00packet"), unix.SOCK_SEQPACKET, false},
	}
}

// typeName is how an event names a socket type.
func typeName(kind int) string {
	if kind == unix.SOCK_SEQPACKET {
		return "seqpacket"
	}
	return "dgram"
}

func TestEveryWayToSend(t *testing.T) {
	eachBackend(t, func(t *testing.T, backend string) {
		c := named(t, backend)
		a := startAgent(t, agentSpec{comm: "sdt-every-way", uid: 1234, gid: 2345})
		tid := a.tid(t)
		for _, target := range targets() {
			t.Run(target.name, func(t *testing.T) {
				for _, w := range ways {
					if !target.everyWay && w.name != "sendmsg" && !exhaustive(backend) {
						continue
					}
					if w.connected {
						t.Run(w.name+", connected", func(t *testing.T) {
							testWay(t, c, a, tid, target, w.way, true)
						})
					}
					// A seqpacket socket is always connected.
					if w.unconnected && target.kind == unix.SOCK_DGRAM {
						t.Run(w.name+", unconnected", func(t *testing.T) {
							testWay(t, c, a, tid, target, w.way, false)
						})
					}
				}
			})
		}
	})
}

func testWay(t *testing.T, c *capture, a *agent, tid uint32, to target, w way, connected bool) {
	r := listen(t, to.addr, to.kind)
	a.must(t, step{Op: "socket", Sock: "s", Type: to.kind})
	defer a.must(t, step{Op: "close", Sock: "s"})
	in := r
	if connected {
		a.must(t, step{Op: "connect", Sock: "s", Addr: to.addr})
	}
	if to.kind == unix.SOCK_SEQPACKET {
		fd, _, err := unix.Accept4(r.fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		in = &receiver{t: t, fd: fd, addr: to.addr}
		defer in.close()
	}
	before := clock()
	var want []seen
	for _, payload := range payloads() {
		if w.noEmpty && payload == "" || w.max > 0 && len(payload) > w.max {
			continue
		}
		s := step{Op: w.op, Sock: "s", Parts: parts(payload)}
		if w.split != nil {
			s.Parts = w.split(payload)
		}
		if !connected {
			s.Addr = to.addr
		}
		o := a.do(t, s)
		if strings.HasPrefix(w.op, "io_uring") && (o.Errno == unix.ENOSYS || o.Errno == unix.EPERM) {
			t.Skipf("not declared: io_uring is disabled on this kernel: %v", o.Errno)
		}
		if o.Errno != 0 || o.N != len(payload) {
			t.Fatalf("sending %d bytes: %d, %v", len(payload), o.N, o.Errno)
		}
		if diff := cmp.Diff([]string{payload}, in.drain()); diff != "" {
			t.Fatalf("this test does not send what it means to (-want +received):\n%s", diff)
		}
		want = append(want, sent(c, a, tid, to.addr, typeName(to.kind), payload))
	}
	got := c.collect(t)
	after := clock()

	if !c.Knows().Receivers && w.kernelSide {
		checkUnreadable(t, got, want, connected)
		return
	}
	var view []seen
	for i, e := range got {
		s := see(e)
		// A worker of the kernel sends for the thread, as one of its process.
		if strings.HasSuffix(w.op, " async") && s.TID != 0 && i < len(want) {
			want[i].TID = s.TID
		}
		view = append(view, s)
	}
	if diff := cmp.Diff(want, view); diff != "" {
		t.Fatalf("(-want +captured):\n%s", clip(diff))
	}
	for _, e := range got {
		checkSocket(t, c, e, r, to.kind)
		// The clock of the kernel's time stamps may differ a little.
		if e.Time.Before(before.Add(-time.Second)) || e.Time.After(after.Add(time.Second)) {
			t.Errorf("sent between %v and %v, captured as of %v", before, after, e.Time)
		}
		if e.Claimed != nil || len(e.FDs) != 0 {
			t.Errorf("nothing was attached, captured: %+v, %+v", e.Claimed, e.FDs)
		}
	}
}

// checkSocket checks what an event says about the receiving socket and the
// delivery of a datagram that arrived there.
func checkSocket(t *testing.T, c *capture, e *events.Event, r *receiver, kind int) {
	t.Helper()
	certain := c.Knows().Receivers && kind == unix.SOCK_DGRAM
	if bound := e.Socket.Bound; (bound != "" || certain) && string(bound) != addressText(r.addr) {
		t.Errorf("bound to %q, captured %q", addressText(r.addr), bound)
	}
	// Of a seqpacket connection the receiving socket is the accepted one.
	if inode := e.Socket.Inode; kind == unix.SOCK_DGRAM && (inode != 0 || certain) && inode != r.inode() {
		t.Errorf("the receiver has inode %d, captured %d", r.inode(), inode)
	}
	switch delivered := e.Result.Delivered; {
	case delivered == nil && certain:
		t.Error("the datagram arrived, captured without saying so")
	case delivered != nil && !*delivered:
		t.Error("the datagram arrived, captured as not delivered")
	}
}

// checkUnreadable holds the events of a backend that cannot know the payload
// against what was sent: they may be missing, and so may what they say, but
// nothing may be wrong. To which socket it went is known when it is connected.
func checkUnreadable(t *testing.T, got []*events.Event, want []seen, connected bool) {
	t.Helper()
	if len(got) > len(want) {
		t.Fatalf("%d datagrams were sent, %d captured", len(want), len(got))
	}
	if connected && vmtest.KernelAtLeast(6, 3) && len(got) != len(want) {
		t.Errorf("%d datagrams were sent, %d captured; sock_send_length tells of each", len(want), len(got))
	}
	for i, e := range got {
		s := see(e)
		// Which one it is follows from the order only when all are there.
		candidates := want
		if len(got) == len(want) {
			candidates = want[i : i+1]
		}
		if !slices.ContainsFunc(candidates, func(w seen) bool {
			if s.NoPayload {
				w.Payload, w.NoPayload, w.Truncated = "", true, s.Truncated
			}
			if s.NoSize {
				w.Size, w.NoSize = 0, true
			}
			// A kernel worker sends for the thread.
			w.TID = s.TID
			return s == w
		}) {
			t.Errorf("captured %s\n%+v, of which nothing like it was sent; the first was\n%+v", describe(e), s, candidates[0])
		}
	}
}

// clip keeps a difference readable when it is about long payloads.
func clip(diff string) string {
	var b strings.Builder
	for line := range strings.Lines(diff) {
		if len(line) > 400 {
			line = line[:400] + "…\n"
		}
		b.WriteString(line)
	}
	return b.String()
}

// A program can use a vector of messages again that the call before has not ended with, and tells nobody.
func TestAVectorOfMessagesThatIsUsedAgainIsShownAsItWasSent(t *testing.T) {
	eachBackend(t, func(t *testing.T, backend string) {
		c := named(t, backend)
		a := startAgent(t, agentSpec{comm: "sdt-again"})
		r := listenPath(t, "again/notify.sock")
		a.must(t, step{Op: "socket", Sock: "s", Type: unix.SOCK_DGRAM})
		payloads := []string{"STATUS=A", "STATUS=B, longer", "READY=1\nSTATUS=C"}
		var msgs []message
		for _, payload := range payloads {
			msgs = append(msgs, message{Addr: r.addr, Parts: parts(payload)})
		}
		if o := a.must(t, step{Op: "sendmmsg again", Sock: "s", Msgs: msgs}); o.N != len(msgs) {
			t.Fatalf("sendmmsg sent %d", o.N)
		}
		want := append(payloads[:1:1], payloads...)
		if diff := cmp.Diff(want, r.drain()); diff != "" {
			t.Fatalf("this test does not send what it means to (-want +received):\n%s", diff)
		}
		var got []string
		for _, e := range from(c.collect(t), a) {
			if string(e.Socket.Address) != r.path() {
				t.Errorf("to %q", e.Socket.Address)
			}
			got = append(got, string(e.Payload))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +captured):\n%s", diff)
		}
	})
}

// An address that is longer than any socket's name can be is refused, so that nothing is lost.
func TestASendToAnAddressThatIsTooLongIsNoLoss(t *testing.T) {
	vmtest.OnlyOn(t, "what the kernel refuses at once, with each hook",
		"5.10-amd64", "sid-amd64", "sid-arm64", "prove:6.1-amd64", "prove:6.1-arm64")
	eachBackend(t, func(t *testing.T, backend string) {
		c := openCapture(t, tracer.Options{Backend: backend})
		a := startAgent(t, agentSpec{comm: "sdt-long"})
		a.must(t, step{Op: "socket", Sock: "s", Type: unix.SOCK_DGRAM})
		for _, n := range []int{109, 110, 126} {
			if o := a.do(t, step{Op: "sendto", Sock: "s", Addr: []byte("/" + strings.Repeat("a", n-1)), Parts: parts("hello")}); o.Errno != unix.EINVAL {
				t.Fatalf("sending to an address of %d bytes: %v", n, o.Errno)
			}
		}
		if got := from(c.buffered(t), a); len(got) != 0 {
			t.Errorf("captured %d events", len(got))
		}
		if _, lost, stats := lostIn(t, c); lost != 0 && !mayMiss() {
			t.Errorf("lost: %+v", stats)
		}
	})
}

func TestSendmmsgIsOneEventPerMessage(t *testing.T) {
	eachBackend(t, func(t *testing.T, backend string) {
		c := named(t, backend)
		a := startAgent(t, agentSpec{comm: "sdt-mmsg"})
		tid := a.tid(t)
		one, two := listenPath(t, "one/notify.sock"), listen(t, abstractAddr("two\x00!"), unix.SOCK_DGRAM)
		a.must(t, step{Op: "socket", Sock: "s", Type: unix.SOCK_DGRAM})
		messages := []struct {
			to      *receiver
			payload string
		}{
			{one, "READY=1\nSTATUS=first"},
			{two, "STATUS=" + strings.Repeat("second", 1000)},
			{one, "WATCHDOG=1"},
		}
		var msgs []message
		var want []seen
		for i, m := range messages {
			split := parts(m.payload)
			if i == 0 {
				split = fiveParts(m.payload)
			}
			msgs = append(msgs, message{Addr: m.to.addr, Parts: split})
			want = append(want, sent(c, a, tid, m.to.addr, "dgram", m.payload))
		}
		if o := a.must(t, step{Op: "sendmmsg", Sock: "s", Msgs: msgs}); o.N != len(msgs) {
			t.Fatalf("sendmmsg sent %d", o.N)
		}
		// The second message fails: the call returns 1 and does not tell why it
		// ended, which a backend that has only its result cannot know.
		msgs[1].Addr = pathAddr(filepath.Join(root, "missing/notify.sock"))
		if o := a.must(t, step{Op: "sendmmsg", Sock: "s", Msgs: msgs}); o.N != 1 {
			t.Fatalf("sendmmsg with a bad second address sent %d", o.N)
		}
		failed := sent(c, a, tid, msgs[1].Addr, "dgram", messages[1].payload)
		failed.Bytes, failed.NoBytes, failed.Errno = 0, true, "ENOENT"
		want = append(want, want[0])
		if backend == "fentry" || vmtest.KernelAtLeast(6, 3) {
			want = append(want, failed)
		}

		var view []seen
		for _, e := range c.collect(t) {
			view = append(view, see(e))
		}
		if diff := cmp.Diff(want, view); diff != "" {
			t.Errorf("(-want +captured):\n%s", clip(diff))
		}
	})
}

// TestSenderIsTheRealUser holds that UID and GID are the real ids.
func TestSenderIsTheRealUser(t *testing.T) {
	eachBackend(t, func(t *testing.T, backend string) {
		c := named(t, backend)
		r := listenPath(t, "real/notify.sock")
		a := startAgent(t, agentSpec{comm: "sdt-setuid"})
		a.must(t,
			step{Op: "setresuid", UIDs: [3]int{4711, 815, 0}},
			step{Op: "socket", Sock: "s", Type: unix.SOCK_DGRAM},
			step{Op: "sendto", Sock: "s", Addr: r.addr, Parts: parts("READY=1")})
		got := c.collect(t)
		if len(got) != 1 || got[0].Sender.UID != 4711 || got[0].Sender.GID != 0 {
			t.Fatalf("real uid 4711, effective 815, captured %+v", got)
		}
	})
}

// TestStartTimeNamesTheProcess holds StartTime against /proc/PID/stat.
func TestStartTimeNamesTheProcess(t *testing.T) {
	eachBackend(t, func(t *testing.T, backend string) {
		c := named(t, backend)
		r := listenPath(t, "start/notify.sock")
		a := startAgent(t, agentSpec{comm: "sdt ) start"})
		a.must(t,
			step{Op: "socket", Sock: "s", Type: unix.SOCK_DGRAM},
			step{Op: "sendto", Sock: "s", Addr: r.addr, Parts: parts("READY=1")})
		got := c.collect(t)
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", a.pid))
		if err != nil {
			t.Fatal(err)
		}
		// Field 22, counted from behind the comm, which is field 2.
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		const ticksPerSecond = 100
		if len(got) != 1 {
			t.Fatalf("captured %d events", len(got))
		}
		ticks := fmt.Sprint(got[0].Sender.StartTime / uint64(time.Second/ticksPerSecond))
		if ticks != fields[19] {
			t.Errorf("started at tick %s, captured %s", fields[19], ticks)
		}
	})
}

func TestASingleDatagramAppearsByItself(t *testing.T) {
	eachBackend(t, func(t *testing.T, backend string) {
		c := named(t, backend)
		r := listenPath(t, "single/notify.sock")
		a := startAgent(t, agentSpec{comm: "sdt-single"})
		a.must(t, step{Op: "socket", Sock: "s", Type: unix.SOCK_DGRAM})
		for _, payload := range []string{"READY=1", "STOPPING=1"} {
			a.must(t, step{Op: "sendto", Sock: "s", Addr: r.addr, Parts: parts(payload)})
			// Nothing else is sent, and nobody flushes.
			item, err := c.Read()
			if err != nil || item.Event == nil || string(item.Event.Payload) != payload {
				t.Fatalf("sent %q, read %+v, %v", payload, item, err)
			}
			c.seq = item.Event.Seq
		}
	})
}

func TestFailedSendsCarryTheirErrno(t *testing.T) {
	eachBackend(t, func(t *testing.T, backend string) {
		a := startAgent(t, agentSpec{comm: "sdt-failing"})
		nobody := startAgent(t, agentSpec{comm: "sdt-nobody", uid: 65534, gid: 65534})
		tests := []struct {
			name  string
			agent *agent
			errno unix.Errno
			// kind is the socket's type, dgram when 0.
			kind int
			// send makes the failing call.
			send step
			// prepare makes the receiver and returns the address the event has
			// to show.
			prepare func(t *testing.T, a *agent) []byte
			// unfiltered: on the tracepoint backend nothing is left of the
			// address, so no filter can be about it.
			addressLost bool
			// noPayload: the payload cannot be known; early: the call fails
			// before a datagram is made, so payload and size may be absent.
			noPayload, early bool
		}{
			{
				name: "no such path", agent: a, errno: unix.ENOENT,
				send: step{Op: "sendto"},
				prepare: func(*testing.T, *agent) []byte {
					return pathAddr(filepath.Join(root, "nowhere/notify.sock"))
				},
			},
			{
				name: "no such abstract name", agent: a, errno: unix.ECONNREFUSED,
				send:    step{Op: "sendmsg"},
				prepare: func(*testing.T, *agent) []byte { return abstractAddr("nobody\x00here") },
			},
			{
				name: "path whose receiver is gone", agent: a, errno: unix.ECONNREFUSED,
				send: step{Op: "sendto"},
				prepare: func(t *testing.T, _ *agent) []byte {
					r := listenPath(t, "stale/notify.sock")
					r.close()
					return r.addr
				},
			},
			{
				name: "connection whose receiver is gone", agent: a, errno: unix.ECONNREFUSED,
				send: step{Op: "send"}, addressLost: true,
				prepare: func(t *testing.T, a *agent) []byte {
					r := listenPath(t, "gone/notify.sock")
					a.must(t, step{Op: "connect", Sock: "s", Addr: r.addr})
					r.close()
					return r.addr
				},
			},
			{
				name: "receiver's queue full", agent: a, errno: unix.EAGAIN,
				send: step{Op: "sendto", Flags: unix.MSG_DONTWAIT},
				prepare: func(t *testing.T, a *agent) []byte {
					r := listenPath(t, "full/notify.sock")
					fill(t, a, r)
					return r.addr
				},
			},
			{
				name: "connected to a receiver whose queue is full", agent: a, errno: unix.EAGAIN,
				send: step{Op: "send", Flags: unix.MSG_DONTWAIT},
				prepare: func(t *testing.T, a *agent) []byte {
					r := listenPath(t, "full/notify.sock")
					fill(t, a, r)
					a.must(t, step{Op: "connect", Sock: "s", Addr: r.addr})
					return r.addr
				},
			},
			{
				name: "no permission for the path", agent: nobody, errno: unix.EACCES,
				send: step{Op: "sendto"},
				prepare: func(t *testing.T, _ *agent) []byte {
					r := listenPath(t, "private/notify.sock")
					if err := os.Chmod(r.path(), 0o700); err != nil {
						t.Fatal(err)
					}
					return r.addr
				},
			},
			{
				name: "no permission for the claimed credentials", agent: nobody, errno: unix.EPERM, early: true,
				send: step{Op: "sendmsg", Creds: &creds{PID: 1}},
				prepare: func(t *testing.T, _ *agent) []byte {
					return listenPath(t, "forged/notify.sock").addr
				},
			},
			{
				name: "receiver connected to somebody else", agent: a, errno: unix.EPERM,
				send: step{Op: "sendto"},
				prepare: func(t *testing.T, _ *agent) []byte {
					r, other := listenPath(t, "taken/notify.sock"), listenPath(t, "other/notify.sock")
					if err := connectTo(r.fd, other.addr); err != nil {
						t.Fatal(err)
					}
					return r.addr
				},
			},
			{
				name: "larger than the send buffer", agent: a, errno: unix.EMSGSIZE, early: true,
				send: step{Op: "sendto", Parts: parts("READY=1\nSTATUS=" + strings.Repeat("large", 20_000))},
				prepare: func(t *testing.T, a *agent) []byte {
					a.must(t, step{Op: "set send buffer", Sock: "s", N: 8192})
					return listenPath(t, "large/notify.sock").addr
				},
			},
			{
				name: "unreadable payload", agent: a, errno: unix.EFAULT, noPayload: true,
				send: step{Op: "sendto", BadBuffer: true, Parts: parts("READY=1")},
				prepare: func(t *testing.T, _ *agent) []byte {
					return listenPath(t, "fault/notify.sock").addr
				},
			},
			{
				name: "unreadable payload in an iovec", agent: a, errno: unix.EFAULT, noPayload: true,
				send: step{Op: "sendmsg", BadBuffer: true, Parts: parts("READY=1")},
				prepare: func(t *testing.T, _ *agent) []byte {
					return listenPath(t, "fault/notify.sock").addr
				},
			},
			{
				name: "seqpacket whose receiver is gone", agent: a, errno: unix.EPIPE, kind: unix.SOCK_SEQPACKET,
				send: step{Op: "send", Flags: unix.MSG_NOSIGNAL}, addressLost: true,
				prepare: func(t *testing.T, a *agent) []byte {
					r := listen(t, pathAddr(filepath.Join(root, "gone/notify.sock")), unix.SOCK_SEQPACKET)
					a.must(t, step{Op: "connect", Sock: "s", Addr: r.addr})
					fd, _, err := unix.Accept(r.fd)
					if err != nil {
						t.Fatal(err)
					}
					_ = unix.Close(fd)
					return r.addr
				},
			},
		}
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				c := named(t, backend)
				if test.addressLost && backend == "tracepoint" {
					c = unfiltered(t, backend)
				}
				tid := test.agent.tid(t)
				kind := test.kind
				if kind == 0 {
					kind = unix.SOCK_DGRAM
				}
				test.agent.must(t, step{Op: "socket", Sock: "s", Type: kind})
				defer test.agent.must(t, step{Op: "close", Sock: "s"})
				addr := test.prepare(t, test.agent)
				// What the preparation sent is no part of the case.
				c.buffered(t)

				s := test.send
				s.Sock = "s"
				if s.Op != "send" {
					s.Addr = addr
				}
				if s.Parts == nil {
					s.Parts = parts("READY=1\nSTATUS=" + test.name)
				}
				if o := test.agent.do(t, s); o.Errno != test.errno {
					t.Fatalf("this test wants %v and got %v", test.errno, o.Errno)
				}
				want := sent(c, test.agent, tid, addr, typeName(kind), string(s.Parts[0]))
				want.Bytes, want.NoBytes, want.Errno = 0, true, unix.ErrnoName(test.errno)

				got := from(c.buffered(t), test.agent)
				if len(got) != 1 {
					t.Fatalf("captured %d events", len(got))
				}
				view := see(got[0])
				if view.NoPayload && (test.noPayload || test.early) {
					want.Payload, want.NoPayload, want.Truncated = "", true, view.Truncated
				} else if test.noPayload {
					t.Errorf("the payload cannot be read, captured %q", view.Payload)
				}
				if view.NoSize && (test.noPayload || test.early) {
					want.Size, want.NoSize = 0, true
				}
				if view.Address == "" && test.addressLost && backend == "tracepoint" {
					want.Address = ""
				}
				if diff := cmp.Diff(want, view); diff != "" {
					t.Errorf("(-want +captured):\n%s", clip(diff))
				}
				if d := got[0].Result.Delivered; d != nil && *d {
					t.Error("captured as delivered")
				}
				if !got[0].Result.Failed() {
					t.Error("not reported as failed")
				}
			})
		}
	})
}

// fill sends to a receiver until its queue is full, and counts the calls: the
// last one failed.
func fill(t *testing.T, a *agent, r *receiver) (calls int) {
	t.Helper()
	a.must(t, step{Op: "socket", Sock: "filler", Type: unix.SOCK_DGRAM})
	defer a.must(t, step{Op: "close", Sock: "filler"})
	for {
		calls++
		o := a.do(t, step{Op: "sendto", Sock: "filler", Addr: r.addr, Flags: unix.MSG_DONTWAIT, Parts: parts("STATUS=fill")})
		if o.Errno == unix.EAGAIN {
			return calls
		}
		if o.Errno != 0 {
			t.Fatal(o.Errno)
		}
	}
}

func TestDroppedByReceiversSocketFilter(t *testing.T) {
	eachBackend(t, func(t *testing.T, backend string) {
		c := named(t, backend)
		a := startAgent(t, agentSpec{comm: "sdt-dropped"})
		r := listenPath(t, "deaf/notify.sock")
		a.must(t,
			step{Op: "socket", Sock: "unconnected", Type: unix.SOCK_DGRAM},
			step{Op: "socket", Sock: "connected", Type: unix.SOCK_DGRAM},
			step{Op: "connect", Sock: "connected", Addr: r.addr})
		for _, dropped := range []bool{false, true} {
			if dropped {
				r.dropAll()
			}
			a.must(t, step{Op: "sendto", Sock: "unconnected", Addr: r.addr, Parts: parts("READY=1")})
			a.must(t, step{Op: "send", Sock: "connected", Parts: parts("WATCHDOG=1")})
			if got := len(r.drain()); (got == 0) != dropped {
				t.Fatalf("the receiver got %d datagrams, dropped: %v", got, dropped)
			}
			got := c.collect(t)
			if len(got) != 2 {
				t.Fatalf("captured %d events", len(got))
			}
			for _, e := range got {
				if e.Result.Bytes == nil || e.Result.Errno != "" {
					t.Errorf("%s: the call succeeded, captured %+v", e.Payload, e.Result)
				}
				switch d := e.Result.Delivered; {
				case d == nil && backend == "fentry":
					t.Errorf("%s: captured without saying whether it was delivered", e.Payload)
				case d != nil && *d == dropped:
					t.Errorf("%s: captured as delivered: %v, dropped: %v", e.Payload, *d, dropped)
				}
			}
		}
	})
}

func TestPassedFDs(t *testing.T) {
	kinds := []string{
		"pipe", "socket", "memfd", "pidfd", "file", "directory", "char", "eventfd", "timerfd", "epoll", "signalfd", "inotify",
	}
	tests := []struct {
		name string
		fds  []string
	}{
		{"none", nil},
		{"barrier", []string{"pipe"}},
		{"every kind", kinds},
		{"terminal", []string{"tty"}},
		{"as many as the kernel takes", slices.Repeat([]string{"memfd"}, 253)},
	}
	eachBackend(t, func(t *testing.T, backend string) {
		c := named(t, backend)
		r := listenPath(t, "fds/notify.sock")
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				a := startAgent(t, agentSpec{comm: "sdt-fds"})
				if slices.Contains(test.fds, "tty") {
					if _, err := os.Stat("/dev/ptmx"); err != nil {
						t.Skipf("not declared: no terminals here: %v", err)
					}
				}
				a.must(t,
					step{Op: "socket", Sock: "s", Type: unix.SOCK_DGRAM},
					step{Op: "sendmsg", Sock: "s", Addr: r.addr, Parts: parts("FDSTORE=1"), FDs: test.fds})
				r.drain()
				got := c.collect(t)
				if len(got) != 1 {
					t.Fatalf("captured %d events", len(got))
				}
				var view []string
				for _, fd := range got[0].FDs {
					// A terminal is a character device, told apart or not.
					if fd.Type == "char" && slices.Contains(test.fds, "tty") {
						fd.Type = "tty"
					}
					view = append(view, fd.Type)
				}
				if diff := cmp.Diff(test.fds, view); diff != "" {
					t.Errorf("(-want +captured):\n%s", diff)
				}
				if got[0].Claimed != nil {
					t.Errorf("no credentials were attached, captured %+v", *got[0].Claimed)
				}
			})
		}
	})
}

func TestClaimedCredentials(t *testing.T) {
	eachBackend(t, func(t *testing.T, backend string) {
		c := named(t, backend)
		r := listenPath(t, "creds/notify.sock")
		rootAgent := startAgent(t, agentSpec{comm: "sdt-creds"})
		user := startAgent(t, agentSpec{comm: "sdt-creds-user", uid: 1234, gid: 2345})
		inPIDNS := agentSpec{comm: "sdt-creds-pidns"}
		inPIDNS.attr.Cloneflags = unix.CLONE_NEWPID
		nsAgent := startAgent(t, inPIDNS)
		if nsAgent.nspid != 1 {
			t.Fatalf("the agent is process %d of its own pid namespace", nsAgent.nspid)
		}
		type claim struct{ pid, nspid, uid, gid uint32 }
		tests := []struct {
			name  string
			agent *agent
			creds *creds
			fds   []string
			want  *claim
		}{
			{"none", rootAgent, nil, nil, nil},
			{"none but fds", rootAgent, nil, []string{"pipe"}, nil},
			{"init's", rootAgent, &creds{PID: 1}, nil, &claim{pid: 1, nspid: 1}},
			{"somebody else's ids", rootAgent, &creds{PID: int(user.pid), UID: 1234, GID: 2345}, nil, &claim{user.pid, user.pid, 1234, 2345}},
			{"init's with fds", rootAgent, &creds{PID: 1}, []string{"pipe"}, &claim{pid: 1, nspid: 1}},
			{"its own", user, &creds{PID: int(user.pid), UID: 1234, GID: 2345}, nil, &claim{user.pid, user.pid, 1234, 2345}},
			{"its own, in a pid namespace", nsAgent, &creds{PID: 1, UID: 7, GID: 8}, nil, &claim{nsAgent.pid, 1, 7, 8}},
		}
		for n, test := range slices.Concat(tests, tests) {
			t.Run(test.name, func(t *testing.T) {
				// The kernel adds credentials for a receiver that wants some, as systemd does.
				if err := unix.SetsockoptInt(r.fd, unix.SOL_SOCKET, unix.SO_PASSCRED, n/len(tests)); err != nil {
					t.Fatal(err)
				}
				test.agent.must(t,
					step{Op: "socket", Sock: "s", Type: unix.SOCK_DGRAM},
					step{Op: "sendmsg", Sock: "s", Addr: r.addr, Parts: parts("READY=1"), Creds: test.creds, FDs: test.fds},
					step{Op: "close", Sock: "s"})
				r.drain()
				got := c.collect(t)
				if len(got) != 1 {
					t.Fatalf("captured %d events", len(got))
				}
				e := got[0]
				if e.Sender.PID != test.agent.pid || e.Sender.UID != test.agent.uid {
					t.Errorf("sent by %d of user %d, captured %+v", test.agent.pid, test.agent.uid, e.Sender)
				}
				if len(e.FDs) != len(test.fds) {
					t.Errorf("%d fds passed, captured %+v", len(test.fds), e.FDs)
				}
				if (e.Claimed == nil) != (test.want == nil) {
					t.Fatalf("claimed %+v, captured %+v", test.want, e.Claimed)
				}
				if test.want == nil {
					return
				}
				if e.Claimed.UID == nil || e.Claimed.GID == nil {
					t.Fatalf("the ids are the host's, captured %+v", e.Claimed)
				}
				view := claim{e.Claimed.PID, e.Claimed.NSPID, *e.Claimed.UID, *e.Claimed.GID}
				// What is not known is 0; at least one of the two is known.
				if view.nspid == 0 && view.pid != 0 {
					view.nspid = test.want.nspid
				}
				if view.pid == 0 && view.nspid != 0 && test.agent == nsAgent {
					view.pid = test.want.pid
				}
				if view != *test.want {
					t.Errorf("claimed %+v, captured %+v", *test.want, view)
				}
			})
		}
	})
}
