// SPDX-License-Identifier: Apache-2.0

package render_test

import (
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sdtrace/sdtrace/internal/eventtest"
	"github.com/sdtrace/sdtrace/internal/render"
	"github.com/sdtrace/sdtrace/pkg/events"
)

var plainText = render.Text{Clock: &render.Clock{Zone: time.UTC}}

func TestTextOfAnEvent(t *testing.T) {
	const id = "3f2a1c9e8b7d6a5f4e3d2c1b0a9f8e7d6c5b4a39281716151413121110f0e0d0"
	for _, tc := range []struct {
		name   string
		change func(*events.Event)
		want   string
	}{
		{"plain", func(*events.Event) {}, `nginx[812]             -                      -> /run/systemd/notify   sent   READY=1`},
		{
			"unit and delivery", func(e *events.Event) { e.Sender.Unit, e.Result.Delivered = "nginx.service", eventtest.Ptr(true) },
			`nginx[812]             nginx.service          -> /run/systemd/notify   queued READY=1`,
		},
		{
			"what is wider than its column is shown whole", func(e *events.Event) {
				e.Sender.Comm, e.Sender.PID = "systemd-timesyn", 4194303
				e.Sender.Unit = "systemd-timesyncd-of-the-long-name.service"
				e.Socket.Address = "/run/containers/web/notify/notify.sock"
			},
			`systemd-timesyn[4194303] systemd-timesyncd-of-the-long-name.service -> /run/containers/web/notify/notify.sock sent   READY=1`,
		},
		{
			"wide characters count as one each", func(e *events.Event) { e.Sender.Comm = "größe" },
			`größe[812]             -                      -> /run/systemd/notify   sent   READY=1`,
		},
		{
			"unit of a user manager", func(e *events.Event) { e.Sender.Unit, e.Sender.UserUnit = "user@0.service", "a.service" },
			`nginx[812]             user@0.service/a.service -> /run/systemd/notify   sent   READY=1`,
		},
		{"only the unit of a user manager", func(e *events.Event) { e.Sender.UserUnit = "a.service" }, `nginx[812]             a.service              -> /run/systemd/notify   sent   READY=1`},
		{"cgroup", func(e *events.Event) { e.Sender.Cgroup = "/lab/x" }, `nginx[812]             /lab/x                 -> /run/systemd/notify   sent   READY=1`},
		{
			"cgroup v1", func(e *events.Event) { e.Sender.Cgroup, e.Sender.CgroupController = "/lab/x", "pids" },
			`nginx[812]             pids:/lab/x            -> /run/systemd/notify   sent   READY=1`,
		},
		{
			"random id of a container", func(e *events.Event) {
				e.Sender.Unit, e.Sender.Container = "docker-x.scope", &events.Container{Runtime: "docker", ID: id}
			},
			`nginx[812]             docker:3f2a1c9e8b7d    -> /run/systemd/notify   sent   READY=1`,
		},
		{
			"random id and name of a container", func(e *events.Event) {
				e.Sender.Container = &events.Container{Runtime: "docker", ID: id, Name: "web"}
			},
			`nginx[812]             docker:web             -> /run/systemd/notify   sent   READY=1`,
		},
		{
			"hostile name of a container", func(e *events.Event) {
				e.Sender.Container = &events.Container{Runtime: "docker", ID: id, Name: "a -> \x1b[2J"}
			},
			`nginx[812]             "docker:a -> \x1b[2J"  -> /run/systemd/notify   sent   READY=1`,
		},
		{
			"name of a container", func(e *events.Event) { e.Sender.Container = &events.Container{ID: "web"} },
			`nginx[812]             container:web          -> /run/systemd/notify   sent   READY=1`,
		},
		{"pod", func(e *events.Event) { e.Sender.Container = &events.Container{PodUID: "1-2"} }, `nginx[812]             "container:pod 1-2"    -> /run/systemd/notify   sent   READY=1`},
		{"only the runtime", func(e *events.Event) { e.Sender.Container = &events.Container{Runtime: "lxc"} }, `nginx[812]             lxc                    -> /run/systemd/notify   sent   READY=1`},
		{
			"hostile names", func(e *events.Event) {
				e.Sender.Comm, e.Sender.Cgroup, e.Socket.Address = "x[1] \x1b[2J", "/a\nb", "@\x00 \""
			},
			`"x[1] \x1b[2J"[812]    /a\nb                  -> "@\x00 \""            sent   READY=1`,
		},
		{
			"receiver under another name", func(e *events.Event) { e.Socket.Address, e.Socket.Bound = "/run/host/notify", "/run/systemd/notify" },
			`nginx[812]             -                      -> /run/host/notify (bound to /run/systemd/notify) sent   READY=1`,
		},
		{
			"who holds the receiving socket", func(e *events.Event) {
				e.Receiver = &events.Receiver{PID: 1, Comm: "systemd", Identity: events.Identity{Unit: "init.scope"}}
			},
			`nginx[812]             -                      -> /run/systemd/notify systemd[1] sent   READY=1`,
		},
		{
			"a receiving socket that nobody was found to hold", func(e *events.Event) { e.Receiver = &events.Receiver{Identity: events.Identity{Unit: "init.scope"}} },
			`nginx[812]             -                      -> /run/systemd/notify   sent   READY=1`,
		},
		{
			"only the receiver's name", func(e *events.Event) { e.Socket.Address, e.Socket.Bound = "", "/run/systemd/notify" },
			`nginx[812]             -                      -> /run/systemd/notify   sent   READY=1`,
		},
		{"receiver without a name", func(e *events.Event) { e.Socket = events.Socket{Inode: 77} }, `nginx[812]             -                      -> socket:[77]           sent   READY=1`},
		{"unknown receiver", func(e *events.Event) { e.Socket = events.Socket{} }, `nginx[812]             -                      -> (address unknown)     sent   READY=1`},
		{"failure", func(e *events.Event) { e.Result.Errno = "ENOENT" }, `nginx[812]             -                      -> /run/systemd/notify   FAILED ENOENT READY=1`},
		{
			"dropped", func(e *events.Event) { e.Result.Delivered = eventtest.Ptr(false) },
			`nginx[812]             -                      -> /run/systemd/notify   FAILED dropped by receiver's socket filter READY=1`,
		},
		{"file descriptors", func(e *events.Event) { e.FDs = []events.FD{{Type: "pipe"}, {Type: "socket"}} }, `nginx[812]             -                      -> /run/systemd/notify   sent   READY=1 +2 fds: pipe socket`},
		{"file descriptor of unknown kind", func(e *events.Event) { e.FDs = make([]events.FD, 1) }, `nginx[812]             -                      -> /run/systemd/notify   sent   READY=1 +1 fd: ?`},
		{
			"claim of the own ids", func(e *events.Event) {
				e.Claimed = &events.Claimed{PID: 812, NSPID: 3, UID: eventtest.Ptr(uint32(0)), GID: eventtest.Ptr(uint32(0))}
			},
			`nginx[812]             -                      -> /run/systemd/notify   sent   READY=1`,
		},
		{
			"claim of other ids", func(e *events.Event) {
				e.Claimed = &events.Claimed{PID: 1, UID: eventtest.Ptr(uint32(7)), GID: eventtest.Ptr(uint32(8))}
			},
			`nginx[812]             -                      -> /run/systemd/notify   sent   READY=1 claims pid 1 uid 7 gid 8`,
		},
		{
			"claim that was refused", func(e *events.Event) {
				e.Refused = &events.Refused{Claimed: events.Claimed{PID: 1, UID: eventtest.Ptr(uint32(0))}, Errno: "EPERM"}
			},
			`nginx[812]             -                      -> /run/systemd/notify   sent   READY=1 was refused the claim of pid 1: EPERM`,
		},
		{
			"claim in another pid namespace", func(e *events.Event) { e.Sender.NSPID, e.Claimed = 2, &events.Claimed{NSPID: 1} },
			`nginx[812]             -                      -> /run/systemd/notify   sent   READY=1 claims ns_pid 1`,
		},
		{
			"own claim in another pid namespace", func(e *events.Event) { e.Sender.NSPID, e.Claimed = 2, &events.Claimed{NSPID: 2} },
			`nginx[812]             -                      -> /run/systemd/notify   sent   READY=1`,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := eventtest.Plain("READY=1")
			tc.change(e)
			if diff := cmp.Diff("16:01:46.123456 "+tc.want+"\n", string(plainText.AppendEvent(nil, e))); diff != "" {
				t.Errorf("- want, + got\n%s", diff)
			}
		})
	}
}

func TestTextOfAPayload(t *testing.T) {
	for _, tc := range []struct {
		name, payload, want string
		truncated           bool
	}{
		{name: "assignments in order", payload: "STATUS=up\nREADY=1\n", want: `STATUS=up READY=1`},
		{name: "blanks in a value", payload: "STATUS=Serving 5 requests\nREADY=1", want: `STATUS="Serving 5 requests" READY=1`},
		{name: "quotes in a value", payload: `STATUS=say "hi"`, want: `STATUS="say \"hi\""`},
		{name: "empty value", payload: "STATUS=", want: `STATUS=`},
		{name: "other scripts", payload: "STATUS=größe 日本 🙂", want: `STATUS="größe 日本 🙂"`},
		{name: "a blank that is none", payload: "STATUS=\u2800\u3000\u3164x", want: `STATUS=\xe2\xa0\x80\xe3\x80\x80\xe3\x85\xa4x`},
		{name: "no-break space", payload: "STATUS=10\u00a0MB", want: `STATUS=10\xc2\xa0MB`},
		{name: "escape sequence", payload: "STATUS=\x1b[31m", want: `STATUS=\x1b[31m`},
		{name: "invalid UTF-8 and C1", payload: "STATUS=\xff\u009b", want: `STATUS=\xff\xc2\x9b`},
		{name: "right-to-left override", payload: "STATUS=\u202e", want: `STATUS=\xe2\x80\xae`},
		{name: "escaped separator", payload: "STATUS=a\\\nREADY=1", want: `STATUS=a\nREADY=1`},
		{name: "backslash", payload: `STATUS=a\\n`, want: `STATUS=a\\n`},
		{name: "line that is no assignment", payload: "hello\nREADY=1", want: `"hello" READY=1`},
		{name: "blank before a key", payload: " READY=1", want: `" READY=1"`},
		{name: "blank after a value", payload: "READY=1 ", want: `READY="1 "`},
		{name: "no key", payload: "=1", want: `"=1"`},
		{name: "only separators", payload: "\n\n", want: `"\n\n"`},
		{name: "empty", payload: "", want: `(empty)`},
		{name: "embedded NUL", payload: "READY=1\x00\x1b x", want: `(unparseable: embedded NUL byte) "READY=1\x00\x1b x"`},
		{name: "trailing backslash", payload: `READY=1\`, want: `(unparseable: trailing backslash) "READY=1\\"`},
		{name: "truncated", payload: "READY=1\nSTATUS=ab", truncated: true, want: `READY=1 STATUS="ab"... (truncated: 17 bytes of 5000)`},
		{name: "truncated between lines", payload: "READY=1\n", truncated: true, want: `READY=1 (truncated: 8 bytes of 5000)`},
		{name: "truncated in a key", payload: "R", truncated: true, want: `"R"... (truncated: 1 byte of 5000)`},
		{name: "truncated with a NUL", payload: "R\x00", truncated: true, want: `(unparseable: embedded NUL byte) "R\x00" (truncated: 2 bytes of 5000)`},
		{name: "truncated to nothing", payload: "", truncated: true, want: `"" (truncated: 0 bytes of 5000)`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := eventtest.Plain(tc.payload)
			if tc.truncated {
				e.Truncated, e.Size = true, eventtest.Ptr(uint32(5000))
			}
			if diff := cmp.Diff(tc.want+"\n", payloadColumn(e)); diff != "" {
				t.Errorf("- want, + got\n%s", diff)
			}
		})
	}

	e := eventtest.Plain("")
	e.Payload = nil
	if got, want := payloadColumn(e), "(payload unknown)\n"; got != want {
		t.Errorf("unknown payload: %s, want %s", got, want)
	}
	e.Size = eventtest.Ptr(uint32(25))
	if got, want := payloadColumn(e), "(payload unknown, 25 bytes)\n"; got != want {
		t.Errorf("unknown payload of known size: %s, want %s", got, want)
	}
	e = eventtest.Plain("A=1")
	e.Truncated = true
	if got, want := payloadColumn(e), "A=\"1\"... (truncated: 3 bytes)\n"; got != want {
		t.Errorf("truncated payload of unknown size: %s, want %s", got, want)
	}
}

// payloadColumn is the text line of a [plainEvent] behind its result.
func payloadColumn(e *events.Event) string {
	_, payload, _ := strings.Cut(string(plainText.AppendEvent(nil, e)), " sent   ")
	return payload
}

func TestTextOfAConnectThatFailed(t *testing.T) {
	e := said("web.service", "", 0)
	e.Payload, e.Text, e.Call, e.Result = nil, nil, events.CallConnect, events.Result{Errno: "EACCES"}
	if got := string(plainText.AppendEvent(nil, e)); !strings.HasSuffix(got, " FAILED EACCES (connect)\n") {
		t.Errorf("%q", got)
	}
}

func TestASendWithoutAnAddressHasNone(t *testing.T) {
	e := said("web.service", "READY=1", 0)
	e.Socket, e.Receiver, e.Result = events.Socket{}, nil, events.Result{Errno: "ENOTCONN"}
	if got := string(plainText.AppendEvent(nil, e)); !strings.Contains(got, " -> (no address)          FAILED ENOTCONN READY=1\n") {
		t.Errorf("%q", got)
	}
}

func TestTextOfALoss(t *testing.T) {
	for _, tc := range []struct {
		lost events.Lost
		want string
	}{
		{events.Lost{Time: eventtest.Time, RingFull: 1}, "16:01:46.123456 *** LOST 1 datagram: ring buffer full 1 ***\n"},
		{
			events.Lost{Time: eventtest.Time, RingFull: 10, Missed: 3},
			"16:01:46.123456 *** LOST 13 datagrams: ring buffer full 10, missed by the kernel at most 3 ***\n",
		},
		{
			events.Lost{Time: eventtest.Time, RingFull: 1, Receipts: 2},
			"16:01:46.123456 *** LOST 1 datagram: ring buffer full 1, and what became of at most 2 ***\n",
		},
		{
			events.Lost{Time: eventtest.Time, RingFull: 9, By: []events.LostBy{
				{CgroupID: 7, Cgroup: "/user.slice/user-1000.slice", Count: 5}, {CgroupID: 8, Count: 2}, {UID: 33, Count: 1}, {UID: 34, Count: 1},
			}},
			"16:01:46.123456 *** LOST 9 datagrams: ring buffer full 9; of /user.slice/user-1000.slice 5, cgroup 8 2, uid 33 1 ***\n",
		},
		{events.Lost{Time: eventtest.Time, Receipts: 1}, "16:01:46.123456 *** LOST what became of at most 1 datagram ***\n"},
		{
			events.Lost{Time: eventtest.Time, Names: 1},
			"16:01:46.123456 *** 1 name of notify sockets given up: one user's processes have too many in NOTIFY_SOCKET ***\n",
		},
		{
			events.Lost{Time: eventtest.Time, RingFull: 1, Names: 2},
			"16:01:46.123456 *** LOST 1 datagram: ring buffer full 1; 2 names of notify sockets given up: " +
				"one user's processes have too many in NOTIFY_SOCKET ***\n",
		},
	} {
		if diff := cmp.Diff(tc.want, string(plainText.AppendLost(nil, &tc.lost))); diff != "" {
			t.Errorf("- want, + got\n%s", diff)
		}
	}
}

func TestTextOfWhatBecameOfADatagram(t *testing.T) {
	who := "16:01:46.123456 systemd[1]             init.scope             <- nginx[812]            "
	by := events.Reader{PID: 1, TID: 1, Comm: "systemd", Identity: events.Identity{Cgroup: "/init.scope", Unit: "init.scope"}}
	for _, tc := range []struct {
		name    string
		receipt events.Receipt
		want    string
	}{
		{"read", events.Receipt{Kind: events.ReceiptRead, Delay: 410 * time.Microsecond}, "read after 410µs READY=1"},
		{"read late", events.Receipt{Kind: events.ReceiptRead, Delay: 2345678 * time.Microsecond}, "read after 2.35s READY=1"},
		{"cut", events.Receipt{Kind: events.ReceiptRead, Delay: 12345, Truncated: true, ControlTruncated: true}, "read after 12.35µs, TRUNCATED, ANCILLARY DATA TRUNCATED READY=1"},
		{"in vain", events.Receipt{Kind: events.ReceiptRead, Delay: 12, Errno: "EFAULT"}, "read after 12ns, FAILED EFAULT READY=1"},
		{"too late", events.Receipt{Kind: events.ReceiptRead, Delay: time.Millisecond, SenderExited: eventtest.Ptr(150 * time.Microsecond)}, "read after 1ms, sender gone for 150µs READY=1"},
		{"never", events.Receipt{Kind: events.ReceiptUnread, Delay: 100 * time.Second}, "NEVER READ, thrown away after 1m40s READY=1"},
		{"a barrier", events.Receipt{Kind: events.ReceiptBarrier, Delay: 5 * time.Millisecond}, "barrier passed after 5ms READY=1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := tc.receipt
			r.Time, r.By, r.Send = eventtest.Time, by, eventtest.Plain("READY=1")
			if diff := cmp.Diff(who+tc.want+"\n", string(plainText.AppendReceipt(nil, &r))); diff != "" {
				t.Errorf("- want, + got\n%s", diff)
			}
		})
	}
	w := events.Withheld{Time: eventtest.Time, Relay: by, Send: eventtest.Plain("READY=1"), Message: events.Message{{Key: "STATUS", Value: "two words"}, {Key: "X_A", Value: ""}}}
	if diff := cmp.Diff(who+"NOT PASSED ON STATUS=\"two words\" X_A=\n", string(plainText.AppendWithheld(nil, &w))); diff != "" {
		t.Errorf("- want, + got\n%s", diff)
	}
	e := eventtest.Plain("READY=1")
	e.HopOf = eventtest.Plain("READY=1\nSTATUS=up")
	e.HopOf.Sender.Comm = "web"
	if line := string(plainText.AppendEvent(nil, e)); !strings.HasSuffix(line, " READY=1 passes on web[812]\n") {
		t.Errorf("a datagram passed on is %q", line)
	}
}

func TestOnlyWhatIsToBeExpectedIsOrdinary(t *testing.T) {
	usual := events.Receipt{Kind: events.ReceiptRead, Bytes: eventtest.Ptr(uint32(7)), Delay: time.Millisecond}
	if !usual.Ordinary() {
		t.Error("a usual read is not")
	}
	for name, change := range map[string]func(*events.Receipt){
		"never read":         func(r *events.Receipt) { r.Kind = events.ReceiptUnread },
		"a barrier":          func(r *events.Receipt) { r.Kind = events.ReceiptBarrier },
		"failed":             func(r *events.Receipt) { r.Errno = "EFAULT" },
		"truncated":          func(r *events.Receipt) { r.Truncated = true },
		"truncated control":  func(r *events.Receipt) { r.ControlTruncated = true },
		"of a sender gone":   func(r *events.Receipt) { r.SenderExited = eventtest.Ptr(time.Duration(0)) },
		"after a long while": func(r *events.Receipt) { r.Delay = time.Second },
	} {
		r := usual
		if change(&r); r.Ordinary() {
			t.Errorf("%s is ordinary", name)
		}
	}
}

func TestTimeIsLocalByDefault(t *testing.T) {
	local := time.Local
	defer func() { time.Local = local }()
	time.Local = time.FixedZone("east", 2*3600)
	if got := string(render.Text{}.AppendEvent(nil, eventtest.Plain(""))); !strings.HasPrefix(got, "18:01:46.123456 ") {
		t.Errorf("%s", got)
	}
}

func TestColourMarksFailuresAndChangesNothingElse(t *testing.T) {
	colour := render.Text{Color: true, Clock: &render.Clock{Zone: time.UTC}}
	for _, result := range []events.Result{{Errno: "ENOENT"}, {Delivered: eventtest.Ptr(false)}} {
		e := eventtest.Plain("READY=1")
		e.Result = result
		if got := string(colour.AppendEvent(nil, e)); !strings.Contains(got, "\x1b[1;31mFAILED ") {
			t.Errorf("%+v does not stand out: %q", result, got)
		}
	}
	if got := string(colour.AppendEvent(nil, eventtest.Plain("READY=1"))); strings.Contains(got, "\x1b[1;31m") {
		t.Errorf("success looks like a failure: %q", got)
	}
	if got := string(colour.AppendLost(nil, &events.Lost{RingFull: 1})); !strings.Contains(got, "\x1b[1;31m*** LOST") {
		t.Errorf("a loss does not stand out: %q", got)
	}
	rng := rand.New(rand.NewPCG(5, 6))
	for range 2_000 {
		e := eventtest.Random(rng)
		plain := string(plainText.AppendEvent(nil, e))
		stripped := ownSequences.ReplaceAllString(string(colour.AppendEvent(nil, e)), "")
		if diff := cmp.Diff(plain, stripped); diff != "" {
			t.Fatalf("- plain, + colour\n%s", diff)
		}
	}
}

var ownSequences = regexp.MustCompile("\x1b\\[(0|1|2|36|33|1;31)m")

func checkText(tb testing.TB, e *events.Event) {
	tb.Helper()
	message, _ := e.Message()
	by := events.Reader{Comm: e.Sender.Comm, Identity: events.Identity{Cgroup: e.Sender.Cgroup, Unit: e.Sender.Unit, Container: e.Sender.Container}}
	for _, enc := range []render.Text{{Clock: &render.Clock{Zone: time.UTC}}, {Clock: &render.Clock{Zone: time.UTC}, Color: true}} {
		for _, line := range []string{
			string(enc.AppendEvent(nil, e)),
			string(enc.AppendReceipt(nil, &events.Receipt{Kind: events.ReceiptRead, By: by, Send: e, Errno: e.Result.Errno})),
			string(enc.AppendWithheld(nil, &events.Withheld{Relay: by, Send: e, Message: message})),
			string(enc.AppendJudged(nil, e, verdictOn(e, message))),
			string(enc.AppendVerdict(nil, verdictOn(e, message))),
			string(enc.AppendUnit(nil, unitLike(e, events.UnitWaits))),
			string(enc.AppendUnit(nil, unitLike(e, events.UnitFailed))),
		} {
			if enc.Color {
				line = ownSequences.ReplaceAllString(line, "")
			}
			text, ok := strings.CutSuffix(line, "\n")
			if !ok {
				tb.Fatalf("no line: %q", line)
			}
			eventtest.MustBeInert(tb, []byte(text))
		}
	}
}

func TestTextIsOneInertLine(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	for range 5_000 {
		checkText(t, eventtest.Random(rng))
	}
}

func FuzzText(f *testing.F) {
	for _, s := range eventtest.Nasty {
		f.Add([]byte("A="+s+"\n"+s), s, s, s, false)
		f.Add([]byte(s), s, s, s, true)
	}
	f.Fuzz(func(t *testing.T, payload []byte, comm, group, address string, truncated bool) {
		e := eventtest.Plain("")
		e.Payload, e.Truncated = payload, truncated
		e.Sender.Comm, e.Sender.Cgroup, e.Socket.Address = comm, group, events.Address(address)
		checkText(t, e)
		e.Sender.Unit, e.Sender.UserUnit, e.Socket.Bound = group, group, events.Address(comm)
		checkText(t, e)
		e.Sender.Container = &events.Container{Runtime: comm, ID: group, Name: address}
		e.Result.Errno, e.FDs = comm, []events.FD{{Type: group}}
		checkText(t, e)
	})
}

func BenchmarkText(b *testing.B) {
	e := eventtest.Full()
	var line []byte
	for b.Loop() {
		line = plainText.AppendEvent(line[:0], e)
	}
}

// unitLike is news in which all that can hold any byte is taken from an event.
func unitLike(e *events.Event, news events.UnitNews) *events.Unit {
	who := &events.Process{PID: e.Sender.TID, Comm: e.Sender.Comm}
	return &events.Unit{
		News: news, Identity: e.Sender.Identity, ActiveState: e.Sender.Comm, SubState: e.Sender.Comm, Awaits: "READY=1",
		Said: string(e.Payload), Last: who, Main: who, Result: string(e.Payload),
	}
}

// verdictOn is a verdict in which all that can hold any byte is taken from an event.
func verdictOn(e *events.Event, message events.Message) *events.Verdict {
	who := &events.Process{PID: e.Sender.TID, Comm: e.Sender.Comm, Unit: e.Sender.Unit}
	v := &events.Verdict{Send: e, From: *who, Named: who, MainBefore: new(events.Process), MainAfter: who}
	for _, outcome := range []events.Outcome{events.Heeded, events.Ignored, events.NoEffect, events.Unknown} {
		for _, a := range message {
			v.Lines = append(v.Lines, events.LineVerdict{Assignment: a, Outcome: outcome, Reason: a.Value, Cure: a.Key, Confirmed: new(bool)})
		}
	}
	return v
}
