// SPDX-License-Identifier: Apache-2.0

// Package relay forwards the notifications of containers (sd_notify(3)) to the
// notify socket of their host: the whole protocol, under a policy, translated
// from the namespaces of the container into those of the host.
//
// A [Relay] binds a socket for each container and has one upstream. What a
// container sends is read at once, always; it is taken apart the way systemd
// does it, judged assignment by assignment ([Policy]), written anew, and sent.
// While the host does not read, it waits in a bounded queue in which nothing of
// consequence is dropped or overtaken.
package relay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/bits"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// burst is how many datagrams are taken from one container before the
	// others have their turn.
	burst = 64
	// lastBurst is taken at the end, or as many as can be waiting in a socket (net.unix.max_dgram_qlen) if that is more.
	lastBurst = 4096
	// drainTime is how long the host has, at the end, to read what is left.
	drainTime = 5 * time.Second
	// A host that is away, or whose socket may have been replaced, is tried again.
	retryFirst = 2 * time.Millisecond
	retryLast  = 128 * time.Millisecond
)

// ErrUndelivered is returned by [Relay.Run] when the host did not take
// everything before the relay had to end.
var ErrUndelivered = errors.New("the host did not take every notification")

// Config is what a relay is to do.
type Config struct {
	// Upstream is the host's notify socket.
	Upstream Address
	// Members are the containers. Several are one unit to the host: it is ready
	// when all of them are, alive when all of them are.
	Members []Member
	// Policy says what may pass. The zero value lets nothing pass: see [DefaultPolicy].
	Policy Policy
	// NoFDs has no file descriptors taken from containers: neither barriers nor the host's store work then. Since Linux 6.16
	// the kernel refuses datagrams with some, and their senders see EPERM; before, they count as without.
	NoFDs bool
	// OnDecision, if not nil, is called for every decision, from the goroutine
	// of Run. It holds up the relay.
	OnDecision func(Decision)
}

// Relay forwards notifications. Its methods can be called from any goroutine.
type Relay struct {
	policy   Policy
	noFDs    bool
	callback func(Decision)
	counters counters
	ready    chan struct{}
	begun    atomic.Bool
	ended    atomic.Bool

	// The rest belongs to the goroutine of Run.
	isReady   bool
	up        upstream
	members   []*member
	wake      int // eventfd: Run is to end
	receiver  receiver
	origin    origin
	out       []byte
	polls     []unix.PollFd
	watched   []watch
	closer    *closer
	lastBurst int
	noRoom    bool // a member takes no file descriptors for the moment

	pacer      pacer
	queue      queue
	barriers   barriers
	main       target // the process that the host was told is the main one
	busy       bool   // the host's queue is full; when it is not, busyFD tells
	busyFD     int
	busyEvents int16
	retry      retry

	// What the host was told of all members.
	unit                     unitPhase
	unitReady, unitReloading bool
	status                   []byte
}

// retry is when to try the host again, if it is not known to be there.
type retry struct {
	at    time.Time // zero: no need to
	delay time.Duration
}

// New makes the sockets of a relay: from then on, containers can send. What
// they send is forwarded when [Relay.Run] runs. Call [Relay.Close] at the end.
func New(config Config) (*Relay, error) {
	if err := config.check(); err != nil {
		return nil, err
	}
	r := &Relay{
		policy: config.Policy, noFDs: config.NoFDs, callback: config.OnDecision,
		ready: make(chan struct{}), wake: -1, closer: newCloser(),
		pacer: pacer{every: config.Policy.Rule(KeyStatus).Every},
	}
	r.receiver.init()
	if err := r.open(config); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// check finds what makes no sense before anything is made.
func (c *Config) check() error {
	if len(c.Members) == 0 {
		return errors.New("no container to relay for")
	}
	names := make(map[string]bool)
	for i := range c.Members {
		m := &c.Members[i]
		switch {
		case (m.Listen == "") == (m.File == nil):
			return fmt.Errorf("container %q needs either an address to listen on or a socket", m.Name)
		case names[m.Name] || (m.Name == "" && len(c.Members) > 1):
			return errors.New("several containers need a name each")
		case m.Access > AccessExec:
			return fmt.Errorf("there is no access %d", m.Access)
		case m.Container.PID < 0:
			return fmt.Errorf("%d is no process", m.Container.PID)
		}
		names[m.Name] = true
	}
	return nil
}

func (r *Relay) open(config Config) (err error) {
	if r.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return fmt.Errorf("making an eventfd: %w", err)
	}
	if r.up, err = dial(config.Upstream); err != nil {
		return err
	}
	for _, c := range config.Members {
		m, err := newMember(c, r)
		if err != nil {
			return err
		}
		r.members = append(r.members, m)
		if m.listener.isAt(config.Upstream) {
			return fmt.Errorf("%s is the relay's own socket: it would forward to itself", config.Upstream)
		}
	}
	r.lastBurst = max(lastBurst, queueLength()+1)
	return nil
}

// queueLength is how many datagrams can wait in a socket, but for those of more senders at once, 0 if that is not known.
func queueLength() int {
	text, err := os.ReadFile("/proc/sys/net/unix/max_dgram_qlen")
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return min(n, 1<<20)
}

// Close removes the sockets. It must not be called while Run runs.
func (r *Relay) Close() error {
	if r.ended.Swap(true) {
		return nil
	}
	for _, m := range r.members {
		for name := range m.store.names {
			m.store.remove(name, r.dropStored(m))
		}
		m.close()
	}
	r.releaseStatus()
	for r.queue.len() > 0 {
		r.drop(r.queue.head())
	}
	for _, b := range r.barriers.sent {
		unix.Close(b.pipe)
		r.loseWaiters(b.waiters)
	}
	r.loseWaiters(r.barriers.late)
	r.loseWaiters(r.barriers.held)
	if r.up != nil {
		r.up.close()
	}
	r.setMain(target{})
	if r.wake >= 0 {
		unix.Close(r.wake)
	}
	return nil
}

// SetCommand names the process that counts as the main one of every member whose
// [Container] is Descendants: the program that was started for it. It must be
// called before Run.
func (r *Relay) SetCommand(pid int) {
	for _, m := range r.members {
		if m.identity.container.Descendants {
			m.identity.setCommand(pid)
		}
	}
}

// Stopping says that the unit is to stop, as the service manager has asked by a signal: from now on EXTEND_TIMEOUT_USEC is about
// the stop, whether or not the container says STOPPING=1, and has a budget of its own.
func (r *Relay) Stopping() { r.unit.asked.Store(true) }

// Ready is closed when READY=1 has been sent to the host for the first time.
func (r *Relay) Ready() <-chan struct{} { return r.ready }

// Counts returns how often each verdict was given, those that never were left
// out, in a fixed order. Counts only grow.
func (r *Relay) Counts() []Count { return r.counters.counts() }

// Run forwards until the context ends. Then it takes what the containers have
// sent by that time, and returns when the host has read it, at the latest after
// five seconds: with [ErrUndelivered] if it has not. Run can be called once, and not after [Relay.Close].
func (r *Relay) Run(ctx context.Context) error {
	if r.ended.Load() || r.begun.Swap(true) {
		return errors.New("a relay runs once, and not when it is closed")
	}
	stop := context.AfterFunc(ctx, func() { _ = signalEventfd(r.wake) })
	defer stop()
	var deadline time.Time // zero: the context has not ended
	for {
		ending, err := r.wait(deadline)
		if err != nil {
			return err
		}
		if ending {
			deadline = time.Now().Add(drainTime)
			r.receiveAll(r.lastBurst)
			r.releaseStatus()
			// So that the host has looked up who we are before we are gone.
			if !r.barriers.passing || r.queue.len() > 0 && r.lastBarrier() == nil {
				r.queueBarrier()
			}
		} else {
			r.receiveAll(burst)
			if due := r.pacer.due(); !due.IsZero() && !time.Now().Before(due) {
				r.releaseStatus()
			}
		}
		r.flush()
		if len(r.barriers.held) > 0 {
			r.admitHeld()
			r.flush()
		}
		switch {
		case deadline.IsZero():
		case r.drained():
			return nil
		case time.Now().After(deadline):
			return fmt.Errorf("%w: %d left", ErrUndelivered, r.queue.len()+len(r.barriers.sent))
		}
	}
}

// drained reports whether nothing is left that matters to anybody: a host that
// is away needs no time to look us up.
func (r *Relay) drained() bool {
	away := r.retry.delay != 0
	for _, e := range r.queue.entries {
		if !away || e.barrier == nil || len(e.barrier.waiters) > 0 {
			return false
		}
	}
	return len(r.barriers.sent) == 0
}

// watch is what a file descriptor in the poll set is about, if more than that
// there is something to read.
type watch struct {
	barrier *barrier
	waiter  bool
	member  *member // its main process has ended
	store   *member // one of what it has stored has lost its other end
}

// wait returns when there is something to do, once with ending set: when the
// context has ended.
func (r *Relay) wait(deadline time.Time) (ending bool, err error) {
	r.polls, r.watched = r.polls[:0], r.watched[:0]
	r.noRoom = false
	r.poll(r.wake, unix.POLLIN, watch{})
	paused := r.pollMembers()
	r.pollMainProcesses()
	if r.main.pid != 0 {
		r.poll(r.main.pidfd, unix.POLLIN, watch{})
	}
	if r.busy {
		r.poll(r.busyFD, r.busyEvents, watch{})
	}
	for _, b := range r.barriers.sent {
		r.poll(b.pipe, 0, watch{barrier: b})
	}
	for _, m := range r.members {
		m.store.watched(func(fd int) { r.poll(fd, 0, watch{store: m}) })
	}
	r.eachWaiter(func(w waiter) {
		if w.isPipe {
			r.poll(w.fd, 0, watch{waiter: true})
		}
	})
	switch _, err = unix.Ppoll(r.polls, r.timeout(deadline, paused), nil); {
	case errors.Is(err, unix.EINTR):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("waiting for notifications: %w", err)
	}
	r.handleEvents()
	if r.polls[0].Revents == 0 {
		return false, nil
	}
	drainEventfd(r.wake)
	return true, nil
}

// pollMembers adds the sockets that can be read. paused is true if there is one
// that has to be left alone for a moment.
func (r *Relay) pollMembers() (paused bool) {
	for _, m := range r.members {
		if m.paused {
			m.paused = false
			paused = true
			continue
		}
		if m.listener.noRoom { // whether there is some again is looked for when it is read
			r.noRoom = true
		}
		r.poll(m.listener.fd, unix.POLLIN, watch{})
	}
	return paused
}

// pollMainProcesses adds those that may still send.
func (r *Relay) pollMainProcesses() {
	for _, m := range r.members {
		if main := &m.identity.main; main.process != nil && !main.ended {
			r.poll(main.held.pidfd, unix.POLLIN, watch{member: m})
		}
	}
}

func (r *Relay) poll(fd int, events int16, about watch) {
	r.polls = append(r.polls, unix.PollFd{Fd: int32(fd), Events: events})
	r.watched = append(r.watched, about)
}

// handleEvents looks at what poll returned, but for the sockets of containers.
func (r *Relay) handleEvents() {
	for i, p := range r.polls {
		if p.Revents == 0 {
			continue
		}
		switch about := r.watched[i]; {
		case about.barrier != nil:
			// An earlier one that was passed with a later one is done already.
			if about.barrier.pipe == int(p.Fd) {
				r.passed(about.barrier)
			}
		case about.waiter:
			r.abandon(int(p.Fd))
		case about.store != nil:
			about.store.store.hungUp(int(p.Fd), r.dropStored(about.store))
		case about.member != nil:
			about.member.identity.main.ended = true
		case r.busy && r.busyFD == int(p.Fd):
			r.busy, r.retry = false, retry{}
		case r.main.pid != 0 && r.main.pidfd == int(p.Fd):
			r.setMain(target{})
		}
	}
}

// timeout is nil when only an event can change anything.
func (r *Relay) timeout(deadline time.Time, paused bool) *unix.Timespec {
	var wake time.Time
	earlier := func(t time.Time) {
		if !t.IsZero() && (wake.IsZero() || t.Before(wake)) {
			wake = t
		}
	}
	earlier(deadline)
	earlier(r.retry.at)
	earlier(r.pacer.due())
	if paused {
		earlier(time.Now().Add(retryFirst))
	}
	if r.noRoom {
		earlier(time.Now().Add(retryLast))
	}
	if wake.IsZero() {
		return nil
	}
	left := unix.NsecToTimespec(max(0, time.Until(wake)).Nanoseconds())
	return &left
}

// receiveAll takes what the containers have sent, at most limit of each.
func (r *Relay) receiveAll(limit int) {
	for _, m := range r.members {
		if r.receiveFrom(m, limit) {
			m.identity.allIsRead()
		}
	}
}

// receiveFrom takes what a container has sent, at most limit, and reports whether
// that was all.
func (r *Relay) receiveFrom(m *member, limit int) bool {
	for n := 0; n < limit; n += batch {
		hasRoom := !r.closer.full() && len(r.barriers.held) < r.closer.most/2
		m.listener.makeRoom(hasRoom)
		datagrams, err := r.receiver.receive(m.listener.fd, hasRoom)
		if err != nil {
			// Out of memory, say: what is there is there later, too.
			m.paused = !errors.Is(err, unix.EAGAIN)
			return !m.paused
		}
		for i := range datagrams {
			r.handle(m, &datagrams[i])
		}
		r.flush()
		m.identity.forgetLast()
		closePidfds(datagrams)
		if len(datagrams) < batch {
			return true
		}
	}
	return false
}

// handle does with a datagram whatever is to be done.
func (r *Relay) handle(m *member, d *datagram) {
	rec := m.rec
	if d.cred != nil {
		rec.pid, rec.uid = int(d.cred.Pid), d.cred.Uid
	}
	if r.noFDs && len(d.fds) > 0 {
		r.closeAll(d, &rec)
		d.noFDs = true
	}
	if d.noFDs {
		rec.note(KeyNone, Denied, ReasonFDsNotTaken, nil)
	}
	if why := r.admit(m, d); why != ReasonNone {
		rec.denied = true
		rec.note(KeyNone, Denied, why, d.payload[:min(len(d.payload), 64)])
		// systemd lets everybody wait, before it asks who that is (manager_dispatch_notify_fd).
		if d.refused == ReasonNone && len(d.fds) == 1 && isBarrier(d.payload) && r.policy.Rule(KeyBarrier).Action != Deny {
			r.addBarrier(d.fds[0], rec)
			d.fds = nil
		}
	} else {
		r.judge(m, d, rec)
	}
	r.closeAll(d, &rec)
}

// isBarrier reports whether a datagram is BARRIER=1 and nothing else.
func isBarrier(payload []byte) bool {
	return string(bytes.TrimRight(payload, "\n\x00")) == syntax[KeyBarrier].start
}

// closeAll closes the file descriptors of a datagram that nobody has taken.
func (r *Relay) closeAll(d *datagram, rec *recorder) {
	for _, fd := range d.fds {
		r.closer.close(rec.owner(), fd)
	}
	d.fds = nil
}

// admit decides whether a datagram is read at all, and says why not.
func (r *Relay) admit(m *member, d *datagram) Reason {
	if d.refused != ReasonNone {
		return d.refused
	}
	r.origin.relay, r.origin.member, r.origin.datagram = r, m, d
	r.origin.process = m.identity.identify(int(d.cred.Pid), d.pidfd, d.gone)
	return r.origin.process.refused
}

// judge applies the policy and forwards what is left. It takes from the
// datagram the file descriptors that it keeps.
func (r *Relay) judge(m *member, d *datagram, rec recorder) {
	defer r.origin.drop()
	j := m.filter.judge(d.payload, len(d.fds), &r.origin, &rec)
	if j.barrier {
		fd := d.fds[0]
		d.fds = nil
		r.addBarrier(fd, rec)
		return
	}
	if j.msg == nil {
		return
	}
	r.limitStore(m, &j, d.fds, &rec)
	r.compose(m, j.msg, &rec)
	r.pacer.pace(j.msg, &rec)
	if j.msg.keys == 0 {
		return
	}
	for cut := j.msg.fit(); cut != 0; cut &= cut - 1 {
		rec.note(Key(bits.TrailingZeros32(uint32(cut))), Rewritten, ReasonTrimmed, nil)
	}
	r.out = j.msg.append(r.out[:0])
	e := entry{payload: r.out, keys: j.msg.keys, rec: rec}
	if j.msg.keys.has(KeyMainPID) {
		e.main = r.origin.take()
	}
	if j.msg.keys&(1<<KeyFDStore|1<<KeyMainPIDFD) != 0 {
		e.fds = d.fds
	}
	if r.forward(e, d) {
		r.noteStored(m, j.msg, e.fds)
	}
}

// limitStore keeps the container within its quota of the host's store.
func (r *Relay) limitStore(m *member, j *judgement, fds []int, rec *recorder) {
	deny := func(why Reason) {
		for _, key := range []Key{KeyFDStore, KeyFDStoreRemove, KeyFDName, KeyFDPoll} {
			if j.msg.keys.has(key) {
				j.msg.keys &^= 1 << key
				rec.note(key, Denied, why, nil)
			}
		}
		j.storeFDs = false
	}
	name := j.msg.fdName()
	switch {
	case j.msg.keys.has(KeyFDStoreRemove):
		if !m.store.has(name) && r.policy.Rule(KeyFDName).Prefix == "" {
			deny(ReasonForeignName)
		}
	case j.storeFDs:
		limit := r.policy.Rule(KeyFDStore).MaxFDs
		switch {
		case !r.up.passesFDs():
			deny(ReasonUpstream)
		case limit > 0 && m.store.count+m.store.more(name, fds) > limit:
			deny(ReasonQuota)
		case limit == 0 && !m.store.has(name) && len(m.store.names) >= maxNames:
			deny(ReasonQuota)
		}
	}
}

// noteStored notes what a message that is on its way makes of the host's store. fds are what went with it.
func (r *Relay) noteStored(m *member, msg *message, fds []int) {
	switch {
	case msg.keys.has(KeyFDStoreRemove):
		m.store.remove(msg.fdName(), r.dropStored(m))
	case msg.keys.has(KeyFDStore):
		m.store.add(msg.fdName(), fds, r.policy.Rule(KeyFDStore).MaxFDs > 0, !msg.keys.has(KeyFDPoll))
	}
}

// dropStored closes file descriptors that a container has stored.
func (r *Relay) dropStored(m *member) func(fd int) {
	return func(fd int) { r.closer.close(m.rec.owner(), fd) }
}

// forward puts an entry on its way to the host, and says whether there was room for it.
func (r *Relay) forward(e entry, d *datagram) bool {
	if !r.queue.push(e, !r.available()) {
		r.lose(&e, Denied, ReasonQueueFull)
		e.main.close()
		return false
	}
	if len(e.fds) > 0 {
		d.fds = nil // the queue's now
	}
	return true
}

// flush sends what waits, as far as the host takes it.
func (r *Relay) flush() {
	if !r.available() {
		return
	}
	for r.queue.len() > 0 {
		r.sendPlain()
		if r.queue.len() == 0 {
			break
		}
		e := r.queue.head()
		err := r.sendEntry(e)
		switch {
		case err == nil:
			r.retry = retry{}
			r.dropFDs(e)
		case errors.Is(err, errRefused):
			r.lose(e, Lost, ReasonUpstream)
			r.dropFDs(e)
		default:
			r.unavailable(&e.rec, err)
			return
		}
		r.queue.pop()
	}
	r.retry = retry{}
}

// sendPlain sends, at once, several entries that are nothing but a payload, as
// far as that works. The caller looks at the one with which it did not.
func (r *Relay) sendPlain() {
	for {
		plain := r.queue.plain()
		if len(plain) < 2 {
			return
		}
		n := r.up.sendAll(plain, r.main.pid)
		for range n {
			r.sent(r.queue.head())
			r.queue.pop()
		}
		if n < len(plain) {
			return
		}
	}
}

func (r *Relay) sendEntry(e *entry) error {
	if e.barrier != nil {
		return r.sendBarrier(e.barrier)
	}
	err := r.up.send(e.payload, e.fds, r.main.pid)
	if errors.Is(err, errNoFDs) {
		if err = r.up.send(e.payload, nil, r.main.pid); err == nil {
			for _, key := range []Key{KeyFDStore, KeyMainPIDFD} {
				if e.keys.has(key) {
					e.rec.note(key, Lost, ReasonHostTakesNoFDs, nil)
				}
			}
		}
	}
	if err == nil {
		r.sent(e)
	}
	return err
}

// available reports whether it makes sense to send now.
func (r *Relay) available() bool {
	return r.retry.at.IsZero() || !time.Now().Before(r.retry.at)
}

// unavailable arranges for another try, after an error of upstream.send.
func (r *Relay) unavailable(rec *recorder, err error) {
	r.busy = errors.Is(err, errBusy)
	if r.busy {
		r.busyFD, r.busyEvents = r.up.writable()
		// Also by the clock: the name may belong to another socket by now.
		r.retry = retry{at: time.Now().Add(retryLast)}
		return
	}
	if r.retry.delay == 0 {
		rec.note(KeyNone, Held, ReasonUpstream, []byte(err.Error()))
	}
	r.retry.delay = min(max(2*r.retry.delay, retryFirst), retryLast)
	r.retry.at = time.Now().Add(r.retry.delay)
}

// sent notes that the host has got an entry.
func (r *Relay) sent(e *entry) {
	r.barriers.passing = false
	if e.main.pid != 0 {
		r.setMain(e.main)
		e.main = target{}
	}
	if e.keys.has(KeyReady) && !r.isReady {
		r.isReady = true
		close(r.ready)
	}
}

// setMain makes a process the one in whose name the relay sends, since with
// NotifyAccess=main the host heeds only that one.
func (r *Relay) setMain(t target) {
	r.main.close()
	r.main = t
	if len(r.members) == 1 { // of several none is forwarded
		r.members[0].identity.setNamed(t.pid)
	}
}

// drop takes the head off the queue, undelivered.
func (r *Relay) drop(e *entry) {
	if e.barrier != nil {
		r.loseWaiters(e.barrier.waiters)
	} else {
		r.lose(e, Lost, ReasonUpstream)
	}
	r.dropFDs(e)
	r.queue.pop()
}

// dropFDs closes what an entry holds.
func (r *Relay) dropFDs(e *entry) {
	for _, fd := range e.fds {
		r.closer.close(e.rec.owner(), fd)
	}
	e.main.close()
}

func (r *Relay) lose(e *entry, verdict Verdict, why Reason) {
	for key := range numKeys {
		if e.keys.has(key) {
			e.rec.note(key, verdict, why, nil)
		}
	}
}

func (r *Relay) loseWaiters(waiters []waiter) {
	for _, w := range waiters {
		w.rec.note(KeyBarrier, Lost, ReasonUpstream, nil)
		r.closer.close(w.rec.owner(), w.fd)
	}
}
