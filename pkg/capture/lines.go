// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"bufio"
	"io"

	"github.com/sdtrace/sdtrace/pkg/events"
)

// JSON returns a sink that writes records as JSON Lines, the form that [OpenFile] reads. Close
// writes what is left and does not close w.
func JSON(w io.Writer) Sink { return Lines(w, events.JSONEncoder{}.AppendRecord) }

// Lines returns a sink that writes records in another form: encode appends a record to b, what
// ends it included. Close writes what is left and does not close w.
func Lines(w io.Writer, encode func(b []byte, r *events.Record) []byte) Sink {
	return &lineSink{encode: encode, out: bufio.NewWriterSize(w, 1<<16)}
}

type lineSink struct {
	encode func([]byte, *events.Record) []byte
	out    *bufio.Writer
	line   []byte
}

func (l *lineSink) Write(r *events.Record) error {
	l.line = l.encode(l.line[:0], r)
	_, err := l.out.Write(l.line)
	return err
}

func (l *lineSink) Flush() error { return l.out.Flush() }
func (l *lineSink) Close() error { return l.out.Flush() }
