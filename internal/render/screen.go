// SPDX-License-Identifier: Apache-2.0

package render

import (
	"bytes"
	"cmp"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"

	"github.com/sdtrace/sdtrace/internal/field"
	"github.com/sdtrace/sdtrace/pkg/events"
)

// Screen writes records for people at a terminal: lines that fit its width, the unit first, and
// what a unit says again and again as a count. The zero value is not ready for use: Width is needed.
type Screen struct {
	// Text has the colours and the clock.
	Text Text
	// Width returns how many columns the terminal has now.
	Width func() int
	// Host is the machine's name for the header, "" for none.
	Host string
	// Whole writes the address and the receiver of every datagram, and cuts nothing.
	Whole bool
	// Repeats writes every message on a line of its own.
	Repeats bool

	seen     time.Time // of the latest record
	day      string    // the header's, as written last
	names    int       // how many columns the names of units take so far
	senders  int       // the same, of processes
	prefixed int       // how many columns time, unit and process of the latest line take
	repeats  repeats
}

// The columns' widths: what is longer is cut.
const (
	nameMin, nameMax     = 12, 32
	senderMin, senderMax = 12, 24
	// widthMin is the width of the narrowest terminal for which lines are made, widthUnknown that
	// of one which does not tell.
	widthMin, widthUnknown = 40, 80
	// pieceMin is how much of an assignment is left when it is cut.
	pieceMin = 10
	// besideMin is how many columns a payload has at least beside notes on the same line.
	besideMin = 24
)

// line is what one record has to say.
type line struct {
	at           time.Time
	name, sender string
	head         string   // before the payload
	payload      []string // assignments, which may be cut
	notes        []string // behind it, which are never cut
}

// AppendJudged appends what r holds as lines, their '\n' included. v is the verdict on the event that it
// holds, nil for none.
func (s *Screen) AppendJudged(b []byte, r *events.Record, v *events.Verdict) []byte {
	s.seen = r.Time()
	b = s.AppendDue(b, s.seen)
	l, ok := s.line(r, v)
	if !ok {
		return b
	}
	if kind, ok := kindOf(r, v); !s.Repeats && ok && s.repeats.hides(&l, kind) {
		return b
	}
	b = s.appendRepeats(b, l.name, r.Time())
	return s.append(b, &l)
}

// AppendDue appends counts of what was said again until a time, if one is due.
func (s *Screen) AppendDue(b []byte, now time.Time) []byte {
	for _, l := range s.repeats.due(now) {
		b = s.append(b, &l)
	}
	return b
}

// AppendRest appends the counts that are left.
func (s *Screen) AppendRest(b []byte) []byte {
	for _, l := range s.repeats.rest(s.seen) {
		b = s.append(b, &l)
	}
	return b
}

// appendRepeats appends what a unit has said again, before it says something else.
func (s *Screen) appendRepeats(b []byte, unit string, now time.Time) []byte {
	for _, l := range s.repeats.of(unit, now) {
		b = s.append(b, &l)
	}
	return b
}

// line returns what there is to say of a record.
func (s *Screen) line(r *events.Record, v *events.Verdict) (l line, ok bool) {
	t := s.Text
	t.between = "\n"
	l.at = r.Time()
	var send *events.Event
	switch {
	case r.Event != nil:
		send = r.Event
		l.head = s.resultOf(send, v)
		l.payload = split(t.appendPayload(nil, send, v))
		l.note(s.destinationOf(send))
		l.note(t.appendNotes(nil, send, v))
		if v != nil {
			l.note(t.appendOutcome(nil, v))
		}
	case r.Receipt != nil:
		send = r.Receipt.Send
		l.note(t.appendReader(nil, &r.Receipt.By, func(b []byte) []byte { return t.appendFateOf(b, r.Receipt) }))
	case r.Withheld != nil:
		send = r.Withheld.Send
		l.note(t.appendReader(nil, &r.Withheld.Relay, func(b []byte) []byte { return t.appendKept(b, r.Withheld) }))
	case r.Verdict != nil:
		send = r.Verdict.Send
		by := events.Reader{PID: r.Verdict.Manager.PID, Comm: field.ServiceManager}
		l.note(t.appendReader(nil, &by, func(b []byte) []byte { return t.appendLate(b, r.Verdict) }))
	case r.Unit != nil:
		l.name = string(appendGroup(nil, &r.Unit.Identity, ""))
		l.sender = string(appendProcess(nil, field.ServiceManager, r.Unit.Manager.PID))
		l.note(t.appendNews(nil, r.Unit))
		return l, true
	case r.Hang != nil:
		l.name = string(appendGroup(nil, &r.Hang.Sender.Identity, ""))
		l.sender = string(appendProcess(nil, r.Hang.Sender.Comm, r.Hang.Sender.PID))
		l.note(t.appendHanging(nil, r.Hang))
		return l, true
	case r.Lost != nil:
		l.note(t.appendLoss(nil, r.Lost))
		return l, true
	default:
		return l, false
	}
	if send == nil {
		return l, true
	}
	l.name = string(appendGroup(nil, &send.Sender.Identity, send.Sender.CgroupController))
	l.sender = string(appendProcess(nil, send.Sender.Comm, send.Sender.PID))
	if r.Event == nil {
		l.payload = split(t.appendPayload(nil, send, v))
	}
	return l, true
}

func split(payload []byte) []string { return strings.Split(string(payload), "\n") }

func (l *line) note(note []byte) {
	if text := strings.TrimSpace(string(note)); text != "" {
		l.notes = append(l.notes, text)
	}
}

// resultOf is what came of the call.
func (s *Screen) resultOf(e *events.Event, v *events.Verdict) string {
	style := styleDim
	if e.Result.Failed() {
		style = styleFailure
	}
	result := appendResult(nil, e.Result, v)
	if len(result) == 0 {
		return ""
	}
	return string(s.Text.appendStyled(nil, style, func(b []byte) []byte { return append(b, result...) }))
}

// destinationOf is where the datagram went, if that is not where the unit's own service manager reads.
func (s *Screen) destinationOf(e *events.Event) (b []byte) {
	if !s.Whole && isToOwnManager(e) {
		return nil
	}
	b = appendDestination(append(b, "-> "...), e)
	if r := e.Receiver; r != nil && r.PID != 0 {
		b = appendProcess(append(b, ' '), r.Comm, r.PID)
	}
	return b
}

// isToOwnManager reports whether a datagram goes where the service manager reads to which the sender
// belongs, as far as addresses and names tell.
func isToOwnManager(e *events.Event) bool {
	if r := e.Receiver; r != nil && r.PID != 0 && r.Comm != field.ServiceManager {
		return false
	}
	id := &e.Sender.Identity
	if id.Container != nil && id.Machine == "" {
		return false
	}
	address := string(cmp.Or(e.Socket.Address, e.Socket.Bound))
	if id.UserUnit != "" {
		return strings.HasPrefix(address, "/run/user/") && field.IsManagerSocket(address)
	}
	return address == field.SystemSocket
}

// append appends a line, cut and wrapped to the width of the terminal.
func (s *Screen) append(b []byte, l *line) []byte {
	width := s.width()
	b = s.appendHeader(b, l.at)
	indent := strings.Repeat(" ", min(s.clock().width()+2, width/3))
	b = s.appendPrefix(b, l, width)
	room := width - s.prefixed
	if room < besideMin {
		b = append(append(bytes.TrimRight(b, " "), '\n'), indent...)
		room = width - len(indent)
	}
	said, notes := join(l.head, strings.Join(l.payload, " ")), strings.Join(l.notes, " ")
	whole := join(said, notes)
	least := min(besideMin, ansi.StringWidthWc(said))
	switch beside := room - ansi.StringWidthWc(notes) - 1; {
	case ansi.StringWidthWc(whole) <= room:
		return append(append(b, whole...), '\n')
	case s.Whole:
		return appendWrapped(append(bytes.TrimRight(b, " "), '\n'), indent, width, whole)
	case said == "":
	case notes == "" || beside < least:
		b = append(b, l.cut(room)...)
	default:
		return append(append(b, join(l.cut(beside), notes)...), '\n')
	}
	b = append(b, '\n')
	for _, note := range l.notes {
		b = appendWrapped(b, indent, width, note)
	}
	return b
}

// appendPrefix appends what each line begins with, and takes note of how many columns that takes.
func (s *Screen) appendPrefix(b []byte, l *line, width int) []byte {
	from := len(b)
	b = append(s.Text.appendTime(b, l.at), ' ')
	if l.name != "" || l.sender != "" {
		b = s.appendCell(b, styleCyan, &s.names, limit(width/4, nameMin, nameMax), fitName, l.name)
		b = s.appendCell(b, styleBold, &s.senders, limit(width/5, senderMin, senderMax), fitSender, l.sender)
	}
	s.prefixed = ansi.StringWidthWc(string(b[from:]))
	return b
}

// cut is head and payload in so many columns: the longest assignments are cut first.
func (l *line) cut(room int) string {
	pieces := slices.Clone(l.payload)
	columns := make([]int, len(pieces))
	over := ansi.StringWidthWc(l.head) - room
	if l.head == "" {
		over--
	}
	for i, piece := range pieces {
		columns[i] = ansi.StringWidthWc(piece)
		over += 1 + columns[i]
	}
	for over > 0 && len(pieces) > 0 {
		longest := slices.Index(columns, slices.Max(columns))
		left := max(columns[longest]-over, pieceMin)
		if left >= columns[longest] {
			break
		}
		pieces[longest] = ansi.TruncateWc(pieces[longest], left, "…")
		over -= columns[longest] - left
		columns[longest] = left
	}
	return ansi.TruncateWc(join(l.head, strings.Join(pieces, " ")), room, "…")
}

func join(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + " " + b
}

// appendWrapped appends text in lines that fit, each behind an indent. They end between words, and within
// a word that does not fit.
func appendWrapped(b []byte, indent string, width int, text string) []byte {
	room, used := width-len(indent), 0
	b = append(b, indent...)
	for i, word := range strings.Split(text, " ") {
		switch columns := ansi.StringWidthWc(word); {
		case i == 0:
		case used+1+columns <= room:
			b, used = append(b, ' '), used+1
		default:
			b, used = append(append(b, '\n'), indent...), 0
		}
		for i, part := range strings.Split(ansi.HardwrapWc(word, room, true), "\n") {
			if i > 0 {
				b, used = append(append(b, '\n'), indent...), 0
			}
			b, used = append(b, part...), used+ansi.StringWidthWc(part)
		}
	}
	return append(b, '\n')
}

// appendCell appends a cell of a column that is as wide as its widest cell was so far, and not wider than
// that.
func (s *Screen) appendCell(b []byte, style string, column *int, most int, fit func(string, int) string, text string) []byte {
	text = fit(text, most)
	b = s.Text.appendStyled(b, style, func(b []byte) []byte { return append(b, text...) })
	used := ansi.StringWidthWc(text)
	*column = min(max(*column, used), most)
	return append(append(b, strings.Repeat(" ", max(*column-used, 0))...), ' ')
}

// appendHeader appends the date, the zone and the machine, if the date is another one than before.
func (s *Screen) appendHeader(b []byte, at time.Time) []byte {
	day := s.clock().day(at)
	if day == s.day {
		return b
	}
	s.day = day
	return append(s.Text.appendStyled(b, styleDim, func(b []byte) []byte {
		b = append(append(b, "--- "...), day...)
		if s.Host != "" {
			b = events.AppendEscaped(append(b, ", "...), s.Host, false)
		}
		return append(b, " ---"...)
	}), '\n')
}

func (s *Screen) clock() *Clock {
	if s.Text.Clock == nil {
		s.Text.Clock = new(Clock)
	}
	return s.Text.Clock
}

func (s *Screen) width() int {
	width := s.Width()
	if width <= 0 {
		width = widthUnknown
	}
	return max(width, widthMin)
}

func limit(n, least, most int) int { return min(max(n, least), most) }

// fitName shortens what a process belongs to: of a control group its last name stays, of a unit its
// beginning and its end.
func fitName(name string, width int) string {
	if strings.HasPrefix(name, "/") && strings.Count(name, "/") > 1 && ansi.StringWidthWc(name) > width {
		name = "…/" + path.Base(name)
	}
	if ansi.StringWidthWc(name) > width {
		name = strings.TrimSuffix(name, ".service")
	}
	over := ansi.StringWidthWc(name) - width
	if over <= 0 {
		return name
	}
	end := width / 3
	return ansi.TruncateWc(ansi.TruncateWc(name, width-end, "…")+ansi.TruncateLeftWc(name, ansi.StringWidthWc(name)-end, ""), width, "…")
}

// fitSender shortens the name of a process, not its number.
func fitSender(process string, width int) string {
	if ansi.StringWidthWc(process) <= width {
		return process
	}
	at := strings.LastIndexByte(process, '[')
	if at < 0 {
		return ansi.TruncateWc(process, width, "…")
	}
	return ansi.TruncateWc(process[:at], width-len(process[at:]), "…") + process[at:]
}

// appendReader appends who did something with a datagram, and what.
func (t Text) appendReader(b []byte, by *events.Reader, what func([]byte) []byte) []byte {
	b = append(b, "<- "...)
	b = append(appendProcess(b, by.Comm, by.PID), ": "...)
	return append(b, bytes.TrimLeft(what(nil), " ")...)
}
