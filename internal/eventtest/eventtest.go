// SPDX-License-Identifier: Apache-2.0

// Package eventtest makes events for tests: with every field set, with few, and hostile ones.
package eventtest

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/sdtrace/sdtrace/pkg/events"
)

// Ptr points to a copy of v.
func Ptr[T any](v T) *T { return &v }

// Time is when they were sent.
var Time = time.Date(2026, 11, 23, 16, 1, 46, 123456789, time.UTC)

// identity has every field set, and the path of a control group.
func identity(cgroup string) events.Identity {
	return events.Identity{
		Cgroup: cgroup, Machine: "box", Unit: "nginx.service", UserUnit: "web.service", Slice: "system.slice",
		Container: &events.Container{
			Runtime: "cri-o", ID: "4f", Name: "web", PodUID: "2f1c1f9e-4f3c-4d7e-9d5e-0c7a1c8f0001",
			PodNamespace: "shop", PodName: "web-7d9f",
		},
	}
}

// Full has every field set.
func Full() *events.Event {
	return &events.Event{
		Seq: 42, Time: Time, Backend: "fentry",
		Sender: events.Sender{
			PID: 812, TID: 815, PPID: 1, NSPID: 7, Comm: "nginx", Exe: "/usr/sbin/nginx", UID: 33, GID: 34,
			CgroupID: 4711, Identity: identity("/system.slice/nginx.service"), CgroupController: "pids",
			MntNS: 4026531841, NetNS: 4026531840, PIDNS: 4026531836, UserNS: 4026531837, CgroupNS: 4026531835,
		},
		Claimed: &events.Claimed{PID: 1, NSPID: 2, UID: Ptr(uint32(0)), GID: Ptr(uint32(5))},
		Socket:  events.Socket{Address: "/run/host/notify", Bound: "/run/systemd/notify", Inode: 21044, Type: "dgram"},
		Receiver: &events.Receiver{
			UID: Ptr(uint32(0)), NetNS: 4026531840, CgroupID: 42, PID: 1, Comm: "systemd",
			Identity: identity("/init.scope"),
		},
		Result:  events.Result{Bytes: Ptr(uint32(22)), Latency: 3100, Delivered: Ptr(true)},
		Size:    Ptr(uint32(22)),
		Payload: []byte("READY=1\nSTATUS=Serving"),
		FDs:     []events.FD{{Type: "pipe"}, {Type: "socket"}, {}},
		HopOf:   &events.Event{Seq: 41},
	}
}

// Receipts have every field set that one of their kind can have, and few.
func Receipts() []*events.Receipt {
	by := events.Reader{
		PID: 1, TID: 2, Comm: "systemd", CgroupID: 42, Identity: identity("/init.scope"),
	}
	return []*events.Receipt{
		{
			Kind: events.ReceiptRead, Seq: 42, Time: Time, Delay: 410_000, By: by, Bytes: Ptr(uint32(22)),
			Truncated: true, ControlTruncated: true, SenderExited: Ptr(3 * time.Millisecond),
		},
		{Kind: events.ReceiptRead, Seq: 42, Time: Time, By: by, Errno: "EFAULT"},
		{Kind: events.ReceiptUnread, Seq: 42, Time: Time, Delay: 1, By: by, SenderExited: Ptr(time.Duration(0))},
		{Kind: events.ReceiptBarrier, Seq: 42, Time: Time, Delay: 1, By: events.Reader{PID: 1, TID: 1, Comm: ""}},
	}
}

func Withheld() *events.Withheld {
	return &events.Withheld{
		Seq: 42, Time: Time, Relay: Receipts()[0].By,
		Message: events.Message{{Key: "STATUS", Value: "Serving"}, {Key: "X_\xff", Value: "\xfe"}},
	}
}

// Unit has every field set.
func Unit() *events.Unit {
	return &events.Unit{
		News: events.UnitWaits, Time: Time, Manager: events.VerdictManager{PID: 1, Version: 257},
		Identity: identity("/system.slice/nginx.service"), Type: "notify", ActiveState: "activating", SubState: "start",
		Since: Time.Add(-2 * time.Second), Limit: 90 * time.Second, Awaits: "READY=1", Said: "STATUS=Starting",
		Last: &events.Process{PID: 812, Comm: "nginx", Unit: "nginx.service"}, Main: &events.Process{PID: 811, Comm: "sh"},
		Restarts: Ptr(uint32(3)), Result: "success", Trouble: "nobody reads from /run/systemd/notify",
	}
}

// Hang has every field set.
func Hang() *events.Hang {
	sender := Receipts()[0].By
	sender.Comm = "nginx"
	return &events.Hang{
		Time: Time, Since: Time.Add(-3 * time.Second), Sender: sender, Address: "/run/systemd/notify",
		Receiver: events.Process{PID: 1, Comm: "systemd", Unit: "init.scope"}, State: "T",
		Queued: Ptr(uint32(513)), MaxQueued: Ptr(uint32(512)),
	}
}

// Verdict has every field set.
func Verdict() *events.Verdict {
	return &events.Verdict{
		Seq: 42, Time: Time, Pending: true, Manager: events.VerdictManager{PID: 1, Version: 252}, Unit: "nginx.service",
		From: events.Process{PID: 85, Comm: "nginx", Unit: "nginx.service"}, Named: &events.Process{PID: 86, Comm: "\xff", Unit: "a.service"},
		MainBefore: &events.Process{PID: 87, Comm: "a"}, MainAfter: &events.Process{PID: 88, Comm: "b"},
		Lines: []events.LineVerdict{{
			Assignment: events.Assignment{Key: "READY", Value: "1"}, Outcome: events.Heeded, Rule: "D4", Reason: "the service has started",
			Cure: "none", Likely: true, Confirmed: Ptr(true),
		}, {
			Assignment: events.Assignment{Key: "X_\xff", Value: "\xfe"}, Outcome: events.Unknown, Reason: "it is not known",
		}},
	}
}

// Plain is what is known at least, with a payload.
func Plain(payload string) *events.Event {
	return &events.Event{
		Seq: 1, Time: Time, Backend: "tracepoint",
		Sender:  events.Sender{PID: 812, TID: 812, Comm: "nginx"},
		Socket:  events.Socket{Address: "/run/systemd/notify"},
		Payload: []byte(payload),
	}
}

// Nasty are texts that a careless encoder lets through, or breaks on.
var Nasty = []string{
	"", "a", "READY=1", "STATUS=two words", "x=\"quoted\"", `back\slash`, "\\", "\x00", "\n", "\r\n", "\t", "\x1b[31mred\x1b[0m", "\x07\x08\x7f",
	"\u009b31m", "\u0085", "\u202e reversed \u2066", "zero\u200bwidth\ufeff", "tag\U000e0041", "\u2028", "\u3164\u034f\ufe0f", "\u00a0\u3000",
	"größe", "日本語", "🙂", "\ufffd", "\xff\xfe", "\xc3", "\xed\xa0\x80", "\xc2\x9b", "[1]", "@", "<&>", "+1 fd: pipe", "(empty)", "-> ok",
}

// Random is an event as a backend may make it, of hostile strings.
func Random(rng *rand.Rand) *events.Event {
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
		return Ptr(num())
	}
	text := func(most int) string {
		var s string
		for range rng.IntN(4) {
			s += Nasty[rng.IntN(len(Nasty))]
		}
		return s[:min(len(s), most)]
	}
	pick := func(of ...string) string { return of[rng.IntN(len(of))] }
	e := &events.Event{
		Seq: 1 + rng.Uint64(), Time: Time.Add(time.Duration(rng.Int64N(1e18))), Backend: pick("fentry", "tracepoint"),
		Sender: events.Sender{
			PID: num(), TID: num(), PPID: num(), NSPID: num(), Comm: text(15), Exe: text(99), UID: num(), GID: num(),
			CgroupID: uint64(num()), CgroupController: pick("", "pids"), Identity: events.Identity{
				Cgroup: text(99), Machine: pick("", "box"), Unit: pick("", "a.service"), UserUnit: pick("", "b.service"), Slice: pick("", "system.slice"),
			},
			MntNS: num(), NetNS: num(), PIDNS: num(), UserNS: num(), CgroupNS: num(),
		},
		Socket:    events.Socket{Address: events.Address(text(107)), Bound: events.Address(text(107)), Inode: uint64(num()), Type: pick("", "dgram", "seqpacket")},
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
		e.Refused = &events.Refused{Claimed: events.Claimed{PID: num(), NSPID: num(), UID: opt(), GID: opt()}, Errno: pick("EPERM", "ESRCH")}
	}
	if some() {
		e.Result.Errno = pick("ENOENT", "EAGAIN", "E2BIG", "512")
	} else {
		e.Result.Bytes = opt()
	}
	if some() {
		e.Result.Delivered = Ptr(some())
	}
	if rng.IntN(4) > 0 {
		e.Payload = append([]byte{}, text(events.MaxPayload)...)
	}
	for range rng.IntN(3) {
		e.FDs = append(e.FDs, events.FD{Type: pick("", "pipe", "socket", "memfd")})
	}
	return e
}

// MustBeInert fails when a terminal would do anything with line but show it.
func MustBeInert(tb testing.TB, line []byte) {
	tb.Helper()
	if !utf8.Valid(line) {
		tb.Fatalf("not UTF-8: %q", line)
	}
	for _, r := range string(line) {
		switch {
		case unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Cs, unicode.Bidi_Control, unicode.Join_Control,
			unicode.Variation_Selector, unicode.Other_Default_Ignorable_Code_Point):
			tb.Fatalf("%U in %q", r, line)
		}
	}
}
