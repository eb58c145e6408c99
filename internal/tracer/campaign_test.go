// SPDX-License-Identifier: Apache-2.0

package tracer_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/tracer"
	"github.com/sdtrace/sdtrace/pkg/events"
	"github.com/sdtrace/sdtrace/vmtest"
)

// Senders of several kinds send at random, all at once and in every way. Who receives is the ground truth: each message that
// arrives is shown once, with what it holds, from whom it is and where it went, and none is said to have arrived that has not.
func TestEachMessageOfRandomSendersIsShownAsItArrives(t *testing.T) {
	messages := 20_000
	switch {
	case inVM:
		messages = 2_000
	case vmtest.Long():
		messages = 1_000_000
	}
	eachBackend(t, func(t *testing.T, backend string) {
		if backend != "fentry" && inVM {
			t.Skip("not declared: this backend is held to it natively")
		}
		m := newCampaign(t, backend)
		const round = 500
		for m.sent < messages && !t.Failed() {
			m.round(t, round)
		}
		captured, lost, stats := lostIn(t, m.capture)
		t.Logf("%d messages, %d arrived, %d captured with those that failed, %d of them untold; %d not, %+v",
			m.sent, m.arrived, captured, m.untold, m.unseen, stats)
		if uint64(m.unseen) > lost || lost != 0 && !mayMiss() {
			t.Errorf("%d were not shown, %d are counted as lost", m.unseen, lost)
		}
		if uint64(m.unfollowed) > stats.Receipts {
			t.Errorf("of %d no receipt was shown, %d are counted as missing", m.unfollowed, stats.Receipts)
		}
	})
}

// changing is the way to send whose payload's last byte changes meanwhile.
const changing = "sendto of what changes"

// campaign is one capture, and those who send and receive in it.
type campaign struct {
	capture *capture
	seed    uint64
	// senders take their turns beside one another.
	senders []*randomSender
	// receivers are by the address that each is bound to.
	receivers map[string]*receiver
	// sent counts messages of which an attempt was made, arrived those that arrived, unseen those of these that were not shown, untold
	// those that were shown without what they say, unfollowed those of which nobody was seen to read them.
	sent, arrived, unseen, untold, unfollowed int
}

// randomSender is an agent that does what a random number says.
type randomSender struct {
	*agent
	tid    uint32
	random *rand.Rand
	// cgroups are where it may be.
	cgroups []cgroup
	ids     []uint64
	now     int
	// addresses are what it can send to.
	addresses []destination
	// attempted are the messages of this round.
	attempted map[string]attempt
}

// destination is an address, and what the socket there is bound to.
type destination struct {
	addr  []byte
	bound string
}

// attempt is a message that a sender has tried to send.
type attempt struct {
	from   *randomSender
	to     destination
	way    string
	direct bool // to an address, by a socket that is not connected
	// kernelSide is as in [way].
	kernelSide bool
	cgroup     uint64
}

// arrival is a message as it was received.
type arrival struct {
	payload  []byte
	pid, uid uint32 // SCM_CREDENTIALS
	at       string
}

func newCampaign(t *testing.T, backend string) *campaign {
	t.Helper()
	m := &campaign{receivers: map[string]*receiver{}, seed: rand.Uint64()}
	t.Logf("the seed is %d", m.seed)
	dir := filepath.Join(root, "campaign-"+backend)
	var here []destination // reached by who is in the network namespace of this test
	for _, addr := range [][]byte{pathAddr(dir + "/a/notify.sock"), pathAddr(dir + "/b/journal/socket"), abstractAddr("campaign\x00" + backend)} {
		r := listen(t, addr, unix.SOCK_DGRAM)
		if err := unix.SetsockoptInt(r.fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
			t.Fatal(err)
		}
		bound := addressText(addr)
		m.receivers[bound] = r
		here = append(here, destination{addr, bound})
		if addr[0] == 0 {
			continue
		}
		link := filepath.Join(dir, "link-"+filepath.Base(bound))
		if err := os.Symlink(bound, link); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{link, filepath.Dir(bound) + "//" + filepath.Base(bound), filepath.Dir(bound) + "/./../" + filepath.Base(filepath.Dir(bound)) + "/" + filepath.Base(bound)} {
			here = append(here, destination{pathAddr(name), bound})
		}
	}
	var paths []destination
	for _, to := range here {
		if to.addr[0] != 0 {
			paths = append(paths, to)
		}
	}
	const most = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET
	deep := "campaign.slice/deep.service" + strings.Repeat("/level", 20)
	places := []cgroup{v2(t).makeCgroup(t, "campaign.slice/one.service"), v2(t).makeCgroup(t, deep)}
	for _, kind := range []struct {
		spec agentSpec
		to   []destination
	}{
		{agentSpec{comm: "sdt-random-root"}, here},
		{agentSpec{comm: "sdt-random-user", uid: 1234, gid: 2345}, here},
		{agentSpec{comm: "sdt-random-ns", attr: syscall.SysProcAttr{Cloneflags: most}}, paths},
		{inUserNamespace(agentSpec{comm: "sdt-random-userns", attr: syscall.SysProcAttr{Cloneflags: most}}), paths},
	} {
		s := &randomSender{agent: startAgent(t, kind.spec), addresses: kind.to, cgroups: places}
		s.tid = s.agent.tid(t)
		s.random = rand.New(rand.NewPCG(m.seed, uint64(len(m.senders))))
		for _, in := range places {
			s.ids = append(s.ids, in.id(t))
		}
		s.move(t)
		s.must(t, step{Op: "socket", Sock: "free", Type: unix.SOCK_DGRAM})
		for i := range s.addresses {
			name := fmt.Sprint("connected", i)
			s.must(t, step{Op: "socket", Sock: name, Type: unix.SOCK_DGRAM}, step{Op: "connect", Sock: name, Addr: s.addresses[i].addr})
		}
		m.senders = append(m.senders, s)
	}
	m.capture = openCapture(t, tracer.Options{Backend: backend, Filter: tracer.Filter{
		Sockets: []string{dir + "/*", "@" + abstractPrefix + "campaign*"},
	}})
	if !m.capture.Knows().Receivers {
		if vmtest.KernelAtLeast(6, 3) {
			t.Fatal("the capture does not know what becomes of a message")
		}
		t.Skip("not declared: this backend cannot know what becomes of a message on this kernel")
	}
	return m
}

// round has all senders send about n messages, and holds what is shown against what has arrived.
func (m *campaign) round(t *testing.T, n int) {
	t.Helper()
	stop := make(chan struct{})
	var receiving, sending sync.WaitGroup
	var arrivals sync.Map
	for bound, r := range m.receivers {
		receiving.Go(func() { arrivals.Store(bound, r.receiveUntil(t, bound, stop)) })
	}
	for _, s := range m.senders {
		s.attempted = map[string]attempt{}
		sending.Go(func() {
			for len(s.attempted) < n/len(m.senders) && !t.Failed() {
				s.turn(t)
			}
		})
	}
	sending.Wait()
	close(stop)
	receiving.Wait()
	if t.Failed() {
		return
	}
	attempts := map[string]attempt{}
	for _, s := range m.senders {
		for id, a := range s.attempted {
			attempts[id] = a
		}
	}
	m.sent += len(attempts)
	arrived := map[string][]arrival{}
	for bound := range m.receivers {
		list, _ := arrivals.Load(bound)
		for _, a := range list.([]arrival) {
			id := idOf(a.payload)
			arrived[id] = append(arrived[id], a)
			m.arrived++
		}
	}
	m.compare(t, attempts, arrived)
}

// idOf is what every message of a campaign holds, and no other.
func idOf(payload []byte) string { return string(idPattern.Find(payload)) }

var idPattern = regexp.MustCompile(`X_ID=[a-z0-9-]+\.\d+\.`)

// compare holds what is shown against what was tried and what has arrived.
func (m *campaign) compare(t *testing.T, attempts map[string]attempt, arrived map[string][]arrival) {
	t.Helper()
	shown := map[string][]*events.Event{}
	var untold []*events.Event // without what they say
	// A splice that is interrupted sends nothing but a datagram.
	type from struct {
		pid uint32
		at  string
	}
	nothing := map[from]int{}
	for _, e := range m.capture.buffered(t) {
		id := idOf(e.Payload)
		if _, ok := attempts[id]; !ok {
			switch {
			case e.Payload == nil:
				untold = append(untold, e)
			case len(e.Payload) == 0 && e.Result.Errno == "EAGAIN":
				// io_uring tries again by itself while the queue is full, on older kernels with nothing (kernel: io_setup_async_msg).
			case len(e.Payload) == 0 && !e.Result.Failed():
				nothing[from{e.Sender.PID, string(e.Socket.Bound)}]++
			default:
				t.Errorf("nobody has sent %s", describe(e))
			}
			continue
		}
		if e.Result.Failed() {
			if e.Result.Delivered != nil && *e.Result.Delivered {
				t.Errorf("failed, and delivered: %s", describe(e))
			}
			continue
		}
		shown[id] = append(shown[id], e)
	}
	read := map[uint64]*events.Receipt{}
	for _, r := range m.capture.receipts {
		read[r.Seq] = r
	}
	m.capture.receipts = nil
	for _, a := range arrived[""] {
		nothing[from{a.pid, a.at}]--
		if len(a.payload) > 0 {
			t.Errorf("nobody has sent what arrived: %.80q", a.payload)
		}
	}
	delete(arrived, "")
	for who, n := range nothing {
		if n != 0 && !mayMiss() {
			t.Errorf("of what is empty from %+v, %d more are shown than arrived", who, n)
		}
	}
	for id, list := range arrived {
		for len(list) > len(shown[id]) {
			a := attempts[id]
			// A backend that finds the datagram read already does not know what the kernel made it of, nor always which of several it was.
			i := slices.IndexFunc(untold, func(e *events.Event) bool {
				return (a.kernelSide || strings.HasPrefix(a.way, "sendmmsg")) && m.capture.backend == "tracepoint" &&
					e.Sender.PID == a.from.pid && string(e.Socket.Bound) == a.to.bound && !e.Result.Failed() && int(*e.Result.Bytes) == len(list[0].payload)
			})
			switch {
			case i >= 0:
				untold = slices.Delete(untold, i, i+1)
				m.untold++
			case mayMiss():
				m.unseen++
			default:
				t.Errorf("arrived, and not shown, by %s: %.80q", a.way, list[0].payload)
			}
			list = list[1:]
		}
		for i, got := range list {
			m.compareOne(t, attempts[id], shown[id][i], got, read[shown[id][i].Seq])
		}
	}
	for _, e := range untold {
		if !e.Result.Failed() && !mayMiss() {
			t.Errorf("nobody has sent what is not told: %s, %s", describe(e), outcomeOf(e))
		}
	}
	for id, list := range shown {
		for _, e := range list[min(len(list), len(arrived[id])):] {
			t.Errorf("shown, and not arrived, by %s: %s, %+v", attempts[id].way, describe(e), outcomeOf(e))
		}
	}
}

// outcomeOf says how much was sent, and whether it arrived.
func outcomeOf(e *events.Event) string {
	bytes, delivered := "?", "?"
	if e.Result.Bytes != nil {
		bytes = strconv.Itoa(int(*e.Result.Bytes))
	}
	if e.Result.Delivered != nil {
		delivered = strconv.FormatBool(*e.Result.Delivered)
	}
	return bytes + " bytes, delivered " + delivered
}

// compareOne holds one event against the message that it shows, and who sent it.
func (m *campaign) compareOne(t *testing.T, a attempt, e *events.Event, got arrival, read *events.Receipt) {
	t.Helper()
	complain := func(what string, have, want any) {
		t.Errorf("by %s from %s: %s is %v, want %v: %s", a.way, a.from.comm, what, have, want, describe(e))
	}
	shown, want := e.Payload, got.payload[:min(len(got.payload), events.MaxPayload)]
	if a.way == changing && m.capture.backend == "tracepoint" && len(shown) == len(want) && len(got.payload) <= events.MaxPayload {
		// If it was read already, it is told from the sender's memory.
		shown, want = shown[:len(shown)-1], want[:len(want)-1]
	}
	if !bytes.Equal(shown, want) {
		complain("the payload", fmt.Sprintf("%.80q", e.Payload), fmt.Sprintf("%.80q", want))
	}
	if e.Size == nil || int(*e.Size) != len(got.payload) || e.Truncated != (len(got.payload) > events.MaxPayload) {
		complain("the size", e.Size, len(got.payload))
	}
	address := a.to.bound
	if a.direct {
		address = addressText(a.to.addr)
	}
	// A backend that has only the system call to tell the address by may not find it, but knows where it went.
	if m.capture.backend == "tracepoint" && e.Socket.Address == e.Socket.Bound {
		address = a.to.bound
	}
	if e.Socket.Address == "" && mayMiss() {
		address = "" // the end of the send was missed
	}
	if string(e.Socket.Address) != address || string(e.Socket.Bound) != got.at || got.at != a.to.bound {
		complain("the socket", e.Socket, address+" bound to "+got.at)
	}
	s := e.Sender
	if s.PID != a.from.pid || s.TID != a.from.tid && !strings.Contains(a.way, "async") || s.UID != a.from.uid || s.NSPID != a.from.nspid || s.CgroupID != a.cgroup {
		complain("the sender", fmt.Sprintf("%+v", s), a.from.pid)
	}
	pid, uid := s.PID, s.UID
	if e.Claimed != nil {
		pid = e.Claimed.PID
		if e.Claimed.UID != nil {
			uid = *e.Claimed.UID
		}
	}
	// Nor can it always translate a number that a sender in another namespace has claimed.
	unknown := m.capture.backend == "tracepoint" && e.Claimed != nil && e.Claimed.PID == 0
	if (pid != got.pid || uid != got.uid) && !unknown {
		complain("who it is from for the receiver", fmt.Sprint(pid, " ", uid), fmt.Sprint(got.pid, " ", got.uid))
	}
	if d := e.Result.Delivered; d == nil && m.capture.backend == "fentry" || d != nil && !*d {
		complain("delivered", d, true)
	}
	if read == nil && m.capture.backend == "fentry" && mayMiss() {
		m.unfollowed++
	} else if read == nil && m.capture.backend == "fentry" || read != nil && (read.Kind != events.ReceiptRead || int(read.By.PID) != os.Getpid()) {
		complain("the receipt", read, "one of this process")
	}
}

// turn has the sender do one thing.
func (s *randomSender) turn(t *testing.T) {
	if s.random.IntN(40) == 0 {
		s.move(t)
	}
	to := s.random.IntN(len(s.addresses))
	do := step{Sock: "free"}
	var way string
	switch s.random.IntN(6) {
	case 0:
		way = "sendmmsg"
		if s.random.IntN(3) == 0 {
			way = "sendmmsg again"
		}
		do.Op = way
		for range 2 + s.random.IntN(3) {
			to := s.random.IntN(len(s.addresses))
			do.Msgs = append(do.Msgs, message{Addr: s.addresses[to].addr, Parts: fiveParts(s.message(way, to, true, false))})
		}
		if way == "sendmmsg" && s.random.IntN(3) == 0 { // to nobody, in between
			do.Msgs[s.random.IntN(len(do.Msgs))].Addr = pathAddr(filepath.Join(root, "campaign-missing/notify.sock"))
		}
	case 1:
		way = changing
		do.Op, do.Addr, do.Parts = "send while it changes", s.addresses[to].addr, parts(s.message(way, to, true, false))
	default:
		w := ways[s.random.IntN(len(ways))]
		direct := w.unconnected && (!w.connected || s.random.IntN(2) == 0)
		way, do.Op = w.name, w.op
		payload := s.message(way, to, direct, w.kernelSide)
		if w.max > 0 {
			payload = payload[:min(len(payload), w.max)]
		}
		do.Parts = parts(payload)
		if w.split != nil {
			do.Parts = w.split(payload)
		}
		if direct {
			do.Addr = s.addresses[to].addr
		} else {
			do.Sock = fmt.Sprint("connected", to)
		}
		if strings.HasPrefix(w.op, "sendmsg") {
			do.Creds, do.FDs = s.attach()
		}
		if strings.HasPrefix(w.op, "send") && w.op != "sendfile" && s.random.IntN(3) == 0 {
			do.Flags = unix.MSG_NOSIGNAL | unix.MSG_DONTWAIT*s.random.IntN(2)
		}
	}
	s.begin(t, do)
	if s.random.IntN(10) == 0 {
		// A send that waits is restarted after Go's handler.
		_ = unix.Tgkill(int(s.pid), int(s.tid), unix.SIGURG)
	}
	o, err := s.finish()
	if err != nil {
		t.Errorf("agent %s did not %s: %v", s.comm, do.Op, err)
	}
	switch o.Errno {
	case 0, unix.EAGAIN, unix.EPERM, unix.ENOENT, unix.ENOSYS, unix.EINTR:
	default:
		t.Errorf("agent %s: %s: %v", s.comm, way, o.Errno)
	}
	if len(do.FDs) > 0 {
		s.must(t, step{Op: "close passed"})
	}
}

// move moves the sender to another control group.
func (s *randomSender) move(t *testing.T) {
	t.Helper()
	s.now = s.random.IntN(len(s.cgroups))
	join(t, s.cgroups[s.now].dir, s.pid)
}

// message notes an attempt, and returns what to send.
func (s *randomSender) message(way string, to int, direct, kernelSide bool) string {
	id := fmt.Sprintf("X_ID=%s.%d.", strings.TrimPrefix(s.comm, "sdt-random-"), s.random.Uint64())
	s.attempted[id] = attempt{s, s.addresses[to], way, direct, kernelSide, s.ids[s.now]}
	before := []string{"", "READY=1\n", "<30>", "\n\n", "\x00", "not an assignment\n", "MESSAGE=x\n", "\xff\xfe="}[s.random.IntN(8)]
	after := s.random.IntN([]int{1, 40, 40, 5000, 40_000}[s.random.IntN(5)])
	text := make([]byte, 0, len(before)+len(id)+after)
	text = append(append(text, before...), id...)
	for range after {
		text = append(text, byte(s.random.Uint32()))
	}
	return string(text)
}

// attach is what goes with a message beside its payload.
func (s *randomSender) attach() (claim *creds, fds []string) {
	if number := s.random.IntN(6); number < 2 {
		claim = &creds{PID: []int{int(s.nspid), 1}[number], UID: int(s.uid), GID: int(s.gid)}
		if s.cmd.SysProcAttr.Cloneflags&unix.CLONE_NEWUSER != 0 {
			claim.UID, claim.GID = 0, 0
		}
	}
	kinds := []string{"pipe", "memfd", "socket", "char", "eventfd"}
	for range max(0, s.random.IntN(8)-4) {
		fds = append(fds, kinds[s.random.IntN(len(kinds))])
	}
	return claim, fds
}

// receiveUntil receives until stop is closed and nothing is left.
func (r *receiver) receiveUntil(t *testing.T, bound string, stop <-chan struct{}) (list []arrival) {
	buf, control := make([]byte, 1<<17), make([]byte, 4096)
	for {
		last := false
		select {
		case <-stop:
			last = true
		default:
		}
		n, cn, _, _, err := unix.Recvmsg(r.fd, buf, control, unix.MSG_CMSG_CLOEXEC)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN) && last:
			return list
		case errors.Is(err, unix.EAGAIN):
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(r.fd), Events: unix.POLLIN}}, 10)
			continue
		case err != nil:
			t.Errorf("receiving at %s: %v", bound, err)
			return list
		}
		got := arrival{payload: bytes.Clone(buf[:n]), at: bound}
		messages, err := unix.ParseSocketControlMessage(control[:cn])
		if err != nil {
			t.Errorf("the ancillary data at %s: %v", bound, err)
		}
		for _, m := range messages {
			if fds, err := unix.ParseUnixRights(&m); err == nil {
				for _, fd := range fds {
					_ = unix.Close(fd)
				}
			} else if who, err := unix.ParseUnixCredentials(&m); err == nil {
				got.pid, got.uid = uint32(who.Pid), who.Uid
			}
		}
		list = append(list, got)
	}
}
