// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sdtrace/sdtrace/internal/wire"
	"github.com/sdtrace/sdtrace/pkg/events"
	"github.com/sdtrace/sdtrace/vmtest"
)

func bufferOf(e events.Event) *wire.SendBuffer { return &wire.SendBuffer{Event: e} }

func aSend(n uint64) item {
	return item{id: wire.DatagramID{SKB: n, QueuedNS: n}, send: bufferOf(events.Event{Seq: n, Payload: []byte("BARRIER=1"), FDs: []events.FD{{Type: "pipe"}}})}
}

func aPlainSend(n uint64) item {
	h := aSend(n)
	h.send.Event.FDs = nil
	return h
}

func hidden(n uint64) item {
	h := aSend(n)
	h.send = nil
	return h
}

func aReceipt(n uint64, kind events.ReceiptKind) item {
	return item{id: wire.DatagramID{SKB: n, QueuedNS: n}, receipt: &events.Receipt{Kind: kind}}
}

// tell runs items through a follower and says what it shows, "3" for the send of
// datagram 3 and "read 3" for that it was read.
func tell(f *follower, all ...item) (shown []string) {
	say := func(out []item) {
		for _, h := range out {
			if h.receipt == nil {
				shown = append(shown, fmt.Sprint(h.send.Event.Seq))
			} else {
				shown = append(shown, fmt.Sprint(h.receipt.Kind, " ", h.receipt.Send.Seq))
			}
		}
	}
	for _, h := range all {
		say(f.order(h))
	}
	say(f.giveUp(true))
	return shown
}

func TestASendComesBeforeWhatBecameOfIt(t *testing.T) {
	vmtest.Natively(t, "no kernel is asked")
	read, unread, barrier := events.ReceiptRead, events.ReceiptUnread, events.ReceiptBarrier
	for _, tt := range []struct {
		name string
		all  []item
		want []string
	}{
		{"as it happens", []item{aSend(1), aReceipt(1, read), aReceipt(1, barrier)}, []string{"1", "read 1", "barrier 1"}},
		{"read before the send returned", []item{aReceipt(1, read), aSend(1)}, []string{"1", "read 1"}},
		{"with others meanwhile", []item{aReceipt(1, read), aSend(2), aReceipt(2, read), aSend(1), aSend(3)}, []string{"1", "read 1", "2", "read 2", "3"}},
		{"two that were read early", []item{aReceipt(1, read), aReceipt(2, unread), aSend(2), aSend(1)}, []string{"1", "read 1", "2", "unread 2"}},
		{"one whose send never comes", []item{aReceipt(1, read), aSend(2), aReceipt(2, read)}, []string{"2", "read 2"}},
		{"not shown", []item{hidden(1), aReceipt(1, read), aReceipt(1, barrier), aSend(2)}, []string{"2"}},
		{"forgotten before it was read", []item{aReceipt(1, forgotten), aReceipt(1, read), aSend(2)}, []string{"2"}},
		{"forgotten after it was read", []item{aReceipt(1, read), aSend(2), aReceipt(1, forgotten), aSend(3)}, []string{"2", "3"}},
		{"a pipe that is no barrier's", []item{aPlainSend(1), aReceipt(1, read), aReceipt(1, barrier)}, []string{"1", "read 1"}},
		{"a barrier of what was never shown", []item{aReceipt(9, barrier), aSend(1)}, []string{"1"}},
		{"the same address again", []item{
			aSend(1), aReceipt(1, read),
			{id: wire.DatagramID{SKB: 1, QueuedNS: 7}, send: bufferOf(events.Event{Seq: 7})},
			{id: wire.DatagramID{SKB: 1, QueuedNS: 7}, receipt: &events.Receipt{Kind: read}},
		}, []string{"1", "read 1", "7", "read 7"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, tell(new(follower), tt.all...)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// Whatever the order of the records is, nothing is shown twice, left out, or before its
// send.
func TestAnyOrderOfRecordsIsPutRight(t *testing.T) {
	vmtest.Natively(t, "no kernel is asked")
	for seed := range uint64(2000) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var all []item
		const n = 20
		for i := range uint64(n) {
			all = append(all, aPlainSend(i+1), aReceipt(i+1, events.ReceiptRead))
		}
		rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		f := new(follower)
		shown := tell(f, all...)
		if len(shown) != 2*n {
			t.Fatalf("seed %d: %d of %d are shown: %q", seed, len(shown), 2*n, shown)
		}
		for i, text := range shown {
			if seq, isRead := strings.CutPrefix(text, "read "); isRead && !slices.Contains(shown[:i], seq) {
				t.Fatalf("seed %d: %q before its send: %q", seed, text, shown)
			}
		}
		if len(f.datagrams) != 0 || len(f.held) != 0 || f.unread() != 0 {
			t.Fatalf("seed %d: remembers %d, holds %d", seed, len(f.datagrams), len(f.held))
		}
	}
}

func TestTheFollowersMemoryIsBounded(t *testing.T) {
	vmtest.Natively(t, "no kernel is asked")
	f := new(follower)
	for i := range uint64(10 * followedMax) {
		f.order(aPlainSend(i + 1))
	}
	if n := len(f.datagrams) + len(f.older); n > 2*followedMax {
		t.Errorf("%d datagrams are remembered", n)
	}
	for i := range uint64(10 * heldMax) {
		f.order(aReceipt(1<<40+i, events.ReceiptRead))
	}
	if len(f.held) > heldMax {
		t.Errorf("%d records are held", len(f.held))
	}
}
