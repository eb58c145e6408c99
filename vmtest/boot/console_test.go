// SPDX-License-Identifier: Apache-2.0

//go:build linux

package boot_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A session is a document in which blocks of this form are run, and shown with
// what they print:
//
//	```console
//	# one command
//	# and another one
//	```
//
// In the opening line may stand "beside PATTERN": the one command of the block runs
// in a terminal of its own while the commands of the next block do, and is interrupted
// after them, once it has printed what the regular expression matches.
type session struct {
	pieces []piece
	steps  []step
}

// piece is a part of the document: text, or the command of a step.
type piece struct {
	text string
	// step is the number of a step, beside it that of one that ran beside it, or -1.
	step, beside int
}

const (
	fenceBegin = "```console"
	fenceEnd   = "```"
	prompt     = "# "
)

// parseSession finds the commands of a document.
func parseSession(document string) (*session, error) {
	s := new(session)
	var open, waiting bool // in a block; after one that runs beside this one
	first := false         // the block's first command is the one to run beside others
	until := ""
	for n, line := range strings.Split(strings.TrimSuffix(document, "\n"), "\n") {
		command, isCommand := strings.CutPrefix(line, prompt)
		switch {
		case !open && strings.HasPrefix(line, fenceBegin):
			open = true
			until, first = strings.CutPrefix(line, fenceBegin+" beside ")
			if first && waiting || !first && line != fenceBegin {
				return nil, fmt.Errorf("line %d: %q", n+1, line)
			}
			if _, err := regexp.Compile(until); err != nil {
				return nil, fmt.Errorf("line %d: %w", n+1, err)
			}
			s.text(fenceBegin)
		case open && line == fenceEnd:
			open = false
			waiting = first
			s.text(line)
		case !open:
			s.text(line)
		case !isCommand:
			return nil, fmt.Errorf("line %d: %q is not a command", n+1, line)
		case first:
			s.steps = append(s.steps, step{Line: command, Until: until})
			s.pieces = append(s.pieces, piece{step: len(s.steps) - 1, beside: -1})
		case waiting:
			last := &s.steps[len(s.steps)-1]
			last.Meanwhile = append(last.Meanwhile, step{Line: command})
			s.pieces = append(s.pieces, piece{step: len(s.steps) - 1, beside: len(last.Meanwhile) - 1})
		default:
			s.steps = append(s.steps, step{Line: command})
			s.pieces = append(s.pieces, piece{step: len(s.steps) - 1, beside: -1})
		}
	}
	if open || waiting {
		return nil, fmt.Errorf("the last block does not end, or runs beside none")
	}
	return s, nil
}

func (s *session) text(line string) {
	s.pieces = append(s.pieces, piece{text: line, step: -1})
}

// render is the document with what the steps have printed.
func (s *session) render(all []walked) string {
	var b strings.Builder
	for _, p := range s.pieces {
		if p.step < 0 {
			b.WriteString(p.text + "\n")
			continue
		}
		w := all[p.step]
		if p.beside >= 0 {
			w = w.Meanwhile[p.beside]
		}
		b.WriteString(prompt + w.Line + "\n")
		for line := range strings.Lines(w.Output) {
			b.WriteString(strings.TrimRight(line, " \t\r\n") + "\n")
		}
	}
	return b.String()
}

func TestASessionsCommandsAreRunInOrder(t *testing.T) {
	const document = "# Title\n\n```console\n# one\n# two\n```\nText.\n```console beside NOT PASSED\n# capture\n```\nMeanwhile:\n\n```console\n# three\n# four\n```\n```console\n# five\n```\n"
	s, err := parseSession(document)
	if err != nil {
		t.Fatal(err)
	}
	want := []step{
		{Line: "one"},
		{Line: "two"},
		{Line: "capture", Until: "NOT PASSED", Meanwhile: []step{{Line: "three"}, {Line: "four"}}},
		{Line: "five"},
	}
	if diff := cmp.Diff(want, s.steps); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
	got := s.render([]walked{
		{Line: "one", Output: "1\n"},
		{Line: "two"},
		{Line: "capture", Output: "c  \nd", Meanwhile: []walked{{Line: "three", Output: "3\n"}, {Line: "four"}}},
		{Line: "five", Output: "5\n"},
	})
	const rendered = "# Title\n\n```console\n# one\n1\n# two\n```\nText.\n```console\n# capture\nc\nd\n```\nMeanwhile:\n\n```console\n# three\n3\n# four\n```\n```console\n# five\n5\n```\n"
	if diff := cmp.Diff(rendered, got); diff != "" {
		t.Errorf("rendered (-want +got):\n%s", diff)
	}
}

func TestWhatIsNoSession(t *testing.T) {
	for _, document := range []string{
		"```console\n# one\n",
		"```console\none\n```\n",
		"```console beside x\n# one\n```\n",
		"```console beside (\n# one\n```\n```console\n# two\n```\n",
		"```console beside\n# one\n```\n```console\n# two\n```\n",
		"```console besides x\n# one\n```\n```console\n# two\n```\n",
		"```console beside x\n# one\n```\n```console beside x\n# two\n```\n",
		"```console more\n# one\n```\n",
	} {
		if _, err := parseSession(document); err == nil {
			t.Errorf("no error about %q", document)
		}
	}
}
