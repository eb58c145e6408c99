// SPDX-License-Identifier: Apache-2.0

package events

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"time"
	"unicode/utf16"
	"unicode/utf8"
)

// Schema is the JSON Schema (draft 2020-12) of one line of output.
//
//go:embed schema.json
var Schema []byte

// The values of "type".
const (
	typeSend     = "send"
	typeLost     = "lost"
	typeWithheld = "withheld"
	typeVerdict  = "verdict"
	typeUnit     = "unit"
	typeHang     = "hang"
)

// The JSON form of an Event, for decoding. A string that can hold any byte has two fields,
// the second for what is not UTF-8.
type (
	jsonSend struct {
		Type    string       `json:"type"`
		Seq     uint64       `json:"seq"`
		Time    string       `json:"time"`
		Backend string       `json:"backend"`
		Sender  jsonSender   `json:"sender"`
		Claimed *jsonClaimed `json:"claimed,omitempty"`
		Refused *jsonRefused `json:"refused,omitempty"`
		Socket  jsonSocket   `json:"socket"`

		Receiver *jsonReceiver `json:"receiver,omitempty"`
		Result   jsonResult    `json:"result"`
		HopOf    uint64        `json:"hop_of,omitempty"`
		Call     Call          `json:"call,omitempty"`
		Trouble  string        `json:"trouble,omitempty"`

		Size          *uint32          `json:"size,omitempty"`
		Truncated     bool             `json:"truncated"`
		Payload       *string          `json:"payload,omitempty"`
		PayloadBase64 []byte           `json:"payload_base64,omitempty"`
		Message       []jsonAssignment `json:"message,omitzero"`
		FDs           []FD             `json:"fds,omitempty"`
	}
	jsonSender struct {
		PID              uint32     `json:"pid"`
		TID              uint32     `json:"tid"`
		PPID             uint32     `json:"ppid,omitempty"`
		NSPID            uint32     `json:"ns_pid,omitempty"`
		Comm             *string    `json:"comm,omitempty"`
		CommBase64       []byte     `json:"comm_base64,omitempty"`
		Exe              *string    `json:"exe,omitempty"`
		ExeBase64        []byte     `json:"exe_base64,omitempty"`
		UID              uint32     `json:"uid"`
		GID              uint32     `json:"gid"`
		CgroupID         uint64     `json:"cgroup_id,omitempty"`
		Cgroup           *string    `json:"cgroup,omitempty"`
		CgroupBase64     []byte     `json:"cgroup_base64,omitempty"`
		CgroupController string     `json:"cgroup_controller,omitempty"`
		Machine          string     `json:"machine,omitempty"`
		Unit             string     `json:"unit,omitempty"`
		UserUnit         string     `json:"user_unit,omitempty"`
		Slice            string     `json:"slice,omitempty"`
		MntNS            uint32     `json:"mntns,omitempty"`
		NetNS            uint32     `json:"netns,omitempty"`
		PIDNS            uint32     `json:"pidns,omitempty"`
		UserNS           uint32     `json:"userns,omitempty"`
		CgroupNS         uint32     `json:"cgroupns,omitempty"`
		Container        *Container `json:"container,omitempty"`
	}
	jsonClaimed struct {
		PID   uint32  `json:"pid,omitempty"`
		NSPID uint32  `json:"ns_pid,omitempty"`
		UID   *uint32 `json:"uid,omitempty"`
		GID   *uint32 `json:"gid,omitempty"`
	}
	jsonRefused struct {
		Errno string `json:"errno"`
		jsonClaimed
	}
	jsonSocket struct {
		Address string `json:"address,omitempty"`
		Bound   string `json:"bound,omitempty"`
		Inode   uint64 `json:"inode,omitempty"`
		Type    string `json:"type,omitempty"`
	}
	jsonReceiver struct {
		PID          uint32     `json:"pid,omitempty"`
		Comm         *string    `json:"comm,omitempty"`
		CommBase64   []byte     `json:"comm_base64,omitempty"`
		UID          *uint32    `json:"uid,omitempty"`
		NetNS        uint32     `json:"netns,omitempty"`
		CgroupID     uint64     `json:"cgroup_id,omitempty"`
		Cgroup       *string    `json:"cgroup,omitempty"`
		CgroupBase64 []byte     `json:"cgroup_base64,omitempty"`
		Machine      string     `json:"machine,omitempty"`
		Unit         string     `json:"unit,omitempty"`
		UserUnit     string     `json:"user_unit,omitempty"`
		Slice        string     `json:"slice,omitempty"`
		Container    *Container `json:"container,omitempty"`
	}
	jsonResult struct {
		Bytes     *uint32 `json:"bytes,omitempty"`
		Errno     string  `json:"errno"`
		LatencyNS int64   `json:"latency_ns,omitempty"`
		Delivered *bool   `json:"delivered,omitempty"`
	}
	jsonAssignment struct {
		Key         *string `json:"key,omitempty"`
		KeyBase64   []byte  `json:"key_base64,omitempty"`
		Value       *string `json:"value,omitempty"`
		ValueBase64 []byte  `json:"value_base64,omitempty"`
	}
	jsonLost struct {
		Type         string `json:"type"`
		Time         string `json:"time"`
		Count        uint64 `json:"count"`
		RingFull     uint64 `json:"ring_full"`
		InFlightFull uint64 `json:"in_flight_full,omitempty"` // of captures before it was gone
		Missed       uint64 `json:"missed"`
		Receipts     uint64 `json:"receipts"`
		Names        uint64 `json:"names,omitempty"`
		By           []struct {
			CgroupID uint64 `json:"cgroup_id"`
			Cgroup   string `json:"cgroup"`
			UID      uint32 `json:"uid"`
			Count    uint64 `json:"count"`
		} `json:"by,omitempty"`
	}
)

// MarshalJSON returns e in the form of [Schema]. The error is always nil.
func (e *Event) MarshalJSON() ([]byte, error) {
	return bytes.TrimSuffix(JSONEncoder{}.AppendEvent(nil, e), []byte{'\n'}), nil
}

// MarshalJSON returns l in the form of [Schema]. The error is always nil.
func (l *Lost) MarshalJSON() ([]byte, error) {
	return bytes.TrimSuffix(JSONEncoder{}.AppendLost(nil, l), []byte{'\n'}), nil
}

// Decode reads one line that [JSONEncoder] wrote. Fields it does not know are passed
// over. The error says what is wrong with the line: that it is no JSON, has an unknown type, or a
// value that the field cannot have.
func Decode(line []byte) (r Record, err error) {
	var head struct {
		Type string `json:"type"`
	}
	if err := json.Unmarshal(line, &head); err != nil {
		return r, fmt.Errorf("decoding event: %w", err)
	}
	var into json.Unmarshaler
	switch head.Type {
	case typeSend:
		r.Event = new(Event)
		into = r.Event
	case typeLost:
		r.Lost = new(Lost)
		into = r.Lost
	case typeWithheld:
		r.Withheld = new(Withheld)
		into = r.Withheld
	case typeVerdict:
		r.Verdict = new(Verdict)
		into = r.Verdict
	case typeUnit:
		r.Unit = new(Unit)
		into = r.Unit
	case typeHang:
		r.Hang = new(Hang)
		into = r.Hang
	case string(ReceiptRead), string(ReceiptUnread), string(ReceiptBarrier):
		r.Receipt = new(Receipt)
		into = r.Receipt
	default:
		return r, fmt.Errorf("decoding event: unknown type %q", head.Type)
	}
	if err := into.UnmarshalJSON(line); err != nil {
		return Record{}, err
	}
	return r, nil
}

// UnmarshalJSON sets e to what [Event.MarshalJSON] encoded. "message" is not
// read: it follows from the payload. BootTime, StartTime and SenderNetNS have no JSON form
// and become 0.
func (e *Event) UnmarshalJSON(data []byte) error {
	var j jsonSend
	if err := unmarshal(data, &j, &j.Type, typeSend); err != nil {
		return err
	}
	t, err := time.Parse(time.RFC3339Nano, j.Time)
	if err != nil {
		return fmt.Errorf("decoding event: %w", err)
	}
	address, err := ParseAddress(j.Socket.Address)
	if err != nil {
		return fmt.Errorf("decoding event: %w", err)
	}
	bound, err := ParseAddress(j.Socket.Bound)
	if err != nil {
		return fmt.Errorf("decoding event: %w", err)
	}
	s := j.Sender
	*e = Event{
		Seq:     j.Seq,
		Time:    t.UTC(),
		Backend: j.Backend,
		Sender: Sender{
			PID: s.PID, TID: s.TID, PPID: s.PPID, NSPID: s.NSPID,
			Comm: joinUTF8(s.Comm, s.CommBase64),
			Exe:  joinUTF8(s.Exe, s.ExeBase64),
			UID:  s.UID, GID: s.GID,
			CgroupID: s.CgroupID,
			Identity: Identity{
				Cgroup: joinUTF8(s.Cgroup, s.CgroupBase64), Machine: s.Machine,
				Unit: s.Unit, UserUnit: s.UserUnit, Slice: s.Slice, Container: s.Container,
			},
			CgroupController: s.CgroupController,
			MntNS:            s.MntNS, NetNS: s.NetNS, PIDNS: s.PIDNS, UserNS: s.UserNS, CgroupNS: s.CgroupNS,
		},
		Claimed: (*Claimed)(j.Claimed),
		Socket:  Socket{Address: address, Bound: bound, Inode: j.Socket.Inode, Type: j.Socket.Type},
		Result: Result{
			Bytes:     j.Result.Bytes,
			Errno:     j.Result.Errno,
			Latency:   time.Duration(j.Result.LatencyNS),
			Delivered: j.Result.Delivered,
		},
		Call:      j.Call,
		Trouble:   j.Trouble,
		Size:      j.Size,
		Truncated: j.Truncated,
		Payload:   j.PayloadBase64,
		FDs:       j.FDs,
	}
	if r := j.Refused; r != nil {
		e.Refused = &Refused{Claimed: Claimed(r.jsonClaimed), Errno: r.Errno}
	}
	if r := j.Receiver; r != nil {
		e.Receiver = &Receiver{
			UID: r.UID, NetNS: r.NetNS, CgroupID: r.CgroupID, PID: r.PID,
			Identity: Identity{
				Cgroup: joinUTF8(r.Cgroup, r.CgroupBase64), Machine: r.Machine,
				Unit: r.Unit, UserUnit: r.UserUnit, Slice: r.Slice, Container: r.Container,
			},
		}
		// A name is that of the process: without one it is nobody's.
		if r.PID != 0 {
			e.Receiver.Comm = joinUTF8(r.Comm, r.CommBase64)
		}
	}
	if j.HopOf != 0 {
		e.HopOf = &Event{Seq: j.HopOf}
	}
	if j.Payload != nil {
		e.Payload = []byte(*j.Payload)
	}
	if len(e.FDs) == 0 {
		e.FDs = nil
	}
	e.TextOf()
	return nil
}

// UnmarshalJSON sets l to what [Lost.MarshalJSON] encoded. "count" is not read:
// it is the sum of the others.
func (l *Lost) UnmarshalJSON(data []byte) error {
	var j jsonLost
	if err := unmarshal(data, &j, &j.Type, typeLost); err != nil {
		return err
	}
	t, err := time.Parse(time.RFC3339Nano, j.Time)
	if err != nil {
		return fmt.Errorf("decoding event: %w", err)
	}
	*l = Lost{Time: t.UTC(), RingFull: j.RingFull, Missed: j.Missed + j.InFlightFull, Receipts: j.Receipts, Names: j.Names}
	for _, by := range j.By {
		l.By = append(l.By, LostBy{CgroupID: by.CgroupID, Cgroup: by.Cgroup, UID: by.UID, Count: by.Count})
	}
	return nil
}

func unmarshal(data []byte, into any, gotType *string, wantType string) error {
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("decoding event: %w", err)
	}
	if *gotType != wantType {
		return fmt.Errorf("decoding event: type is %q, not %q", *gotType, wantType)
	}
	return nil
}

func joinUTF8(text *string, other []byte) string {
	if text != nil {
		return *text
	}
	return string(other)
}

// AppendJSONLine appends v to b as one line of JSON, its '\n' included, with no
// character in it that a terminal acts on. It panics when v cannot be encoded.
func AppendJSONLine(b []byte, v any) []byte {
	var line bytes.Buffer
	enc := json.NewEncoder(&line)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(err)
	}
	return appendVisible(b, line.Bytes())
}

// appendVisible appends JSON, with the characters that encoding/json leaves as
// they are but a terminal acts on or hides written as \u escapes. All of them
// stand inside of strings.
func appendVisible(b, line []byte) []byte {
	for len(line) > 0 {
		ascii := 0
		for ascii < len(line) && line[ascii] < 0x7f {
			ascii++
		}
		b, line = append(b, line[:ascii]...), line[ascii:]
		if len(line) == 0 {
			break
		}
		r, n := utf8.DecodeRune(line)
		switch {
		case visible(r):
			b = append(b, line[:n]...)
		case r > 0xffff:
			hi, lo := utf16.EncodeRune(r)
			b = fmt.Appendf(b, `\u%04x\u%04x`, hi, lo)
		default:
			b = fmt.Appendf(b, `\u%04x`, r)
		}
		line = line[n:]
	}
	return b
}
