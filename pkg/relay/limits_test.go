// SPDX-License-Identifier: Apache-2.0

package relay_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/await"
	"github.com/sdtrace/sdtrace/pkg/relay"
	"github.com/sdtrace/sdtrace/vmtest"
)

func TestStoppingOfTheMainProcessStopsTheUnit(t *testing.T) {
	a := startAgent(t, ownNamespaces...)
	r := newRig(t, withContainer(relay.Container{PID: a.pid}, relay.AccessAll))
	helper := runAsAgent(t, command("nsenter", "--target", fmt.Sprint(a.pid), "--pid", os.Args[0]))
	helper.send(r.socket, "STOPPING=1")
	r.host.expect("STATUS=Stopping")
	a.send(r.socket, "STOPPING=1")
	r.host.expect("STOPPING=1")
}

func TestTheRelayWaitsAtItsEndUntilTheHostHasReadEverything(t *testing.T) {
	r := newRig(t)
	startAgent(t).send(r.socket, "READY=1")
	r.awaitDecision(relay.KeyReady, relay.Forwarded, relay.ReasonNone)
	r.cancel()
	r.cancel = nil
	r.host.expect("READY=1")
	m := r.host.expect("BARRIER=1")
	select {
	case err := <-r.done:
		t.Fatalf("ended before the host has passed its barrier: %v", err)
	default:
	}
	m.closeFDs()
	if err := <-r.done; err != nil {
		t.Error(err)
	}
	if err := r.relay.Close(); err != nil {
		t.Error(err)
	}
}

func TestWhatWasNotDeliveredIsAnErrorAtTheEnd(t *testing.T) {
	t.Parallel() // it waits for the host to come, for seconds
	dir := shortDir(t)
	upstream, _ := relay.ParseAddress(filepath.Join(dir, "nobody"))
	socket := filepath.Join(dir, "c")
	r, err := relay.New(relay.Config{
		Upstream: upstream, Policy: relay.DefaultPolicy(), Members: []relay.Member{{Listen: socket}},
	})
	if err != nil {
		t.Fatal(err)
	}
	startAgent(t).send(socket, "READY=1")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := r.Run(ctx); !errors.Is(err, relay.ErrUndelivered) {
		t.Errorf("Run returned %v, want ErrUndelivered", err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	want := relay.Count{Key: relay.KeyReady, Verdict: relay.Lost, Reason: relay.ReasonUpstream, N: 1}
	for _, c := range r.Counts() {
		if c == want {
			return
		}
	}
	t.Errorf("%v is not among %v", want, r.Counts())
}

// A host that does not read has more barriers to pass than are put to it.
func TestManyBarriersAreReleasedAndNoneTooEarly(t *testing.T) {
	vmtest.Natively(t, "how many there are is no kernel's concern")
	const n = 60
	r := newRig(t)
	agents := make([]*agent, n)
	for i := range agents {
		agents[i] = startAgent(t)
	}
	type release struct {
		number int
		answer answer
	}
	released := make(chan release, n)
	for i, a := range agents {
		// Something before each, so that two do not share one.
		a.sendWaiting(r.socket, fmt.Sprintf("READY=1\nSTATUS=%d", i))
		go func() {
			released <- release{i, a.do(order{Do: "barrier", Socket: r.socket, Payload: []byte("BARRIER=1"), Block: true})}
		}()
	}
	var mu sync.Mutex
	seen := map[int]bool{}
	quit, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-quit:
				return
			default:
			}
			m, ok := r.host.receive(10 * time.Millisecond)
			if !ok {
				continue
			}
			var number int
			if _, err := fmt.Sscanf(m.text, "READY=1\nSTATUS=%d", &number); err == nil {
				mu.Lock()
				seen[number] = true
				mu.Unlock()
			}
			m.closeFDs()
		}
	}()
	for range n {
		got := <-released
		mu.Lock()
		if !got.answer.Released || got.answer.Errno != 0 {
			t.Errorf("barrier %d was not released: %v", got.number, got.answer.Errno)
		} else if !seen[got.number] {
			t.Errorf("barrier %d was released before the host had read what came before", got.number)
		}
		mu.Unlock()
	}
	close(quit)
	<-stopped
}

func TestASenderThatNoLongerWaitsIsForgotten(t *testing.T) {
	r := newRig(t)
	a := startAgent(t)
	a.send(r.socket, "BARRIER=1", "pipe") // of which the other end is closed
	r.awaitDecision(relay.KeyBarrier, relay.Denied, relay.ReasonBarrierAbandoned)
	m := r.host.expect("BARRIER=1")
	a.send(r.socket, "READY=1")
	r.host.expect("READY=1")
	m.closeFDs()
}

// More than the queue holds, of what must not be dropped: what is left is the
// last of each, in order.
func TestAFullQueueKeepsWhatTheHostWillActOn(t *testing.T) {
	vmtest.Natively(t, "no kernel is asked")
	r := newRig(t)
	a := startAgent(t)
	const n = 2200
	for i := range n {
		text := fmt.Sprintf("READY=1\nSTATUS=%d", i)
		switch i % 3 {
		case 1:
			text = fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", i)
		case 2:
			text = fmt.Sprintf("ERRNO=%d\nSTATUS=%d", i%4096, i)
		}
		a.sendWaiting(r.socket, text)
	}
	a.sendWaiting(r.socket, "STOPPING=1\nWATCHDOG=1\nERRNO=7")
	r.awaitDecision(relay.KeyReady, relay.Coalesced, relay.ReasonNone)
	var all []string
	for {
		m := r.host.next()
		all = append(all, m.text)
		if strings.HasPrefix(m.text, "WATCHDOG=1\nERRNO=7") || strings.HasPrefix(m.text, "STOPPING=1\n") {
			break
		}
	}
	if len(all) > 1100 {
		t.Errorf("the host got %d datagrams: the queue is not bounded", len(all))
	}
	last := map[string]string{}
	for _, text := range all {
		first, _, _ := strings.Cut(text, "\n")
		key, _, _ := strings.Cut(first, "=")
		last[key] = text
	}
	if want := fmt.Sprintf("READY=1\nSTATUS=%d", n-1); (n-1)%3 == 0 && last["READY"] != want {
		t.Errorf("the last READY=1 is %q, want %q", last["READY"], want)
	}
	if want := fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", n-3); last["RELOADING"] != want {
		t.Errorf("the last RELOADING=1 is %q, want %q", last["RELOADING"], want)
	}
}

// File descriptors of which closing waits for somebody do not hold up the relay.
func TestASocketThatLingersDoesNotHoldUpTheRelay(t *testing.T) {
	r := newRig(t)
	listener, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(listener)
	if err := unix.Bind(listener, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(listener, 1); err != nil {
		t.Fatal(err)
	}
	address, err := unix.Getsockname(listener)
	if err != nil {
		t.Fatal(err)
	}
	lingering, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Connect(lingering, address); err != nil {
		t.Fatal(err)
	}
	// Unread data and an hour of patience: close waits for who does not read.
	if err := unix.SetsockoptLinger(lingering, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 3600}); err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := unix.SendmsgN(lingering, make([]byte, 1<<16), nil, nil, unix.MSG_DONTWAIT); err != nil {
			break
		}
	}
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(s)
	if err := unix.Sendmsg(s, []byte("STATUS=one"), unix.UnixRights(lingering), &unix.SockaddrUnix{Name: r.socket}, 0); err != nil {
		t.Fatal(err)
	}
	// Whoever is last to close it waits, which is not to be the test, nor a
	// process that it forks.
	go func() { unix.Close(lingering) }()
	r.host.expect("STATUS=one")
	if err := unix.Sendto(s, []byte("STATUS=two"), 0, &unix.SockaddrUnix{Name: r.socket}); err != nil {
		t.Fatal(err)
	}
	r.host.expect("STATUS=two")
}

// A host that takes no file descriptors is not away: everything else goes on.
func TestAHostThatTakesNoFileDescriptorsGetsTheRest(t *testing.T) {
	r := newRig(t, withRule("FDSTORE allow"))
	if err := unix.SetsockoptInt(r.host.fd, unix.SOL_SOCKET, unix.SO_PASSRIGHTS, 0); err != nil {
		if vmtest.KernelAtLeast(6, 16) {
			t.Fatal(err)
		}
		t.Skipf("not declared: no socket refuses file descriptors before Linux 6.16: %v", err)
	}
	a := startAgent(t)
	a.send(r.socket, "FDSTORE=1\nSTATUS=stored", "memfd")
	r.host.expect("FDSTORE=1\nSTATUS=stored")
	r.awaitDecision(relay.KeyFDStore, relay.Lost, relay.ReasonHostTakesNoFDs)
	if o := a.do(order{Do: "barrier", Socket: r.socket, Payload: []byte("BARRIER=1")}); o.Errno != 0 || !o.Released {
		t.Errorf("the barrier: %+v", o)
	}
	r.awaitDecision(relay.KeyBarrier, relay.Released, relay.ReasonHostTakesNoFDs)
	a.send(r.socket, "READY=1")
	r.host.expect("READY=1")
}

// A stop that the service manager has asked for has a budget of its own, whatever was used up before.
func TestAStopHasABudgetThoughTheContainerDoesNotSayThatItStops(t *testing.T) {
	r := newRig(t, withRule("EXTEND_TIMEOUT_USEC clamp budget=1ms"))
	a := startAgent(t)
	a.send(r.socket, "READY=1\nEXTEND_TIMEOUT_USEC=1000")
	if m := r.host.next(); !strings.HasPrefix(m.text, "READY=1\nEXTEND_TIMEOUT_USEC=") {
		t.Fatalf("the host got %q", m.text)
	}
	await.Until(t, "the budget is used up", func() bool {
		a.send(r.socket, "STATUS=more\nEXTEND_TIMEOUT_USEC=1000")
		return r.host.next().text == "STATUS=more"
	})
	r.relay.Stopping()
	a.send(r.socket, "EXTEND_TIMEOUT_USEC=1000")
	r.host.expect("EXTEND_TIMEOUT_USEC=1000")
}

// However many wait, nobody is let go before the host has read what came before, and nobody is forgotten.
func TestABarrierForWhichThereIsNoRoomIsHeld(t *testing.T) {
	for _, takesFDs := range []bool{true, false} {
		t.Run(fmt.Sprint("the host takes file descriptors: ", takesFDs), func(t *testing.T) {
			r := newRig(t)
			r.host.close()
			const n, room = 80, 64
			pipes := waitAtBarriers(t, r.socket, n)
			for range n - room {
				r.awaitDecision(relay.KeyBarrier, relay.Held, relay.ReasonTooManyBarriers)
			}
			if over, err := unix.Poll(pipes, 0); over != 0 || err != nil {
				t.Fatalf("%d of %d are let go before the host is there: %v", over, n, err)
			}
			r.host.listen()
			if !takesFDs {
				_ = unix.SetsockoptInt(r.host.fd, unix.SOL_SOCKET, unix.SO_PASSRIGHTS, 0) // before Linux 6.16 it takes them
			}
			await.Until(t, "all are let go", func() bool {
				if m, ok := r.host.receive(1); ok {
					m.closeFDs()
				}
				over, _ := unix.Poll(pipes, 0)
				return over == n
			})
		})
	}
}

// waitAtBarriers has this process wait at so many barriers, behind a message. The pipes are over when it is let go.
func waitAtBarriers(t *testing.T, socket string, n int) (pipes []unix.PollFd) {
	t.Helper()
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(s)
	to := &unix.SockaddrUnix{Name: socket}
	if err := unix.Sendto(s, []byte("STATUS=before"), 0, to); err != nil {
		t.Fatal(err)
	}
	for range n {
		var ends [2]int
		if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		err := unix.Sendmsg(s, []byte("BARRIER=1"), unix.UnixRights(ends[1]), to, 0)
		unix.Close(ends[1])
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(ends[0]) })
		pipes = append(pipes, unix.PollFd{Fd: int32(ends[0])})
	}
	return pipes
}

// Who may not notify waits all the same, as at systemd's own socket, and as briefly.
func TestABarrierOfAStrangerIsAnswered(t *testing.T) {
	a := startAgent(t, ownNamespaces...)
	r := newRig(t, withContainer(relay.Container{PID: a.pid}, relay.AccessAll))
	a.send(r.socket, "STATUS=before")
	stranger := startAgent(t)
	stranger.post(order{Do: "barrier", Socket: r.socket, Payload: []byte("BARRIER=1")})
	r.awaitDecision(relay.KeyNone, relay.Denied, relay.ReasonNotMember)
	r.host.expect("STATUS=before")
	r.host.expect("BARRIER=1").closeFDs()
	if o := stranger.answer(); o.Errno != 0 || !o.Released {
		t.Errorf("the barrier of a stranger: %+v", o)
	}
}
