// SPDX-License-Identifier: Apache-2.0

package relay_test

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/await"
	"github.com/sdtrace/sdtrace/pkg/relay"
	"github.com/sdtrace/sdtrace/vmtest"
)

// The benchmarks compare, in one run and in turns, ways from a process to the
// socket of a host:
//
//   - direct: none between them;
//   - bare: a loop that receives and sends and does nothing else, which is as
//     good as a way with a process in between can be;
//   - relay: ours, in a process of its own, with the default policy;
//   - socat: UNIX-RECV to UNIX-SENDTO, one way. UNIX-RECVFROM ends with the first
//     datagram, or else forks for each of them;
//   - conmon: what podman's containers notify through.
//
// What is not installed is left out, and said so. The queues of the sockets
// have a length that the system sets: 10, or 512 where systemd runs. To try
// another:
//
//	unshare --net sh -c 'sysctl net.unix.max_dgram_qlen=512; go test ./pkg/relay -run "^$" -bench Relay'
const (
	// roleEnv makes of this test binary a process that takes part in a benchmark.
	roleEnv   = "SDTRACE_RELAY_BENCH"
	roleRelay = "relay" // SOCKET UPSTREAM
	roleBare  = "bare"  // SOCKET UPSTREAM
	roleFeed  = "feed"

	// A turn is how many datagrams one way has to itself.
	latencyTurn    = 100
	throughputTurn = 10_000
	// stalled is when a way is given up.
	stalled = 3 * time.Second
)

func init() {
	switch os.Getenv(roleEnv) {
	case roleRelay:
		exitOn(beRelay(os.Args[1], os.Args[2]))
	case roleBare:
		exitOn(beBare(os.Args[1], os.Args[2]))
	case roleFeed:
		exitOn(beFeeder())
	}
}

func exitOn(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// beRelay relays until its stdin is closed.
func beRelay(socket, upstream string) error {
	r, err := newPlainRelay(socket, upstream)
	if err != nil {
		return err
	}
	defer r.Close()
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	// Nobody reads any more when the benchmark ends.
	if err := r.Run(ctx); !errors.Is(err, relay.ErrUndelivered) {
		return err
	}
	return nil
}

// beBare passes on what it receives until its stdin is closed.
func beBare(socket, upstream string) error {
	from, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	to, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	err = errors.Join(
		unix.Connect(to, &unix.SockaddrUnix{Name: upstream}),
		unix.Bind(from, &unix.SockaddrUnix{Name: socket}))
	if err != nil {
		return err
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	for buffer := make([]byte, 4096); ; {
		n, err := unix.Read(from, buffer)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return err
		}
		if err := write(to, buffer[:n]); err != nil {
			return err
		}
	}
}

// newPlainRelay makes a relay as it is without any option.
func newPlainRelay(socket, upstream string) (*relay.Relay, error) {
	address, err := relay.ParseAddress(upstream)
	if err != nil {
		return nil, err
	}
	return relay.New(relay.Config{
		Upstream: address, Policy: relay.DefaultPolicy(), Members: []relay.Member{{Listen: socket}},
	})
}

// feed is what a feeder is to send.
type feed struct {
	Socket  string
	Payload string
	Count   int
	Last    string        // sent once, after the others; "": nothing
	Window  int           // how many may be under way; 0: as many as there is room for
	Pause   time.Duration // before each
}

// credit is how many arrivals an acknowledgement stands for.
func (f *feed) credit() int { return (f.Window + 1) / 2 }

// What a feeder has as file descriptors, besides stdin and stdout.
const (
	startFD = 3 // a page: when the last datagram was sent
	ackFD   = 4 // a pipe: a byte for each credit
)

// giveUp is an acknowledgement: nothing more arrives.
const giveUp = 'x'

// beFeeder sends what it is told over stdin, one feed after the other.
func beFeeder() error {
	// So that nothing of Go's scheduler gets between the clock and the send.
	runtime.LockOSThread()
	start, err := mapStart(startFD)
	if err != nil {
		return err
	}
	in := json.NewDecoder(os.Stdin)
	for {
		var f feed
		if err := in.Decode(&f); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		text := "ok"
		if err := f.send(start); err != nil {
			text = err.Error()
		}
		fmt.Println(text)
	}
}

func mapStart(fd int) (*atomic.Int64, error) {
	page, err := unix.Mmap(fd, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	return (*atomic.Int64)(unsafe.Pointer(&page[0])), nil
}

func (f *feed) send(start *atomic.Int64) error {
	fd, err := f.connect()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	payload, credits, acks := []byte(f.Payload), f.Window, make([]byte, 4096)
	if err := drain(ackFD, acks); err != nil {
		return err
	}
	pause := unix.NsecToTimespec(f.Pause.Nanoseconds())
	for range f.Count {
		for f.Window > 0 && credits == 0 {
			n, err := unix.Read(ackFD, acks)
			if err != nil || slices.Contains(acks[:n], giveUp) {
				return errors.New("given up")
			}
			credits += n * f.credit()
		}
		credits--
		if f.Pause > 0 {
			_ = unix.Nanosleep(&pause, nil)
		}
		start.Store(time.Now().UnixNano())
		if err := write(fd, payload); err != nil {
			return err
		}
	}
	if f.Last != "" {
		return write(fd, []byte(f.Last))
	}
	return nil
}

// write goes on after a signal: with a time limit, the kernel does not.
func write(fd int, payload []byte) error {
	for {
		if _, err := unix.Write(fd, payload); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func (f *feed) connect() (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	limit := unix.NsecToTimeval(stalled.Nanoseconds())
	err = errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 8<<20), // as sd_notify(3)
		unix.Connect(fd, &unix.SockaddrUnix{Name: f.Socket}))
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// drain empties a pipe of what the feed before has left.
func drain(fd int, buffer []byte) error {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		if n == 0 || err != nil {
			return err
		}
		if _, err := unix.Read(fd, buffer); err != nil {
			return err
		}
	}
}

// feeder is a running one.
type feeder struct {
	in    *json.Encoder
	out   *bufio.Scanner
	start *atomic.Int64
	ack   *os.File
}

func startFeeder(t testing.TB) *feeder {
	t.Helper()
	memory, err := unix.MemfdCreate("start", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	page := os.NewFile(uintptr(memory), "start")
	defer page.Close()
	if err := page.Truncate(int64(os.Getpagesize())); err != nil {
		t.Fatal(err)
	}
	start, err := mapStart(memory)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	acks, ack := os.NewFile(uintptr(ends[0]), "acks"), os.NewFile(uintptr(ends[1]), "ack")
	defer acks.Close()
	t.Cleanup(func() { ack.Close() })
	cmd := inRole(roleFeed)
	cmd.ExtraFiles = []*os.File{page, acks}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	return &feeder{in: json.NewEncoder(run(t, cmd)), out: bufio.NewScanner(out), start: start, ack: ack}
}

// inRole is this test binary in another role.
func inRole(role string, args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), roleEnv+"="+role)
	cmd.Stderr = os.Stderr
	return cmd
}

// run runs a program that ends, at the end of the benchmark, with its stdin.
func run(t testing.TB, cmd *exec.Cmd) io.Writer {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Wait()
	})
	return in
}

// begin has a feed sent; end waits until it is.
func (f *feeder) begin(t testing.TB, what feed) {
	t.Helper()
	if err := f.in.Encode(what); err != nil {
		t.Fatal(err)
	}
}

func (f *feeder) end(t testing.TB) {
	t.Helper()
	if !f.out.Scan() {
		t.Fatal("the feeder is gone")
	}
	if text := f.out.Text(); text != "ok" {
		t.Logf("feeder: %s", text)
	}
}

// acknowledge says that as many have arrived as the credit of the feed.
func (f *feeder) acknowledge(t testing.TB) {
	t.Helper()
	if _, err := unix.Write(int(f.ack.Fd()), []byte{1}); err != nil {
		t.Fatal(err)
	}
}

// way is one of the ways from a feeder to a host.
type way struct {
	name   string
	socket string
	host   int // file descriptor
	window int // of a flood
	buffer [8192]byte
	failed bool
}

// newWay makes the host's end.
func newWay(t testing.TB, name, dir string) *way {
	t.Helper()
	h := newHost(t, filepath.Join(dir, name+".host"))
	limit := unix.NsecToTimeval(stalled.Nanoseconds())
	if err := unix.SetsockoptTimeval(h.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		t.Fatal(err)
	}
	return &way{name: name, socket: filepath.Join(dir, name+".sock"), host: h.fd}
}

// receive blocks until a datagram is there. ok is false when none comes.
func (w *way) receive() (payload []byte, ok bool) {
	for {
		n, err := unix.Read(w.host, w.buffer[:])
		if !errors.Is(err, unix.EINTR) {
			return w.buffer[:max(n, 0)], err == nil
		}
	}
}

// giveUp is for when nothing arrives any more.
func (w *way) giveUp(t testing.TB, f *feeder) {
	t.Helper()
	t.Logf("%s: stopped forwarding, left out from here on", w.name)
	w.failed = true
	_, _ = f.ack.Write([]byte{giveUp})
}

// startWays starts everything that is compared. The first is direct.
func startWays(t testing.TB, f *feeder) []*way {
	t.Helper()
	dir := shortDir(t)
	direct := newWay(t, "direct", dir)
	direct.socket = filepath.Join(dir, "direct.host")
	ways := []*way{direct}
	for _, role := range []string{roleBare, roleRelay} {
		w := newWay(t, role, dir)
		run(t, inRole(role, w.socket, filepath.Join(dir, role+".host")))
		ways = append(ways, w)
	}
	for _, start := range []func(testing.TB, string) (*way, error){startSocat, startConmon} {
		if w, err := start(t, dir); err != nil {
			t.Logf("left out: %v", err)
		} else {
			ways = append(ways, w)
		}
	}
	for _, w := range ways {
		awaitSocket(t, w.socket)
	}
	return ways
}

func awaitSocket(t testing.TB, path string) {
	t.Helper()
	probe, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(probe)
	await.Until(t, "somebody listens on "+path, func() bool {
		return unix.Connect(probe, &unix.SockaddrUnix{Name: path}) == nil
	})
}

func startSocat(t testing.TB, dir string) (*way, error) {
	t.Helper()
	path, err := exec.LookPath("socat")
	if err != nil {
		return nil, err
	}
	w := newWay(t, "socat", dir)
	cmd := exec.Command(path, "-u", "UNIX-RECV:"+w.socket, "UNIX-SENDTO:"+filepath.Join(dir, "socat.host"))
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return w, nil
}

// startConmon starts conmon with a container that sleeps.
func startConmon(t testing.TB, dir string) (*way, error) {
	t.Helper()
	conmon, err := exec.LookPath("conmon")
	runc, runcErr := exec.LookPath("runc")
	bundle := filepath.Join(dir, "bundle")
	if err := errors.Join(err, runcErr, writeBundle(bundle)); err != nil {
		return nil, err
	}
	w := newWay(t, "conmon", dir)
	w.socket = filepath.Join(bundle, "notify", "notify.sock")
	// It is not made to be ahead of the host: never more is under way than fits
	// into the host's queue.
	w.window = 8
	name, pidfile := "sdtrace-bench-"+strconv.Itoa(os.Getpid()), filepath.Join(dir, "conmon.pid")
	root := "--root=" + filepath.Join(dir, "runc")
	cmd := exec.Command(conmon, "--cid", name, "--cuuid", name, "--name", name,
		"--runtime", runc, "--runtime-arg", root, "--bundle", bundle, "--socket-dir-path", dir,
		"--container-pidfile", filepath.Join(dir, "container.pid"), "--conmon-pidfile", pidfile,
		"--log-path", "k8s-file:"+filepath.Join(dir, "conmon.log"),
		"--sdnotify-socket", filepath.Join(dir, "conmon.host"))
	out, err := cmd.CombinedOutput()
	t.Cleanup(func() {
		_ = exec.Command(runc, root, "delete", "--force", name).Run()
		if text, err := os.ReadFile(pidfile); err == nil {
			if pid, err := strconv.Atoi(string(bytes.TrimSpace(text))); err == nil {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
	})
	if err != nil {
		return nil, fmt.Errorf("conmon: %w: %s", err, out)
	}
	return w, nil
}

// writeBundle writes an OCI bundle that sleeps.
func writeBundle(bundle string) error {
	root := filepath.Join(bundle, "rootfs")
	for _, dir := range []string{filepath.Join(bundle, "notify"), filepath.Join(root, "usr"), filepath.Join(root, "proc")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	for _, name := range []string{"lib", "lib64"} {
		if err := os.Symlink("usr/"+name, filepath.Join(root, name)); err != nil {
			return err
		}
	}
	spec := specs.Spec{
		Version: specs.Version,
		Root:    &specs.Root{Path: "rootfs", Readonly: true},
		Process: &specs.Process{Args: []string{"/usr/bin/sleep", "infinity"}, Cwd: "/"},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/usr", Type: "none", Source: "/usr", Options: []string{"rbind", "ro"}},
		},
		Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}}},
	}
	text, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(bundle, "config.json"), text, 0o644)
}

// BenchmarkRelay compares the ways. Under latency, NAME-added is how much later
// than directly a datagram is there; under the rest, NAME-msgs is how many arrive,
// NAME-taken how many the sender got rid of, and NAME-% the one of the other: our
// relay leaves out those that are obsolete before the host reads.
func BenchmarkRelay(b *testing.B) {
	f := startFeeder(b)
	ways := startWays(b, f)
	b.Run("latency", func(b *testing.B) { benchmarkLatency(b, f, ways) })
	for _, flood := range []struct{ name, payload, last string }{
		{"watchdog", "WATCHDOG=1", "READY=1"},
		{"status", "STATUS=Processed 123456 requests", "READY=1"},
		{"ready", "READY=1\nSTATUS=Processed 123456 requests", "WATCHDOG=1"},
	} {
		var able []*way
		for _, w := range ways {
			if w.forwards(b, f, flood.payload, flood.last) {
				able = append(able, w)
			}
		}
		b.Run(flood.name, func(b *testing.B) {
			benchmarkThroughput(b, f, able, feed{Payload: flood.payload, Last: flood.last})
		})
	}
}

// benchmarkLatency measures a datagram on its own, from before the send to after
// the receive for which the host has been waiting.
func benchmarkLatency(b *testing.B, f *feeder, ways []*way) {
	// The host has only one thing to do.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	latencies := make(map[*way][]time.Duration)
	for left := b.N; left > 0; left -= latencyTurn {
		for _, w := range ways {
			if !w.failed {
				latencies[w] = w.measureLatency(b, f, min(left, latencyTurn), latencies[w])
			}
		}
	}
	direct := percentile(latencies[ways[0]], 50)
	for _, w := range ways {
		p50 := percentile(latencies[w], 50)
		b.ReportMetric(float64(p50), w.name+"-p50-ns")
		b.ReportMetric(float64(percentile(latencies[w], 99)), w.name+"-p99-ns")
		if w != ways[0] {
			b.ReportMetric(float64(p50-direct), w.name+"-added-ns")
		}
	}
	b.ReportMetric(0, "ns/op") // of all ways together: means nothing
}

func (w *way) measureLatency(t testing.TB, f *feeder, count int, into []time.Duration) []time.Duration {
	t.Helper()
	// The pause is for everybody to be asleep again.
	f.begin(t, feed{Socket: w.socket, Payload: "WATCHDOG=1", Count: count, Window: 1, Pause: 100 * time.Microsecond})
	defer f.end(t)
	for range count {
		if _, ok := w.receive(); !ok {
			w.giveUp(t, f)
			break
		}
		into = append(into, time.Duration(time.Now().UnixNano()-f.start.Load()))
		f.acknowledge(t)
	}
	return into
}

// benchmarkThroughput measures how many datagrams a second arrive at a host
// that reads them as fast as it can.
func benchmarkThroughput(b *testing.B, f *feeder, ways []*way, what feed) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	rates, taken := make(map[*way][]float64), make(map[*way][]float64)
	sent, arrived := make(map[*way]int), make(map[*way]int)
	for left := b.N; left > 0; left -= throughputTurn {
		for _, w := range ways {
			if w.failed {
				continue
			}
			what.Socket, what.Window, what.Count = w.socket, w.window, min(left, throughputTurn)
			n, took := w.measureThroughput(b, f, what)
			sent[w] += what.Count
			arrived[w] += n
			rates[w] = append(rates[w], float64(n)/took.Seconds())
			taken[w] = append(taken[w], float64(what.Count)/took.Seconds())
		}
	}
	for _, w := range ways {
		if sent[w] > 0 {
			b.ReportMetric(percentile(rates[w], 50), w.name+"-msgs/s")
			b.ReportMetric(percentile(taken[w], 50), w.name+"-taken/s")
			b.ReportMetric(100*float64(arrived[w])/float64(sent[w]), w.name+"-%")
		}
	}
	b.ReportMetric(0, "ns/op")
}

// measureThroughput counts what arrives between the first and the last.
func (w *way) measureThroughput(t testing.TB, f *feeder, what feed) (n int, took time.Duration) {
	t.Helper()
	f.begin(t, what)
	defer f.end(t)
	var first time.Time
	for {
		payload, ok := w.receive()
		switch {
		case !ok:
			w.giveUp(t, f)
			return n, stalled
		case bytes.HasPrefix(payload, []byte(what.Last)):
			return n, time.Since(first)
		case n == 0:
			first = time.Now()
		}
		n++
		if what.Window > 0 && n%what.credit() == 0 {
			f.acknowledge(t)
		}
	}
}

// forwards finds out whether a payload gets through at all.
func (w *way) forwards(t testing.TB, f *feeder, payload, last string) bool {
	t.Helper()
	if w.failed {
		return false
	}
	f.begin(t, feed{Socket: w.socket, Payload: payload, Count: 1, Last: last})
	defer f.end(t)
	for n := 0; ; n++ {
		got, ok := w.receive()
		switch {
		case !ok:
			w.giveUp(t, f)
			return false
		case bytes.HasPrefix(got, []byte(last)):
			if n == 0 {
				t.Logf("%s: does not forward %q, left out", w.name, payload)
			}
			return n > 0
		}
	}
}

// percentile of values, 0 if there are none.
func percentile[T cmp.Ordered](values []T, percent int) (p T) {
	if len(values) > 0 {
		values = slices.Sorted(slices.Values(values))
		p = values[min(len(values)*percent/100, len(values)-1)]
	}
	return p
}

// startSteady runs a relay in this process, where nothing else allocates: the
// container is another process, and the host reads into one buffer.
func startSteady(t testing.TB) (*feeder, *way) {
	t.Helper()
	dir := shortDir(t)
	w := newWay(t, "steady", dir)
	// As many as the shortest queue has room for: all of them arrive.
	w.window = 8
	r, err := newPlainRelay(w.socket, filepath.Join(dir, "steady.host"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		// The relay ends with a barrier of its own, which the host has to read.
		cancel()
		h := &host{t: t, fd: w.host}
		for ended := false; !ended; {
			select {
			case err := <-done:
				ended = true
				if err := errors.Join(err, r.Close()); err != nil {
					t.Error(err)
				}
			default:
				if m, ok := h.receive(time.Millisecond); ok {
					m.closeFDs()
				}
			}
		}
	})
	return startFeeder(t), w
}

// pass has datagrams go through, all of which have to arrive, and returns how
// often something was allocated meanwhile.
func (w *way) pass(t testing.TB, f *feeder, payload string, count int) uint64 {
	t.Helper()
	what := feed{Socket: w.socket, Payload: payload, Count: count, Window: w.window}
	f.begin(t, what)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for n := 1; n <= count; n++ {
		if _, ok := w.receive(); !ok {
			t.Fatalf("%d of %d datagrams %q arrived", n-1, count, payload)
		}
		if n%what.credit() == 0 {
			f.acknowledge(t)
		}
	}
	runtime.ReadMemStats(&after)
	f.end(t)
	return after.Mallocs - before.Mallocs
}

func TestNoAllocationPerDatagram(t *testing.T) {
	vmtest.OnlyOn(t, "a kernel that passes no pidfd takes another way", "5.10-amd64")
	f, w := startSteady(t)
	for _, payload := range []string{
		"WATCHDOG=1",
		"STATUS=Processed 123456 requests",
		"READY=1\nSTATUS=Processed 123456 requests",
		"RELOADING=1\nMONOTONIC_USEC=1",
		"EXTEND_TIMEOUT_USEC=30000000",
		"STATUS=back\\\\slash\tand\xff\rX_UNKNOWN=1\nNOTIFYACCESS=all\nERRNO=2",
	} {
		const warm, count = 200, 2_000
		w.pass(t, f, payload, warm)
		// Go's runtime allocates a little on its own.
		if n := w.pass(t, f, payload, count); n > count/100 {
			t.Errorf("%q: %d allocations for %d datagrams", payload, n, count)
		}
	}
}

// BenchmarkSteadyState shows what a datagram costs in a relay that shares its
// process with the host: allocs/op is to be 0.
func BenchmarkSteadyState(b *testing.B) {
	f, w := startSteady(b)
	const payload = "READY=1\nSTATUS=Processed 123456 requests"
	w.pass(b, f, payload, 500)
	b.ReportAllocs()
	b.ResetTimer()
	w.pass(b, f, payload, b.N)
}
