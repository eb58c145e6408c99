// SPDX-License-Identifier: Apache-2.0

package events

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"
)

type (
	jsonReceipt struct {
		Type     ReceiptKind `json:"type"`
		Seq      uint64      `json:"seq"`
		Time     string      `json:"time"`
		DelayNS  int64       `json:"delay_ns"`
		Reader   *jsonReader `json:"reader,omitempty"`
		ClosedBy *jsonReader `json:"closed_by,omitempty"`

		Bytes            *uint32 `json:"bytes,omitempty"`
		Errno            *string `json:"errno,omitempty"`
		Truncated        *bool   `json:"truncated,omitempty"`
		ControlTruncated *bool   `json:"control_truncated,omitempty"`
		SenderExitedNS   *int64  `json:"sender_exited_ns,omitempty"`
	}
	jsonWithheld struct {
		Type    string           `json:"type"`
		Seq     uint64           `json:"seq"`
		Time    string           `json:"time"`
		Relay   *jsonReader      `json:"relay"`
		Message []jsonAssignment `json:"message"`
	}
	jsonReader struct {
		PID          uint32     `json:"pid"`
		TID          uint32     `json:"tid"`
		Comm         *string    `json:"comm,omitempty"`
		CommBase64   []byte     `json:"comm_base64,omitempty"`
		CgroupID     uint64     `json:"cgroup_id,omitempty"`
		Cgroup       *string    `json:"cgroup,omitempty"`
		CgroupBase64 []byte     `json:"cgroup_base64,omitempty"`
		Machine      string     `json:"machine,omitempty"`
		Unit         string     `json:"unit,omitempty"`
		UserUnit     string     `json:"user_unit,omitempty"`
		Slice        string     `json:"slice,omitempty"`
		Container    *Container `json:"container,omitempty"`
	}
)

// MarshalJSON returns r in the form of [Schema]. The error is always nil.
func (r *Receipt) MarshalJSON() ([]byte, error) {
	return bytes.TrimSuffix(JSONEncoder{}.AppendReceipt(nil, r), []byte{'\n'}), nil
}

// MarshalJSON returns w in the form of [Schema]. The error is always nil.
func (w *Withheld) MarshalJSON() ([]byte, error) {
	return bytes.TrimSuffix(JSONEncoder{}.AppendWithheld(nil, w), []byte{'\n'}), nil
}

// UnmarshalJSON sets r to what [Receipt.MarshalJSON] encoded: all but Send.
func (r *Receipt) UnmarshalJSON(data []byte) error {
	var j jsonReceipt
	if err := json.Unmarshal(data, &j); err != nil {
		return fmt.Errorf("decoding event: %w", err)
	}
	t, err := time.Parse(time.RFC3339Nano, j.Time)
	if err != nil {
		return fmt.Errorf("decoding event: %w", err)
	}
	*r = Receipt{Kind: j.Type, Seq: j.Seq, Time: t.UTC(), Delay: time.Duration(j.DelayNS), Bytes: j.Bytes}
	switch j.Type {
	case ReceiptRead:
		r.By = j.Reader.reader()
	case ReceiptUnread, ReceiptBarrier:
		r.By = j.ClosedBy.reader()
	default:
		return fmt.Errorf("decoding event: type is %q, not that of a receipt", j.Type)
	}
	if j.Errno != nil {
		r.Errno = *j.Errno
	}
	r.Truncated = j.Truncated != nil && *j.Truncated
	r.ControlTruncated = j.ControlTruncated != nil && *j.ControlTruncated
	if j.SenderExitedNS != nil {
		gone := time.Duration(*j.SenderExitedNS)
		r.SenderExited = &gone
	}
	return nil
}

// UnmarshalJSON sets w to what [Withheld.MarshalJSON] encoded: all but Send.
func (w *Withheld) UnmarshalJSON(data []byte) error {
	var j jsonWithheld
	if err := unmarshal(data, &j, &j.Type, typeWithheld); err != nil {
		return err
	}
	t, err := time.Parse(time.RFC3339Nano, j.Time)
	if err != nil {
		return fmt.Errorf("decoding event: %w", err)
	}
	*w = Withheld{Seq: j.Seq, Time: t.UTC(), Relay: j.Relay.reader()}
	for _, a := range j.Message {
		w.Message = append(w.Message, Assignment{joinUTF8(a.Key, a.KeyBase64), joinUTF8(a.Value, a.ValueBase64)})
	}
	return nil
}

// reader is the other way round; j may be nil.
func (j *jsonReader) reader() Reader {
	if j == nil {
		return Reader{}
	}
	return Reader{
		PID: j.PID, TID: j.TID, Comm: joinUTF8(j.Comm, j.CommBase64),
		CgroupID: j.CgroupID,
		Identity: Identity{
			Cgroup: joinUTF8(j.Cgroup, j.CgroupBase64), Machine: j.Machine,
			Unit: j.Unit, UserUnit: j.UserUnit, Slice: j.Slice, Container: j.Container,
		},
	}
}
