// SPDX-License-Identifier: Apache-2.0

package events

import (
	"bytes"
	"testing"
	"time"
)

// What encoding/json makes of the structs that the output is decoded into: the reference for
// the encoder.

// referenceTime is RFC 3339 in UTC, always with nine digits.
const referenceTime = "2006-01-02T15:04:05.000000000Z"

func referenceEvent(b []byte, e *Event) []byte { return AppendJSONLine(b, newJSONSend(e)) }

func referenceLost(b []byte, l *Lost) []byte {
	return AppendJSONLine(b, jsonLost{
		Type:     typeLost,
		Time:     l.Time.UTC().Format(referenceTime),
		Count:    l.Count(),
		RingFull: l.RingFull,
		Missed:   l.Missed,
		Receipts: l.Receipts,
	})
}

func referenceReceipt(b []byte, r *Receipt) []byte {
	j := jsonReceipt{
		Type: r.Kind, Seq: r.Seq, Time: r.Time.UTC().Format(referenceTime), DelayNS: r.Delay.Nanoseconds(),
	}
	if r.SenderExited != nil {
		ns := r.SenderExited.Nanoseconds()
		j.SenderExitedNS = &ns
	}
	if r.Kind != ReceiptRead {
		j.ClosedBy = newJSONReader(&r.By)
		return AppendJSONLine(b, j)
	}
	j.Reader = newJSONReader(&r.By)
	j.Bytes, j.Errno = r.Bytes, &r.Errno
	j.Truncated, j.ControlTruncated = &r.Truncated, &r.ControlTruncated
	return AppendJSONLine(b, j)
}

func referenceWithheld(b []byte, w *Withheld) []byte {
	return AppendJSONLine(b, jsonWithheld{
		Type: typeWithheld, Seq: w.Seq, Time: w.Time.UTC().Format(referenceTime),
		Relay: newJSONReader(&w.Relay), Message: newJSONMessage(w.Message),
	})
}

func newJSONReader(r *Reader) *jsonReader {
	j := &jsonReader{
		PID: r.PID, TID: r.TID, CgroupID: r.CgroupID,
		Machine: onlyUTF8(r.Machine), Unit: onlyUTF8(r.Unit), UserUnit: onlyUTF8(r.UserUnit), Slice: onlyUTF8(r.Slice),
		Container: jsonContainer(r.Container),
	}
	j.Comm, j.CommBase64 = splitUTF8(r.Comm)
	if r.Cgroup != "" {
		j.Cgroup, j.CgroupBase64 = splitUTF8(r.Cgroup)
	}
	return j
}

func newJSONSend(e *Event) *jsonSend {
	s := &e.Sender
	j := &jsonSend{
		Type:    typeSend,
		Seq:     e.Seq,
		Time:    e.Time.UTC().Format(referenceTime),
		Backend: e.Backend,
		Sender: jsonSender{
			PID: s.PID, TID: s.TID, PPID: s.PPID, NSPID: s.NSPID,
			UID: s.UID, GID: s.GID,
			CgroupID:         s.CgroupID,
			CgroupController: s.CgroupController,
			Machine:          onlyUTF8(s.Machine),
			Unit:             onlyUTF8(s.Unit),
			UserUnit:         onlyUTF8(s.UserUnit),
			Slice:            onlyUTF8(s.Slice),
			MntNS:            s.MntNS, NetNS: s.NetNS, PIDNS: s.PIDNS, UserNS: s.UserNS, CgroupNS: s.CgroupNS,
		},
		Claimed: (*jsonClaimed)(e.Claimed),
		Socket: jsonSocket{
			Address: e.Socket.Address.String(),
			Bound:   e.Socket.Bound.String(),
			Inode:   e.Socket.Inode,
			Type:    e.Socket.Type,
		},
		Result: jsonResult{
			Bytes:     e.Result.Bytes,
			Errno:     e.Result.Errno,
			LatencyNS: e.Result.Latency.Nanoseconds(),
			Delivered: e.Result.Delivered,
		},
		Call:      e.Call,
		Trouble:   onlyUTF8(e.Trouble),
		Size:      e.Size,
		Truncated: e.Truncated,
		FDs:       e.FDs,
	}
	if r := e.Refused; r != nil {
		j.Refused = &jsonRefused{Errno: r.Errno, jsonClaimed: jsonClaimed(r.Claimed)}
	}
	j.Sender.Comm, j.Sender.CommBase64 = splitUTF8(s.Comm)
	if s.Exe != "" {
		j.Sender.Exe, j.Sender.ExeBase64 = splitUTF8(s.Exe)
	}
	if s.Cgroup != "" {
		j.Sender.Cgroup, j.Sender.CgroupBase64 = splitUTF8(s.Cgroup)
	}
	j.Sender.Container = jsonContainer(s.Container)
	j.Receiver = newJSONReceiver(e.Receiver)
	if e.HopOf != nil {
		j.HopOf = e.HopOf.Seq
	}
	if e.Payload != nil {
		j.Payload, j.PayloadBase64 = splitUTF8(string(e.Payload))
	}
	if m, err := e.Message(); err == nil && m != nil {
		j.Message = newJSONMessage(m)
	}
	return j
}

func newJSONMessage(m Message) []jsonAssignment {
	list := make([]jsonAssignment, len(m))
	for i, a := range m {
		list[i].Key, list[i].KeyBase64 = splitUTF8(a.Key)
		list[i].Value, list[i].ValueBase64 = splitUTF8(a.Value)
	}
	return list
}

func newJSONReceiver(r *Receiver) *jsonReceiver {
	if r == nil {
		return nil
	}
	j := &jsonReceiver{
		PID: r.PID, UID: r.UID, NetNS: r.NetNS, CgroupID: r.CgroupID,
		Machine: onlyUTF8(r.Machine), Unit: onlyUTF8(r.Unit), UserUnit: onlyUTF8(r.UserUnit), Slice: onlyUTF8(r.Slice),
		Container: jsonContainer(r.Container),
	}
	if r.PID != 0 {
		j.Comm, j.CommBase64 = splitUTF8(r.Comm)
	}
	if r.Cgroup != "" {
		j.Cgroup, j.CgroupBase64 = splitUTF8(r.Cgroup)
	}
	return j
}

func jsonContainer(c *Container) *Container {
	if c == nil {
		return nil
	}
	return &Container{
		Runtime: onlyUTF8(c.Runtime), ID: onlyUTF8(c.ID), Name: onlyUTF8(c.Name), PodUID: onlyUTF8(c.PodUID),
		PodNamespace: onlyUTF8(c.PodNamespace), PodName: onlyUTF8(c.PodName),
	}
}

// eventOf makes an event in which all that can hold any byte is taken from text.
func eventOf(text string, payload []byte, bits uint32) *Event {
	known := func(i int) bool { return bits>>i&1 != 0 }
	number := func(i int) *uint32 {
		if !known(i) {
			return nil
		}
		n := bits >> (i / 2)
		return &n
	}
	piece := func(i int) string {
		if n := len(text); n > 0 {
			return text[i*n/8 : (i+3)*n/10]
		}
		return text
	}
	e := &Event{
		Seq: uint64(bits), Time: time.Unix(int64(bits), int64(bits)%1e9), Backend: piece(0),
		Sender: Sender{
			PID: bits, TID: bits / 3, PPID: bits % 2, NSPID: bits % 3, Comm: piece(1), Exe: piece(2), UID: bits % 5, GID: bits % 7,
			CgroupID: uint64(bits) % 2, CgroupController: piece(3),
			Identity: Identity{Cgroup: piece(0), Machine: piece(3), Unit: piece(1), UserUnit: piece(2), Slice: piece(0)},
			MntNS:    bits % 2, NetNS: bits % 3, PIDNS: bits % 4, UserNS: bits % 5, CgroupNS: bits % 6,
		},
		Socket: Socket{Address: Address(piece(0)), Bound: Address(piece(2)), Inode: uint64(bits) % 2, Type: piece(3)},
		Result: Result{Bytes: number(1), Errno: piece(3), Latency: time.Duration(bits % 4)},
		Size:   number(2), Truncated: known(3),
	}
	if known(4) {
		e.Payload = payload
	}
	if known(5) {
		e.Claimed = &Claimed{PID: bits % 2, NSPID: bits % 3, UID: number(6), GID: number(7)}
	}
	if known(7) {
		e.Refused = &Refused{Claimed: Claimed{PID: bits % 3, NSPID: bits % 2, UID: number(5), GID: number(4)}, Errno: piece(1)}
	}
	if known(8) {
		e.Sender.Container = &Container{
			Runtime: piece(0), ID: piece(1), Name: piece(2), PodUID: piece(3), PodNamespace: piece(1), PodName: piece(0),
		}
	}
	if known(9) {
		e.Receiver = &Receiver{
			UID: number(10), NetNS: bits % 2, CgroupID: uint64(bits % 3), PID: bits % 2, Comm: piece(2),
			Identity: Identity{
				Cgroup: piece(1), Machine: piece(2), Unit: piece(0), UserUnit: piece(1), Slice: piece(2), Container: e.Sender.Container,
			},
		}
	}
	if known(11) {
		delivered := known(12)
		e.Result.Delivered = &delivered
	}
	if known(13) {
		e.HopOf = &Event{Seq: uint64(bits % 2)}
	}
	if known(14) {
		e.FDs = []FD{{piece(0)}, {}, {piece(1)}}
	}
	return e
}

func FuzzJSONIsThatOfTheStructs(f *testing.F) {
	f.Add("abc/def.service", []byte("READY=1\nSTATUS=a b\r\n\nX"), uint32(0xffffffff))
	f.Add("\x00\x7f\xff\u2028\u200b\U000e0041<&>é\\\"", []byte("A=\\\nB=\\\\c\nD"), uint32(0x5555ffff))
	f.Add("", []byte("no assignment"), uint32(0))
	f.Add("@a\x00b", []byte("=\n==\nX_=\xff\\"), uint32(0xaaaaaaaa))
	f.Add("\b\f\t\n\r", []byte("A=1\x00"), uint32(0x10))
	f.Add("x", []byte("A=1\x00B=2"), uint32(0x18))
	f.Fuzz(func(t *testing.T, text string, payload []byte, bits uint32) {
		check := func(what string, got, want []byte) {
			if !bytes.Equal(got, want) {
				t.Errorf("%s:\n%s\nwant\n%s", what, got, want)
			}
		}
		e := eventOf(text, payload, bits)
		check("event", JSONEncoder{}.AppendEvent(nil, e), referenceEvent(nil, e))
		checkStream(t, e, eventOf(text+"x", payload, bits>>1), eventOf(text, payload, ^bits))
		by := Reader{
			PID: bits, TID: bits / 2, Comm: text, CgroupID: uint64(bits) % 2,
			Identity: Identity{
				Cgroup: e.Sender.Cgroup, Machine: e.Backend, Unit: e.Sender.Unit, UserUnit: text, Slice: e.Backend,
				Container: e.Sender.Container,
			},
		}
		exited := time.Duration(bits)
		for _, kind := range []ReceiptKind{ReceiptRead, ReceiptUnread, ReceiptBarrier} {
			r := &Receipt{Kind: kind, Seq: uint64(bits), Time: e.Time, Delay: exited / 2, By: by, Bytes: e.Result.Bytes, Errno: text, Truncated: e.Truncated}
			if e.Size != nil {
				r.SenderExited = &exited
			}
			check(string(kind), JSONEncoder{}.AppendReceipt(nil, r), referenceReceipt(nil, r))
		}
		message, _ := e.Message()
		w := &Withheld{Seq: uint64(bits), Time: e.Time, Relay: by, Message: message}
		check("withheld", JSONEncoder{}.AppendWithheld(nil, w), referenceWithheld(nil, w))
		l := &Lost{Time: e.Time, RingFull: uint64(bits), Missed: 3, Receipts: uint64(bits) % 4}
		check("lost", JSONEncoder{}.AppendLost(nil, l), referenceLost(nil, l))
	})
}

// checkStream holds what a stream writes of events that come again and again, also with what differs alone, against the
// encoder that remembers nothing.
func checkStream(t *testing.T, all ...*Event) {
	t.Helper()
	var stream JSONStream
	for _, e := range append(all, all...) {
		for _, change := range []func(e *Event){
			func(*Event) {},
			func(*Event) {},
			func(e *Event) { e.Sender.NSPID++ },
			func(e *Event) { e.Time = e.Time.Add(time.Second / 3) },
			func(e *Event) { e.Sender.Container = nil },
			func(e *Event) { e.Sender.Container = &Container{} },
			func(e *Event) { e.Sender.Container.Name += "y" },
			func(e *Event) { e.Socket.Bound += "z" },
			func(e *Event) { e.Receiver = nil },
			func(e *Event) { e.Receiver = &Receiver{NetNS: 7} },
			func(e *Event) { e.Receiver.UID = new(uint32) },
			func(e *Event) { *e.Receiver.UID = 8 },
			func(e *Event) { e.Receiver.Container = &Container{ID: "1"} },
			func(e *Event) { e.Receiver.Container.Name = "name" },
		} {
			change(e)
			if got, want := stream.AppendEvent(nil, e), (JSONEncoder{}).AppendEvent(nil, e); !bytes.Equal(got, want) {
				t.Fatalf("the stream writes\n%s\nwant\n%s", got, want)
			}
		}
	}
}
