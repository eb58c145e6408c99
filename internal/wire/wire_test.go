// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"errors"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"

	"github.com/sdtrace/sdtrace/bpf"
	"github.com/sdtrace/sdtrace/internal/render"
	"github.com/sdtrace/sdtrace/pkg/events"
)

// record builds what the kernel would send.
func record(h bpf.FentryEvent, parts ...string) []byte {
	b := bytes.Clone(unsafe.Slice((*byte)(unsafe.Pointer(&h)), headerSize))
	for _, part := range parts {
		b = append(b, part...)
	}
	return b
}

// The flags of a record, as its field has them.
const (
	flagSize          = uint32(bpf.FentryEventFlagEVENT_SIZE)
	flagPayload       = uint32(bpf.FentryEventFlagEVENT_PAYLOAD)
	flagLatency       = uint32(bpf.FentryEventFlagEVENT_LATENCY)
	flagDelivered     = uint32(bpf.FentryEventFlagEVENT_DELIVERED)
	flagReceiver      = uint32(bpf.FentryEventFlagEVENT_RECEIVER)
	flagNotDelivered  = uint32(bpf.FentryEventFlagEVENT_NOT_DELIVERED)
	flagClaimedIDs    = uint32(bpf.FentryEventFlagEVENT_CLAIMED_IDS)
	flagClaimed       = uint32(bpf.FentryEventFlagEVENT_CLAIMED)
	flagCgroupPartial = uint32(bpf.FentryEventFlagEVENT_CGROUP_PARTIAL)
)

// comm is a name in its NUL-padded array.
func comm(name string) (raw [16]int8) {
	for i := range len(name) {
		raw[i] = int8(name[i])
	}
	return raw
}

func ptr[T any](v T) *T { return &v }

// everyField is a record that says all that a record can say.
func everyField() []byte {
	h := bpf.FentryEvent{
		TimeNs: 2e9, LatencyNs: 3100, CgroupId: 4711, StartTime: 77, SocketInode: 21044, ReceiverCgroupId: 99, Skb: 0xffff888012345678,
		Result: 7, Size: 7, Pid: 812, Tid: 813, Ppid: 1, NsPid: 7, Uid: 33, Gid: 34,
		Mntns: 41, Netns: 40, Pidns: 36, Userns: 37, Cgroupns: 35,
		ClaimedPid: 1, ClaimedNsPid: 2, ClaimedUid: 3, ClaimedGid: 4,
		ReceiverNetns: 50, ReceiverUid: 51,
		Flags:      flagLatency | flagSize | flagPayload | flagClaimed | flagClaimedIDs | flagDelivered | flagReceiver,
		PayloadLen: 7, AddressLen: 19, BoundLen: 5, CgroupLen: 27, FdCount: 2,
		SocketType: 2, CgroupController: 2, Comm: comm("nginx\x00x"),
	}
	return record(h, "READY=1", "\x00a\x00bc", "nginx.service\x00system.slice\x00", "\x06\x07", "/run/systemd/notify")
}

// decodeWire decodes into memory that held another event before, of which nothing must be left.
func decodeWire(e *events.Event, record []byte, clock Clock, controllers []string) (DatagramID, error) {
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
	var got events.Event
	clock := Clock{Boot: time.Unix(1000, 0)}
	id, err := decodeWire(&got, b, clock, []string{"cpuset", "memory"})
	if err != nil {
		t.Fatal(err)
	}
	if want := (DatagramID{SKB: 0xffff888012345678, QueuedNS: 2e9}); id != want {
		t.Errorf("receipts come for %+v, want %+v", id, want)
	}
	want := events.Event{
		Time: time.Unix(1002, 0), BootTime: 2 * time.Second,
		Sender: events.Sender{
			PID: 812, TID: 813, PPID: 1, NSPID: 7, Comm: "nginx", UID: 33, GID: 34,
			CgroupID: 4711, Identity: events.Identity{Cgroup: "/system.slice/nginx.service"}, CgroupController: "memory",
			MntNS: 41, NetNS: 40, PIDNS: 36, UserNS: 37, CgroupNS: 35, StartTime: 77,
		},
		Claimed:  &events.Claimed{PID: 1, NSPID: 2, UID: ptr(uint32(3)), GID: ptr(uint32(4))},
		Socket:   events.Socket{Address: "/run/systemd/notify", Bound: "@a\x00bc", Inode: 21044, Type: "dgram"},
		Receiver: &events.Receiver{UID: ptr(uint32(51)), NetNS: 50, CgroupID: 99},
		Result:   events.Result{Bytes: ptr(uint32(7)), Latency: 3100, Delivered: ptr(true)},
		Size:     ptr(uint32(7)), Payload: []byte("READY=1"),
		FDs: []events.FD{{Type: "pipe"}, {Type: "socket"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error("decoded differently (-want +got):\n" + diff)
	}
}

func TestDecodeWireLeavesOutWhatIsUnknown(t *testing.T) {
	var got events.Event
	if _, err := decodeWire(&got, record(bpf.FentryEvent{Result: -2}), Clock{}, nil); err != nil {
		t.Fatal(err)
	}
	want := events.Event{Sender: events.Sender{Identity: events.Identity{Cgroup: "/"}}, Result: events.Result{Errno: "ENOENT"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error("decoded differently (-want +got):\n" + diff)
	}
}

func TestDecodeReceiptTakesEveryField(t *testing.T) {
	wire := bpf.FentryReceipt{
		Type: uint32(RecordRead), Result: 7, Skb: 8, QueuedNs: 1e9, TimeNs: 2e9, SenderExitedNs: 2e9 - 500, CgroupId: 42, StartTime: 43,
		Pid: 1, Tid: 2, MsgFlags: 0x20 | 0x08, Comm: comm("sys\x00x"),
	}
	encode := func(w bpf.FentryReceipt) []byte {
		return bytes.Clone(unsafe.Slice((*byte)(unsafe.Pointer(&w)), unsafe.Sizeof(w)))
	}
	clock := Clock{Boot: time.Unix(1000, 0)}
	want := events.Receipt{
		Kind: events.ReceiptRead, Time: time.Unix(1002, 0), Delay: time.Second, By: events.Reader{PID: 1, TID: 2, Comm: "sys", CgroupID: 42, StartTime: 43},
		Bytes: ptr(uint32(7)), Truncated: true, ControlTruncated: true, SenderExited: ptr(time.Duration(500)),
	}
	for _, tt := range []struct {
		name string
		wire func(w *bpf.FentryReceipt)
		want func(r *events.Receipt)
	}{
		{"as it is", func(*bpf.FentryReceipt) {}, func(*events.Receipt) {}},
		{"a failed read", func(w *bpf.FentryReceipt) { w.Result, w.MsgFlags = -14, 0 }, func(r *events.Receipt) {
			r.Bytes, r.Errno, r.Truncated, r.ControlTruncated = nil, "EFAULT", false, false
		}},
		{"of a sender that lives", func(w *bpf.FentryReceipt) { w.SenderExitedNs = 0 }, func(r *events.Receipt) { r.SenderExited = nil }},
		{"before it was queued, by another CPU's clock", func(w *bpf.FentryReceipt) { w.QueuedNs = w.TimeNs + 3 }, func(r *events.Receipt) { r.Delay = 0 }},
		{"thrown away", func(w *bpf.FentryReceipt) { w.Type = uint32(RecordUnread) }, func(r *events.Receipt) {
			r.Kind, r.Bytes, r.Truncated, r.ControlTruncated = events.ReceiptUnread, nil, false, false
		}},
		{"of a pipe", func(w *bpf.FentryReceipt) { w.Type = uint32(RecordClosed) }, func(r *events.Receipt) {
			r.Kind, r.Bytes, r.Truncated, r.ControlTruncated = events.ReceiptBarrier, nil, false, false
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w, want := wire, want
			tt.wire(&w)
			tt.want(&want)
			var got events.Receipt
			id, err := new(Decoder).Receipt(&got, encode(w), clock)
			if err != nil || id != (DatagramID{SKB: 8, QueuedNS: w.QueuedNs}) {
				t.Fatalf("id %v, %v", id, err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error("decoded differently (-want +got):\n" + diff)
			}
		})
	}
	for _, bad := range [][]byte{nil, encode(wire)[:3], encode(wire)[:40], encode(bpf.FentryReceipt{Type: uint32(RecordSend)}), encode(bpf.FentryReceipt{Type: 99})} {
		if _, err := new(Decoder).Receipt(new(events.Receipt), bad, clock); !errors.Is(err, ErrBadRecord) {
			t.Errorf("%d bytes: error %v, want ErrBadRecord", len(bad), err)
		}
	}
}

func TestDecodeWireTellsEmptyFromUnknownAndTruncated(t *testing.T) {
	tests := []struct {
		name   string
		header bpf.FentryEvent
		data   string
		check  func(events.Event) bool
	}{
		{"an empty datagram", bpf.FentryEvent{Flags: flagSize | flagPayload}, "", func(e events.Event) bool {
			return e.Payload != nil && len(e.Payload) == 0 && !e.Truncated
		}},
		{"an unknown payload", bpf.FentryEvent{Flags: flagSize, Size: 5}, "", func(e events.Event) bool {
			return e.Payload == nil && !e.Truncated && *e.Size == 5
		}},
		{"a long datagram", bpf.FentryEvent{Flags: flagSize | flagPayload, Size: 5, PayloadLen: 2}, "ab", func(e events.Event) bool {
			return string(e.Payload) == "ab" && e.Truncated
		}},
		{"a cgroup path that did not fit", bpf.FentryEvent{Flags: flagCgroupPartial}, "", func(e events.Event) bool {
			return e.Sender.Cgroup == ""
		}},
		{"a relative path like an abstract name", bpf.FentryEvent{AddressLen: 2}, "@a", func(e events.Event) bool {
			return e.Socket.Address == "./@a"
		}},
		{"an interrupted call", bpf.FentryEvent{Result: -512}, "", func(e events.Event) bool {
			return e.Result.Errno == "ERESTARTSYS"
		}},
		{"a descriptor of a kind to come", bpf.FentryEvent{FdCount: 1}, "\xff", func(e events.Event) bool {
			return len(e.FDs) == 1 && e.FDs[0].Type == ""
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var e events.Event
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
	h := bpf.FentryEvent{PayloadLen: 7, AddressLen: 3, BoundLen: 2, CgroupLen: 2, FdCount: 1}
	whole := record(h, "READY=1", "/ab", "/c", "d\x00", "\x01")
	var e events.Event
	if _, err := decodeWire(&e, whole, Clock{}, nil); err != nil {
		t.Fatal(err)
	}
	for n := range len(whole) {
		if _, err := decodeWire(&e, whole[:n], Clock{}, nil); !errors.Is(err, ErrBadRecord) {
			t.Errorf("%d of %d bytes: %v, want %v", n, len(whole), err, ErrBadRecord)
		}
	}
	if _, err := decodeWire(&e, record(bpf.FentryEvent{PayloadLen: events.MaxPayload + 1}, string(make([]byte, events.MaxPayload+1))), Clock{}, nil); !errors.Is(err, ErrBadRecord) {
		t.Errorf("payload too long: %v, want %v", err, ErrBadRecord)
	}
}

// Whatever the bytes, decoding neither panics nor keeps hold of them, and what it
// makes of them can be printed and read back.
func FuzzDecodeWire(f *testing.F) {
	f.Add(record(bpf.FentryEvent{Flags: flagSize | flagPayload, PayloadLen: 7, Size: 7}, "READY=1"))
	f.Add(record(bpf.FentryEvent{AddressLen: 4, CgroupLen: 4, FdCount: 2}, "\x00a\x00b", "x\x00y\x00", "\x01\xff"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		var e events.Event
		if _, err := decodeWire(&e, b, Clock{Boot: time.Unix(0, 0)}, []string{"cpuset"}); err != nil {
			if !errors.Is(err, ErrBadRecord) {
				t.Fatal(err)
			}
			return
		}
		before := events.JSONEncoder{}.AppendEvent(nil, &e)
		clear(b)
		if after := (events.JSONEncoder{}).AppendEvent(nil, &e); !bytes.Equal(before, after) {
			t.Error("the event changes with the record it was decoded from")
		}
		if _, err := events.Decode(before); err != nil {
			t.Errorf("cannot be read back: %v", err)
		}
		render.Text{}.AppendEvent(nil, &e)
	})
}
