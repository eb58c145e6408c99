// SPDX-License-Identifier: Apache-2.0

package relay_test

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/await"
	"github.com/sdtrace/sdtrace/pkg/relay"
	"github.com/sdtrace/sdtrace/vmtest"
)

// flood sends o.Count datagrams with o.Payload, or else numbered from o.From:
// every hundredth is RELOADING=1 or READY=1, in turns, and never to be lost.
func flood(o order) (errno unix.Errno) {
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return errnoOf(err)
	}
	defer unix.Close(s)
	to := &unix.SockaddrUnix{Name: o.Socket}
	var text []byte
	for n := o.From; n < o.From+o.Count; n++ {
		text = text[:0]
		switch {
		case o.Payload != nil:
			text = o.Payload
		case n%200 == 100:
			text = fmt.Appendf(text, "RELOADING=1\nMONOTONIC_USEC=%d\nSTATUS=%d", n, n)
		case n%200 == 0:
			text = fmt.Appendf(text, "READY=1\nSTATUS=%d", n)
		default:
			text = strconv.AppendInt(append(text, "STATUS="...), int64(n), 10)
		}
		if err := unix.Sendto(s, text, unix.MSG_NOSIGNAL, to); err != nil {
			return errnoOf(err)
		}
	}
	return 0
}

// soakHost reads like systemd, and is restarted and stuck now and then.
type soakHost struct {
	*host
	seen  atomic.Int64 // the last number
	ready atomic.Int64 // the last number of a READY=1 or RELOADING=1
	stuck atomic.Bool
	next  chan struct{} // a restart is due
	quit  chan struct{}
}

func (h *soakHost) run() {
	for {
		select {
		case <-h.quit:
			return
		case <-h.next:
			h.restart()
		default:
		}
		if h.stuck.Swap(false) {
			await.Pass(3 * time.Second)
		}
		if m, ok := h.receive(5 * time.Millisecond); ok {
			h.check(m)
		}
	}
}

// restart takes the name away first and then reads what is left, so that
// whatever is lost, the relay has lost.
func (h *soakHost) restart() {
	os.Remove(h.path)
	for {
		m, ok := h.receive(0)
		if !ok {
			break
		}
		h.check(m)
	}
	h.close()
	h.listen()
}

func (h *soakHost) check(m message) {
	defer m.closeFDs()
	if m.text == "BARRIER=1" {
		return
	}
	var number int64
	critical := !strings.HasPrefix(m.text, "STATUS=")
	for line := range strings.Lines(m.text) {
		if value, found := strings.CutPrefix(strings.TrimSpace(line), "STATUS="); found {
			number, _ = strconv.ParseInt(value, 10, 64)
		}
	}
	if last := h.seen.Swap(number); number <= last && number != 0 {
		h.t.Errorf("%q came after number %d", m.text, last)
	}
	if critical {
		if last := h.ready.Swap(number); number != last+100 {
			h.t.Errorf("%q came after number %d: others are lost", m.text, last)
		}
		if wantReady := number%200 == 0; wantReady != strings.HasPrefix(m.text, "READY=1") {
			h.t.Errorf("number %d is %q", number, m.text)
		}
	}
}

// TestSoak is a flood of datagrams to a host that is restarted every second and
// does not read for three seconds now and then, while other senders are killed.
func TestSoak(t *testing.T) {
	vmtest.Natively(t, "no kernel is asked")
	if testing.Short() {
		t.Skip("not declared: ten seconds and more")
	}
	total, batch := 100_000, 10_000
	if vmtest.Long() {
		total = 1_000_000
	}
	r := newRig(t, func(c *relay.Config) { c.OnDecision = nil })
	h := &soakHost{host: r.host, next: make(chan struct{}, 1), quit: make(chan struct{})}
	h.ready.Store(-100)
	h.seen.Store(-1)
	stopped := make(chan struct{})
	go func() { h.run(); close(stopped) }()

	t.Cleanup(func() {
		if t.Failed() {
			for _, c := range r.relay.Counts() {
				t.Logf("%v %v %v: %d", c.Key, c.Verdict, c.Reason, c.N)
			}
		}
	})

	restarts := time.NewTicker(time.Second) //nolint:forbidigo // faults, in no order with the test
	defer restarts.Stop()
	go func() {
		for {
			select {
			case <-restarts.C:
				h.next <- struct{}{}
			case <-h.quit:
				return
			}
		}
	}()

	a := startAgent(t)
	before := len(openFDs(t))
	for from := 0; from < total; from += batch {
		if from%(total/3) < batch {
			h.stuck.Store(true)
		}
		victim := startAgent(t)
		victim.post(order{Do: "flood", Socket: r.socket, Payload: []byte("NOTIFYACCESS=all"), Count: batch})
		if got := a.do(order{Do: "flood", Socket: r.socket, From: from, Count: batch}); got.Errno != 0 {
			t.Fatalf("the container could not send: %v", got.Errno)
		}
		_ = syscall.Kill(victim.pid, syscall.SIGKILL)
		victim.stop()
		if got := a.do(order{Do: "barrier", Socket: r.socket, Payload: []byte("BARRIER=1"), Block: true}); !got.Released || got.Errno != 0 {
			t.Fatalf("the barrier was not released: %v", got.Errno)
		}
		if seen := h.seen.Load(); seen != int64(from+batch-1) {
			t.Fatalf("the barrier was released when the host had read up to %d, not %d", seen, from+batch-1)
		}
	}
	close(h.quit)
	<-stopped
	if last := h.ready.Load(); last != int64(total-100) {
		t.Errorf("the last READY=1 or RELOADING=1 is number %d, want %d", last, total-100)
	}
	if after := len(openFDs(t)); after > before {
		t.Errorf("%d file descriptors are open, %d before", after, before)
	}
	var memory runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&memory)
	if limit := uint64(64 << 20); memory.HeapAlloc > limit {
		t.Errorf("%d bytes are in use", memory.HeapAlloc)
	}
}
