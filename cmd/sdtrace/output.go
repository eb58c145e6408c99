// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/term"

	"github.com/sdtrace/sdtrace/internal/render"
	"github.com/sdtrace/sdtrace/pkg/capture"
	"github.com/sdtrace/sdtrace/pkg/events"
)

// output is the sink that writes lines to stdout, and counts them.
type output struct {
	capture.Sink
	ordinary bool   // receipts that are ordinary are written, too
	most     uint64 // events, 0: any number

	events, lost uint64
}

func (f *captureFlags) newOutput(stdout io.Writer) (*output, error) {
	o := &output{ordinary: f.reads, most: f.count}
	colored := false
	switch f.color {
	case "always":
		colored = true
	case "never":
	case "auto":
		colored = isTerminal(stdout) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	default:
		return nil, fmt.Errorf("unknown --color %q: want auto, always or never", f.color)
	}
	switch f.output {
	case "text":
		o.Sink = capture.Lines(stdout, render.Text{Color: colored}.AppendRecord)
	case "json":
		o.Sink, o.ordinary = capture.JSON(stdout), true
	default:
		return nil, fmt.Errorf("unknown output format %q: want text or json", f.output)
	}
	return o, nil
}

// Write writes a record as a line.
func (o *output) Write(r *events.Record) error {
	switch {
	case r.Event != nil:
		o.events++
	case r.Receipt != nil && !o.ordinary && r.Receipt.Ordinary():
		return nil
	case r.Lost != nil:
		o.lost += r.Lost.Count()
	}
	if err := o.Sink.Write(r); err != nil {
		return err
	}
	if o.most > 0 && o.events >= o.most {
		return capture.ErrStop
	}
	return nil
}

func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
