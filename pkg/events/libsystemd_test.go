// SPDX-License-Identifier: Apache-2.0

package events_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sdtrace/sdtrace/pkg/events"
)

// libsystemd is a child process that runs systemd's own tokenizer.
type libsystemd struct {
	in  io.Writer
	out *bufio.Reader
}

func startLibsystemd(tb testing.TB) *libsystemd {
	tb.Helper()
	missing := func(what string) {
		if os.Getenv("SDTRACE_REQUIRE_LIBSYSTEMD") == "1" {
			tb.Fatalf("%s not found, and SDTRACE_REQUIRE_LIBSYSTEMD=1", what)
		}
		tb.Skipf("%s not found: nothing to compare with", what)
	}
	var libs []string
	for _, pattern := range []string{
		"/usr/lib/*/systemd/libsystemd-shared-*.so",
		"/usr/lib/systemd/libsystemd-shared-*.so",
		"/usr/lib64/systemd/libsystemd-shared-*.so",
	} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			tb.Fatal(err)
		}
		libs = append(libs, found...)
	}
	if len(libs) == 0 {
		missing("libsystemd-shared")
	}
	const python = "/usr/bin/python3"
	if _, err := os.Stat(python); err != nil {
		missing(python)
	}

	cmd := exec.Command(python, "testdata/tokenize.py", libs[len(libs)-1])
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			tb.Errorf("tokenize.py: %v", err)
		}
	})
	return &libsystemd{in, bufio.NewReader(out)}
}

func (l *libsystemd) tokenize(tb testing.TB, s []byte) (lines []string, errno syscall.Errno) {
	tb.Helper()
	if bytes.IndexByte(s, 0) >= 0 {
		tb.Fatalf("NUL in %q", s)
	}
	frame := binary.LittleEndian.AppendUint32(nil, uint32(len(s)))
	if _, err := l.in.Write(append(frame, s...)); err != nil {
		tb.Fatal(err)
	}
	var head struct {
		Code  int32
		Lines uint32
	}
	if err := binary.Read(l.out, binary.LittleEndian, &head); err != nil {
		tb.Fatal(err)
	}
	for range head.Lines {
		var n uint32
		if err := binary.Read(l.out, binary.LittleEndian, &n); err != nil {
			tb.Fatal(err)
		}
		line := make([]byte, n)
		if _, err := io.ReadFull(l.out, line); err != nil {
			tb.Fatal(err)
		}
		lines = append(lines, string(line))
	}
	if head.Code < 0 {
		return nil, syscall.Errno(-head.Code)
	}
	return lines, 0
}

// compare holds Tokenize against systemd for a payload that systemd would hand
// to its tokenizer.
func (l *libsystemd) compare(tb testing.TB, payload []byte) {
	tb.Helper()
	want, errno := l.tokenize(tb, bytes.TrimSuffix(payload, []byte{0}))
	got, err := events.Tokenize(payload)
	switch errno {
	case 0:
		if err != nil {
			tb.Fatalf("Tokenize(%q): %v, systemd splits it into %q", payload, err, want)
		}
	case syscall.EINVAL:
		if !errors.Is(err, events.ErrTrailingBackslash) {
			tb.Fatalf("Tokenize(%q) = %q, %v, systemd refuses it", payload, got, err)
		}
	default:
		tb.Fatalf("systemd fails on %q: %v", payload, errno)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		tb.Fatalf("Tokenize(%q): - systemd, + got\n%s", payload, diff)
	}
}

func TestTokenizeAgreesWithSystemd(t *testing.T) {
	l := startLibsystemd(t)
	for _, tc := range payloads {
		if tc.err == nil || errors.Is(tc.err, events.ErrTrailingBackslash) {
			l.compare(t, []byte(tc.payload))
		}
	}

	// Every string of up to 5 of the bytes that matter, then longer ones of words
	// and single bytes.
	var every func(prefix []byte)
	every = func(prefix []byte) {
		l.compare(t, prefix)
		if len(prefix) == 5 {
			return
		}
		for _, c := range []byte("\n\r\\\"=a") {
			every(append(prefix[:len(prefix):len(prefix)], c))
		}
	}
	every(nil)
	words := append(events.Keys(), "=", "=1", "\n", "\n", "\r", "\r\n", "\\", "\\", "\\\n", "'", "\"", " ", "\t", "\x1b[31m", "\xff\xfe", "ü", "#", ";")
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		var payload []byte
		for range rng.IntN(24) {
			if rng.IntN(4) == 0 {
				payload = append(payload, byte(1+rng.IntN(255)))
			} else {
				payload = append(payload, words[rng.IntN(len(words))]...)
			}
		}
		if rng.IntN(8) == 0 {
			payload = append(payload, 0)
		}
		l.compare(t, payload)
	}
	long := []byte(strings.Repeat("x", events.MaxPayload))
	l.compare(t, long)
	for i := 0; i < len(long); i += 7 {
		long[i] = "\n\r\\="[i%4]
		l.compare(t, long)
	}
}

func FuzzTokenizeAgreesWithSystemd(f *testing.F) {
	for _, tc := range payloads {
		f.Add([]byte(tc.payload))
	}
	l := startLibsystemd(f)
	f.Fuzz(func(t *testing.T, payload []byte) {
		_, err := events.Tokenize(payload)
		switch text := bytes.TrimSuffix(payload, []byte{0}); {
		case len(payload) > events.MaxPayload:
			if !errors.Is(err, events.ErrTooLong) {
				t.Errorf("%d bytes: %v", len(payload), err)
			}
		case bytes.IndexByte(text, 0) >= 0:
			if !errors.Is(err, events.ErrEmbeddedNUL) {
				t.Errorf("Tokenize(%q): %v", payload, err)
			}
		default:
			l.compare(t, payload)
		}
	})
}
