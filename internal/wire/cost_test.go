// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"github.com/sdtrace/sdtrace/bpf"
	"github.com/sdtrace/sdtrace/pkg/events"
)

// records are what the backends write for usual datagrams, and some others.
func records() map[string][]byte {
	const payload, address = "READY=1\nSTATUS=Serving requests", "/run/systemd/notify"
	cgroup := "docker-" + strings.Repeat("4f", 32) + ".scope\x00system.slice\x00"
	h := bpf.FentryEvent{
		TimeNs: 2e12, CgroupId: 4711, StartTime: 77e9, Result: 30, Size: 30, Pid: 812, Tid: 812, Ppid: 1, NsPid: 7,
		Mntns: 4026531841, Netns: 4026531840, Pidns: 4026531836, Userns: 4026531837, Cgroupns: 4026531835, ReceiverNetns: 4026531840,
		Flags: flagSize | flagPayload, PayloadLen: uint16(len(payload)), AddressLen: uint16(len(address)), CgroupLen: uint16(len(cgroup)),
		SocketType: 2, Comm: comm("nginx"),
	}
	plain := record(h, payload, address, cgroup)
	h.Flags |= flagLatency | flagDelivered | flagReceiver
	h.LatencyNs, h.SocketInode, h.ReceiverCgroupId, h.BoundLen = 3100, 21044, 42, uint16(len(address))
	full := record(h, payload, address, address, cgroup)
	h.Result, h.Flags = -111, h.Flags&^flagDelivered|flagNotDelivered
	failed := record(h, payload, address, address, cgroup)
	h.Size, h.PayloadLen = 5000, events.MaxPayload
	long := record(h, strings.Repeat("STATUS=a\n", 456)[:events.MaxPayload], address, address, cgroup)
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
				line = events.JSONEncoder{}.AppendEvent(line[:0], &b.Event)
			}); n != 0 {
				t.Errorf("%v allocations an event", n)
			}
		})
	}
}

func TestEncodeMakesNoAllocationPerReceipt(t *testing.T) {
	r := &events.Receipt{Kind: events.ReceiptRead, Bytes: new(uint32), By: events.Reader{Comm: "systemd", Identity: events.Identity{Cgroup: "/init.scope", Unit: "init.scope"}}}
	line := make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(100, func() { line = events.JSONEncoder{}.AppendReceipt(line[:0], r) }); n != 0 {
		t.Errorf("%v allocations a receipt", n)
	}
}

func TestTheDecodersMemoryIsBounded(t *testing.T) {
	var d Decoder
	var b SendBuffer
	for i := range uint32(3 * namesMax) {
		number := string(binary.NativeEndian.AppendUint32(nil, i|1<<31))
		h := bpf.FentryEvent{AddressLen: 4, CgroupLen: 5, Comm: comm(number)}
		if _, err := d.Send(&b, record(h, number, number, "\x00"), Clock{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range []int{len(d.comms.all), len(d.addresses.all), len(d.bound.all), len(d.cgroups.all)} {
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
	var stream events.JSONStream
	benchmarkRecords(b, func(d *Decoder, buffer *SendBuffer, record []byte, line []byte) []byte {
		if _, err := d.Send(buffer, record, Clock{}); err != nil {
			b.Fatal(err)
		}
		return stream.AppendEvent(line[:0], &buffer.Event)
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
