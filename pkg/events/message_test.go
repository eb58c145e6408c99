// SPDX-License-Identifier: Apache-2.0

package events_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sdtrace/sdtrace/pkg/events"
)

var payloads = []struct {
	name    string
	payload string
	lines   []string
	message events.Message
	err     error
}{
	{name: "empty datagram", payload: "", message: events.Message{}},
	{name: "one assignment", payload: "READY=1", lines: []string{"READY=1"}, message: events.Message{{"READY", "1"}}},
	{
		name: "order is kept", payload: "STATUS=a\nREADY=1\nMAINPID=7\n",
		lines:   []string{"STATUS=a", "READY=1", "MAINPID=7"},
		message: events.Message{{"STATUS", "a"}, {"READY", "1"}, {"MAINPID", "7"}},
	},
	{
		name: "carriage return separates", payload: "READY=1\rSTATUS=x\r\nFDNAME=y",
		lines:   []string{"READY=1", "STATUS=x", "FDNAME=y"},
		message: events.Message{{"READY", "1"}, {"STATUS", "x"}, {"FDNAME", "y"}},
	},
	{name: "runs of separators count as one", payload: "\n\r\nA=1\n\n\rB=2\n\n", lines: []string{"A=1", "B=2"}, message: events.Message{{"A", "1"}, {"B", "2"}}},
	{name: "only separators", payload: "\n\r\n", message: events.Message{}},
	{name: "escape drops itself", payload: `MAIN\PID=77`, lines: []string{"MAINPID=77"}, message: events.Message{{"MAINPID", "77"}}},
	{name: "escaped backslash", payload: `STATUS=a\\b`, lines: []string{`STATUS=a\b`}, message: events.Message{{"STATUS", `a\b`}}},
	{name: "escaped separator joins", payload: "STATUS=x\\\nREADY=1", lines: []string{"STATUS=x\nREADY=1"}, message: events.Message{{"STATUS", "x\nREADY=1"}}},
	{name: "escaped carriage return joins", payload: "STATUS=x\\\rREADY=1", lines: []string{"STATUS=x\rREADY=1"}, message: events.Message{{"STATUS", "x\rREADY=1"}}},
	{name: "line of one escaped separator", payload: "\\\n\n", lines: []string{"\n"}, message: events.Message{}},
	{name: "no C escapes", payload: `STATUS=a\nb\x41`, lines: []string{"STATUS=anbx41"}, message: events.Message{{"STATUS", "anbx41"}}},
	{name: "trailing backslash", payload: "READY=1\nSTATUS=x\\", err: events.ErrTrailingBackslash},
	{name: "only a backslash", payload: "\\", err: events.ErrTrailingBackslash},
	{name: "backslash before the final NUL", payload: "READY=1\\\x00", err: events.ErrTrailingBackslash},
	{name: "backslash before the final separator", payload: "READY=1\\\n", lines: []string{"READY=1\n"}, message: events.Message{{"READY", "1\n"}}},
	{name: "quotes are literal", payload: "STATUS=\"a\nREADY='1'", lines: []string{`STATUS="a`, "READY='1'"}, message: events.Message{{"STATUS", `"a`}, {"READY", "'1'"}}},
	{name: "blanks are significant", payload: " READY=1\nREADY=1 \n\tX=\v", lines: []string{" READY=1", "READY=1 ", "\tX=\v"}, message: events.Message{{" READY", "1"}, {"READY", "1 "}, {"\tX", "\v"}}},
	{name: "line without equals sign", payload: "hello\nREADY=1\nREADY", lines: []string{"hello", "READY=1", "READY"}, message: events.Message{{"READY", "1"}}},
	{name: "split at the first equals sign", payload: "STATUS=a=b=\n=x\nY=", lines: []string{"STATUS=a=b=", "=x", "Y="}, message: events.Message{{"STATUS", "a=b="}, {"", "x"}, {"Y", ""}}},
	{name: "invalid UTF-8 is kept", payload: "STATUS=\xff\xc0", lines: []string{"STATUS=\xff\xc0"}, message: events.Message{{"STATUS", "\xff\xc0"}}},
	{name: "one final NUL", payload: "READY=1\x00", lines: []string{"READY=1"}, message: events.Message{{"READY", "1"}}},
	{name: "only a NUL", payload: "\x00", message: events.Message{}},
	{name: "two final NULs", payload: "READY=1\x00\x00", err: events.ErrEmbeddedNUL},
	{name: "embedded NUL", payload: "READY=1\x00STATUS=x", err: events.ErrEmbeddedNUL},
	{name: "leading NUL", payload: "\x00READY=1", err: events.ErrEmbeddedNUL},
	{name: "escaped NUL is embedded", payload: "X=\\\x00y", err: events.ErrEmbeddedNUL},
	{
		name: "4096 bytes", payload: "STATUS=" + strings.Repeat("x", 4089),
		lines:   []string{"STATUS=" + strings.Repeat("x", 4089)},
		message: events.Message{{"STATUS", strings.Repeat("x", 4089)}},
	},
	{name: "4097 bytes", payload: "STATUS=" + strings.Repeat("x", 4090), err: events.ErrTooLong},
	{name: "4096 bytes and a NUL", payload: strings.Repeat("x", 4096) + "\x00", err: events.ErrTooLong},
}

func TestParseFollowsTheRulesOfSystemd(t *testing.T) {
	for _, tc := range payloads {
		t.Run(tc.name, func(t *testing.T) {
			lines, err := events.Tokenize([]byte(tc.payload))
			if !errors.Is(err, tc.err) {
				t.Fatalf("Tokenize: %v, want %v", err, tc.err)
			}
			if diff := cmp.Diff(tc.lines, lines); diff != "" {
				t.Errorf("Tokenize: - want, + got\n%s", diff)
			}
			message, err := events.Parse([]byte(tc.payload))
			if !errors.Is(err, tc.err) {
				t.Fatalf("Parse: %v, want %v", err, tc.err)
			}
			if diff := cmp.Diff(tc.message, message); diff != "" {
				t.Errorf("Parse: - want, + got\n%s", diff)
			}
		})
	}
}

func TestAppendLinesIsTokenizeIntoABuffer(t *testing.T) {
	for _, tc := range payloads {
		want := "before"
		for _, line := range tc.lines {
			want += line + "\x00"
		}
		got, err := events.AppendLines([]byte("before"), []byte(tc.payload))
		if string(got) != want || !errors.Is(err, tc.err) {
			t.Errorf("%s: %q, %v, want %q, %v", tc.name, got, err, want, tc.err)
		}
	}
	buffer := make([]byte, 0, 2*events.MaxPayload)
	payload := []byte(strings.Repeat("a\n", events.MaxPayload/2))
	if n := testing.AllocsPerRun(10, func() { _, _ = events.AppendLines(buffer, payload) }); n != 0 {
		t.Errorf("%g allocations", n)
	}
}

func TestParsePrefixReadsOnlyWholeLines(t *testing.T) {
	for _, tc := range []struct {
		name, prefix string
		want         events.Message
		err          error
	}{
		{name: "nothing", prefix: "", want: events.Message{}},
		{name: "no whole line", prefix: "STATUS=abc", want: events.Message{}},
		{name: "cut line is left out", prefix: "READY=1\nSTATUS=ab", want: events.Message{{"READY", "1"}}},
		{name: "cut after a separator", prefix: "READY=1\nSTATUS=ab\r", want: events.Message{{"READY", "1"}, {"STATUS", "ab"}}},
		{name: "cut inside an escape", prefix: "READY=1\nSTATUS=ab\\", want: events.Message{{"READY", "1"}}},
		{name: "cut at the start of an escape", prefix: "READY=1\n\\", want: events.Message{{"READY", "1"}}},
		{name: "escaped separator ends no line", prefix: "READY=1\\\n", want: events.Message{}},
		{name: "embedded NUL", prefix: "READY=1\n\x00", err: events.ErrEmbeddedNUL},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := events.ParsePrefix([]byte(tc.prefix))
			if !errors.Is(err, tc.err) {
				t.Fatalf("%v, want %v", err, tc.err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("- want, + got\n%s", diff)
			}
		})
	}
}

func TestMessageOfAnEvent(t *testing.T) {
	for _, tc := range []struct {
		name  string
		event events.Event
		want  events.Message
	}{
		{name: "unknown payload", event: events.Event{}},
		{name: "empty datagram", event: events.Event{Payload: []byte{}}, want: events.Message{}},
		{name: "whole datagram", event: events.Event{Payload: []byte("A=1\nB=2")}, want: events.Message{{"A", "1"}, {"B", "2"}}},
		{name: "truncated datagram", event: events.Event{Payload: []byte("A=1\nB=2"), Truncated: true}, want: events.Message{{"A", "1"}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := tc.event.Message()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("- want, + got\n%s", diff)
			}
		})
	}
}

func TestLookupTakesTheFirstMatch(t *testing.T) {
	m := events.Message{{"STATUS", "first"}, {"READY", "1"}, {"STATUS", "second"}}
	if v, ok := m.Lookup("STATUS"); v != "first" || !ok {
		t.Errorf("STATUS: %q, %t", v, ok)
	}
	if v, ok := m.Lookup("status"); ok {
		t.Errorf("keys are not case-sensitive: %q", v)
	}
}

func TestKeysAreSortedAndTheirOwnCopy(t *testing.T) {
	keys := events.Keys()
	if !slices.IsSorted(keys) || len(keys) != 22 {
		t.Errorf("%d keys, sorted: %t", len(keys), slices.IsSorted(keys))
	}
	keys[0] = "ZZZ"
	if events.Keys()[0] != "BARRIER" {
		t.Error("changing the result of Keys changes what is known")
	}
}

func FuzzParse(f *testing.F) {
	for _, tc := range payloads {
		f.Add([]byte(tc.payload))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		lines, err := events.Tokenize(payload)
		m, perr := events.Parse(payload)
		if !errors.Is(perr, err) {
			t.Fatalf("Tokenize: %v, Parse: %v", err, perr)
		}
		if (m == nil) != (err != nil) {
			t.Fatalf("message %q with error %v", m, err)
		}
		if err != nil {
			return
		}

		var total int
		for _, line := range lines {
			if line == "" {
				t.Fatalf("empty line in %q", lines)
			}
			total += len(line)
		}
		if total > len(payload) {
			t.Fatalf("%d bytes out of %d", total, len(payload))
		}

		// What Parse reads it reads again from the lines, escaped.
		var again []byte
		for _, line := range lines {
			for _, c := range []byte(line) {
				again = append(again, '\\', c)
			}
			again = append(again, '\n')
		}
		if len(again) <= events.MaxPayload {
			m2, err := events.Parse(again)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(m, m2); diff != "" {
				t.Fatalf("- first, + again\n%s", diff)
			}
		}

		// A prefix shows a beginning of the whole message, and nothing else.
		text := strings.TrimSuffix(string(payload), "\x00")
		for _, n := range []int{len(text) / 3, len(text) / 2, len(text)} {
			prefix, err := events.ParsePrefix([]byte(text[:n]))
			if err != nil {
				t.Fatal(err)
			}
			if len(prefix) > len(m) || !slices.Equal(prefix, m[:len(prefix)]) {
				t.Fatalf("prefix of %d bytes reads %q, the whole %q", n, prefix, m)
			}
		}
	})
}
