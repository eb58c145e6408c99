// SPDX-License-Identifier: Apache-2.0

// Package history keeps what a running capture has shown last of each unit, and tells it to who asks
// on the same machine: sdtrace why.
package history

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/sdtrace/sdtrace/pkg/events"
)

const (
	// groupsMax is how many control groups are kept apart, the latest ones.
	groupsMax = 1024
	// bytesMax is how much is kept in all, in bytes.
	bytesMax = 8 << 20
	// entriesMax is how many datagrams and news of a control group are kept, the latest ones, and
	// routineMax how many of these say nothing but pings and the like.
	entriesMax, routineMax = 64, 64
	// routinePerSecond is how many of the latter are kept of a control group in a second.
	routinePerSecond = 32
)

// Recorder keeps the latest records of each control group. It is a sink of a capture.
type Recorder struct {
	mu     sync.Mutex
	groups *simplelru.LRU[string, *group]
	bySeq  map[uint64]*entry // of all that are kept
	bytes  int
	order  uint64
	lost   uint64
	about  About
	stream events.JSONStream // each of its lines stands for itself
}

// About says what a recorder holds.
type About struct {
	// PID is the process that captures, Began when it began.
	PID   int       `json:"pid"`
	Began time.Time `json:"began"`
	// Filters are those of the capture as they were written, "" for none: what they leave out is not known.
	Filters string `json:"filters,omitempty"`
	// Cgroups are the control groups that it was asked for if Filters asks for nothing else.
	Cgroups []string `json:"cgroups,omitempty"`
	// Receipts is whether it knows when datagrams are read.
	Receipts bool `json:"receipts,omitempty"`
	// Lost is how many datagrams it has not captured that it should have.
	Lost uint64 `json:"lost,omitempty"`
}

// Covers reports whether all messages are taken of a control group.
func (a *About) Covers(cgroup string) bool {
	return a.Filters == "" || slices.ContainsFunc(a.Cgroups, func(of string) bool {
		return cgroup == of || strings.HasPrefix(cgroup, strings.TrimSuffix(of, "/")+"/")
	})
}

// group is what is kept of a control group.
type group struct {
	entries, routine latest
	second           int64
	inSecond         int
}

// latest are the latest entries of some: the next one takes the place of the oldest, and its memory.
type latest struct {
	all    []*entry
	oldest int // when there are as many as are kept
}

// next is where the next of so many entries goes, the oldest one if there is no more room.
func (l *latest) next(most int) *entry {
	if len(l.all) < most {
		e := new(entry)
		l.all = append(l.all, e)
		return e
	}
	e := l.all[l.oldest]
	l.oldest = (l.oldest + 1) % most
	return e
}

// entry is a datagram with what became of it, or something else: lines of JSON.
type entry struct {
	order uint64
	seq   uint64
	lines []byte
}

// NewRecorder returns a recorder that holds nothing yet.
func NewRecorder(about About) *Recorder {
	r := &Recorder{bySeq: make(map[uint64]*entry), about: about}
	groups, err := simplelru.NewLRU(groupsMax, func(_ string, gone *group) {
		for _, e := range slices.Concat(gone.entries.all, gone.routine.all) {
			r.drop(e)
		}
	})
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	r.groups = groups
	return r
}

// Write takes note of a record.
func (r *Recorder) Write(record *events.Record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case record.Event != nil:
		e := record.Event
		r.add(groupOf(&e.Sender.Identity), isRoutine(e), record)
	case record.Verdict != nil && !record.Verdict.Pending:
		r.join(record.Verdict.Seq, record)
	case record.Receipt != nil && !record.Receipt.Ordinary():
		r.join(record.Receipt.Seq, record)
	case record.Withheld != nil:
		r.join(record.Withheld.Seq, record)
	case record.Unit != nil:
		r.add(groupOf(&record.Unit.Identity), false, record)
	case record.Hang != nil:
		r.add(groupOf(&record.Hang.Sender.Identity), false, record)
	case record.Lost != nil:
		r.lost += record.Lost.Count()
	}
	return nil
}

// Flush and Close do nothing.
func (r *Recorder) Flush() error { return nil }

// Close does nothing.
func (r *Recorder) Close() error { return nil }

// groupOf is what records are kept by.
func groupOf(id *events.Identity) string {
	return cmp.Or(id.Cgroup, id.Machine+"/"+cmp.Or(id.UserUnit, id.Unit))
}

// routine are the keys that say nothing of a unit's state.
var routine = []string{"WATCHDOG", "STATUS", "BARRIER"}

// isRoutine reports whether a datagram arrived that says nothing but such keys.
func isRoutine(e *events.Event) bool {
	text := e.TextOf()
	if e.Result.Failed() || text == nil || len(text.Lines) == 0 {
		return false
	}
	return !slices.ContainsFunc(text.Lines, func(l events.Line) bool {
		a, ok := l.Assignment()
		return !ok || !slices.Contains(routine, a.Key)
	})
}

// add keeps a record of a control group.
func (r *Recorder) add(name string, routine bool, record *events.Record) {
	g, ok := r.groups.Get(name)
	if !ok {
		g = new(group)
		r.groups.Add(name, g)
	}
	list, most := &g.entries, entriesMax
	if routine {
		if second := record.Event.Time.Unix(); second != g.second {
			g.second, g.inSecond = second, 0
		}
		if g.inSecond++; g.inSecond > routinePerSecond {
			return
		}
		list, most = &g.routine, routineMax
	}
	e := list.next(most)
	r.drop(e)
	r.order++
	*e = entry{order: r.order, lines: r.stream.AppendRecord(e.lines[:0], record)}
	if record.Event != nil {
		e.seq = record.Event.Seq
		r.bySeq[e.seq] = e
	}
	for r.bytes += len(e.lines); r.bytes > bytesMax && r.groups.Len() > 1; {
		r.groups.RemoveOldest()
	}
}

// join adds what became of a datagram.
func (r *Recorder) join(seq uint64, record *events.Record) {
	e := r.bySeq[seq]
	if e == nil {
		return // it is not kept any more
	}
	before := len(e.lines)
	e.lines = events.JSONEncoder{}.AppendRecord(e.lines, record)
	r.bytes += len(e.lines) - before
}

func (r *Recorder) drop(e *entry) {
	r.bytes -= len(e.lines)
	if e.seq != 0 {
		delete(r.bySeq, e.seq)
	}
}

// lines are those that are kept and in which one of some texts stands, in order.
func (r *Recorder) lines(texts []string) (about About, lines []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	about = r.about
	about.Lost = r.lost
	var wanted []*entry
	take := func(e *entry) {
		if slices.ContainsFunc(texts, func(text string) bool { return bytes.Contains(e.lines, []byte(text)) }) {
			wanted = append(wanted, e)
		}
	}
	for _, g := range r.groups.Values() {
		for _, e := range g.entries.all {
			take(e)
		}
		for _, e := range g.routine.all {
			take(e)
		}
	}
	slices.SortFunc(wanted, func(a, b *entry) int { return cmp.Compare(a.order, b.order) })
	for _, e := range wanted {
		lines = append(lines, e.lines...)
	}
	return about, lines
}
