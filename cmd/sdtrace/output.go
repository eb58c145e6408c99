// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/sdtrace/sdtrace/internal/render"
	"github.com/sdtrace/sdtrace/pkg/capture"
	"github.com/sdtrace/sdtrace/pkg/events"
)

// output is the sink that writes lines to stdout, and counts them.
type output struct {
	// joined holds events back until their verdict is there; nil: none is.
	joined capture.Sink
	encode func(b []byte, r *events.Record, v *events.Verdict) []byte
	// screen is what encodes for a terminal, nil for none.
	screen *render.Screen
	// mu guards what screen, out and line are used for: what is due is written from another goroutine.
	mu       sync.Mutex
	out      *bufio.Writer
	line     []byte
	ordinary bool   // receipts that are ordinary are written, too, and verdicts of what is heeded
	ignored  bool   // of datagrams only those that were not heeded
	most     uint64 // events, 0: any number

	events, lost, contradicted uint64
}

func (f *captureFlags) newOutput(stdout io.Writer) (*output, error) {
	o := &output{ordinary: f.reads, most: f.count, ignored: f.filters.ignored, out: bufio.NewWriterSize(stdout, 1<<16)}
	colored, err := isColored(f.color, stdout)
	if err != nil {
		return nil, err
	}
	clock, err := render.ClockOf(f.clock)
	if err != nil {
		return nil, err
	}
	joins := true
	switch f.output {
	case "text":
		text := render.Text{Color: colored, Clock: clock}
		if isTerminal(stdout) {
			clock.Millis = true
			o.screen = f.newScreen(text, stdout.(*os.File))
			o.encode = o.screen.AppendJudged
			break
		}
		o.encode = func(b []byte, r *events.Record, v *events.Verdict) []byte {
			if r.Event != nil {
				return text.AppendJudged(b, r.Event, v)
			}
			return text.AppendRecord(b, r)
		}
	case "json":
		o.ordinary = true
		// Each line as soon as it can be, unless it depends on the verdict, or the end does.
		joins = o.ignored || o.most > 0
		stream := new(events.JSONStream)
		o.encode = func(b []byte, r *events.Record, v *events.Verdict) []byte {
			b = stream.AppendRecord(b, r)
			if v != nil {
				b = events.JSONEncoder{}.AppendVerdict(b, v)
			}
			return b
		}
	default:
		return nil, fmt.Errorf("unknown output format %q: want text or json", f.output)
	}
	if joins {
		o.joined = capture.Joined(o.write, o.flush)
	}
	return o, nil
}

// newScreen is what writes for a terminal.
func (f *captureFlags) newScreen(text render.Text, terminal *os.File) *render.Screen {
	s := &render.Screen{
		Text: text, Whole: f.verbose, Repeats: f.pings || f.filters.asksForKeys(),
		Width: func() int {
			width, _, err := term.GetSize(int(terminal.Fd()))
			if err != nil {
				return 0
			}
			return width
		},
	}
	if f.read == "" {
		s.Host, _ = os.Hostname() // "" says nothing
	}
	return s
}

// dueEvery is how often it is looked for counts that are due while nothing is written.
const dueEvery = time.Second

// writeDue writes counts that are due, until the context ends.
func (o *output) writeDue(ctx context.Context) {
	if o.screen == nil {
		return
	}
	tick := time.NewTicker(dueEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			o.mu.Lock()
			o.line = o.screen.AppendDue(o.line[:0], now)
			_, err := o.out.Write(o.line)
			if len(o.line) > 0 && err == nil {
				err = o.out.Flush()
			}
			o.mu.Unlock()
			if err != nil {
				return // the next write of a record fails as well
			}
		}
	}
}

// Write takes a record.
func (o *output) Write(r *events.Record) error {
	if o.joined != nil {
		return o.joined.Write(r)
	}
	return o.write(r, nil)
}

// Flush writes what is not held back.
func (o *output) Flush() error { return o.flush() }

func (o *output) flush() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.out.Flush()
}

// Close writes the rest.
func (o *output) Close() error {
	if o.joined != nil {
		if err := o.joined.Close(); err != nil {
			return err
		}
	}
	if o.screen != nil {
		o.mu.Lock()
		o.line = o.screen.AppendRest(o.line[:0])
		_, err := o.out.Write(o.line)
		o.mu.Unlock()
		if err != nil {
			return err
		}
	}
	return o.flush()
}

// write writes a record, and the verdict on it if there is one, if they are wanted.
func (o *output) write(r *events.Record, v *events.Verdict) error {
	o.count(r, v)
	if !o.wants(r, v) {
		return nil
	}
	if r.Event != nil {
		o.events++
	}
	o.mu.Lock()
	o.line = o.encode(o.line[:0], r, v)
	_, err := o.out.Write(o.line)
	o.mu.Unlock()
	if err != nil {
		return err
	}
	if r.Event != nil && o.most > 0 && o.events >= o.most {
		return capture.ErrStop
	}
	return nil
}

// count counts what the summary says.
func (o *output) count(r *events.Record, v *events.Verdict) {
	if r.Lost != nil {
		o.lost += r.Lost.Count()
	}
	if r.Verdict != nil {
		v = r.Verdict
	}
	if v != nil && v.Contradicted() {
		o.contradicted++
	}
}

// wants reports whether a record is to be written.
func (o *output) wants(r *events.Record, v *events.Verdict) bool {
	switch {
	case r.Event != nil:
		return !o.ignored || r.Event.Result.Failed() || v != nil && v.Any(events.Ignored, events.NoEffect)
	case r.Verdict != nil && o.ignored:
		return r.Verdict.Any(events.Ignored, events.NoEffect)
	case r.Verdict != nil:
		// Of what is not said on the event's own line, that it is heeded is news only where
		// that line says that it is not known.
		v := r.Verdict
		return o.ordinary || !v.Pending && v.Any(events.Ignored, events.NoEffect, events.Unknown) || v.Send != nil && v.Send.Awaited
	case r.Unit != nil:
		return !o.ignored
	case r.Receipt != nil:
		return o.ordinary && !o.ignored || !r.Receipt.Ordinary()
	}
	return true
}

// isColored says whether text is coloured by a flag and where it goes.
func isColored(flag string, out io.Writer) (bool, error) {
	switch flag {
	case "always":
		return true, nil
	case "never":
		return false, nil
	case "auto":
		return isTerminal(out) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb", nil
	}
	return false, fmt.Errorf("unknown --color %q: want auto, always or never", flag)
}

func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
