// SPDX-License-Identifier: Apache-2.0

package verdicts

import (
	"context"
	"errors"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/budget"
	"github.com/sdtrace/sdtrace/internal/identity"
	"github.com/sdtrace/sdtrace/internal/pause"
	"github.com/sdtrace/sdtrace/internal/proc"
	"github.com/sdtrace/sdtrace/internal/systemd1"
	"github.com/sdtrace/sdtrace/pkg/events"
)

const (
	// gather is how long datagrams are gathered before the service manager is asked about all
	// of them at once.
	gather = 20 * time.Millisecond
	// gathers is how often that is done while there are pings only, which lead to nothing else.
	gathers = 5
	// questionCost is about what a question for a unit takes of a service manager's time, of which a
	// tenth is spent at most.
	questionCost = 2 * time.Millisecond
	// retry is how long nothing is asked of a service manager that could not be asked.
	retry = time.Second
	// receiptWithin is how long the receipt of a datagram is waited for that was read by now.
	receiptWithin = 100 * time.Millisecond
	// unitsMax is how many units of a service manager are followed at most.
	unitsMax = 4096
)

// manager is a service manager, and what is known of its units. Its worker alone uses what is not
// guarded by mu.
type manager struct {
	pid     uint32
	started uint64 // in [proc.Tick] of CLOCK_BOOTTIME
	address events.Address
	// root is the control group below which its units are, without a slash at the end. ok is
	// false when it cannot be told.
	root     string
	hasRoot  bool
	pidns    uint64 // 0: unknown
	receipts bool
	seen     func() time.Time // until when all of the stream has been seen
	began    time.Duration    // when it was seen first, by CLOCK_MONOTONIC

	conn   *systemd1.Manager // nil: not connected
	units  *simplelru.LRU[string, *unit]
	budget budget.Budget
	// senders are the numbers in the initial pid namespace by those in the service manager's, of
	// senders and others that were looked for, which may be over.
	senders map[uint32]uint32
	refuted []refuted
	// looks are those at processes for one batch.
	looks map[uint32]look

	wanted Wanted
	// watched are the services, nil: not known yet; unknown are those that have to be asked for. toldHow
	// says that it was told how they are.
	watched map[string]*watched
	unknown []*watched
	toldHow bool
	// connectNext is when it is tried again to connect, after connectStep.
	connectNext, connectStep time.Duration

	mu        sync.Mutex
	told      []*events.Unit    // to be yielded
	hung      []*events.Hang    // the same
	container *events.Container // that it is in, with its name
	queue     []*message
	kick      chan struct{}
	forgotten bool // datagrams were lost: what was followed is not known any more
	ended     bool // the process is not there any more
}

// newManager is the service manager that is a process in a control group and has a notify socket at an
// address.
func newManager(pid uint32, cgroup string, address events.Address, options Options, seen func() time.Time) *manager {
	units, err := simplelru.NewLRU[string, *unit](unitsMax, nil)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	m := &manager{
		pid: pid, address: address, receipts: options.Receipts, wanted: options.Wanted, seen: seen, began: proc.Monotonic(),
		units: units, looks: make(map[uint32]look), kick: make(chan struct{}, 1),
	}
	if path.Base(cgroup) == identity.InitScope {
		m.root, m.hasRoot = strings.TrimSuffix(path.Dir(cgroup), "/"), true
	}
	if p, err := proc.Open(int(m.pid)); err == nil {
		m.pidns, _ = p.Inode("ns/pid", "pid")
		if stat, err := p.Stat(); err == nil {
			m.started = stat.StartTicks
		}
		p.Close()
	}
	return m
}

// over reports whether the process is not there any more, or about to be another one. The worker ends
// with the connection then.
func (m *manager) over() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ended
}

// below is what of a control group's path is below a root; ok is false when it is not below it.
func below(root, cgroup string) (rest string, ok bool) {
	rest, ok = strings.CutPrefix(cgroup, root)
	return rest, ok && strings.HasPrefix(rest, "/")
}

// take adds a datagram to those that wait for a verdict.
func (m *manager) take(msg *message) {
	m.mu.Lock()
	m.queue = append(m.queue, msg)
	m.mu.Unlock()
	select {
	case m.kick <- struct{}{}:
	default:
	}
}

// forget says that datagrams were lost.
func (m *manager) forget() {
	m.mu.Lock()
	m.forgotten = true
	m.mu.Unlock()
}

// run finds verdicts until the context ends.
func (m *manager) run(ctx context.Context) {
	defer func() {
		if m.conn != nil {
			m.conn.Close()
		}
	}()
	_ = m.connect(ctx) // it is tried again when there is something to ask
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if m.watch(ctx) != nil && !m.part(ctx) {
				return
			}
			continue
		case <-m.unsettled():
			m.settle(ctx)
			continue
		case <-m.kick:
		}
		if !m.rest(ctx) {
			return
		}
		m.mu.Lock()
		batch := m.queue
		m.queue = nil
		if m.forgotten {
			m.units.Purge()
			m.forgotten = false
		}
		m.mu.Unlock()
		if err := m.judge(ctx, batch); err != nil {
			m.doubt(batch, err)
			if !m.part(ctx) || !pause.For(ctx, retry) {
				return
			}
		}
	}
}

// part ends the connection after an error, and reports whether there may be another one.
func (m *manager) part(ctx context.Context) bool {
	if ctx.Err() != nil {
		return false
	}
	if m.conn != nil {
		m.conn.Close()
		m.conn = nil
	}
	m.leave()
	m.units.Purge()
	m.watched, m.unknown = nil, nil
	if !m.lives() {
		m.end()
		return false
	}
	return true
}

// rest waits until something may be asked, and reports whether the context goes on.
func (m *manager) rest(ctx context.Context) bool {
	for {
		for range gathers {
			if !pause.For(ctx, gather) {
				return false
			}
			if !m.waitsQuietly() {
				break
			}
		}
		if m.budget.Allows(proc.BootTime()) {
			return true
		}
	}
}

// waitsQuietly reports whether nothing waits that changes what the service manager tells.
func (m *manager) waitsQuietly() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !slices.ContainsFunc(m.queue, func(msg *message) bool { return !isQuiet(msg.event.TextOf()) })
}

// lives reports whether the process is there still.
func (m *manager) lives() bool {
	p, err := proc.Open(int(m.pid))
	if err != nil {
		return false
	}
	defer p.Close()
	stat, err := p.Stat()
	return err == nil && stat.StartTicks == m.started
}

// end says that nothing more is found out, of what waits neither.
func (m *manager) end() {
	m.mu.Lock()
	m.ended = true
	rest := m.queue
	m.queue = nil
	m.mu.Unlock()
	m.doubt(rest, errOver)
}

var errOver = errors.New("it is over")

// doubt says of datagrams why nothing is known of them.
func (m *manager) doubt(batch []*message, err error) {
	for _, msg := range batch {
		msg.mu.Lock()
		if msg.verdict == nil {
			msg.verdict = msg.unknown(time.Time{}, "the service manager cannot be asked ("+err.Error()+"): what it knows of the unit")
		}
		msg.mu.Unlock()
	}
}

// judge finds the verdicts on datagrams, in their order. The error says why the service manager
// could not be asked.
func (m *manager) judge(ctx context.Context, batch []*message) error {
	if err := m.connect(ctx); err != nil {
		return err
	}
	var units []*judging
	var beyond []string
	// What the service manager tells is the outcome of all that it has read by then. So all of
	// that has to be here, what came while it was asked, too.
	for again := askAgain; ; again-- {
		if err := m.conn.Sync(ctx); err != nil {
			return err
		}
		clear(m.looks) // who is there now was there when it was read
		units = m.byUnit(batch)
		for _, u := range units {
			if err := m.askFor(ctx, u); err != nil {
				return err
			}
		}
		more, all := m.takeUntil(ctx, time.Now())
		if beyond = nil; !all {
			beyond = events.Keys() // anything may have been said, and read
		}
		if len(more) == 0 {
			break
		}
		if again == 0 || !m.asks(units) {
			beyond = append(beyond, keysOf(more)...)
			m.giveBack(more)
			break
		}
		batch = append(batch, more...)
	}
	m.awaitReceipts(ctx, batch)
	for _, u := range units {
		m.finish(u, beyond)
		for _, d := range u.batch {
			m.heard(d)
		}
	}
	return nil
}

// asks reports whether the service manager was asked for a unit.
func (m *manager) asks(units []*judging) bool {
	return slices.ContainsFunc(units, func(j *judging) bool { return j.now != nil })
}

// connect connects to the service manager, if that is not done yet.
func (m *manager) connect(ctx context.Context) (err error) {
	if m.conn == nil {
		m.conn, err = systemd1.Connect(ctx, int(m.pid), m.address)
	}
	return err
}

// giveBack lets datagrams wait for the next time.
func (m *manager) giveBack(batch []*message) {
	m.mu.Lock()
	m.queue = slices.Concat(batch, m.queue)
	m.mu.Unlock()
	select {
	case m.kick <- struct{}{}:
	default:
	}
}

// keysOf are the keys that datagrams say.
func keysOf(batch []*message) (keys []string) {
	for _, m := range batch {
		keys = addKeys(keys, m.event.TextOf())
	}
	return keys
}

// addKeys adds the keys in a text that are not among some yet.
func addKeys(keys []string, text *events.Text) []string {
	if text == nil {
		return keys
	}
	for _, line := range text.Lines {
		if a, ok := line.Assignment(); ok && !slices.Contains(keys, a.Key) {
			keys = append(keys, a.Key)
		}
	}
	return keys
}

// askAgain is how often the service manager is asked at most because more datagrams have come
// meanwhile.
const askAgain = 1

// judging is a unit with datagrams that wait for their verdicts.
type judging struct {
	name  string // "": none, or unknown
	batch []*datagram
	unit  *unit             // nil for what is no service
	now   *systemd1.Service // nil: it is as it was
	asked time.Duration     // when, by CLOCK_MONOTONIC
}

// byUnit sorts datagrams by the units that they count for.
func (m *manager) byUnit(batch []*message) (units []*judging) {
	byName := make(map[string]*judging)
	for _, msg := range batch {
		d := m.datagram(msg)
		m.explain(d)
		u := byName[d.unit]
		if u == nil {
			u = &judging{name: d.unit}
			byName[d.unit] = u
			units = append(units, u)
		}
		u.batch = append(u.batch, d)
	}
	return units
}

// askFor asks for a unit, if what it is now is not known.
func (m *manager) askFor(ctx context.Context, j *judging) (err error) {
	if !strings.HasSuffix(j.name, ".service") {
		return nil
	}
	j.unit, _ = m.units.Get(j.name)
	if j.unit == nil {
		j.unit = &unit{name: j.name}
		m.units.Add(j.name, j.unit)
	}
	if j.unit.after != nil && j.unit.changes == m.conn.Changes(j.name) && areQuiet(j.batch) {
		return nil
	}
	j.now, j.unit.changes, err = m.ask(ctx, j.name)
	j.asked = proc.Monotonic()
	return err
}

// finish finds the verdicts on the datagrams of a unit.
// beyond are keys that were said by datagrams which may have been read by now, and wait for the next time.
func (m *manager) finish(j *judging, beyond []string) {
	if j.unit == nil {
		for _, d := range j.batch {
			d.finish(m, nil, nil)
		}
		return
	}
	j.unit.judge(m, j.batch, beyond, j.now, j.asked)
}

// takeUntil waits until all that was sent before a time is here, and takes it. all is false when the stream is
// too far behind.
func (m *manager) takeUntil(ctx context.Context, at time.Time) (more []*message, all bool) {
	for until := time.Now().Add(streamWithin); m.seen().Before(at); {
		if !time.Now().Before(until) || !pause.For(ctx, pollEvery) {
			break
		}
	}
	all = !m.seen().Before(at)
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(m.queue) > 0 && m.queue[0].event.Time.Before(at) {
		more, m.queue = append(more, m.queue[0]), m.queue[1:]
	}
	return more, all
}

// streamWithin is how long is waited at most for a stream that is behind what happens.
const streamWithin = time.Second

// awaitReceipts waits a moment for the receipts of datagrams that have been read.
func (m *manager) awaitReceipts(ctx context.Context, batch []*message) {
	if !m.receipts {
		return
	}
	for until := time.Now().Add(receiptWithin); time.Now().Before(until); {
		missing := false
		for _, msg := range batch {
			msg.mu.Lock()
			missing = missing || msg.receipt == nil
			msg.mu.Unlock()
		}
		if !missing || !pause.For(ctx, pollEvery) {
			return
		}
	}
}

// ask asks for a unit until it does not change meanwhile.
func (m *manager) ask(ctx context.Context, name string) (now *systemd1.Service, changes uint64, err error) {
	const atMost = 3
	for range atMost {
		changes = m.conn.Changes(name)
		m.budget.Spend(questionCost)
		now, err = m.conn.Service(ctx, name, m.host)
		if err != nil || m.conn.Changes(name) == changes {
			break
		}
	}
	return now, changes, err
}

// host translates a process id of the service manager's pid namespace to the initial one, nil when
// there is no such process, and says when the process was started, by CLOCK_MONOTONIC at the latest.
func (m *manager) host(pid uint32) (*uint32, time.Duration) {
	host := m.find(pid)
	if host == 0 {
		host = m.senders[pid]
	}
	if host == 0 {
		return nil, 0
	}
	p, err := proc.Open(int(host))
	if err != nil {
		return &host, 0
	}
	defer p.Close()
	stat, err := p.Stat()
	if err != nil {
		return &host, 0
	}
	return &host, time.Duration(stat.StartTicks+1)*proc.Tick - proc.Suspended()
}

// namedIn is the process that a PID file of the service manager's names, nil for none.
func (m *manager) namedIn(path string) *uint32 {
	p, err := proc.Open(int(m.pid))
	if err != nil {
		return nil
	}
	defer p.Close()
	const enough = 64
	text, err := p.ReadPath(path, enough)
	if err != nil {
		return nil
	}
	line, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.ParseUint(strings.TrimSpace(line), 10, 31)
	if err != nil || pid == 0 {
		return nil
	}
	host, _ := m.host(uint32(pid))
	return host
}

// sendersMax is how many processes are remembered that may be over.
const sendersMax = 4096

// sender notes which number a sender has in the service manager's pid namespace, and in the initial one.
func (m *manager) sender(pid, host uint32) {
	if m.senders == nil || len(m.senders) >= sendersMax {
		m.senders = make(map[uint32]uint32)
	}
	m.senders[pid] = host
}

// find is the number in the initial pid namespace of a process of the service manager's, 0 for none.
func (m *manager) find(pid uint32) uint32 {
	own, err := os.Stat("/proc/self/ns/pid")
	if err != nil {
		return 0
	}
	if stat, ok := own.Sys().(*unix.Stat_t); ok && stat.Ino == m.pidns {
		return pid
	}
	if known := m.senders[pid]; known != 0 && m.isCalled(int(known), pid) {
		return known
	}
	all, err := proc.PIDs("/")
	if err != nil || m.pidns == 0 {
		return 0
	}
	for _, candidate := range all {
		if m.isCalled(candidate, pid) {
			m.sender(pid, uint32(candidate))
			return uint32(candidate)
		}
	}
	return 0
}

// isCalled reports whether a process has this number in the service manager's pid namespace, and is
// in that itself.
func (m *manager) isCalled(candidate int, pid uint32) bool {
	p, err := proc.Open(candidate)
	if err != nil {
		return false
	}
	defer p.Close()
	if ns, err := p.Inode("ns/pid", "pid"); err != nil || ns != m.pidns {
		return false
	}
	status, err := p.Status()
	return err == nil && uint32(status.NSPID) == pid
}
