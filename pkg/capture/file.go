// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/klauspost/compress/zstd"

	"github.com/sdtrace/sdtrace/pkg/events"
)

// OpenFile reads a capture that was written as JSON Lines (sdtrace -o json), plain or compressed
// with zstd; "-" is standard input. It yields the records that match: a receipt, and what was
// withheld, goes with its event. What the file does not hold is absent.
//
// The error is an [*OptionError] for a Match that a file cannot be judged by, or that of
// [os.Open].
func OpenFile(name string, match Match) (*Capture, error) {
	judge, err := judgeAfterwards(match)
	if err != nil {
		return nil, err
	}
	f := os.Stdin
	if name != "-" {
		if f, err = os.Open(name); err != nil {
			return nil, err
		}
	}
	if name == "-" {
		name = "standard input"
	}
	source, err := newLines(name, f, f.Close)
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	return newReplay(source, judge), nil
}

// Read is [OpenFile] for what is open already. Close does not close in.
func Read(in io.Reader, match Match) (*Capture, error) {
	judge, err := judgeAfterwards(match)
	if err != nil {
		return nil, err
	}
	source, err := newLines("input", in, func() error { return nil })
	if err != nil {
		return nil, err
	}
	return newReplay(source, judge), nil
}

func newReplay(source *lines, judge *afterwards) *Capture {
	links, err := simplelru.NewLRU[uint64, link](linksMax, nil)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	r := &replay{lines: source, judge: judge, links: links}
	c := New(r, r)
	c.has = r.has
	return c
}

// lines are the records of a file, one on each line.
type lines struct {
	name   string
	in     *bufio.Reader
	number int // of the line
	close  func() error
}

// lineMax is the length of the longest line that is read, in bytes: a datagram with every byte
// of its payload escaped, twice, is a tenth of it.
const lineMax = 1 << 20

var zstdMagic = []byte{0x28, 0xb5, 0x2f, 0xfd}

func newLines(name string, in io.Reader, closeFile func() error) (*lines, error) {
	l := &lines{name: name, in: bufio.NewReaderSize(in, 1<<16), close: closeFile}
	magic, err := l.in.Peek(len(zstdMagic))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if bytes.Equal(magic, zstdMagic) {
		decoder, err := zstd.NewReader(l.in)
		if err != nil {
			return nil, err
		}
		l.in = bufio.NewReaderSize(decoder, 1<<16)
		l.close = func() error { decoder.Close(); return closeFile() }
	}
	return l, nil
}

// next reads the next record. A last line that was cut off is an error.
func (l *lines) next() (events.Record, error) {
	for {
		line, err := l.readLine()
		if err != nil {
			return events.Record{}, err
		}
		l.number++
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		r, err := events.Decode(line)
		if err != nil {
			return events.Record{}, fmt.Errorf("%s: line %d: %w", l.name, l.number, err)
		}
		return r, nil
	}
}

func (l *lines) readLine() ([]byte, error) {
	var whole []byte
	for {
		part, err := l.in.ReadSlice('\n')
		if whole == nil && err == nil {
			return part, nil
		}
		whole = append(whole, part...)
		switch {
		case len(whole) > lineMax:
			return nil, fmt.Errorf("%s: line %d is longer than %d bytes", l.name, l.number+1, lineMax)
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(bytes.TrimSpace(whole)) > 0:
			return nil, fmt.Errorf("%s: line %d is cut off: the file ends within it", l.name, l.number+1)
		default:
			return whole, err
		}
	}
}

// ready reports whether a whole line was read from the file already.
func (l *lines) ready() bool {
	buffered, _ := l.in.Peek(l.in.Buffered())
	return bytes.IndexByte(buffered, '\n') >= 0
}

// linksMax is how many events are remembered for what becomes of them.
const linksMax = 1 << 16

// replay is the source of a file: it ties records to the events that they are about, and leaves
// out what does not match. Its clock is that of the file.
type replay struct {
	lines *lines
	judge *afterwards
	links *simplelru.LRU[uint64, link] // by sequence number
	last  uint64                       // the sequence number of the latest event
	now   time.Time                    // of the latest record

	peeked  []events.Record
	failure error
}

// link is an event that other records are about.
type link struct {
	event   *events.Event
	matches bool
}

// Now is the time of the latest record.
func (r *replay) Now() time.Time { return r.now }

// has reads ahead until it is known what the file holds.
func (r *replay) has(what Capability) bool {
	for r.failure == nil && len(r.peeked) < peekMax && (len(r.peeked) == 0 || r.lines.ready()) {
		record, err := r.lines.next()
		if err != nil {
			r.failure = err
			break
		}
		r.peeked = append(r.peeked, record)
	}
	return slices.ContainsFunc(r.peeked, func(record events.Record) bool {
		if what == Receipts {
			return record.Receipt != nil
		}
		return record.Event != nil && record.Event.Backend == "fentry"
	})
}

// peekMax is how many records are looked at to find out what a file holds.
const peekMax = 64

func (r *replay) Next(time.Time) (events.Record, error) {
	for {
		record, err := r.read()
		if err != nil {
			return events.Record{}, err
		}
		if at := record.Time(); !at.IsZero() {
			r.now = at
		}
		if r.passes(&record) {
			return record, nil
		}
	}
}

func (r *replay) read() (events.Record, error) {
	if len(r.peeked) > 0 {
		record := r.peeked[0]
		r.peeked = r.peeked[1:]
		return record, nil
	}
	if r.failure != nil {
		return events.Record{}, r.failure
	}
	return r.lines.next()
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
	}
	return true
}

// tie sets the event that a record is about. One whose event is not in the file is wanted if
// everything is.
func (r *replay) tie(send **events.Event, seq uint64) (wanted bool) {
	l, known := r.links.Get(seq)
	*send = l.event
	return l.matches || !known && r.judge.empty()
}

func (r *replay) eventPasses(e *events.Event) bool {
	if e.Seq <= r.last {
		r.links.Purge() // another capture begins
	}
	r.last = e.Seq
	if e.HopOf != nil {
		if from, known := r.links.Get(e.HopOf.Seq); known {
			e.HopOf = from.event
		}
	}
	matches := r.judge.matches(e)
	r.links.Add(e.Seq, link{e, matches})
	return matches
}

func (r *replay) Ready() bool { return len(r.peeked) > 0 || r.lines.ready() }

func (r *replay) Close() error { return r.lines.close() }
