// SPDX-License-Identifier: Apache-2.0

package capture_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"github.com/sdtrace/sdtrace/internal/eventtest"
	"github.com/sdtrace/sdtrace/internal/render"
	"github.com/sdtrace/sdtrace/pkg/capture"
	"github.com/sdtrace/sdtrace/pkg/events"
)

// appendJSON writes a record as sdtrace -o json does.
func appendJSON(b []byte, r *events.Record) []byte { return events.JSONEncoder{}.AppendRecord(b, r) }

// read writes what a capture of a file yields as JSON.
func read(t *testing.T, file []byte, match capture.Match) string {
	t.Helper()
	c, err := capture.Read(t.Context(), bytes.NewReader(file), match)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var b []byte
	for r, err := range c.All() {
		if err != nil {
			t.Fatal(err)
		}
		b = appendJSON(b, r)
	}
	return string(b)
}

// recorded is a file with something of everything.
func recorded() []byte {
	rng := rand.New(rand.NewPCG(5, 6))
	full := eventtest.Full()
	file := appendJSON(nil, &events.Record{Event: full})
	for _, r := range eventtest.Receipts() {
		file = appendJSON(file, &events.Record{Receipt: r})
	}
	file = appendJSON(file, &events.Record{Withheld: eventtest.Withheld()})
	file = appendJSON(file, &events.Record{Lost: &events.Lost{Time: eventtest.Time, RingFull: 3, Receipts: 4}})
	for i := range 500 {
		e := eventtest.Random(rng)
		e.Seq = uint64(100 + i)
		file = appendJSON(file, &events.Record{Event: e})
	}
	return file
}

func TestAFileIsReadBackToTheSameLines(t *testing.T) {
	file := recorded()
	if diff := cmp.Diff(string(file), read(t, file, capture.Match{})); diff != "" {
		t.Errorf("(-written +read):\n%s", diff)
	}
	encoder, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(file), read(t, encoder.EncodeAll(file, nil), capture.Match{})); diff != "" {
		t.Errorf("compressed (-written +read):\n%s", diff)
	}
	name := filepath.Join(t.TempDir(), "capture.jsonl")
	if err := os.WriteFile(name, file, 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := capture.OpenFile(t.Context(), name, capture.Match{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if r, err := c.Next(); err != nil || r.Event == nil || r.Event.Seq != 42 {
		t.Errorf("the first is %+v, %v", r, err)
	}
}

// What became of a datagram is shown with who sent it and what it said.
func TestRecordsOfAFileAreTiedToTheirEvents(t *testing.T) {
	c, err := capture.Read(t.Context(), bytes.NewReader(recorded()), capture.Match{})
	if err != nil {
		t.Fatal(err)
	}
	var text []byte
	for r, err := range c.All() {
		switch {
		case err != nil:
			t.Fatal(err)
		case r.Receipt != nil:
			text = render.Text{}.AppendReceipt(text, r.Receipt)
		case r.Withheld != nil:
			text = render.Text{}.AppendWithheld(text, r.Withheld)
		}
	}
	if n := strings.Count(string(text), "<- nginx[812]"); n != 5 {
		t.Errorf("%d of 5 are tied to the sender:\n%s", n, text)
	}
}

// Whoever waits for a key waits for one that counts.
func TestAMessageThatSystemdDropsHasNoKey(t *testing.T) {
	filter, err := capture.Match{Keys: []string{"READY"}}.Filter()
	if err != nil {
		t.Fatal(err)
	}
	for payload, want := range map[string]bool{
		"READY=1": true, "READY=1\x00": true, "READY=1\x00junk": false, "\x00READY=1": false, "READY=1\nSTATUS=x\\": false,
	} {
		if got := filter.Matches(eventtest.Plain(payload)); got != want {
			t.Errorf("%q has the key: %v", payload, got)
		}
	}
}

func TestAFileIsFilteredAsACaptureIs(t *testing.T) {
	none := events.Record{Event: eventtest.Plain("FOO=1\x00")}
	none.Event.Seq = 1
	full := eventtest.Full() // below the machine box
	full.Sender.Cgroup = "/lab/box/user.slice/user-1000.slice/user@1000.service/app.slice/nginx.service"
	full.Sender.Unit, full.Sender.UserUnit = "user@1000.service", "nginx.service"
	host := eventtest.Full()
	host.Seq, host.Sender.Machine, host.Sender.UserUnit = 43, "", ""
	host.Sender.Cgroup = "/system.slice/system-web.slice/web@1.service"
	host.Sender.Container, host.HopOf = nil, nil
	host.Result = events.Result{Errno: "ENOENT", Delivered: eventtest.Ptr(false)}
	id := strings.Repeat("4f", 32)
	inside := eventtest.Full()
	inside.Seq, inside.Sender.Machine, inside.Sender.UserUnit, inside.HopOf = 44, "", "", nil
	inside.Sender.Cgroup, inside.Sender.Container = "/system.slice/docker-"+id+".scope", &events.Container{Runtime: "docker", ID: id, Name: "shop"}
	inside.Sender.Unit = "docker-" + id + ".scope"
	machine := eventtest.Plain("BAR=1") // a systemd in a container with a name
	machine.Seq, machine.Sender.PID, machine.Sender.Comm, machine.Socket.Address = 45, 7, "app", "@app"
	machine.Sender.Identity = events.Identity{
		Cgroup: "/docker/" + id + "/system.slice/nginx.service", Machine: id, Unit: "nginx.service",
		Container: &events.Container{Runtime: "docker", ID: id, Name: "dock"},
	}
	receipt := eventtest.Receipts()[0] // of 42
	var file []byte
	for _, r := range []events.Record{none, {Event: full}, {Event: host}, {Receipt: receipt}, {Event: inside}, {Event: machine}, {Lost: &events.Lost{Time: eventtest.Time, Missed: 1}}} {
		file = appendJSON(file, &r)
	}
	for _, tt := range []struct {
		name  string
		match capture.Match
		want  []uint64 // of events; the receipt of 42 goes with it, and the loss with everything
	}{
		{"everything", capture.Match{}, []uint64{1, 42, 43, 44, 45}},
		{"pid", capture.Match{PIDs: []uint32{5, 812}}, []uint64{1, 42, 43, 44}},
		{"no such pid", capture.Match{PIDs: []uint32{5}}, nil},
		{"uid", capture.Match{UIDs: []uint32{33}}, []uint64{42, 43, 44}},
		{"netns", capture.Match{NetNS: []uint32{4026531840}}, []uint64{42, 43, 44}},
		{"comm", capture.Match{Comms: []string{"nginx"}}, []uint64{1, 42, 43, 44}},
		{"comm of more than 15 bytes", capture.Match{Comms: []string{"nginx-and-so-on-and-on"}}, nil},
		{"cgroup", capture.Match{Cgroups: []string{"/system.slice"}}, []uint64{43, 44}},
		{"beginning of a cgroup's name", capture.Match{Cgroups: []string{"/system"}}, nil},
		{"the root", capture.Match{Cgroups: []string{"/"}}, []uint64{42, 43, 44, 45}},
		{"socket as written", capture.Match{Sockets: []string{"/run/host/*"}}, []uint64{42, 43, 44}},
		{"socket as bound", capture.Match{Sockets: []string{"/run/systemd/notify"}}, []uint64{1, 42, 43, 44}},
		{"key", capture.Match{Keys: []string{"STATUS"}}, []uint64{42, 43, 44}},
		{"failed", capture.Match{Failed: true}, []uint64{43}},
		{"unit of the host", capture.Match{Units: []string{"web@1"}}, []uint64{43}},
		{"slice of the host", capture.Match{Units: []string{"system-web.slice"}}, []uint64{43}},
		{"units of the host by a pattern", capture.Match{Units: []string{"*"}}, []uint64{43, 44}},
		{"not a machine's", capture.Match{Units: []string{"nginx"}}, nil},
		{"unit of a machine", capture.Match{Units: []string{"box:nginx"}}, []uint64{42}},
		{"unit above it in the machine", capture.Match{Units: []string{"box:user@1000"}}, []uint64{42}},
		{"unit of another machine", capture.Match{Units: []string{"bo:nginx"}}, nil},
		{"unit of any machine", capture.Match{Units: []string{"*:nginx"}}, []uint64{42, 45}},
		{"container by id", capture.Match{Containers: []string{id[:12]}}, []uint64{44, 45}},
		{"container by name", capture.Match{Containers: []string{"shop"}}, []uint64{44}},
		{"a container's name before a unit", capture.Match{Units: []string{"dock:nginx"}}, []uint64{45}},
		{"a container's id before a unit", capture.Match{Units: []string{id[:4] + ":nginx"}}, []uint64{45}},
		{"key of a message with a NUL at the end", capture.Match{Keys: []string{"FOO"}}, []uint64{1}},
		{"two filters", capture.Match{Units: []string{"*"}, Containers: []string{"shop"}}, []uint64{44}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := capture.Read(t.Context(), bytes.NewReader(file), tt.match)
			if err != nil {
				t.Fatal(err)
			}
			var got []uint64
			var receipts, losses int
			for r, err := range c.All() {
				switch {
				case err != nil:
					t.Fatal(err)
				case r.Event != nil:
					got = append(got, r.Event.Seq)
				case r.Receipt != nil:
					receipts++
				case r.Lost != nil:
					losses++
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			with42 := 0
			for _, seq := range got {
				if seq == 42 {
					with42 = 1
				}
			}
			if receipts != with42 || losses != 1 {
				t.Errorf("%d receipts and %d losses, want %d and 1", receipts, losses, with42)
			}
		})
	}
}

func TestWhatAFileCannotTellIsRefusedByName(t *testing.T) {
	for want, match := range map[string]capture.Match{
		`cgroup "/sys/fs/cgroup/system.slice"`: {Cgroups: []string{"/sys/fs/cgroup/system.slice"}},
		`cgroup "relative"`:                    {Cgroups: []string{"relative"}},
		`key "A=B"`:                            {Keys: []string{"A=B"}},
		`the id 0`:                             {PIDs: []uint32{0}},
		`socket pattern "": it is empty`:       {Sockets: []string{""}},
		`"basic.target" has no processes`:      {Units: []string{"basic.target"}},
		`machine name "a/b"`:                   {Units: []string{"a/b:c"}},
		`container name "a/b"`:                 {Containers: []string{"a/b"}},
	} {
		_, err := capture.Read(t.Context(), strings.NewReader(""), match)
		var option *capture.OptionError
		if !errors.As(err, &option) || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want one that says %s", match, err, want)
		}
	}
}

func TestAFileThatIsNoneSaysWhere(t *testing.T) {
	good := string(appendJSON(nil, &events.Record{Event: eventtest.Plain("READY=1")}))
	for _, tt := range []struct {
		name, file, want string
		events           int
	}{
		{"empty", "", "", 0},
		{"empty lines", "\n\n" + good + "\n", "", 1},
		{"something else", "hello\n", "line 1", 0},
		{"another kind of line", good + `{"type":"socket"}` + "\n", `line 2: decoding event: unknown type "socket"`, 1},
		{"cut off", good + good[:50], "line 2 is cut off", 1},
		{"cut off only before the line break", good + strings.TrimSuffix(good, "\n"), "", 2},
		{"a zstd frame to be skipped", "\x50\x2a\x4d\x18\x04\x00\x00\x00abcd", "", 0},
		{"a line too long", good + strings.Repeat("x", 2<<20) + "\n", "line 2 is longer than", 1},
		{"half a zstd file", "\x28\xb5\x2f\xfd\x00", "input: unexpected EOF", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := capture.Read(t.Context(), strings.NewReader(tt.file), capture.Match{})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			n := 0
			for {
				_, err = c.Next()
				if err != nil {
					break
				}
				n++
			}
			if n != tt.events || tt.want == "" != errors.Is(err, io.EOF) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%d events and then %v, want %d and %q", n, err, tt.events, tt.want)
			}
		})
	}
	if _, err := capture.OpenFile(t.Context(), filepath.Join(t.TempDir(), "none"), capture.Match{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

// Two captures one after the other are two captures: the second has numbers of its own.
func TestASecondCaptureInAFileIsNotTiedToTheFirst(t *testing.T) {
	first := eventtest.Plain("READY=1")
	receipt := &events.Receipt{Kind: events.ReceiptUnread, Seq: 1, Time: eventtest.Time}
	second := eventtest.Plain("STOPPING=1")
	second.Sender.PID = 7
	first.Backend, second.Backend = "fentry", "fentry"
	var file []byte
	for _, r := range []events.Record{{Event: first}, {Event: second}, {Receipt: receipt}} {
		file = appendJSON(file, &r)
	}
	c, err := capture.Read(t.Context(), bytes.NewReader(file), capture.Match{})
	if err != nil {
		t.Fatal(err)
	}
	for r, err := range c.All() {
		if err != nil {
			t.Fatal(err)
		}
		if r.Receipt != nil && r.Receipt.Send.Sender.PID != 7 {
			t.Errorf("tied to process %d", r.Receipt.Send.Sender.PID)
		}
	}
}

// What is there is written out before the rest of a pipe is waited for, and the end of the context
// ends the wait.
func TestAQuietPipeIsFlushedAndCanBeEnded(t *testing.T) {
	in, out := io.Pipe()
	defer out.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c, err := capture.Read(ctx, in, capture.Match{Keys: []string{"READY"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sink := &flushed{written: make(chan int)}
	done := make(chan error, 1)
	go func() { done <- c.Copy(sink) }()
	file := appendJSON(nil, &events.Record{Event: eventtest.Plain("READY=1")})
	file = append(file, '\n') // nothing is on this line
	file = appendJSON(file, &events.Record{Event: eventtest.Plain("FOO=1")})
	if _, err := out.Write(file); err != nil {
		t.Fatal(err)
	}
	for n := 0; n == 0; {
		n = <-sink.written
	}
	cancel()
	for range sink.written {
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	for range 2 {
		if _, err := c.Next(); !errors.Is(err, io.EOF) {
			t.Errorf("after the end: %v", err)
		}
	}
}

// flushed is a sink that tells, with every flush, how much was written.
type flushed struct {
	n       int
	written chan int
}

func (f *flushed) Write(*events.Record) error { f.n++; return nil }
func (f *flushed) Flush() error               { f.written <- f.n; return nil }
func (f *flushed) Close() error               { close(f.written); return nil }

// An event that is remembered for what became of it does not hold the one that it passes on, nor
// its lines, so that a long file takes no more memory than a short one.
func TestEventsAreRememberedWithoutTheirPredecessors(t *testing.T) {
	var file []byte
	for i := range 3 {
		e := eventtest.Plain("READY=1")
		e.Seq, e.Backend = uint64(i+1), "fentry"
		if i > 0 {
			e.HopOf = &events.Event{Seq: uint64(i)}
		}
		file = appendJSON(file, &events.Record{Event: e})
	}
	c, err := capture.Read(t.Context(), bytes.NewReader(file), capture.Match{})
	if err != nil {
		t.Fatal(err)
	}
	for r, err := range c.All() {
		if err != nil {
			t.Fatal(err)
		}
		if from := r.Event.HopOf; from != nil && (from.Sender.PID == 0 || from.HopOf != nil || from.Text != nil) {
			t.Errorf("%d passes on %+v", r.Event.Seq, from)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(recorded()[:4000])
	f.Add([]byte("\x28\xb5\x2f\xfd"))
	f.Fuzz(func(t *testing.T, file []byte) {
		c, err := capture.Read(t.Context(), bytes.NewReader(file), capture.Match{Units: []string{"*:nginx", "a*"}, Containers: []string{"web"}})
		if err != nil {
			return
		}
		defer c.Close()
		for r, err := range c.All() {
			if err != nil {
				return
			}
			appendJSON(nil, r)
		}
	})
}
