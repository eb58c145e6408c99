// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"bufio"
	"io"

	"github.com/sdtrace/sdtrace/pkg/events"
)

// JSON returns a sink that writes records as JSON Lines, the form that [OpenFile] reads. Close
// writes what is left and does not close w.
func JSON(w io.Writer) Sink { return &jsonSink{out: bufio.NewWriterSize(w, 1<<16)} }

type jsonSink struct {
	out  *bufio.Writer
	line []byte
}

func (j *jsonSink) Write(r *events.Record) error {
	j.line = events.JSONEncoder{}.AppendRecord(j.line[:0], r)
	_, err := j.out.Write(j.line)
	return err
}

func (j *jsonSink) Flush() error { return j.out.Flush() }
func (j *jsonSink) Close() error { return j.out.Flush() }
