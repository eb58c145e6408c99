// SPDX-License-Identifier: Apache-2.0

package events_test

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/sdtrace/sdtrace/internal/eventtest"
	"github.com/sdtrace/sdtrace/pkg/events"
)

func TestJSONOfAnEvent(t *testing.T) {
	const plainStart = `{"type":"send","seq":1,"time":"2026-11-23T16:01:46.123456789Z","backend":"tracepoint","sender":{"pid":812,"tid":812,"comm":"nginx","uid":0,"gid":0},"socket":{"address":"/run/systemd/notify"},"result":{"errno":""},`
	plain := func(payload string, change func(*events.Event)) *events.Event {
		e := eventtest.Plain(payload)
		change(e)
		return e
	}
	none := func(*events.Event) {}
	for _, tc := range []struct {
		name  string
		event *events.Event
		want  string
	}{
		{
			name: "every field", event: eventtest.Full(),
			want: `{"type":"send","seq":42,"time":"2026-11-23T16:01:46.123456789Z","backend":"fentry",` +
				`"sender":{"pid":812,"tid":815,"ppid":1,"ns_pid":7,"comm":"nginx","exe":"/usr/sbin/nginx","uid":33,"gid":34,` +
				`"cgroup_id":4711,"cgroup":"/system.slice/nginx.service","cgroup_controller":"pids",` +
				`"machine":"box","unit":"nginx.service","user_unit":"web.service","slice":"system.slice",` +
				`"mntns":4026531841,"netns":4026531840,"pidns":4026531836,"userns":4026531837,"cgroupns":4026531835,` +
				`"container":{"runtime":"cri-o","id":"4f","name":"web","pod_uid":"2f1c1f9e-4f3c-4d7e-9d5e-0c7a1c8f0001","pod_namespace":"shop","pod_name":"web-7d9f"}},` +
				`"claimed":{"pid":1,"ns_pid":2,"uid":0,"gid":5},` +
				`"socket":{"address":"/run/host/notify","bound":"/run/systemd/notify","inode":21044,"type":"dgram"},` +
				`"receiver":{"pid":1,"comm":"systemd","uid":0,"netns":4026531840,"cgroup_id":42,"cgroup":"/init.scope",` +
				`"machine":"box","unit":"nginx.service","user_unit":"web.service","slice":"system.slice",` +
				`"container":{"runtime":"cri-o","id":"4f","name":"web","pod_uid":"2f1c1f9e-4f3c-4d7e-9d5e-0c7a1c8f0001","pod_namespace":"shop","pod_name":"web-7d9f"}},` +
				`"result":{"bytes":22,"errno":"","latency_ns":3100,"delivered":true},"hop_of":41,` +
				`"size":22,"truncated":false,"payload":"READY=1\nSTATUS=Serving",` +
				`"message":[{"key":"READY","value":"1"},{"key":"STATUS","value":"Serving"}],` +
				`"fds":[{"type":"pipe"},{"type":"socket"},{}]}`,
		},
		{name: "empty datagram", event: plain("", none), want: plainStart + `"truncated":false,"payload":"","message":[]}`},
		{name: "unknown payload", event: plain("", func(e *events.Event) { e.Payload = nil }), want: plainStart + `"truncated":false}`},
		{name: "what systemd refuses has no message", event: plain("READY=1\x00x", none), want: plainStart + `"truncated":false,"payload":"READY=1\u0000x"}`},
		{
			name: "payload that is not UTF-8", event: plain("STATUS=\xff\nREADY=1", none),
			want: plainStart + `"truncated":false,"payload_base64":"U1RBVFVTPf8KUkVBRFk9MQ==","message":[{"key":"STATUS","value_base64":"/w=="},{"key":"READY","value":"1"}]}`,
		},
		{name: "key that is not UTF-8", event: plain("\xff=1", none), want: plainStart + `"truncated":false,"payload_base64":"/z0x","message":[{"key_base64":"/w==","value":"1"}]}`},
		{
			name: "truncated datagram has its whole lines", event: plain("READY=1\nSTATUS=ab", func(e *events.Event) { e.Truncated, e.Size = true, eventtest.Ptr(uint32(5000)) }),
			want: plainStart + `"size":5000,"truncated":true,"payload":"READY=1\nSTATUS=ab","message":[{"key":"READY","value":"1"}]}`,
		},
		{
			name: "what a terminal acts on is escaped", event: plain("X=\x1b\x7f\u009b\u202e\u200b\U000e0041<&>é", none),
			want: plainStart + `"truncated":false,"payload":"X=\u001b\u007f\u009b\u202e\u200b\udb40\udc41<&>é","message":[{"key":"X","value":"\u001b\u007f\u009b\u202e\u200b\udb40\udc41<&>é"}]}`,
		},
		{
			name: "failed send to an abstract address with a NUL",
			event: plain("READY=1", func(e *events.Event) {
				e.Socket.Address = "@a\x00\\b"
				e.Result = events.Result{Errno: "ECONNREFUSED", Delivered: eventtest.Ptr(false)}
			}),
			want: `{"type":"send","seq":1,"time":"2026-11-23T16:01:46.123456789Z","backend":"tracepoint","sender":{"pid":812,"tid":812,"comm":"nginx","uid":0,"gid":0},` +
				`"socket":{"address":"@a\\x00\\\\b"},"result":{"errno":"ECONNREFUSED","delivered":false},"truncated":false,"payload":"READY=1","message":[{"key":"READY","value":"1"}]}`,
		},
		{
			name: "names that are not UTF-8",
			event: plain("", func(e *events.Event) {
				e.Time = eventtest.Time.Truncate(time.Second).In(time.FixedZone("east", 3600))
				e.Sender.Comm, e.Sender.Exe, e.Sender.Cgroup, e.Sender.Unit = "\xff", "/\xff", "/\xff.service", "\xff.service"
				e.Sender.Container = &events.Container{Runtime: "lxc", ID: "\xff", Name: "\xff"}
			}),
			want: `{"type":"send","seq":1,"time":"2026-11-23T16:01:46.000000000Z","backend":"tracepoint","sender":{"pid":812,"tid":812,"comm_base64":"/w==","exe_base64":"L/8=","uid":0,"gid":0,` +
				`"cgroup_base64":"L/8uc2VydmljZQ==","container":{"runtime":"lxc"}},"socket":{"address":"/run/systemd/notify"},"result":{"errno":""},"truncated":false,"payload":"","message":[]}`,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			line := events.JSONEncoder{}.AppendEvent([]byte("kept"), tc.event)
			if diff := cmp.Diff("kept"+tc.want+"\n", string(line)); diff != "" {
				t.Errorf("- want, + got\n%s", diff)
			}
			marshalled, err := json.Marshal(tc.event)
			if err != nil {
				t.Fatal(err)
			}
			var a, b any
			if err := json.Unmarshal(marshalled, &a); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal([]byte(tc.want), &b); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(b, a); diff != "" {
				t.Errorf("json.Marshal: - want, + got\n%s", diff)
			}
		})
	}
}

func TestJSONOfALoss(t *testing.T) {
	lost := events.Lost{Time: eventtest.Time, RingFull: 10, Missed: 3, Receipts: 4, Names: 5, By: []events.LostBy{
		{CgroupID: 7, Cgroup: "/user.slice/user-1000.slice", Count: 8}, {UID: 0, Count: 2},
	}}
	want := `{"type":"lost","time":"2026-11-23T16:01:46.123456789Z","count":13,"ring_full":10,"missed":3,"receipts":4,"names":5,` +
		`"by":[{"cgroup_id":7,"cgroup":"/user.slice/user-1000.slice","count":8},{"uid":0,"count":2}]}`
	if diff := cmp.Diff(want+"\n", string(events.JSONEncoder{}.AppendLost(nil, &lost))); diff != "" {
		t.Errorf("- want, + got\n%s", diff)
	}
	marshalled, err := json.Marshal(&lost)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(marshalled)); diff != "" {
		t.Errorf("json.Marshal: - want, + got\n%s", diff)
	}
	got, err := events.Decode([]byte(want))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(events.Record{Lost: &lost}, got); diff != "" {
		t.Errorf("Decode: - want, + got\n%s", diff)
	}
}

// checkJSON holds the line of a record against everything promised of it.
func checkJSON(t *testing.T, schema *jsonschema.Schema, r events.Record) {
	t.Helper()
	line := events.JSONEncoder{}.AppendRecord(nil, &r)
	instance, err := jsonschema.UnmarshalJSON(bytes.NewReader(line))
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	if err := schema.Validate(instance); err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	eventtest.MustBeInert(t, bytes.TrimSuffix(line, []byte{'\n'}))
	got, err := events.Decode(line)
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	if diff := cmp.Diff(r, got); diff != "" {
		t.Fatalf("decoding %s: - want, + got\n%s", line, diff)
	}
}

func TestEveryLineFitsTheSchemaAndDecodesToTheSame(t *testing.T) {
	schema := compileSchema(t)
	checkJSON(t, schema, events.Record{Event: eventtest.Full()})
	for _, tc := range payloads {
		e := eventtest.Plain(tc.payload)
		if len(e.Payload) > events.MaxPayload {
			e.Payload, e.Size, e.Truncated = e.Payload[:events.MaxPayload], eventtest.Ptr(uint32(len(e.Payload))), true
		}
		checkJSON(t, schema, events.Record{Event: e})
	}
	rng := rand.New(rand.NewPCG(3, 4))
	for range 5_000 {
		e := eventtest.Random(rng)
		checkJSON(t, schema, events.Record{Event: e})
		by := events.Reader{PID: e.Sender.PID, TID: e.Sender.TID, Comm: e.Sender.Comm, CgroupID: e.Sender.CgroupID, Identity: events.Identity{Cgroup: e.Sender.Cgroup}}
		checkJSON(t, schema, events.Record{Receipt: &events.Receipt{Kind: events.ReceiptUnread, Seq: e.Seq, Time: eventtest.Time, By: by}})
		m, err := e.Message()
		if err == nil && len(m) > 0 {
			checkJSON(t, schema, events.Record{Withheld: &events.Withheld{Seq: e.Seq, Time: eventtest.Time, Relay: by, Message: m}})
		}
	}
	for _, r := range eventtest.Receipts() {
		checkJSON(t, schema, events.Record{Receipt: r})
	}
	checkJSON(t, schema, events.Record{Withheld: eventtest.Withheld()})
	checkJSON(t, schema, events.Record{Verdict: eventtest.Verdict()})
	nothing := &events.Verdict{Seq: 1, Time: eventtest.Time, MainAfter: &events.Process{}, Lines: []events.LineVerdict{{Outcome: events.NoEffect, Reason: "it is empty"}}}
	checkJSON(t, schema, events.Record{Verdict: nothing})
	checkJSON(t, schema, events.Record{Unit: eventtest.Unit()})
	checkJSON(t, schema, events.Record{Hang: eventtest.Hang()})
	unit, hang := eventtest.Unit(), eventtest.Hang()
	unit.Container.Name, hang.Sender.Container.Name = "\xff", "\xff"
	for _, line := range [][]byte{events.JSONEncoder{}.AppendUnit(nil, unit), events.JSONEncoder{}.AppendHang(nil, hang)} {
		if bytes.Contains(line, []byte(`"name"`)) {
			t.Errorf("a name of a container that is no text: %s", line)
		}
	}
	checkJSON(t, schema, events.Record{Hang: &events.Hang{Time: eventtest.Time, Since: eventtest.Time, Sender: events.Reader{PID: 1, TID: 1}}})
	checkJSON(t, schema, events.Record{Unit: &events.Unit{News: events.UnitIs, Time: eventtest.Time, Main: &events.Process{}, Restarts: eventtest.Ptr(uint32(0))}})
	line := events.JSONEncoder{}.AppendLost(nil, &events.Lost{Time: eventtest.Time, RingFull: 1<<64 - 1})
	instance, err := jsonschema.UnmarshalJSON(bytes.NewReader(line))
	if err != nil {
		t.Fatal(err)
	}
	if err := schema.Validate(instance); err != nil {
		t.Error(err)
	}
}

func TestTheSchemaRefuses(t *testing.T) {
	schema := compileSchema(t)
	good := string(events.JSONEncoder{}.AppendEvent(nil, eventtest.Full()))
	lost := string(events.JSONEncoder{}.AppendLost(nil, &events.Lost{Time: eventtest.Time}))
	read := string(events.JSONEncoder{}.AppendReceipt(nil, eventtest.Receipts()[0]))
	unread := string(events.JSONEncoder{}.AppendReceipt(nil, eventtest.Receipts()[2]))
	for _, tc := range []struct{ name, line, old, new string }{
		{"an unknown field", good, `"seq":42`, `"seq":42,"more":1`},
		{"an unknown field of the sender", good, `"pid":812`, `"pid":812,"more":1`},
		{"an unknown field of a loss", lost, `"missed":0`, `"missed":0,"more":1`},
		{"an unknown type", good, `"type":"send"`, `"type":"receive"`},
		{"a zero for an unknown", good, `"ppid":1`, `"ppid":0`},
		{"an empty string for an unknown", good, `"unit":"nginx.service"`, `"unit":""`},
		{"null for an unknown", good, `"size":22`, `"size":null`},
		{"no truncated", good, `"truncated":false,`, ``},
		{"no comm", good, `"comm":"nginx",`, ``},
		{"no errno", good, `"errno":"",`, ``},
		{"bytes of a failed send", good, `"errno":""`, `"errno":"ENOENT"`},
		{"an errno in words", good, `"errno":""`, `"errno":"no such file"`},
		{"two payloads", good, `"payload":`, `"payload_base64":"/w==","payload":`},
		{"a message without a payload", good, `"payload":"READY=1\nSTATUS=Serving",`, ``},
		{"an assignment without a value", good, `{"key":"READY","value":"1"}`, `{"key":"READY"}`},
		{"a time with an offset", good, `.123456789Z`, `.123456789+01:00`},
		{"a read without its datagram", read, `"seq":42,`, ``},
		{"a read that nobody did", read, `"reader":{"pid":1,"tid":2,"comm":"systemd"`, `"reader":{"pid":1,"tid":2`},
		{"the name of an unknown receiver", good, `"receiver":{"pid":1,`, `"receiver":{`},
		{"bytes of a failed read", read, `"errno":""`, `"errno":"EFAULT"`},
		{"bytes of what was not read", unread, `"delay_ns"`, `"bytes":1,"delay_ns"`},
		{"a loss without its count", lost, `"count":0,`, ``},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bad := strings.Replace(tc.line, tc.old, tc.new, 1)
			if bad == tc.line {
				t.Fatalf("%s does not hold %s", tc.line, tc.old)
			}
			instance, err := jsonschema.UnmarshalJSON(strings.NewReader(bad))
			if err != nil {
				t.Fatal(err)
			}
			if schema.Validate(instance) == nil {
				t.Errorf("accepted %s", bad)
			}
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	const rest = `"time":"2026-11-23T16:01:46Z","sender":{},"result":{}`
	for _, tc := range []struct{ name, line string }{
		{"no JSON", `READY=1`},
		{"no type", `{}`},
		{"an unknown type", `{"type":"receive",` + rest + `}`},
		{"a wrong field type", `{"type":"send","seq":"1",` + rest + `}`},
		{"a bad time", `{"type":"send","time":"now"}`},
		{"a bad time of a loss", `{"type":"lost","time":"now"}`},
		{"a bad time of a read", `{"type":"read","time":"now"}`},
		{"a bad delay of a read", `{"type":"read","delay_ns":"long"}`},
		{"a bad count of a loss", `{"type":"lost","missed":-1}`},
		{"an address with an unknown escape", `{"type":"send","socket":{"address":"\\q"},` + rest + `}`},
		{"an address with a lone backslash", `{"type":"send","socket":{"address":"a\\"},` + rest + `}`},
		{"an address with half a byte", `{"type":"send","socket":{"bound":"\\x1"},` + rest + `}`},
		{"an address with no hexadecimal digits", `{"type":"send","socket":{"bound":"\\xzz"},` + rest + `}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, err := events.Decode([]byte(tc.line))
			if err == nil || r != (events.Record{}) {
				t.Errorf("%v, %v", r, err)
			}
		})
	}
	if err := new(events.Event).UnmarshalJSON([]byte(`{"type":"lost",` + rest + `}`)); err == nil {
		t.Error("a loss was decoded as an event")
	}
	if err := new(events.Lost).UnmarshalJSON([]byte(`{"type":"send",` + rest + `}`)); err == nil {
		t.Error("an event was decoded as a loss")
	}
}

func TestDecodePassesOverWhatItDoesNotKnow(t *testing.T) {
	line := events.JSONEncoder{}.AppendEvent(nil, eventtest.Full())
	line = bytes.Replace(line, []byte(`"seq":42`), []byte(`"seq":42,"colour":{"pid":1}`), 1)
	got, err := events.Decode(line)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(eventtest.Full(), got.Event); diff != "" {
		t.Errorf("- want, + got\n%s", diff)
	}
}

func TestDecodeReadsNoNameOfAnUnknownReceiver(t *testing.T) {
	e := eventtest.Full()
	e.Receiver.PID = 0
	line := bytes.Replace(events.JSONEncoder{}.AppendEvent(nil, eventtest.Full()), []byte(`"receiver":{"pid":1,`), []byte(`"receiver":{`), 1)
	got, err := events.Decode(line)
	if err != nil {
		t.Fatal(err)
	}
	e.Receiver.Comm = ""
	if diff := cmp.Diff(e, got.Event); diff != "" {
		t.Errorf("- want, + got\n%s", diff)
	}
}

func TestEscape(t *testing.T) {
	for _, tc := range []struct{ address, want string }{
		{"", ""},
		{"/run/systemd/notify", "/run/systemd/notify"},
		{"@name", "@name"},
		{"@a\x00b\x00", `@a\x00b\x00`},
		{"@\n\r\t\x1b\x7f", `@\n\r\t\x1b\x7f`},
		{`@\n`, `@\\n`},
		{"/größe/日本", "/größe/日本"},
		{"/two words \"here\"", `/two words "here"`},
		{"@\xff\u009b", `@\xff\xc2\x9b`},
		{"@\u202e\u200b", `@\xe2\x80\xae\xe2\x80\x8b`},
		{"@\ufffd", "@\ufffd"},
	} {
		if got := events.Escape(tc.address); got != tc.want {
			t.Errorf("Escape(%q) = %s, want %s", tc.address, got, tc.want)
		}
	}
}

// FuzzJSON holds that any bytes go into JSON that fits the schema and come back.
func FuzzJSON(f *testing.F) {
	for _, s := range eventtest.Nasty {
		f.Add([]byte(s), s, s, s, false)
		f.Add([]byte("A="+s+"\nB"), s, s, s, true)
	}
	schema := compileSchema(f)
	f.Fuzz(func(t *testing.T, payload []byte, comm, cgroup, address string, truncated bool) {
		e := eventtest.Plain("")
		e.Payload = append([]byte{}, payload[:min(len(payload), events.MaxPayload)]...)
		e.Truncated = truncated
		e.Sender.Comm, e.Sender.Cgroup, e.Sender.Exe = comm[:min(len(comm), 15)], cgroup, cgroup
		e.Socket.Address, e.Socket.Bound = events.Address(address), events.Address(address)
		checkJSON(t, schema, events.Record{Event: e})
	})
}

// FuzzDecode holds that Decode never panics and that what it accepts stays the
// same through another round.
func FuzzDecode(f *testing.F) {
	f.Add(events.JSONEncoder{}.AppendEvent(nil, eventtest.Full()))
	f.Add(events.JSONEncoder{}.AppendEvent(nil, eventtest.Plain("X=\xff")))
	f.Add(events.JSONEncoder{}.AppendLost(nil, &events.Lost{Time: eventtest.Time, Missed: 1}))
	for _, r := range eventtest.Receipts() {
		f.Add(events.JSONEncoder{}.AppendReceipt(nil, r))
	}
	f.Add(events.JSONEncoder{}.AppendWithheld(nil, eventtest.Withheld()))
	f.Add(events.JSONEncoder{}.AppendVerdict(nil, eventtest.Verdict()))
	f.Add(events.JSONEncoder{}.AppendUnit(nil, eventtest.Unit()))
	f.Add(events.JSONEncoder{}.AppendHang(nil, eventtest.Hang()))
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := events.Decode(line)
		if err != nil {
			return
		}
		again := events.JSONEncoder{}.AppendRecord(nil, &r)
		if !utf8.Valid(again) {
			t.Fatalf("not UTF-8: %q", again)
		}
		r2, err := events.Decode(again)
		if err != nil {
			t.Fatalf("%s: %v", again, err)
		}
		if diff := cmp.Diff(r, r2); diff != "" {
			t.Fatalf("%s: - first, + again\n%s", again, diff)
		}
	})
}

func compileSchema(tb testing.TB) *jsonschema.Schema {
	tb.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(events.Schema))
	if err != nil {
		tb.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("schema.json", doc); err != nil {
		tb.Fatal(err)
	}
	schema, err := c.Compile("schema.json")
	if err != nil {
		tb.Fatal(err)
	}
	return schema
}

func BenchmarkJSON(b *testing.B) {
	e := eventtest.Full()
	var line []byte
	for b.Loop() {
		line = events.JSONEncoder{}.AppendEvent(line[:0], e)
	}
}

func TestALossOfAnOlderCaptureIsCounted(t *testing.T) {
	var got events.Lost
	old := `{"type":"lost","time":"2026-11-23T16:01:46.123456789Z","count":15,"ring_full":10,"in_flight_full":2,"missed":3,"receipts":4}`
	if err := json.Unmarshal([]byte(old), &got); err != nil || got.Missed != 5 || got.Count() != 15 {
		t.Errorf("%+v, %v", got, err)
	}
}
