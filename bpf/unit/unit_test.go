// SPDX-License-Identifier: Apache-2.0

package unit

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/cgroupfs"
	"github.com/sdtrace/sdtrace/internal/field"
	"github.com/sdtrace/sdtrace/internal/glob"
	"github.com/sdtrace/sdtrace/pkg/events"
)

// programs are loaded programs, with constants of their own.
type programs struct {
	testing.TB
	*ebpf.Collection
}

// load loads the programs. constants are what settings.h has to be set before.
func load(tb testing.TB, constants map[string]any) programs {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("not declared: needs root")
	}
	_ = rlimit.RemoveMemlock()
	spec, err := LoadUnit()
	if err != nil {
		tb.Fatal(err)
	}
	for name, value := range constants {
		if err := spec.Variables[name].Set(value); err != nil {
			tb.Fatal(err)
		}
	}
	collection, err := ebpf.NewCollection(spec)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(collection.Close)
	return programs{tb, collection}
}

// run runs a program on in, and returns what it says.
func (p programs) run(program string, in []byte) int64 {
	p.Helper()
	room := make([]byte, p.Variables["in"].Size())
	copy(room, in)
	for name, value := range map[string]any{"in": room, "in_len": uint32(len(in)), "out": int64(-77)} {
		if err := p.Variables[name].Set(value); err != nil {
			p.Fatal(err)
		}
	}
	if _, err := p.Programs[program].Run(&ebpf.RunOptions{}); err != nil {
		p.Fatalf("running %s: %v", program, err)
	}
	var out int64
	if err := p.Variables["out"].Get(&out); err != nil {
		p.Fatal(err)
	}
	return out
}

func (p programs) text(n int64) string {
	p.Helper()
	room := make([]byte, p.Variables["out_text"].Size())
	if err := p.Variables["out_text"].Get(&room); err != nil {
		p.Fatal(err)
	}
	return string(room[:n])
}

// put puts globs into patterns, each into a group of its own.
func (p programs) put(globs ...string) {
	p.Helper()
	for i, text := range globs {
		pattern := UnitPattern{Len: uint32(len(text)), Group: uint32(i)}
		for j := range len(text) {
			pattern.Text[j] = int8(text[j])
		}
		if err := p.Maps["patterns"].Put(uint32(i), &pattern); err != nil {
			p.Fatal(err)
		}
	}
}

func TestGlobsMatchAsTheyDoInUserSpace(t *testing.T) {
	p := load(t, map[string]any{"component_patterns_count": uint32(1)})
	for _, text := range []string{"", "a", "ab", "abc", "nginx.service", "a*b", "aaaaaaaa", "\xff", strings.Repeat("a", 255)} {
		for _, pattern := range []string{
			"", "*", "**", "?", "a", "a*", "*a", "a?c", "?b*", "*.service", "nginx*.servic?", "a*b*c", "*a*a*a*a", "\xff", "??",
			strings.Repeat("?", 255), strings.Repeat("a", 255), strings.Repeat("a", 255) + "b",
		} {
			p.put(pattern)
			want := int64(0)
			if glob.Match(pattern, text) {
				want = 1
			}
			if got := p.run("unit_glob", []byte(text)); got != want {
				t.Errorf("%q against %q: %d, want %d", text, pattern, got, want)
			}
		}
	}
}

func TestEachGlobSetsTheBitOfItsGroup(t *testing.T) {
	p := load(t, map[string]any{"component_patterns_count": uint32(4)})
	p.put("web*", "db*", "*b", "web")
	for text, want := range map[string]int64{"web": 0b1101, "webb": 0b0101, "db": 0b0110, "x": 0} {
		if got := p.run("unit_glob", []byte(text)); got != want {
			t.Errorf("%q: %b, want %b", text, got, want)
		}
	}
}

func TestGlobsThatTakeTooManyStepsAreUnsureAndNotRefused(t *testing.T) {
	const globs = 16
	p := load(t, map[string]any{"component_patterns_count": uint32(globs)})
	p.put(slices.Repeat([]string{"*a*b"}, globs)...)
	if got := p.run("unit_glob", []byte(strings.Repeat("a", 250))); got != -1 {
		t.Errorf("%d, want unsure", got)
	}
}

// The interest that a name has (enum interest).
const (
	never = iota
	maybe
	surely
)

func TestNamesTellNotifySocketsAndTheJournal(t *testing.T) {
	p := load(t, nil)
	name := func(address string) []byte {
		if strings.HasPrefix(address, "@") {
			return []byte("\x00" + address[1:])
		}
		return []byte(address)
	}
	cases := map[string]int64{
		"": maybe, "/": maybe, "/run/x": maybe, "@x": maybe, "notify": maybe, "/systemd/notif": maybe, "/systemd/notify/": maybe,
		"/run/systemd/notify": surely, "/systemd/notify": surely, "@/run/systemd/notify": surely,
		"/run/systemd/journal/socket": never, "/run/systemd/journal/stdout": never, "/dev/log": never, "/lab/dev/log": never,
		"/run/systemd/journal.web/socket": never, "/root/run/systemd/journal/socket": never, "/run/systemd/journal/notify.sock": never,
		"/run/systemd/journa": maybe, "/x" + strings.Repeat("y", 94) + "/notify.sock": surely,
	}
	for _, end := range field.NotifyNames {
		cases["/some/where"+end] = surely
		cases["/some/where"+end[:len(end)-1]] = maybe
		cases["/some/where"+end+"x"] = maybe
	}
	for address, want := range cases {
		if got := p.run("unit_name", name(address)); got != want {
			t.Errorf("%q: %d, want %d", address, got, want)
		}
	}
}

func TestAFirstKeyOfTheProtocolCountsBehindAnyNumberOfEmptyLines(t *testing.T) {
	p := load(t, nil)
	for _, name := range events.Keys() {
		var key UnitKey
		for i := range len(name) {
			key.Name[i] = int8(name[i])
		}
		if err := p.Maps["protocol_keys"].Put(&key, uint8(1)); err != nil {
			t.Fatal(err)
		}
	}
	const unsure = 1 | int64(UnitEventFlagEVENT_UNSURE_KEY)
	for payload, want := range map[string]int64{
		"": 0, "=": 0, "\n": 0, "READY": 0, "READY=": 1, "READY=1": 1, "ready=1": 0, "READYX=1": 0, "READ=1": 0, "MESSAGE=x": 0,
		"X_=": 1, "X_ANYTHING=1": 1, "X_": 0, "XY=1": 0, " READY=1": 0, "STATUS=\xff": 1, "EXTEND_TIMEOUT_USEC=1": 1,
		"\nREADY=1": 1, "\r\n\r\nREADY=1": 1, strings.Repeat("\n", 7) + "READY=1": 1, strings.Repeat("\r", 7) + "MESSAGE=1": 0,
		strings.Repeat("\n", 7): 0, strings.Repeat("\n", 8): unsure, strings.Repeat("\n", 8) + "READY=1": unsure, strings.Repeat("\r", 4096): unsure,
		"\n\n\n\n\x0b\n\n\nREADY=1": 0, "\n\n\n\n\x0f\n\n\nREADY=1": 0, "\n\n\n\n\x08\n\n\nREADY=1": 0, "\r\n\r\r\n\n\r\n=": unsure,
		"A_KEY_THAT_IS_LONGER_THAN_ANY_OF_THE_PROTOCOLS=1": 0,
	} {
		if got := p.run("unit_first_key", []byte(payload)); got != want {
			t.Errorf("%q: %d, want %d", payload, got, want)
		}
	}
}

func TestAWantedKeyIsFoundWhereSystemdWouldFindIt(t *testing.T) {
	p := load(t, nil)
	for _, name := range []string{"READY", "X_\n", ""} {
		hash := fnv.New64a()
		_, _ = hash.Write([]byte(name))
		if err := p.Maps["wanted_keys"].Put(hash.Sum64(), uint8(1)); err != nil {
			t.Fatal(err)
		}
	}
	for _, payload := range []string{
		"READY=1", "STATUS=x\nREADY=0", "STATUS=READY=1", "READY", "XREADY=1", "READY\n=1", `RE\ADY=1`, "STATUS=\\\nREADY=1", "X_\\\n=1", "READY\r=",
		"STATUS=" + strings.Repeat("x", 4000) + "\nREADY=1", strings.Repeat("\n", 4088) + "READY=1", "=1",
	} {
		message, err := events.Parse([]byte(payload))
		if err != nil {
			t.Fatal(err)
		}
		want := int64(0)
		for _, key := range []string{"READY", "X_\n", ""} {
			if _, found := message.Lookup(key); found {
				want = 1
			}
		}
		if got := p.run("unit_wanted_key", []byte(payload)); got != want {
			t.Errorf("%.40q: %d, want %d", payload, got, want)
		}
	}
}

func TestAddressesEndWhereTheKernelEndsThem(t *testing.T) {
	p := load(t, nil)
	long := "/" + strings.Repeat("p", 107)
	for _, tt := range []struct{ sunPath, want string }{
		{"", ""},
		{"/a", "/a"},
		{"/a\x00", "/a"},
		{"/a\x00rest", "/a"},
		{"/run/systemd/notify\x00", "/run/systemd/notify"},
		{"/1234567", "/1234567"},
		{"/1234567\x00", "/1234567"},
		{"/12345678\x00x", "/12345678"},
		{"\x00abstract", "\x00abstract"},
		{"\x00a\x00b\x00", "\x00a\x00b\x00"},
		{"\x00", "\x00"},
		{long, long},
		{long[:107] + "\x00", long[:107]},
		{long + "x", ""},
	} {
		in := append([]byte{1, 0}, tt.sunPath...)
		n := p.run("unit_address", in)
		if got := p.text(n); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.sunPath, got, tt.want)
		}
	}
}

// enter moves this process into a control group for the rest of the test.
func enter(t *testing.T, cgroup string) {
	t.Helper()
	before, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	_, home, _ := bytes.Cut(before[bytes.LastIndex(before, []byte("0::")):], []byte("0::"))
	move := func(to string) error {
		return os.WriteFile(filepath.Join(cgroupfs.Dir(to), "cgroup.procs"), []byte("0"), 0)
	}
	dir := cgroupfs.Dir(cgroup)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := move(string(bytes.TrimSpace(home))); err != nil {
			t.Error(err)
		}
		for ; dir != cgroupfs.Mount(); dir = filepath.Dir(dir) {
			if err := os.Remove(dir); err != nil && !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOTEMPTY) {
				t.Error(err)
			}
		}
	})
	if err := move(cgroup); err != nil {
		t.Fatal(err)
	}
}

func TestAControlGroupIsToldByItsNamesFromTheLeafUp(t *testing.T) {
	deep := strings.Repeat("/d", 30)
	tooDeep := strings.Repeat("/d", 40)
	for _, path := range []string{"/a", "/a/b.service", "/machine.slice/" + strings.Repeat("x", 200) + "/payload", deep, tooDeep} {
		t.Run(path[:min(20, len(path))], func(t *testing.T) {
			p := load(t, nil)
			cgroup := fmt.Sprintf("/sdtrace-unit-%d%s", os.Getpid(), path)
			enter(t, cgroup)
			n := p.run("unit_cgroup", nil)
			if path == tooDeep {
				if n != -1 {
					t.Errorf("%d, want that it does not fit", n)
				}
				return
			}
			var got string
			for name := range strings.SplitSeq(strings.TrimSuffix(p.text(n), "\x00"), "\x00") {
				got = "/" + name + got
			}
			if got != cgroup {
				t.Errorf("%q, want %q", got, cgroup)
			}
		})
	}
}

func TestATaskPassesWhenEachGroupHasAName(t *testing.T) {
	enterOnce := fmt.Sprintf("/sdtrace-unit-%d/machine.slice/web.service", os.Getpid())
	for _, tt := range []struct {
		groups uint32
		globs  []string
		want   int64
	}{
		{0b1, []string{"web.service"}, 1},
		{0b1, []string{"web"}, 0},
		{0b1, []string{"*.slice"}, 1},
		{0b11, []string{"web.*", "machine.slice"}, 1},
		{0b11, []string{"web.*", "other.slice"}, 0},
		{0b1, []string{""}, 1}, // the root has no name
	} {
		t.Run(strings.Join(tt.globs, "+"), func(t *testing.T) {
			p := load(t, map[string]any{"component_patterns_count": uint32(len(tt.globs)), "component_groups": tt.groups})
			p.put(tt.globs...)
			enter(t, enterOnce)
			if got := p.run("unit_components", nil); got != tt.want {
				t.Errorf("%d, want %d", got, tt.want)
			}
		})
	}
}
