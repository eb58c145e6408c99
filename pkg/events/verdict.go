// SPDX-License-Identifier: Apache-2.0

package events

import (
	"bytes"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"
)

// Verdict says what the service manager makes of a datagram to its notify socket.
type Verdict struct {
	// Seq is the number of the datagram's event, Send the event itself, as in [Receipt].
	Seq  uint64
	Send *Event
	// Time is when it was known.
	Time time.Time
	// Pending is set when the service manager has not answered yet: nothing is known, and another
	// verdict follows.
	Pending bool
	// Manager is the service manager: its process in the initial pid namespace, and the first
	// number of systemd's version; 0 when unknown.
	Manager VerdictManager
	// Unit is the unit that the datagram counts for; "" for none, or when that is not known.
	Unit string
	// From is whom the service manager takes for the sender: what the sender claims, else the
	// sender. PID is 0 when unknown.
	From Process
	// Named is the process that MAINPID= or MAINPIDFD= names, nil without one; PID is 0 when
	// there is none.
	Named *Process
	// MainBefore and MainAfter are the unit's main process before and after the datagram, nil
	// when unknown; PID is 0 for none.
	MainBefore, MainAfter *Process
	// Lines are what becomes of the datagram line by line, in their order.
	Lines []LineVerdict
}

// VerdictManager is the service manager of a [Verdict].
type VerdictManager struct {
	PID     uint32 `json:"pid,omitempty"`
	Version int    `json:"version,omitempty"`
}

// Process is one that a [Verdict] speaks of.
type Process struct {
	// PID is in the initial pid namespace.
	PID uint32
	// Comm is its name as in /proc/PID/comm; "" when unknown.
	Comm string
	// Unit is the service manager's unit that it belongs to; "" for none, or when unknown.
	Unit string
}

// Outcome says what a service manager makes of an assignment.
type Outcome string

// The outcomes.
const (
	// Unknown: what decides about it is not known.
	Unknown Outcome = "unknown"
	// Heeded: the service manager acts on it.
	Heeded Outcome = "heeded"
	// Ignored: it would count, but not from this sender, in this datagram, or now.
	Ignored Outcome = "ignored"
	// NoEffect: the service manager takes it and nothing changes: it is so already, the unit is
	// in another state, or the assignment is none that the service manager reads.
	NoEffect Outcome = "no effect"
)

// LineVerdict is what becomes of one line of a datagram.
type LineVerdict struct {
	// Assignment is the line. A line without '=' has a key alone, an empty datagram neither.
	Assignment
	// Outcome is what becomes of it.
	Outcome Outcome
	// Rule is the rule's name, as in docs/verdict.md; "" when the outcome is unknown.
	Rule string
	// Reason says why in one sentence without a full stop, Cure what to change ("": nothing).
	Reason, Cure string
	// Likely is set for a version of systemd newer than the rules were tried with.
	Likely bool
	// Confirmed says whether the unit's properties have shown it since, nil when they cannot.
	// False is a contradiction: the verdict is wrong, or the version of systemd is not as others
	// of its number.
	Confirmed *bool
}

// Whole returns the verdict on the whole datagram, if all its lines have the same one.
func (v *Verdict) Whole() (of LineVerdict, ok bool) {
	if len(v.Lines) == 0 {
		return of, false
	}
	of = v.Lines[0]
	for _, l := range v.Lines[1:] {
		if l.Outcome != of.Outcome || l.Rule != of.Rule || l.Reason != of.Reason {
			return of, false
		}
	}
	return of, true
}

// Any reports whether the verdict on some line is one of these.
func (v *Verdict) Any(outcomes ...Outcome) bool {
	return slices.ContainsFunc(v.Lines, func(l LineVerdict) bool { return slices.Contains(outcomes, l.Outcome) })
}

// Contradicted reports whether the unit's properties have shown something else of some line.
func (v *Verdict) Contradicted() bool {
	return slices.ContainsFunc(v.Lines, func(l LineVerdict) bool { return l.Confirmed != nil && !*l.Confirmed })
}

type (
	jsonVerdict struct {
		Type       string         `json:"type"`
		Seq        uint64         `json:"seq"`
		Time       string         `json:"time"`
		Pending    bool           `json:"pending,omitempty"`
		Manager    VerdictManager `json:"manager"`
		Unit       string         `json:"unit,omitempty"`
		From       *jsonProcess   `json:"from,omitempty"`
		Named      *jsonProcess   `json:"named,omitempty"`
		MainBefore *jsonProcess   `json:"main_before,omitempty"`
		MainAfter  *jsonProcess   `json:"main_after,omitempty"`
		Lines      []jsonLine     `json:"lines"`
	}
	jsonProcess struct {
		PID        uint32  `json:"pid"`
		Comm       *string `json:"comm,omitempty"`
		CommBase64 []byte  `json:"comm_base64,omitempty"`
		Unit       string  `json:"unit,omitempty"`
	}
	jsonLine struct {
		jsonAssignment
		Outcome   Outcome `json:"outcome"`
		Rule      string  `json:"rule,omitempty"`
		Reason    string  `json:"reason"`
		Cure      string  `json:"cure,omitempty"`
		Likely    bool    `json:"likely,omitempty"`
		Confirmed *bool   `json:"confirmed,omitempty"`
	}
)

// AppendVerdict appends v to b as one line, its '\n' included. Unlike the others it allocates.
func (JSONEncoder) AppendVerdict(b []byte, v *Verdict) []byte {
	j := jsonVerdict{
		Type: typeVerdict, Seq: v.Seq, Time: v.Time.UTC().Format(timeLayout), Pending: v.Pending,
		Manager: v.Manager, Unit: onlyUTF8(v.Unit),
		Named: processJSON(v.Named), MainBefore: processJSON(v.MainBefore), MainAfter: processJSON(v.MainAfter),
		Lines: make([]jsonLine, len(v.Lines)),
	}
	if v.From.PID != 0 {
		j.From = processJSON(&v.From)
	}
	for i, l := range v.Lines {
		line := jsonLine{Outcome: l.Outcome, Rule: l.Rule, Reason: l.Reason, Cure: l.Cure, Likely: l.Likely, Confirmed: l.Confirmed}
		line.Key, line.KeyBase64 = splitUTF8(l.Key)
		line.Value, line.ValueBase64 = splitUTF8(l.Value)
		j.Lines[i] = line
	}
	return AppendJSONLine(b, j)
}

func processJSON(p *Process) *jsonProcess {
	if p == nil {
		return nil
	}
	j := &jsonProcess{PID: p.PID, Unit: onlyUTF8(p.Unit)}
	if p.Comm != "" {
		j.Comm, j.CommBase64 = splitUTF8(p.Comm)
	}
	return j
}

func (j *jsonProcess) process() *Process {
	if j == nil {
		return nil
	}
	return &Process{PID: j.PID, Comm: joinUTF8(j.Comm, j.CommBase64), Unit: j.Unit}
}

// onlyUTF8 drops a name that is not UTF-8, as appendName does.
func onlyUTF8(s string) string {
	if !utf8.ValidString(s) {
		return ""
	}
	return s
}

// splitUTF8 sorts s into the field for text or the one for other bytes.
func splitUTF8(s string) (text *string, other []byte) {
	if utf8.ValidString(s) {
		return &s, nil
	}
	return nil, []byte(s)
}

// MarshalJSON returns v in the form of [Schema]. The error is always nil.
func (v *Verdict) MarshalJSON() ([]byte, error) {
	return bytes.TrimSuffix(JSONEncoder{}.AppendVerdict(nil, v), []byte{'\n'}), nil
}

// UnmarshalJSON sets v to what [Verdict.MarshalJSON] encoded: all but Send.
func (v *Verdict) UnmarshalJSON(data []byte) error {
	var j jsonVerdict
	if err := unmarshal(data, &j, &j.Type, typeVerdict); err != nil {
		return err
	}
	t, err := time.Parse(time.RFC3339Nano, j.Time)
	if err != nil {
		return fmt.Errorf("decoding event: %w", err)
	}
	*v = Verdict{
		Seq: j.Seq, Time: t.UTC(), Pending: j.Pending, Manager: j.Manager, Unit: j.Unit,
		Named: j.Named.process(), MainBefore: j.MainBefore.process(), MainAfter: j.MainAfter.process(),
	}
	if from := j.From.process(); from != nil {
		v.From = *from
	}
	for _, l := range j.Lines {
		v.Lines = append(v.Lines, LineVerdict{
			Assignment: Assignment{joinUTF8(l.Key, l.KeyBase64), joinUTF8(l.Value, l.ValueBase64)},
			Outcome:    l.Outcome, Rule: l.Rule, Reason: l.Reason, Cure: l.Cure, Likely: l.Likely, Confirmed: l.Confirmed,
		})
	}
	return nil
}
