// SPDX-License-Identifier: Apache-2.0

package events

import (
	"encoding/base64"
	"strconv"
	"time"
	"unicode/utf16"
	"unicode/utf8"
	"unsafe"
)

// JSONEncoder writes JSON Lines in the form of [Schema]. The output holds no
// character that a terminal acts on. It is what encoding/json would write of the same
// structs, but nothing is allocated, but for a verdict.
type JSONEncoder struct{}

// AppendRecord appends what r holds to b as one line, its '\n' included.
func (j JSONEncoder) AppendRecord(b []byte, r *Record) []byte {
	switch {
	case r.Event != nil:
		return j.AppendEvent(b, r.Event)
	case r.Receipt != nil:
		return j.AppendReceipt(b, r.Receipt)
	case r.Withheld != nil:
		return j.AppendWithheld(b, r.Withheld)
	case r.Verdict != nil:
		return j.AppendVerdict(b, r.Verdict)
	case r.Unit != nil:
		return j.AppendUnit(b, r.Unit)
	case r.Hang != nil:
		return j.AppendHang(b, r.Hang)
	case r.Lost != nil:
		return j.AppendLost(b, r.Lost)
	}
	return b
}

// AppendEvent appends e to b as one line, its '\n' included.
func (JSONEncoder) AppendEvent(b []byte, e *Event) []byte { return appendEvent(b, e, nil) }

// appendEvent takes what a stream remembers, if there is one.
func appendEvent(b []byte, e *Event, stream *JSONStream) []byte {
	b = append(b, `{"type":"send","seq":`...)
	b = strconv.AppendUint(b, e.Seq, 10)
	if stream != nil {
		b = stream.appendTime(b, e.Time)
	} else {
		b = appendTimeField(b, e.Time)
	}
	b = append(b, `,"backend":`...)
	b = appendJSONString(b, e.Backend)
	if stream != nil {
		b = stream.appendSender(b, &e.Sender)
	} else {
		b = appendSender(b, &e.Sender)
	}
	if e.Claimed != nil {
		b = append(b, `,"claimed":{`...)
		start := len(b)
		b = closeObject(appendClaimed(b, e.Claimed), start)
	}
	if e.Refused != nil {
		b = append(b, `,"refused":{"errno":`...)
		b = appendJSONString(b, e.Refused.Errno)
		b = append(appendClaimed(b, &e.Refused.Claimed), '}')
	}
	if stream != nil {
		b = stream.appendDestination(b, e)
	} else {
		b = appendDestination(b, e)
	}
	b = appendResultField(b, &e.Result)
	if e.HopOf != nil {
		b = appendNumber(b, `,"hop_of":`, e.HopOf.Seq)
	}
	if e.Call != "" {
		b = append(append(append(b, `,"call":"`...), e.Call...), '"')
	}
	if trouble := onlyUTF8(e.Trouble); trouble != "" {
		b = appendJSONString(append(b, `,"trouble":`...), trouble)
	}
	if e.Size != nil {
		b = append(b, `,"size":`...)
		b = strconv.AppendUint(b, uint64(*e.Size), 10)
	}
	b = append(b, `,"truncated":`...)
	b = strconv.AppendBool(b, e.Truncated)
	if e.Payload != nil {
		b = appendBytes(b, `,"payload`, asString(e.Payload))
	}
	b = appendMessageOf(b, e)
	if len(e.FDs) > 0 {
		b = append(b, `,"fds":[`...)
		for _, fd := range e.FDs {
			b = append(b, '{')
			if fd.Type != "" {
				b = append(b, `"type":`...)
				b = appendJSONString(b, fd.Type)
			}
			b = append(b, '}', ',')
		}
		b[len(b)-1] = ']'
	}
	return append(b, '}', '\n')
}

// AppendLost appends l to b as one line, its '\n' included.
func (JSONEncoder) AppendLost(b []byte, l *Lost) []byte {
	b = append(b, `{"type":"lost"`...)
	b = appendTimeField(b, l.Time)
	for _, field := range [...]struct {
		name  string
		value uint64
	}{
		{`,"count":`, l.Count()},
		{`,"ring_full":`, l.RingFull},
		{`,"missed":`, l.Missed},
		{`,"receipts":`, l.Receipts},
	} {
		b = append(b, field.name...)
		b = strconv.AppendUint(b, field.value, 10)
	}
	if l.Names > 0 {
		b = append(b, `,"names":`...)
		b = strconv.AppendUint(b, l.Names, 10)
	}
	for i := range l.By {
		by := &l.By[i]
		if i == 0 {
			b = append(b, `,"by":[`...)
		} else {
			b = append(b, ',')
		}
		if by.CgroupID == 0 {
			b = append(b, `{"uid":`...)
			b = strconv.AppendUint(b, uint64(by.UID), 10)
		} else {
			b = append(b, `{"cgroup_id":`...)
			b = strconv.AppendUint(b, by.CgroupID, 10)
		}
		b = appendName(b, `,"cgroup":`, by.Cgroup)
		b = append(b, `,"count":`...)
		b = strconv.AppendUint(b, by.Count, 10)
		b = append(b, '}')
	}
	if len(l.By) > 0 {
		b = append(b, ']')
	}
	return append(b, '}', '\n')
}

// AppendReceipt appends r to b as one line, its '\n' included.
func (JSONEncoder) AppendReceipt(b []byte, r *Receipt) []byte {
	b = append(b, `{"type":`...)
	b = appendJSONString(b, string(r.Kind))
	b = append(b, `,"seq":`...)
	b = strconv.AppendUint(b, r.Seq, 10)
	b = appendTimeField(b, r.Time)
	b = append(b, `,"delay_ns":`...)
	b = strconv.AppendInt(b, r.Delay.Nanoseconds(), 10)
	if r.Kind == ReceiptRead {
		b = append(b, `,"reader":`...)
		b = appendReader(b, &r.By)
		if r.Bytes != nil {
			b = append(b, `,"bytes":`...)
			b = strconv.AppendUint(b, uint64(*r.Bytes), 10)
		}
		b = append(b, `,"errno":`...)
		b = appendJSONString(b, r.Errno)
		b = append(b, `,"truncated":`...)
		b = strconv.AppendBool(b, r.Truncated)
		b = append(b, `,"control_truncated":`...)
		b = strconv.AppendBool(b, r.ControlTruncated)
	} else {
		b = append(b, `,"closed_by":`...)
		b = appendReader(b, &r.By)
	}
	if r.SenderExited != nil {
		b = append(b, `,"sender_exited_ns":`...)
		b = strconv.AppendInt(b, r.SenderExited.Nanoseconds(), 10)
	}
	return append(b, '}', '\n')
}

// AppendWithheld appends w to b as one line, its '\n' included.
func (JSONEncoder) AppendWithheld(b []byte, w *Withheld) []byte {
	b = append(b, `{"type":"withheld","seq":`...)
	b = strconv.AppendUint(b, w.Seq, 10)
	b = appendTimeField(b, w.Time)
	b = append(b, `,"relay":`...)
	b = appendReader(b, &w.Relay)
	b = append(b, `,"message":[`...)
	start := len(b)
	for _, a := range w.Message {
		b = appendAssignment(b, a.Key, a.Value)
	}
	return append(closeList(b, start), '}', '\n')
}

func appendSender(b []byte, s *Sender) []byte {
	b = append(b, `,"sender":{"pid":`...)
	b = strconv.AppendUint(b, uint64(s.PID), 10)
	b = append(b, `,"tid":`...)
	b = strconv.AppendUint(b, uint64(s.TID), 10)
	b = appendNumber(b, `,"ppid":`, uint64(s.PPID))
	b = appendNumber(b, `,"ns_pid":`, uint64(s.NSPID))
	b = appendBytes(b, `,"comm`, s.Comm)
	if s.Exe != "" {
		b = appendBytes(b, `,"exe`, s.Exe)
	}
	b = append(b, `,"uid":`...)
	b = strconv.AppendUint(b, uint64(s.UID), 10)
	b = append(b, `,"gid":`...)
	b = strconv.AppendUint(b, uint64(s.GID), 10)
	b = appendNumber(b, `,"cgroup_id":`, s.CgroupID)
	if s.Cgroup != "" {
		b = appendBytes(b, `,"cgroup`, s.Cgroup)
	}
	b = appendText(b, `,"cgroup_controller":`, s.CgroupController)
	b = appendUnits(b, &s.Identity)
	b = appendNumber(b, `,"mntns":`, uint64(s.MntNS))
	b = appendNumber(b, `,"netns":`, uint64(s.NetNS))
	b = appendNumber(b, `,"pidns":`, uint64(s.PIDNS))
	b = appendNumber(b, `,"userns":`, uint64(s.UserNS))
	b = appendNumber(b, `,"cgroupns":`, uint64(s.CgroupNS))
	b = appendContainer(b, s.Container)
	return append(b, '}')
}

func appendClaimed(b []byte, c *Claimed) []byte {
	b = appendNumber(b, `,"pid":`, uint64(c.PID))
	b = appendNumber(b, `,"ns_pid":`, uint64(c.NSPID))
	b = appendKnown(b, `,"uid":`, c.UID)
	return appendKnown(b, `,"gid":`, c.GID)
}

func appendDestination(b []byte, e *Event) []byte {
	b = appendSocketField(b, &e.Socket)
	if e.Receiver != nil {
		b = appendReceiver(b, e.Receiver)
	}
	return b
}

func appendSocketField(b []byte, s *Socket) []byte {
	b = append(b, `,"socket":{`...)
	start := len(b)
	b = appendAddress(b, `,"address":"`, s.Address)
	b = appendAddress(b, `,"bound":"`, s.Bound)
	b = appendNumber(b, `,"inode":`, s.Inode)
	b = appendText(b, `,"type":`, s.Type)
	return closeObject(b, start)
}

func appendReceiver(b []byte, r *Receiver) []byte {
	b = append(b, `,"receiver":{`...)
	start := len(b)
	b = appendNumber(b, `,"pid":`, uint64(r.PID))
	if r.PID != 0 {
		b = appendBytes(b, `,"comm`, r.Comm)
	}
	b = appendKnown(b, `,"uid":`, r.UID)
	b = appendNumber(b, `,"netns":`, uint64(r.NetNS))
	b = appendNumber(b, `,"cgroup_id":`, r.CgroupID)
	if r.Cgroup != "" {
		b = appendBytes(b, `,"cgroup`, r.Cgroup)
	}
	b = appendUnits(b, &r.Identity)
	b = appendContainer(b, r.Container)
	return closeObject(b, start)
}

func appendResultField(b []byte, r *Result) []byte {
	b = append(b, `,"result":{`...)
	start := len(b)
	b = appendKnown(b, `,"bytes":`, r.Bytes)
	b = append(b, `,"errno":`...)
	b = appendJSONString(b, r.Errno)
	if r.Latency != 0 {
		b = append(b, `,"latency_ns":`...)
		b = strconv.AppendInt(b, r.Latency.Nanoseconds(), 10)
	}
	if r.Delivered != nil {
		b = append(b, `,"delivered":`...)
		b = strconv.AppendBool(b, *r.Delivered)
	}
	return closeObject(b, start)
}

func appendReader(b []byte, r *Reader) []byte {
	b = append(b, `{"pid":`...)
	b = strconv.AppendUint(b, uint64(r.PID), 10)
	b = append(b, `,"tid":`...)
	b = strconv.AppendUint(b, uint64(r.TID), 10)
	b = appendBytes(b, `,"comm`, r.Comm)
	b = appendNumber(b, `,"cgroup_id":`, r.CgroupID)
	if r.Cgroup != "" {
		b = appendBytes(b, `,"cgroup`, r.Cgroup)
	}
	b = appendUnits(b, &r.Identity)
	b = appendContainer(b, r.Container)
	return append(b, '}')
}

// appendUnits leaves out a name that is not UTF-8: it was taken from a cgroup path, which is
// kept in full, and is no valid name of a unit.
func appendUnits(b []byte, id *Identity) []byte {
	b = appendName(b, `,"machine":`, id.Machine)
	b = appendName(b, `,"unit":`, id.Unit)
	b = appendName(b, `,"user_unit":`, id.UserUnit)
	return appendName(b, `,"slice":`, id.Slice)
}

func appendContainer(b []byte, c *Container) []byte {
	if c == nil {
		return b
	}
	b = append(b, `,"container":{`...)
	start := len(b)
	b = appendName(b, `,"runtime":`, c.Runtime)
	b = appendName(b, `,"id":`, c.ID)
	b = appendName(b, `,"name":`, c.Name)
	b = appendName(b, `,"pod_uid":`, c.PodUID)
	b = appendName(b, `,"pod_namespace":`, c.PodNamespace)
	b = appendName(b, `,"pod_name":`, c.PodName)
	return closeObject(b, start)
}

// appendMessageOf appends the assignments of an event's payload, as [Event.Message] finds
// them; nothing if there is no message.
func appendMessageOf(b []byte, e *Event) []byte {
	text := e.TextOf()
	if text == nil || text.Err != nil {
		return b
	}
	b = append(b, `,"message":[`...)
	start := len(b)
	for a := range text.whole() {
		b = appendAssignment(b, a.Key, a.Value)
	}
	return closeList(b, start)
}

// appendAssignment appends an assignment and a comma.
func appendAssignment(b []byte, key, value string) []byte {
	b = append(b, '{')
	start := len(b)
	b = appendBytes(b, `,"key`, key)
	b = appendBytes(b, `,"value`, value)
	return append(closeObject(b, start), ',')
}

// closeObject ends an object whose fields, each after a comma, begin at start.
func closeObject(b []byte, start int) []byte {
	if len(b) > start {
		b = append(b[:start], b[start+1:]...)
	}
	return append(b, '}')
}

// closeList ends a list whose elements, each before a comma, begin at start.
func closeList(b []byte, start int) []byte {
	if len(b) > start {
		b = b[:len(b)-1]
	}
	return append(b, ']')
}

// The fields. A name comes with what stands before it, a comma, and behind it.

func appendTimeField(b []byte, t time.Time) []byte {
	// RFC 3339 without a fraction has a fast way in package time.
	return appendFraction(t.UTC().AppendFormat(append(b, `,"time":"`...), time.RFC3339), t)
}

// appendFraction appends what a time has behind its second, of which the text ends in Z: always nine digits, so that
// lines of text sort by time.
func appendFraction(b []byte, t time.Time) []byte {
	b[len(b)-1] = '.'
	nanos := t.Nanosecond()
	for unit := 100_000_000; unit > 0; unit /= 10 {
		b = append(b, '0'+byte(nanos/unit%10))
	}
	return append(b, `Z"`...)
}

// appendNumber leaves 0 out, which stands for unknown.
func appendNumber(b []byte, name string, n uint64) []byte {
	if n == 0 {
		return b
	}
	return strconv.AppendUint(append(b, name...), n, 10)
}

func appendKnown(b []byte, name string, n *uint32) []byte {
	if n == nil {
		return b
	}
	return strconv.AppendUint(append(b, name...), uint64(*n), 10)
}

func appendText(b []byte, name, s string) []byte {
	if s == "" {
		return b
	}
	return appendJSONString(append(b, name...), s)
}

// appendName leaves out what is not UTF-8.
func appendName(b []byte, name, s string) []byte {
	if !utf8.ValidString(s) {
		return b
	}
	return appendText(b, name, s)
}

// appendAddress appends an address as [Address.String] has it. The name comes with a quote
// behind it.
func appendAddress(b []byte, name string, address Address) []byte {
	if address == "" {
		return b
	}
	b = append(b, name...)
	if isPlain(string(address)) {
		b = append(b, address...)
	} else {
		var room [4 * 110]byte // the longest that sun_path makes
		b = appendJSONContent(b, asString(AppendEscaped(room[:0], string(address), false)))
	}
	return append(b, '"')
}

// isPlain reports whether s is the same in JSON.
func isPlain(s string) bool {
	for i := range len(s) {
		if !plain[s[i]] {
			return false
		}
	}
	return true
}

// appendBytes appends what can hold any byte: as text or, if it is not UTF-8, as base64. The
// name comes without the quote behind it.
func appendBytes(b []byte, name, s string) []byte {
	b = append(b, name...)
	if utf8.ValidString(s) {
		b = append(b, `":`...)
		return appendJSONString(b, s)
	}
	b = append(b, `_base64":"`...)
	b = base64.StdEncoding.AppendEncode(b, unsafe.Slice(unsafe.StringData(s), len(s)))
	return append(b, '"')
}

func appendJSONString(b []byte, s string) []byte {
	b = append(b, '"')
	b = appendJSONContent(b, s)
	return append(b, '"')
}

// plain are the bytes that stand for themselves in a string of JSON and on a terminal.
var plain = func() (plain [256]bool) {
	for c := ' '; c <= '~'; c++ {
		plain[c] = c != '"' && c != '\\'
	}
	return plain
}()

func appendJSONContent(b []byte, s string) []byte {
	for len(s) > 0 {
		n := 0
		for n < len(s) && plain[s[n]] {
			n++
		}
		b, s = append(b, s[:n]...), s[n:]
		if s == "" {
			break
		}
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r < utf8.RuneSelf:
			b = appendASCII(b, byte(r))
		case r == utf8.RuneError && n == 1:
			b = append(b, `\ufffd`...)
		case visible(r):
			b = append(b, s[:n]...)
		case r > 0xffff:
			hi, lo := utf16.EncodeRune(r)
			b = appendUnicode(appendUnicode(b, hi), lo)
		default:
			b = appendUnicode(b, r)
		}
		s = s[n:]
	}
	return b
}

// appendASCII appends a byte that is not plain, as encoding/json does.
func appendASCII(b []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(b, '\\', c)
	case '\b':
		return append(b, '\\', 'b')
	case '\f':
		return append(b, '\\', 'f')
	case '\n':
		return append(b, '\\', 'n')
	case '\r':
		return append(b, '\\', 'r')
	case '\t':
		return append(b, '\\', 't')
	}
	return appendUnicode(b, rune(c))
}

func appendUnicode(b []byte, r rune) []byte {
	const hex = "0123456789abcdef"
	return append(b, '\\', 'u', hex[r>>12&15], hex[r>>8&15], hex[r>>4&15], hex[r&15])
}
