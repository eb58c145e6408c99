// SPDX-License-Identifier: Apache-2.0

package events

import (
	"encoding/binary"
	"strings"
	"testing"
	"time"
)

// records are what the backends write for usual datagrams, and some others.
func records() map[string][]byte {
	const payload, address = "READY=1\nSTATUS=Serving requests", "/run/systemd/notify"
	cgroup := "docker-" + strings.Repeat("4f", 32) + ".scope\x00system.slice\x00"
	h := WireHeader{
		TimeNS: 2e12, CgroupID: 4711, StartTime: 77e9, Result: 30, Size: 30, PID: 812, TID: 812, PPID: 1, NSPID: 7,
		MntNS: 4026531841, NetNS: 4026531840, PIDNS: 4026531836, UserNS: 4026531837, CgroupNS: 4026531835, ReceiverNetNS: 4026531840,
		Flags: flagSize | flagPayload, PayloadLen: uint16(len(payload)), AddressLen: uint16(len(address)), CgroupLen: uint16(len(cgroup)),
		SocketType: 2, Comm: [16]byte{'n', 'g', 'i', 'n', 'x'},
	}
	plain := record(h, payload, address, cgroup)
	h.Flags |= flagLatency | flagDelivered | flagReceiver
	h.LatencyNS, h.SocketInode, h.ReceiverCgroupID, h.BoundLen = 3100, 21044, 42, uint16(len(address))
	full := record(h, payload, address, address, cgroup)
	h.Result, h.Flags = -111, h.Flags&^flagDelivered|flagNotDelivered
	failed := record(h, payload, address, address, cgroup)
	h.Size, h.PayloadLen = 5000, MaxPayload
	long := record(h, strings.Repeat("STATUS=a\n", 456)[:MaxPayload], address, address, cgroup)
	return map[string][]byte{"tracepoint": plain, "fentry": full, "failed": failed, "truncated": long, "every field": everyField()}
}

func TestDecodeAndEncodeMakeNoAllocationPerEvent(t *testing.T) {
	for name, record := range records() {
		t.Run(name, func(t *testing.T) {
			d := Decoder{Controllers: []string{"cpuset", "memory"}}
			var b SendBuffer
			line := make([]byte, 0, 32<<10)
			clock := Clock{Boot: time.Unix(1e9, 0)}
			if n := testing.AllocsPerRun(100, func() {
				if _, err := d.Send(&b, record, clock); err != nil {
					t.Fatal(err)
				}
				line = JSONEncoder{}.AppendEvent(line[:0], &b.Event)
			}); n != 0 {
				t.Errorf("%v allocations an event", n)
			}
		})
	}
}

func TestEncodeMakesNoAllocationPerReceipt(t *testing.T) {
	r := &Receipt{Kind: ReceiptRead, Bytes: new(uint32), By: Reader{Comm: "systemd", Cgroup: "/init.scope", Unit: "init.scope"}}
	line := make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(100, func() { line = JSONEncoder{}.AppendReceipt(line[:0], r) }); n != 0 {
		t.Errorf("%v allocations a receipt", n)
	}
}

func TestTheDecodersMemoryIsBounded(t *testing.T) {
	var d Decoder
	var b SendBuffer
	for i := range uint32(3 * namesMax) {
		h := WireHeader{AddressLen: 4, CgroupLen: 5}
		binary.NativeEndian.PutUint32(h.Comm[:], i|1<<31)
		number := string(binary.NativeEndian.AppendUint32(nil, i))
		if _, err := d.Send(&b, record(h, number, number, "\x00"), Clock{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range []int{len(d.comms), len(d.addresses), len(d.cgroups)} {
		if n > namesMax {
			t.Errorf("%d names are remembered, %d at most", n, namesMax)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	benchmarkRecords(b, func(d *Decoder, buffer *SendBuffer, record []byte, line []byte) []byte {
		if _, err := d.Send(buffer, record, Clock{}); err != nil {
			b.Fatal(err)
		}
		return line
	})
}

func BenchmarkDecodeAndJSON(b *testing.B) {
	benchmarkRecords(b, func(d *Decoder, buffer *SendBuffer, record []byte, line []byte) []byte {
		if _, err := d.Send(buffer, record, Clock{}); err != nil {
			b.Fatal(err)
		}
		return JSONEncoder{}.AppendEvent(line[:0], &buffer.Event)
	})
}

func benchmarkRecords(b *testing.B, handle func(*Decoder, *SendBuffer, []byte, []byte) []byte) {
	for _, backend := range []string{"tracepoint", "fentry"} {
		b.Run(backend, func(b *testing.B) {
			record := records()[backend]
			var d Decoder
			var buffer SendBuffer
			var line []byte
			b.ReportAllocs()
			for b.Loop() {
				line = handle(&d, &buffer, record, line)
			}
		})
	}
}
