// SPDX-License-Identifier: Apache-2.0

package events

import (
	"bytes"
	"errors"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
)

// record builds what the kernel would send.
func record(h WireHeader, parts ...string) []byte {
	b := bytes.Clone(unsafe.Slice((*byte)(unsafe.Pointer(&h)), wireHeaderSize))
	for _, part := range parts {
		b = append(b, part...)
	}
	return b
}

func ptr[T any](v T) *T { return &v }

// everyField is a record that says all that a record can say.
func everyField() []byte {
	h := WireHeader{
		TimeNS: 2e9, LatencyNS: 3100, CgroupID: 4711, StartTime: 77, SocketInode: 21044, ReceiverCgroupID: 99, SKB: 0xffff888012345678,
		Result: 7, Size: 7, PID: 812, TID: 813, PPID: 1, NSPID: 7, UID: 33, GID: 34,
		MntNS: 41, NetNS: 40, PIDNS: 36, UserNS: 37, CgroupNS: 35,
		ClaimedPID: 1, ClaimedNSPID: 2, ClaimedUID: 3, ClaimedGID: 4,
		ReceiverNetNS: 50, ReceiverUID: 51,
		Flags:      flagLatency | flagSize | flagPayload | flagClaimed | flagClaimedIDs | flagDelivered | flagReceiver,
		PayloadLen: 7, AddressLen: 19, BoundLen: 5, CgroupLen: 27, FDCount: 2,
		SocketType: 2, CgroupController: 2, Comm: [16]byte{'n', 'g', 'i', 'n', 'x', 0, 'x'},
	}
	return record(h, "READY=1", "/run/systemd/notify", "\x00a\x00bc", "nginx.service\x00system.slice\x00", "\x06\x07")
}

// decodeWire decodes into memory that held another event before, of which nothing must be left.
func decodeWire(e *Event, record []byte, clock Clock, controllers []string) (DatagramID, error) {
	d := Decoder{Controllers: controllers}
	b := new(SendBuffer)
	if _, err := d.Send(b, everyField(), Clock{}); err != nil {
		return DatagramID{}, err
	}
	id, err := d.Send(b, record, clock)
	*e = b.Event
	return id, err
}

func TestDecodeWireTakesEveryField(t *testing.T) {
	b := everyField()
	var got Event
	clock := Clock{Boot: time.Unix(1000, 0)}
	id, err := decodeWire(&got, b, clock, []string{"cpuset", "memory"})
	if err != nil {
		t.Fatal(err)
	}
	if want := (DatagramID{SKB: 0xffff888012345678, StartNS: 2e9 - 3100}); id != want {
		t.Errorf("receipts come for %+v, want %+v", id, want)
	}
	want := Event{
		Time: time.Unix(1002, 0), BootTime: 2 * time.Second,
		Sender: Sender{
			PID: 812, TID: 813, PPID: 1, NSPID: 7, Comm: "nginx", UID: 33, GID: 34,
			CgroupID: 4711, Cgroup: "/system.slice/nginx.service", CgroupController: "memory",
			MntNS: 41, NetNS: 40, PIDNS: 36, UserNS: 37, CgroupNS: 35, StartTime: 77,
		},
		Claimed:  &Claimed{PID: 1, NSPID: 2, UID: ptr(uint32(3)), GID: ptr(uint32(4))},
		Socket:   Socket{Address: "/run/systemd/notify", Bound: "@a\x00bc", Inode: 21044, Type: "dgram"},
		Receiver: &Receiver{UID: ptr(uint32(51)), NetNS: 50, CgroupID: 99},
		Result:   Result{Bytes: ptr(uint32(7)), Latency: 3100, Delivered: ptr(true)},
		Size:     ptr(uint32(7)), Payload: []byte("READY=1"),
		FDs: []FD{{"pipe"}, {"socket"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error("decoded differently (-want +got):\n" + diff)
	}
}

func TestDecodeWireLeavesOutWhatIsUnknown(t *testing.T) {
	var got Event
	if _, err := decodeWire(&got, record(WireHeader{Result: -2}), Clock{}, nil); err != nil {
		t.Fatal(err)
	}
	want := Event{Sender: Sender{Cgroup: "/"}, Result: Result{Errno: "ENOENT"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error("decoded differently (-want +got):\n" + diff)
	}
}

func TestDecodeReceiptTakesEveryField(t *testing.T) {
	wire := WireReceipt{
		Type: uint32(RecordRead), Result: 7, SKB: 8, StartNS: 9, QueuedNS: 1e9, TimeNS: 2e9, SenderExitedNS: 2e9 - 500, CgroupID: 42, StartTime: 43,
		PID: 1, TID: 2, MsgFlags: 0x20 | 0x08, Comm: [16]byte{'s', 'y', 's', 0, 'x'},
	}
	encode := func(w WireReceipt) []byte {
		return bytes.Clone(unsafe.Slice((*byte)(unsafe.Pointer(&w)), unsafe.Sizeof(w)))
	}
	clock := Clock{Boot: time.Unix(1000, 0)}
	want := Receipt{
		Kind: ReceiptRead, Time: time.Unix(1002, 0), Delay: time.Second, By: Reader{PID: 1, TID: 2, Comm: "sys", CgroupID: 42, StartTime: 43},
		Bytes: ptr(uint32(7)), Truncated: true, ControlTruncated: true, SenderExited: ptr(time.Duration(500)),
	}
	for _, tt := range []struct {
		name string
		wire func(w *WireReceipt)
		want func(r *Receipt)
	}{
		{"as it is", func(*WireReceipt) {}, func(*Receipt) {}},
		{"a failed read", func(w *WireReceipt) { w.Result, w.MsgFlags = -14, 0 }, func(r *Receipt) {
			r.Bytes, r.Errno, r.Truncated, r.ControlTruncated = nil, "EFAULT", false, false
		}},
		{"of a sender that lives", func(w *WireReceipt) { w.SenderExitedNS = 0 }, func(r *Receipt) { r.SenderExited = nil }},
		{"before it was queued, by another CPU's clock", func(w *WireReceipt) { w.QueuedNS = w.TimeNS + 3 }, func(r *Receipt) { r.Delay = 0 }},
		{"thrown away", func(w *WireReceipt) { w.Type = uint32(RecordUnread) }, func(r *Receipt) {
			r.Kind, r.Bytes, r.Truncated, r.ControlTruncated = ReceiptUnread, nil, false, false
		}},
		{"of a pipe", func(w *WireReceipt) { w.Type = uint32(RecordClosed) }, func(r *Receipt) {
			r.Kind, r.Bytes, r.Truncated, r.ControlTruncated = ReceiptBarrier, nil, false, false
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w, want := wire, want
			tt.wire(&w)
			tt.want(&want)
			var got Receipt
			id, err := new(Decoder).Receipt(&got, encode(w), clock)
			if err != nil || id != (DatagramID{SKB: 8, StartNS: 9}) {
				t.Fatalf("id %v, %v", id, err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error("decoded differently (-want +got):\n" + diff)
			}
		})
	}
	for _, bad := range [][]byte{nil, encode(wire)[:3], encode(wire)[:40], encode(WireReceipt{Type: uint32(RecordSend)}), encode(WireReceipt{Type: 99})} {
		if _, err := new(Decoder).Receipt(new(Receipt), bad, clock); !errors.Is(err, ErrBadRecord) {
			t.Errorf("%d bytes: error %v, want ErrBadRecord", len(bad), err)
		}
	}
}

func TestDecodeWireTellsEmptyFromUnknownAndTruncated(t *testing.T) {
	tests := []struct {
		name   string
		header WireHeader
		data   string
		check  func(Event) bool
	}{
		{"an empty datagram", WireHeader{Flags: flagSize | flagPayload}, "", func(e Event) bool {
			return e.Payload != nil && len(e.Payload) == 0 && !e.Truncated
		}},
		{"an unknown payload", WireHeader{Flags: flagSize, Size: 5}, "", func(e Event) bool {
			return e.Payload == nil && !e.Truncated && *e.Size == 5
		}},
		{"a long datagram", WireHeader{Flags: flagSize | flagPayload, Size: 5, PayloadLen: 2}, "ab", func(e Event) bool {
			return string(e.Payload) == "ab" && e.Truncated
		}},
		{"a cgroup path that did not fit", WireHeader{Flags: flagCgroupPartial}, "", func(e Event) bool {
			return e.Sender.Cgroup == ""
		}},
		{"a relative path like an abstract name", WireHeader{AddressLen: 2}, "@a", func(e Event) bool {
			return e.Socket.Address == "./@a"
		}},
		{"an interrupted call", WireHeader{Result: -512}, "", func(e Event) bool {
			return e.Result.Errno == "ERESTARTSYS"
		}},
		{"a descriptor of a kind to come", WireHeader{FDCount: 1}, "\xff", func(e Event) bool {
			return len(e.FDs) == 1 && e.FDs[0].Type == ""
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var e Event
			if _, err := decodeWire(&e, record(tt.header, tt.data), Clock{}, nil); err != nil {
				t.Fatal(err)
			}
			if !tt.check(e) {
				t.Errorf("decoded as %+v", e)
			}
		})
	}
}

func TestDecodeWireRefusesWhatIsTooShort(t *testing.T) {
	h := WireHeader{PayloadLen: 7, AddressLen: 3, BoundLen: 2, CgroupLen: 2, FDCount: 1}
	whole := record(h, "READY=1", "/ab", "/c", "d\x00", "\x01")
	var e Event
	if _, err := decodeWire(&e, whole, Clock{}, nil); err != nil {
		t.Fatal(err)
	}
	for n := range len(whole) {
		if _, err := decodeWire(&e, whole[:n], Clock{}, nil); !errors.Is(err, ErrBadRecord) {
			t.Errorf("%d of %d bytes: %v, want %v", n, len(whole), err, ErrBadRecord)
		}
	}
	if _, err := decodeWire(&e, record(WireHeader{PayloadLen: MaxPayload + 1}, string(make([]byte, MaxPayload+1))), Clock{}, nil); !errors.Is(err, ErrBadRecord) {
		t.Errorf("payload too long: %v, want %v", err, ErrBadRecord)
	}
}

// Whatever the bytes, decoding neither panics nor keeps hold of them, and what it
// makes of them can be printed and read back.
func FuzzDecodeWire(f *testing.F) {
	f.Add(record(WireHeader{Flags: flagSize | flagPayload, PayloadLen: 7, Size: 7}, "READY=1"))
	f.Add(record(WireHeader{AddressLen: 4, CgroupLen: 4, FDCount: 2}, "\x00a\x00b", "x\x00y\x00", "\x01\xff"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		var e Event
		if _, err := decodeWire(&e, b, Clock{Boot: time.Unix(0, 0)}, []string{"cpuset"}); err != nil {
			if !errors.Is(err, ErrBadRecord) {
				t.Fatal(err)
			}
			return
		}
		before := JSONEncoder{}.AppendEvent(nil, &e)
		clear(b)
		if after := (JSONEncoder{}).AppendEvent(nil, &e); !bytes.Equal(before, after) {
			t.Error("the event changes with the record it was decoded from")
		}
		if _, err := Decode(before); err != nil {
			t.Errorf("cannot be read back: %v", err)
		}
		TextEncoder{}.AppendEvent(nil, &e)
	})
}
