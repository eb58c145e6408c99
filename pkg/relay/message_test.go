// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"bytes"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/sdtrace/sdtrace/pkg/events"
	"github.com/sdtrace/sdtrace/vmtest"
)

func setOf(keys ...Key) (s keySet) {
	for _, k := range keys {
		s |= 1 << k
	}
	return s
}

// everyKey is a message with all there can be.
func everyKey() *message {
	m := &message{keys: math.MaxUint32}
	for key := range numKeys {
		m.number[key] = 100 + uint64(key)
		m.text[key] = []byte("text of " + key.String())
	}
	m.text[KeyPrivate] = []byte("X_A=1\nX_B=2")
	return m
}

func TestWhatTheRelayVouchesForComesFirst(t *testing.T) {
	const want = `MAINPID=109
MAINPIDFDID=111
MAINPIDFD=1
STOPPING=1
READY=1
RELOADING=1
MONOTONIC_USEC=112
WATCHDOG=1
WATCHDOG=trigger
WATCHDOG_USEC=121
EXTEND_TIMEOUT_USEC=104
RESTART_RESET=1
FDSTORE=1
FDSTOREREMOVE=1
FDPOLL=0
NOTIFYACCESS=text of NOTIFYACCESS
FDNAME=text of FDNAME
ERRNO=text of ERRNO
EXIT_STATUS=text of EXIT_STATUS
BUSERROR=text of BUSERROR
VARLINKERROR=text of VARLINKERROR
STATUS=text of STATUS
X_A=1
X_B=2`
	if diff := cmp.Diff(want, string(everyKey().append(nil))); diff != "" {
		t.Errorf("- want, + got\n%s", diff)
	}
}

func TestAppendWritesTheKeysOfTheMessageOnly(t *testing.T) {
	m := everyKey()
	m.keys = setOf(KeyReady, KeyWatchdog, KeyStatus, KeyMainPID)
	m.keys &^= setOf(KeyWatchdog)
	m.text[KeyStatus] = []byte("another")
	if got := string(m.append([]byte("before "))); got != "before MAINPID=109\nREADY=1\nSTATUS=another" {
		t.Errorf("%q", got)
	}
	m.keys = 0
	if got := m.append(nil); len(got) != 0 {
		t.Errorf("%q", got)
	}
}

func TestNoValueEndsItsLine(t *testing.T) {
	m := &message{keys: setOf(KeyReady, KeyStatus, KeyPrivate)}
	m.text[KeyStatus] = []byte("a\\\nb\rc\x00d\x7fe\\")
	m.text[KeyPrivate] = []byte("X_A=\\\nX_B=\r\\")
	got, err := events.Tokenize(m.append(nil))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"READY=1", `STATUS=a\ b c d e\`, `X_A=\`, `X_B= \`}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("- want, + got\n%s", diff)
	}
}

func TestADatagramIsCutToWhatSystemdReads(t *testing.T) {
	const room = events.MaxPayload - len("READY=1\nSTATUS=")
	x := func(n int) string { return strings.Repeat("x", n) }
	for _, tc := range []struct {
		name, status, private   string
		wantStatus, wantPrivate string
		cutStatus, cutPrivate   bool
	}{
		{name: "it fits", status: x(room), wantStatus: x(room)},
		{name: "one byte more", status: x(room) + "y", wantStatus: x(room), cutStatus: true},
		{name: "between characters", status: x(room-1) + "ü", wantStatus: x(room - 1), cutStatus: true},
		{name: "not between a backslash and what escapes it", status: x(room-1) + `\`, wantStatus: x(room - 1), cutStatus: true},
		{name: "backslashes count twice", status: strings.Repeat(`\`, room), wantStatus: strings.Repeat(`\`, room/2), cutStatus: true},
		{
			name: "the status before private lines", status: x(100), private: "X_A=" + x(4000),
			wantStatus: x(room - 4005), wantPrivate: "X_A=" + x(4000), cutStatus: true,
		},
		{name: "private lines before the whole status", status: x(100), private: "X_A=" + x(4090), wantStatus: x(100), cutPrivate: true},
		{name: "both", status: x(5000), private: "X_A=" + x(4090), wantStatus: x(room), cutStatus: true, cutPrivate: true},
		{name: "an empty status stays", private: "X_A=" + x(4090), cutPrivate: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := &message{keys: setOf(KeyReady, KeyStatus)}
			m.text[KeyStatus], m.text[KeyPrivate] = []byte(tc.status), []byte(tc.private)
			if tc.private != "" {
				m.keys |= setOf(KeyPrivate)
			}
			again := *m
			cut := m.fit()
			if cut.has(KeyStatus) != tc.cutStatus || cut.has(KeyPrivate) != tc.cutPrivate {
				t.Errorf("cut: status %t, private %t", cut.has(KeyStatus), cut.has(KeyPrivate))
			}
			want := []string{"READY=1", "STATUS=" + tc.wantStatus}
			if tc.wantPrivate != "" {
				want = append(want, tc.wantPrivate)
			}
			for _, m := range []*message{m, &again} {
				got, err := events.Tokenize(m.append(nil))
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("- want, + got\n%s", diff)
				}
			}
		})
	}
}

func TestSizeIsWhatAppendWrites(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 10_000 {
		m := everyKey()
		m.keys = keySet(rng.Uint32())
		for key := range numKeys {
			m.number[key] = rng.Uint64() >> rng.IntN(64)
			m.text[key] = []byte(strings.Repeat(`a\ü`, rng.IntN(20)))
		}
		if want, got := max(0, m.size()), len(m.append(nil)); got != want {
			t.Fatalf("%d bytes, size says %d", got, want)
		}
	}
}

func TestTextIsWhatSystemdTakesForTextWithoutControlCharacters(t *testing.T) {
	vmtest.Natively(t, "no kernel is asked")
	systemd := startAccepts(t)
	check := func(s []byte, control bool) {
		t.Helper()
		if want := systemd.accepts(t, takesText, s) && !control; isText(s) != want {
			t.Fatalf("isText(%q) = %t", s, !want)
		}
	}
	for r := rune(1); r < 0x10000; r++ {
		if !utf8.ValidRune(r) {
			continue
		}
		check(utf8.AppendRune(nil, r), r < ' ' || 0x7f <= r && r <= 0x9f)
	}
	for plane := rune(1); plane <= 16; plane++ {
		for _, r := range []rune{0, 1, 0xfdd0, 0xfffd, 0xfffe, 0xffff} {
			check(utf8.AppendRune(nil, plane<<16|r), false)
		}
	}
	for _, s := range []string{"", "\x80", "\xc0\x80", "\xc3", "\xc3(", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xf8\x88\x80\x80\x80", "a\xffb"} {
		check([]byte(s), false)
	}
}

func TestAnyBytesBecomeTextThatStaysAsItIs(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for range 10_000 {
		s := make([]byte, rng.IntN(12))
		for i := range s {
			s[i] = "\x00\n\r\x7fa\\\xc2\x85\xef\xbf\xbe\xb7\x90\xff\xf0\x9f\x98\x80"[rng.IntN(18)]
		}
		text, trimmed := appendText([]byte("="), s, math.MaxInt)
		if trimmed || !isText(text) {
			t.Fatalf("%q becomes %q", s, text)
		}
		if isText(s) && !bytes.Equal(text[1:], s) {
			t.Fatalf("%q, which is text, becomes %q", s, text)
		}
		limit := rng.IntN(12)
		short, trimmed := appendText(nil, s, limit)
		if len(short) > limit || !bytes.HasPrefix(text[1:], short) || trimmed != (len(short) < len(text)-1) || !isText(short) {
			t.Fatalf("%q becomes %q, and of %d bytes %q, %t", s, text, limit, short, trimmed)
		}
	}
}
