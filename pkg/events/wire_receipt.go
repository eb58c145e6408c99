// SPDX-License-Identifier: Apache-2.0

package events

import (
	"encoding/binary"
	"fmt"
	"syscall"
	"time"
	"unsafe"
)

// RecordType says what a record of the ring buffer is of.
type RecordType uint32

// The types of records (enum record_type in bpf/event.h).
const (
	// RecordSend is for [Decoder.Send], the others are for [Decoder.Receipt].
	RecordSend RecordType = iota
	RecordRead
	RecordUnread
	RecordClosed
	// RecordForgotten says that a datagram will not be reported, and so what
	// became of it is not to be either.
	RecordForgotten
)

// TypeOf returns the type of a record. The error wraps [ErrBadRecord].
func TypeOf(record []byte) (RecordType, error) {
	if len(record) < 4 {
		return 0, fmt.Errorf("%w: %d bytes", ErrBadRecord, len(record))
	}
	t := RecordType(binary.NativeEndian.Uint32(record))
	if t > RecordForgotten {
		return 0, fmt.Errorf("%w: of type %d", ErrBadRecord, t)
	}
	return t, nil
}

// WireReceipt is struct receipt in bpf/event.h, field by field.
type WireReceipt struct {
	Type                                                     uint32
	Result                                                   int32
	SKB, StartNS, QueuedNS, TimeNS, SenderExitedNS, CgroupID uint64
	StartTime                                                uint64
	PID, TID, MsgFlags                                       uint32
	Comm                                                     [16]byte
	Unused                                                   uint32
}

// Receipt decodes any other record than that of a send into r, which it
// overwrites: all but Send, and what package identity reads out of a cgroup path. id
// is that of the datagram. The error wraps [ErrBadRecord].
func (d *Decoder) Receipt(r *Receipt, record []byte, clock Clock) (id DatagramID, err error) {
	var w WireReceipt
	t, err := TypeOf(record)
	if err != nil {
		return id, err
	}
	if t == RecordSend || len(record) < int(unsafe.Sizeof(w)) {
		return id, fmt.Errorf("%w: %d bytes of type %d", ErrBadRecord, len(record), t)
	}
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&w)), unsafe.Sizeof(w)), record)
	*r = Receipt{
		Kind: receiptKinds[t],
		Time: clock.Boot.Add(time.Duration(w.TimeNS)),
		// The clock may be read on another CPU.
		Delay: max(0, time.Duration(w.TimeNS-w.QueuedNS)),
		By:    Reader{PID: w.PID, TID: w.TID, Comm: d.comm(&w.Comm), CgroupID: w.CgroupID, StartTime: w.StartTime},
	}
	if w.SenderExitedNS != 0 && w.SenderExitedNS <= w.TimeNS {
		gone := time.Duration(w.TimeNS - w.SenderExitedNS)
		r.SenderExited = &gone
	}
	if t == RecordRead {
		r.Truncated = w.MsgFlags&syscall.MSG_TRUNC != 0
		r.ControlTruncated = w.MsgFlags&syscall.MSG_CTRUNC != 0
		if w.Result < 0 {
			r.Errno = errnoName(-w.Result)
		} else {
			n := uint32(w.Result)
			r.Bytes = &n
		}
	}
	return DatagramID{w.SKB, w.StartNS}, nil
}

var receiptKinds = [...]ReceiptKind{
	RecordRead: ReceiptRead, RecordUnread: ReceiptUnread, RecordClosed: ReceiptBarrier, RecordForgotten: "",
}
