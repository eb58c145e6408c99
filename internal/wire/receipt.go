// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/binary"
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/bpf"
	"github.com/sdtrace/sdtrace/pkg/events"
)

// RecordType says what a record of the ring buffer is of.
type RecordType = bpf.FentryRecordType

// The types of records.
const (
	// RecordSend is for [Decoder.Send], the others are for [Decoder.Receipt].
	RecordSend   = bpf.FentryRecordTypeRECORD_SEND
	RecordRead   = bpf.FentryRecordTypeRECORD_READ
	RecordUnread = bpf.FentryRecordTypeRECORD_UNREAD
	RecordClosed = bpf.FentryRecordTypeRECORD_CLOSED
	// RecordForgotten says that a datagram will not be reported, and so what
	// became of it is not to be either.
	RecordForgotten = bpf.FentryRecordTypeRECORD_FORGOTTEN
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

// Receipt decodes any other record than that of a send into r, which it
// overwrites: all but Send, and what a cgroup path says. id is that of the datagram. The error wraps [ErrBadRecord].
func (d *Decoder) Receipt(r *events.Receipt, record []byte, clock Clock) (id DatagramID, err error) {
	w := &d.receipt
	t, err := TypeOf(record)
	if err != nil {
		return id, err
	}
	if t == RecordSend || len(record) < int(unsafe.Sizeof(*w)) {
		return id, fmt.Errorf("%w: %d bytes of type %d", ErrBadRecord, len(record), t)
	}
	copy(unsafe.Slice((*byte)(unsafe.Pointer(w)), unsafe.Sizeof(*w)), record)
	*r = events.Receipt{
		Kind: receiptKinds[t],
		Time: clock.Boot.Add(time.Duration(w.TimeNs)),
		// The clock may be read on another CPU.
		Delay: max(0, time.Duration(w.TimeNs-w.QueuedNs)),
		By:    events.Reader{PID: w.Pid, TID: w.Tid, Comm: d.comm(&w.Comm), CgroupID: w.CgroupId, StartTime: w.StartTime},
	}
	if w.SenderExitedNs != 0 && w.SenderExitedNs <= w.TimeNs {
		gone := time.Duration(w.TimeNs - w.SenderExitedNs)
		r.SenderExited = &gone
	}
	if t == RecordRead {
		r.Truncated = w.MsgFlags&unix.MSG_TRUNC != 0
		r.ControlTruncated = w.MsgFlags&unix.MSG_CTRUNC != 0
		if w.Result < 0 {
			r.Errno = errnoName(-w.Result)
		} else {
			n := uint32(w.Result)
			r.Bytes = &n
		}
	}
	return DatagramID{w.Skb, w.QueuedNs}, nil
}

var receiptKinds = [...]events.ReceiptKind{
	RecordRead: events.ReceiptRead, RecordUnread: events.ReceiptUnread, RecordClosed: events.ReceiptBarrier, RecordForgotten: "",
}
