// SPDX-License-Identifier: Apache-2.0

package tracer_test

import (
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/bpf"
	"github.com/sdtrace/sdtrace/pkg/events"
	"github.com/sdtrace/sdtrace/vmtest"
)

// ringRecord is what a record of n bytes takes in a ring buffer: BPF_RINGBUF_HDR_SZ more,
// and a multiple of 8.
func ringRecord(n int) int { return (n+7)/8*8 + 8 }

// sendRecord is as long as what the record of an event has to say.
func sendRecord(e *events.Event) int {
	n := int(unsafe.Offsetof(bpf.FentryEvent{}.Comm)) + len(bpf.FentryEvent{}.Comm)
	n += len(e.Payload) + len(e.Socket.Bound)
	if e.Socket.Address != e.Socket.Bound || e.Backend != "fentry" {
		n += len(e.Socket.Address)
	}
	if cgroup := strings.Trim(e.Sender.Cgroup, "/"); cgroup != "" {
		n += len(cgroup) + 1
	}
	return n
}

func TestOneRecordPerDatagramAndNoByteThatSaysNothing(t *testing.T) {
	const each = 5 // a queue has room for 10
	receipt := int(unsafe.Sizeof(bpf.FentryReceipt{}))
	eachBackend(t, func(t *testing.T, backend string) {
		r := listen(t, pathAddr(filepath.Join(root, "measured")), unix.SOCK_DGRAM)
		c := named(t, backend)
		a := startAgent(t, agentSpec{comm: "sdt-measured"})
		a.must(t, step{Op: "socket", Sock: "s", Type: unix.SOCK_DGRAM})
		for _, payload := range []string{"READY=1", "STATUS=" + strings.Repeat("long", 1000)} {
			missed := c.missed
			a.must(t, step{Op: "flood", Sock: "s", Addr: r.addr, Parts: parts(payload), N: each})
			buffered := c.RingBytes()
			got := c.buffered(t)
			missed = c.missed - missed
			if len(got)+int(missed) != each || missed > 0 && !mayMiss() {
				t.Fatalf("%d datagrams were sent, %d events captured", each, len(got))
			}
			want := 0
			for _, e := range got {
				want += ringRecord(sendRecord(e))
			}
			if buffered != want {
				t.Errorf("%d datagrams of %d bytes take %d bytes of the ring, not %d", each, len(payload), buffered, want)
			}

			for range each {
				if _, err := unix.Read(r.fd, make([]byte, len(payload))); err != nil {
					t.Fatal(err)
				}
			}
			want = 0
			if c.Knows().Receipts {
				want = each * ringRecord(receipt)
			}
			if got := c.RingBytes(); got != want && !mayMiss() {
				t.Errorf("what became of %d datagrams takes %d bytes of the ring, not %d", each, got, want)
			}
			c.buffered(t)
		}
	})
}

func TestReadMakesNoAllocationPerEvent(t *testing.T) {
	vmtest.OnlyOn(t, "what reads the ring buffer, also for fentry", "6.12-amd64")
	const each = 2000
	// Nothing is allocated but where the fentry backend asks the kernel, for a datagram
	// that the receiver's filter dropped, whether it skipped a program.
	allowed := map[string]uint64{"tracepoint": 0, "fentry": 2 * each}
	eachBackend(t, func(t *testing.T, backend string) {
		r := listen(t, pathAddr(filepath.Join(root, "counted")), unix.SOCK_DGRAM)
		r.dropAll()
		c := named(t, backend)
		a := startAgent(t, agentSpec{comm: "sdt-counted"})
		a.must(t, step{Op: "socket", Sock: "s", Type: unix.SOCK_DGRAM})
		var missed uint64
		readAll := func() (n int, allocations uint64) {
			a.must(t, step{Op: "flood", Sock: "s", Addr: r.addr, Parts: parts("READY=1\nSTATUS=Serving"), N: each})
			if err := c.Flush(); err != nil {
				t.Fatal(err)
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for {
				item, err := c.Read()
				if err != nil {
					break
				}
				if item.Event != nil {
					n++
					c.seq = item.Event.Seq
				}
				if item.Lost != nil && mayMiss() {
					missed += item.Lost.Missed
				}
				c.Release(item)
			}
			runtime.ReadMemStats(&after)
			return n, after.Mallocs - before.Mallocs
		}
		readAll() // whose names it has not met
		missed = 0
		n, allocations := readAll()
		if n+int(missed) != each {
			t.Errorf("%d datagrams were sent, %d events read", each, n)
		}
		// The capture's end and what the runtime does by itself make some.
		if allocations > allowed[backend]+each/20 {
			t.Errorf("%d allocations for %d events", allocations, n)
		}
	})
}

// Of a start, the half is the verifier's. It walks through a loop round by round.
func TestTheVerifierWalksThroughNoLongLoop(t *testing.T) {
	if !vmtest.KernelAtLeast(5, 16) {
		t.Skip("not declared: Linux tells since 5.16")
	}
	eachBackend(t, func(t *testing.T, backend string) {
		n, err := unfiltered(t, backend).Verified()
		if err != nil {
			t.Fatal(err)
		}
		// On Linux 6.1 it is 90,000, on 7.2 160,000; loops of as many rounds as a payload has bytes made it 160,000
		// more.
		const most = 180_000
		if n > most {
			t.Errorf("the verifier walked through %d instructions, more than %d", n, most)
		}
	})
}
