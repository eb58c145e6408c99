// SPDX-License-Identifier: Apache-2.0

package events

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"
)

// Hang is a send that does not return, because the receiver's queue is full, or the sender's own buffer with what
// the receiver has not read (kernel: unix_wait_for_peer, sock_alloc_send_pskb). Its datagram is captured when
// it returns.
type Hang struct {
	// Time is when it was seen, Since when it was seen first.
	Time, Since time.Time
	// Sender is the thread.
	Sender Reader
	// Address is where it sends to, as the sender wrote it or, for a connected socket, as
	// getpeername(2) gives it.
	Address Address
	// Receiver is the process that does not read, and State what that does instead: the letter of
	// proc_pid_stat(5), such as "T" for one that is stopped.
	Receiver Process
	State    string
	// Queued is how many datagrams wait in its queue, MaxQueued its limit, which one more than that
	// fits; nil when unknown.
	Queued, MaxQueued *uint32
}

type jsonHang struct {
	Type      string          `json:"type"`
	Time      string          `json:"time"`
	Since     string          `json:"since"`
	Sender    json.RawMessage `json:"sender"` // a jsonReader
	Address   string          `json:"address"`
	Receiver  jsonReads       `json:"receiver"`
	Queued    *uint32         `json:"queued,omitempty"`
	MaxQueued *uint32         `json:"max_queued,omitempty"`
}

type jsonReads struct {
	jsonProcess
	State string `json:"state,omitempty"`
}

// AppendHang appends h to b as one line, its '\n' included. Unlike the others it allocates.
func (JSONEncoder) AppendHang(b []byte, h *Hang) []byte {
	return AppendJSONLine(b, jsonHang{
		Type: typeHang, Time: h.Time.UTC().Format(timeLayout), Since: h.Since.UTC().Format(timeLayout),
		Sender: appendReader(nil, &h.Sender), Address: h.Address.String(),
		Receiver: jsonReads{*processJSON(&h.Receiver), h.State}, Queued: h.Queued, MaxQueued: h.MaxQueued,
	})
}

// MarshalJSON returns h in the form of [Schema]. The error is always nil.
func (h *Hang) MarshalJSON() ([]byte, error) {
	return bytes.TrimSuffix(JSONEncoder{}.AppendHang(nil, h), []byte{'\n'}), nil
}

// UnmarshalJSON sets h to what [Hang.MarshalJSON] encoded.
func (h *Hang) UnmarshalJSON(data []byte) error {
	var j jsonHang
	if err := unmarshal(data, &j, &j.Type, typeHang); err != nil {
		return err
	}
	var sender *jsonReader
	if len(j.Sender) > 0 {
		if err := json.Unmarshal(j.Sender, &sender); err != nil {
			return fmt.Errorf("decoding event: %w", err)
		}
	}
	at, err := time.Parse(time.RFC3339Nano, j.Time)
	if err != nil {
		return fmt.Errorf("decoding event: %w", err)
	}
	since, err := time.Parse(time.RFC3339Nano, j.Since)
	if err != nil {
		return fmt.Errorf("decoding event: %w", err)
	}
	address, err := ParseAddress(j.Address)
	if err != nil {
		return fmt.Errorf("decoding event: %w", err)
	}
	*h = Hang{
		Time: at.UTC(), Since: since.UTC(), Sender: sender.reader(), Address: address,
		Receiver: *j.Receiver.process(), State: j.Receiver.State, Queued: j.Queued, MaxQueued: j.MaxQueued,
	}
	return nil
}
