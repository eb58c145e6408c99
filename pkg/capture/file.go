// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/klauspost/compress/zstd"

	"github.com/sdtrace/sdtrace/pkg/events"
)

// OpenFile reads a capture that was written as JSON Lines (sdtrace -o json), plain or compressed
// with zstd; "-" is standard input. It yields the records that match: a receipt, and what was
// withheld, goes with its event. What the file does not hold is absent. The end of ctx is the end
// of the file, also while a pipe has nothing to read.
//
// The error is an [*OptionError] for a Match that a file cannot be judged by, or that of
// [os.Open]. A file that is none is found out by [Capture.Next], which says the line.
func OpenFile(ctx context.Context, name string, match Match) (*Capture, error) {
	judge, err := judgeAfterwards(match)
	if err != nil {
		return nil, err
	}
	if name == "-" {
		return newReplay(ctx, "standard input", os.Stdin, judge), nil
	}
	// To open a FIFO waits for its writer.
	type opened struct {
		file *os.File
		err  error
	}
	done := make(chan opened, 1)
	go func() {
		f, err := os.Open(name)
		done <- opened{f, err}
	}()
	select {
	case o := <-done:
		if o.err != nil {
			return nil, o.err
		}
		return newReplay(ctx, name, o.file, judge), nil
	case <-ctx.Done():
		return newReplay(ctx, name, io.NopCloser(bytes.NewReader(nil)), judge), nil
	}
}

// Read is [OpenFile] for what is open already. Close does not close in.
func Read(ctx context.Context, in io.Reader, match Match) (*Capture, error) {
	judge, err := judgeAfterwards(match)
	if err != nil {
		return nil, err
	}
	return newReplay(ctx, "input", io.NopCloser(in), judge), nil
}

func newReplay(ctx context.Context, name string, in io.ReadCloser, judge *afterwards) *Capture {
	r := &replay{lines: newLines(ctx, name, in), judge: judge, links: newLinks()}
	return New(r, r)
}

// interruptible reads in the background, so that a context can end the wait.
type interruptible struct {
	ctx    context.Context
	chunks chan chunk
	rest   chunk
}

// chunk is a part of a file, and the error that came with it.
type chunk struct {
	bytes []byte
	err   error
}

// chunkSize is how much is read at a time, in bytes.
const chunkSize = 64 << 10

func newInterruptible(ctx context.Context, in io.Reader) *interruptible {
	r := &interruptible{ctx: ctx, chunks: make(chan chunk)}
	go func() {
		for {
			buffer := make([]byte, chunkSize)
			n, err := in.Read(buffer)
			select {
			case r.chunks <- chunk{buffer[:n], err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return r
}

func (r *interruptible) Read(b []byte) (int, error) {
	for len(r.rest.bytes) == 0 {
		if r.rest.err != nil {
			return 0, r.rest.err
		}
		select {
		case r.rest = <-r.chunks:
		case <-r.ctx.Done():
			r.rest.err = errInterrupted
		}
	}
	n := copy(b, r.rest.bytes)
	r.rest.bytes = r.rest.bytes[n:]
	return n, nil
}

var errInterrupted = errors.New("interrupted")

// lines are the records of a file, one on each line.
type lines struct {
	name   string
	file   io.Closer
	stop   context.CancelFunc
	in     *bufio.Reader
	number int // of the line
	zstd   *zstd.Decoder
	failed error // from now on
}

// lineMax is the length of the longest line that is read, in bytes: a datagram with every byte
// of its payload escaped, twice, is a tenth of it.
const lineMax = 1 << 20

func newLines(ctx context.Context, name string, file io.ReadCloser) *lines {
	ctx, stop := context.WithCancel(ctx)
	return &lines{name: name, file: file, stop: stop, in: bufio.NewReaderSize(newInterruptible(ctx, file), chunkSize)}
}

// isZstd reports whether a file begins with a frame of zstd's, a skippable one included (RFC
// 8878, 3.1).
func isZstd(magic []byte) bool {
	return bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}) ||
		len(magic) == 4 && magic[0]&0xf0 == 0x50 && bytes.Equal(magic[1:], []byte{0x2a, 0x4d, 0x18})
}

// begin looks for zstd.
func (l *lines) begin() error {
	magic, _ := l.in.Peek(4)
	if !isZstd(magic) {
		return nil
	}
	var err error
	// Without goroutines, which would have to be waited for at the end.
	if l.zstd, err = zstd.NewReader(l.in, zstd.WithDecoderConcurrency(1)); err != nil {
		return err
	}
	l.in = bufio.NewReaderSize(l.zstd, chunkSize)
	return nil
}

// next reads the next record. It returns nil when there was none on the line.
func (l *lines) next() (*events.Record, error) {
	if l.failed != nil {
		return nil, l.failed
	}
	r, err := l.read()
	switch {
	case errors.Is(err, errInterrupted):
		l.failed = io.EOF
	case err != nil && !errors.Is(err, io.EOF):
		l.failed = fmt.Errorf("%s: %w", l.name, err)
	case err != nil:
		l.failed = io.EOF
	}
	return r, l.failed
}

func (l *lines) read() (*events.Record, error) {
	if l.number == 0 {
		if err := l.begin(); err != nil {
			return nil, err
		}
	}
	line, cut, err := l.readLine()
	if err != nil {
		return nil, err
	}
	l.number++
	if len(bytes.TrimSpace(line)) == 0 {
		return nil, nil
	}
	r, err := events.Decode(line)
	switch {
	case err != nil && cut:
		return nil, fmt.Errorf("line %d is cut off: the file ends within it", l.number)
	case err != nil:
		return nil, fmt.Errorf("line %d: %w", l.number, err)
	}
	return &r, nil
}

// readLine reads a line. cut says that the file ends without a line break behind it.
func (l *lines) readLine() (line []byte, cut bool, err error) {
	for {
		part, err := l.in.ReadSlice('\n')
		if line == nil && err == nil {
			return part, false, nil
		}
		line = append(line, part...)
		switch {
		case len(line) > lineMax:
			return nil, false, fmt.Errorf("line %d is longer than %d bytes", l.number+1, lineMax)
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(bytes.TrimSpace(line)) > 0:
			return line, true, nil
		default:
			return line, false, err
		}
	}
}

// ready reports whether a whole line was read from the file already.
func (l *lines) ready() bool {
	buffered, _ := l.in.Peek(l.in.Buffered())
	return bytes.IndexByte(buffered, '\n') >= 0
}

func (l *lines) Close() error {
	l.stop()
	if l.zstd != nil {
		l.zstd.Close()
	}
	return l.file.Close()
}

// links are the events that other records of a file may be about, the latest of them.
type links struct {
	events *simplelru.LRU[uint64, link] // by sequence number
	bytes  int
}

// link is an event that other records are about.
type link struct {
	event   *events.Event
	matches bool
}

const (
	// linksMax and linksBytes are how many events are remembered, and how much they hold.
	linksMax   = 1 << 16
	linksBytes = 64 << 20
)

// size is about how many bytes an event takes.
func (l link) size() int { return 1024 + len(l.event.Payload) }

func newLinks() *links {
	l := new(links)
	var err error
	l.events, err = simplelru.NewLRU(linksMax, func(_ uint64, gone link) { l.bytes -= gone.size() })
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return l
}

// keep remembers an event, without what its own lines and predecessors would hold.
func (l *links) keep(e *events.Event, matches bool) {
	kept := *e
	kept.Text, kept.HopOf = nil, nil
	added := link{&kept, matches}
	l.events.Add(e.Seq, added)
	for l.bytes += added.size(); l.bytes > linksBytes; {
		l.events.RemoveOldest()
	}
}

// replay is the source of a file: it ties records to the events that they are about, and leaves
// out what does not match. Its clock is that of the file.
type replay struct {
	*lines
	judge *afterwards
	links *links
	last  uint64    // the sequence number of the latest event
	now   time.Time // of the latest record
}

// Now is the time of the latest record.
func (r *replay) Now() time.Time { return r.now }

// Ready reports whether Next has more to return without waiting.
func (r *replay) Ready() bool { return r.ready() }

func (r *replay) Next(time.Time) (events.Record, error) {
	for {
		record, err := r.next()
		if err != nil {
			return events.Record{}, err
		}
		if record != nil {
			r.now = record.Time()
			if r.passes(record) {
				return *record, nil
			}
		}
		if !r.ready() {
			return events.Record{}, os.ErrDeadlineExceeded
		}
	}
}

// passes ties a record to its event, and reports whether it is wanted.
func (r *replay) passes(record *events.Record) bool {
	switch {
	case record.Event != nil:
		return r.eventPasses(record.Event)
	case record.Receipt != nil:
		return r.tie(&record.Receipt.Send, record.Receipt.Seq)
	case record.Withheld != nil:
		return r.tie(&record.Withheld.Send, record.Withheld.Seq)
	case record.Verdict != nil:
		return r.tie(&record.Verdict.Send, record.Verdict.Seq)
	case record.Hang != nil:
		return r.judge.matchesHang(record.Hang)
	case record.Unit != nil:
		return r.judge.matchesUnit(&record.Unit.Identity, "")
	}
	return true
}

// tie sets the event that a record is about. One whose event is not in the file is wanted if
// everything is.
func (r *replay) tie(send **events.Event, seq uint64) (wanted bool) {
	l, known := r.links.events.Get(seq)
	*send = l.event
	return l.matches || !known && r.judge.empty()
}

func (r *replay) eventPasses(e *events.Event) bool {
	if e.Seq <= r.last {
		r.links = newLinks() // another capture begins
	}
	r.last = e.Seq
	if e.HopOf != nil {
		if from, known := r.links.events.Get(e.HopOf.Seq); known {
			e.HopOf = from.event
		}
	}
	matches := r.judge.matches(e)
	r.links.keep(e, matches)
	return matches
}
