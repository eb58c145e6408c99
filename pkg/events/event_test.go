// SPDX-License-Identifier: Apache-2.0

package events_test

import (
	"math/rand/v2"
	"strings"
	"time"

	"github.com/sdtrace/sdtrace/pkg/events"
)

func ptr[T any](v T) *T { return &v }

var at = time.Date(2026, 11, 23, 16, 1, 46, 123456789, time.UTC)

// fullEvent has every field set.
func fullEvent() *events.Event {
	return &events.Event{
		Seq: 42, Time: at, Backend: "fentry",
		Sender: events.Sender{
			PID: 812, TID: 815, PPID: 1, NSPID: 7, Comm: "nginx", Exe: "/usr/sbin/nginx", UID: 33, GID: 34,
			CgroupID: 4711, Cgroup: "/system.slice/nginx.service", CgroupController: "pids",
			Unit: "nginx.service", UserUnit: "web.service", Slice: "system.slice",
			Container: &events.Container{Runtime: "cri-o", ID: "4f", Name: "web", PodUID: "2f1c1f9e-4f3c-4d7e-9d5e-0c7a1c8f0001"},
			MntNS:     4026531841, NetNS: 4026531840, PIDNS: 4026531836, UserNS: 4026531837, CgroupNS: 4026531835,
		},
		Claimed: &events.Claimed{PID: 1, NSPID: 2, UID: ptr(uint32(0)), GID: ptr(uint32(5))},
		Socket:  events.Socket{Address: "/run/host/notify", Bound: "/run/systemd/notify", Inode: 21044, Type: "dgram"},
		Receiver: &events.Receiver{
			UID: ptr(uint32(0)), NetNS: 4026531840, CgroupID: 42, Cgroup: "/init.scope", PID: 1, Comm: "systemd",
			Unit: "init.scope", UserUnit: "u.service", Slice: "-.slice",
			Container: &events.Container{Runtime: "cri-o", ID: "4f", Name: "web", PodUID: "2f1c1f9e-4f3c-4d7e-9d5e-0c7a1c8f0001"},
		},
		Result:  events.Result{Bytes: ptr(uint32(22)), Latency: 3100, Delivered: ptr(true)},
		Size:    ptr(uint32(22)),
		Payload: []byte("READY=1\nSTATUS=Serving"),
		FDs:     []events.FD{{Type: "pipe"}, {Type: "socket"}, {}},
		HopOf:   &events.Event{Seq: 41},
	}
}

// fullReceipts have every field set that one of their kind can have, and few.
func fullReceipts() []*events.Receipt {
	by := events.Reader{
		PID: 1, TID: 2, Comm: "systemd", CgroupID: 42, Cgroup: "/init.scope", Unit: "init.scope", UserUnit: "u.service",
		Slice: "-.slice", Container: &events.Container{Runtime: "nspawn", ID: "web"},
	}
	return []*events.Receipt{
		{
			Kind: events.ReceiptRead, Seq: 42, Time: at, Delay: 410_000, By: by, Bytes: ptr(uint32(22)),
			Truncated: true, ControlTruncated: true, SenderExited: ptr(3 * time.Millisecond),
		},
		{Kind: events.ReceiptRead, Seq: 42, Time: at, By: by, Errno: "EFAULT"},
		{Kind: events.ReceiptUnread, Seq: 42, Time: at, Delay: 1, By: by, SenderExited: ptr(time.Duration(0))},
		{Kind: events.ReceiptBarrier, Seq: 42, Time: at, Delay: 1, By: events.Reader{PID: 1, TID: 1, Comm: ""}},
	}
}

func fullWithheld() *events.Withheld {
	return &events.Withheld{
		Seq: 42, Time: at, Relay: fullReceipts()[0].By,
		Message: events.Message{{Key: "STATUS", Value: "Serving"}, {Key: "X_\xff", Value: "\xfe"}},
	}
}

// plainEvent is what is known at least, with a payload.
func plainEvent(payload string) *events.Event {
	return &events.Event{
		Seq: 1, Time: at, Backend: "tracepoint",
		Sender:  events.Sender{PID: 812, TID: 812, Comm: "nginx"},
		Socket:  events.Socket{Address: "/run/systemd/notify"},
		Payload: []byte(payload),
	}
}

var nasty = []string{
	"", "a", "READY=1", "STATUS=two words", "x=\"quoted\"", `back\slash`, "\\", "\x00", "\n", "\r\n", "\t", "\x1b[31mred\x1b[0m", "\x07\x08\x7f",
	"\u009b31m", "\u0085", "\u202e reversed \u2066", "zero\u200bwidth\ufeff", "tag\U000e0041", "\u2028", "\u3164\u034f\ufe0f", "\u00a0\u3000",
	"größe", "日本語", "🙂", "\ufffd", "\xff\xfe", "\xc3", "\xed\xa0\x80", "\xc2\x9b", "[1]", "@", "<&>", "+1 fd: pipe", "(empty)", "-> ok",
}

// randomEvent is an event as a backend may make it, of hostile strings.
func randomEvent(rng *rand.Rand) *events.Event {
	some := func() bool { return rng.IntN(2) == 0 }
	num := func() uint32 {
		if some() {
			return 0
		}
		return rng.Uint32()
	}
	opt := func() *uint32 {
		if some() {
			return nil
		}
		return ptr(num())
	}
	text := func(most int) string {
		var s string
		for range rng.IntN(4) {
			s += nasty[rng.IntN(len(nasty))]
		}
		return s[:min(len(s), most)]
	}
	pick := func(of ...string) string { return of[rng.IntN(len(of))] }
	e := &events.Event{
		Seq: 1 + rng.Uint64(), Time: at.Add(time.Duration(rng.Int64N(1e18))), Backend: pick("fentry", "tracepoint"),
		Sender: events.Sender{
			PID: num(), TID: num(), PPID: num(), NSPID: num(), Comm: text(15), Exe: text(99), UID: num(), GID: num(),
			CgroupID: uint64(num()), Cgroup: text(99), CgroupController: pick("", "pids"), Unit: pick("", "a.service"), UserUnit: pick("", "b.service"),
			Slice: pick("", "system.slice"), MntNS: num(), NetNS: num(), PIDNS: num(), UserNS: num(), CgroupNS: num(),
		},
		Socket:    events.Socket{Address: text(107), Bound: text(107), Inode: uint64(num()), Type: pick("", "dgram", "seqpacket")},
		Result:    events.Result{Latency: time.Duration(num())},
		Size:      opt(),
		Truncated: some(),
	}
	if some() {
		e.Sender.Container = &events.Container{Runtime: pick("", "lxc"), ID: pick("", "web"), Name: strings.ToValidUTF8(text(99), ""), PodUID: pick("", "1-2")}
	}
	if some() {
		e.Claimed = &events.Claimed{PID: num(), NSPID: num(), UID: opt(), GID: opt()}
	}
	if some() {
		e.Result.Errno = pick("ENOENT", "EAGAIN", "E2BIG", "512")
	} else {
		e.Result.Bytes = opt()
	}
	if some() {
		e.Result.Delivered = ptr(some())
	}
	if rng.IntN(4) > 0 {
		e.Payload = append([]byte{}, text(events.MaxPayload)...)
	}
	for range rng.IntN(3) {
		e.FDs = append(e.FDs, events.FD{Type: pick("", "pipe", "socket", "memfd")})
	}
	return e
}
