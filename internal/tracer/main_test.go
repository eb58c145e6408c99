// SPDX-License-Identifier: Apache-2.0

package tracer_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/tracer"
	"github.com/sdtrace/sdtrace/pkg/events"
	"github.com/sdtrace/sdtrace/vmtest"
)

// base is a directory made for this run, root the one in it that has the path
// sockets the shared tracers look at. They are short because sun_path holds 108
// bytes.
var base, root string

// abstractPrefix starts every abstract socket name of this run.
var abstractPrefix string

// inVM says that a machine without a user space was booted for this binary, in
// emulation: it is slow, and everything in it belongs to the tests.
var inVM = !vmtest.Native()

func TestMain(m *testing.M) {
	if os.Getenv(agentEnv) != "" {
		runAgent()
	}
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	if err := os.MkdirAll(os.TempDir(), 0o1777); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	var err error
	if base, err = os.MkdirTemp("", "sdt"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(base) }()
	root = filepath.Join(base, "s")
	for _, err := range []error{os.Chmod(base, 0o755), os.Mkdir(root, 0o755)} {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	abstractPrefix = filepath.Base(base) + "-"
	if inVM {
		unmount, err := mountControllerV1("pids")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer unmount()
		tracer.ShareTypes()
	}
	defer closeShared()
	return m.Run()
}

// mountControllerV1 gives a machine that has only cgroup v2 a v1 hierarchy.
func mountControllerV1(controller string) (unmount func(), err error) {
	dir := filepath.Join(base, "v1-"+controller)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	if err := unix.Mount("none", dir, "cgroup", 0, controller); err != nil {
		return nil, fmt.Errorf("mounting the cgroup v1 controller %s: %w", controller, err)
	}
	return func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }, nil
}

// needRoot skips a test that is run by an ordinary user.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("not declared: needs root")
	}
}

// backends lists what has to work on this kernel: a listed backend that cannot
// be opened is a failure.
func backends() []string {
	list := os.Getenv("SDTRACE_BACKENDS")
	if list == "" {
		list = "tracepoint"
	}
	return strings.Split(list, ",")
}

// eachBackend runs f as a subtest for each backend of this kernel.
func eachBackend(t *testing.T, f func(t *testing.T, backend string)) {
	t.Helper()
	needRoot(t)
	for _, backend := range backends() {
		t.Run(backend, func(t *testing.T) { f(t, backend) })
	}
}

// exhaustive says whether every combination is tried: natively and, as an emulated machine
// takes minutes for them, on one of these with the backend that only they can attach.
// Elsewhere each value is tried in one combination at least.
func exhaustive(backend string) bool {
	return !inVM || backend == "fentry" && vmtest.KernelName() == "6.12-amd64"
}

// clock says what an event that happens now has for its time.
func clock() time.Time {
	return time.Now() //nolint:forbidigo // nothing is said of how long a thing takes
}

// capture is an open tracer and what is known about what it has yielded.
type capture struct {
	*tracer.Tracer
	backend string
	// seq is that of the last event read: there must be no gap.
	seq uint64
	// receipts are those read since the last look.
	receipts []*events.Receipt
	// lost adds up the Lost records read, missed what of it the kernel skipped.
	lost, missed uint64
	// unfollowed adds up the receipts that are missing at most.
	unfollowed uint64
	// names adds up the names of notify sockets that were given up.
	names uint64
	// by is what the last Lost record says of whose datagrams they were.
	by []events.LostBy
	// failed is why this capture cannot be used any more.
	failed error
}

// openCapture opens a tracer for one test.
func openCapture(t *testing.T, o tracer.Options) *capture {
	t.Helper()
	c := newCapture(o)
	if c.failed != nil {
		t.Fatal(c.failed)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("closing the tracer: %v", err)
		}
	})
	return c
}

func newCapture(o tracer.Options) *capture {
	tr, err := tracer.Open(o)
	if err != nil {
		return &capture{failed: fmt.Errorf("opening the %s backend: %w", o.Backend, err)}
	}
	c := &capture{Tracer: tr, backend: o.Backend}
	if want, _, _ := strings.Cut(o.Backend, "/"); tr.Backend() != want {
		got := tr.Backend()
		c.failed = fmt.Errorf("asked for the %s backend, got %s", o.Backend, got)
	}
	return c
}

// sharedCaptures are the tracers that many tests use, by backend: opening one
// takes seconds in emulation.
var (
	namedCaptures   = map[string]*capture{}
	defaultCaptures = map[string]*capture{}
)

// named is the shared tracer that sees every datagram to this run's sockets,
// whatever it says.
func named(t *testing.T, backend string) *capture {
	t.Helper()
	return shared(t, namedCaptures, tracer.Options{Backend: backend, Filter: tracer.Filter{
		Sockets: []string{root + "/*", "@" + abstractPrefix + "*"},
	}})
}

// unfiltered is the shared tracer as a user gets it who gives no option: it
// sees the whole machine, so its tests look at their own agents' events only.
func unfiltered(t *testing.T, backend string) *capture {
	t.Helper()
	return shared(t, defaultCaptures, tracer.Options{Backend: backend})
}

func shared(t *testing.T, in map[string]*capture, o tracer.Options) *capture {
	t.Helper()
	c := in[o.Backend]
	if c == nil {
		c = newCapture(o)
		in[o.Backend] = c
	}
	if c.failed != nil {
		t.Fatal(c.failed)
	}
	if _, err := c.flush(); err != nil {
		t.Fatal(err)
	}
	c.lost, c.missed, c.unfollowed, c.receipts = 0, 0, 0, nil
	return c
}

func closeShared() {
	for _, captures := range []map[string]*capture{namedCaptures, defaultCaptures} {
		for _, c := range captures {
			if c.Tracer != nil {
				_ = c.Close()
			}
		}
	}
	if sentinels.agent != nil {
		sentinels.agent.stop()
	}
}

// flush reads what the tracer has buffered.
func (c *capture) flush() ([]*events.Event, error) {
	if err := c.Flush(); err != nil {
		return nil, fmt.Errorf("flushing: %w", err)
	}
	var got []*events.Event
	for {
		item, err := c.Read()
		switch {
		case errors.Is(err, tracer.ErrFlushed):
			return got, nil
		case err != nil:
			return got, fmt.Errorf("reading: %w", err)
		case countSet(item) != 1:
			return got, fmt.Errorf("an item must be one thing: %+v", item)
		case item.Receipt != nil:
			if r := item.Receipt; r.Send == nil || r.Send.Seq != r.Seq || r.Seq == 0 || r.Seq > c.seq {
				return got, fmt.Errorf("a receipt came before its event, or without: %+v", r)
			}
			c.receipts = append(c.receipts, item.Receipt)
			continue
		case item.Lost != nil:
			c.lost += item.Lost.Count()
			c.missed += item.Lost.Missed
			c.unfollowed += item.Lost.Receipts
			c.names += item.Lost.Names
			c.by = item.Lost.By
			continue
		}
		c.seq++
		if item.Event.Seq != c.seq {
			return got, fmt.Errorf("event %d came after event %d", item.Event.Seq, c.seq-1)
		}
		got = append(got, item.Event)
	}
}

func countSet(item tracer.Item) (n int) {
	for _, set := range []bool{item.Event != nil, item.Receipt != nil, item.Lost != nil} {
		if set {
			n++
		}
	}
	return n
}

// receiptsFor are those for what an agent sent, read since the last call.
func (c *capture) receiptsFor(a *agent) (got []*events.Receipt) {
	for _, r := range c.receipts {
		if r.Send.Sender.PID == a.pid {
			got = append(got, r)
		}
	}
	c.receipts = nil
	return got
}

// buffered is what was captured since the last look. All sends made by agents
// whose outcome is known are in it.
func (c *capture) buffered(t *testing.T) []*events.Event {
	t.Helper()
	got, err := c.flush()
	if err != nil {
		c.failed = err
		t.Fatal(err)
	}
	return got
}

// sentinels send the datagram that ends a case.
var sentinels struct {
	agent *agent
	count atomic.Uint64
}

// mayMiss reports whether a datagram may be missed, and counted, or a payload now and then:
// on arm64 a program cannot read a page whose access flag was just cleared.
func mayMiss() bool {
	return vmtest.MayMiss() || inVM && runtime.GOARCH == "arm64"
}

// collect sends a sentinel and returns what was captured before it. A capture
// that loses something here is not what these tests are about: it fails.
func (c *capture) collect(t *testing.T) []*events.Event {
	t.Helper()
	if sentinels.agent == nil {
		a, err := newAgent(agentSpec{comm: "sdt-sentinel"})
		if err != nil {
			t.Fatal(err)
		}
		sentinels.agent = a
	}
	address := filepath.Join(root, "sentinel", "notify.sock")
	r := listen(t, pathAddr(address), unix.SOCK_DGRAM)
	want := "X_SENTINEL=" + strconv.FormatUint(sentinels.count.Add(1), 10)
	sentinels.agent.must(t,
		step{Op: "socket", Sock: "s", Type: unix.SOCK_DGRAM},
		step{Op: "sendto", Sock: "s", Addr: r.addr, Parts: parts(want)},
		step{Op: "close", Sock: "s"})
	r.close()
	got := c.buffered(t)
	if len(got) == 0 {
		t.Fatal("nothing was captured, not even the sentinel")
	}
	last := got[len(got)-1]
	if string(last.Payload) != want || string(last.Socket.Address) != address {
		t.Fatalf("the last event is not the sentinel %q to %s: %s", want, address, describe(last))
	}
	if c.lost > c.missed || c.missed > 0 && !mayMiss() {
		t.Fatalf("%d datagrams were lost", c.lost)
	}
	return got[:len(got)-1]
}

// describe shows an event in a failure message.
func describe(e *events.Event) string {
	payload := e.Payload
	if len(payload) > 64 {
		payload = payload[:64]
	}
	return fmt.Sprintf("seq %d, %s[%d], to %q bound %q, errno %q, payload %d bytes %q",
		e.Seq, e.Sender.Comm, e.Sender.PID, e.Socket.Address, e.Socket.Bound, e.Result.Errno, len(e.Payload), payload)
}

// from keeps the events that one of the agents sent.
func from(all []*events.Event, agents ...*agent) []*events.Event {
	var got []*events.Event
	for _, e := range all {
		for _, a := range agents {
			if e.Sender.PID == a.pid {
				got = append(got, e)
				break
			}
		}
	}
	return got
}
