// SPDX-License-Identifier: Apache-2.0

package events

import "time"

// ReceiptKind says what became of a datagram.
type ReceiptKind string

// The kinds of receipts.
const (
	// ReceiptRead: a process received the datagram (unix_dgram_recvmsg).
	ReceiptRead ReceiptKind = "read"
	// ReceiptUnread: the kernel threw the datagram away before anybody received
	// it, because its socket was closed, or connected to another one.
	ReceiptUnread ReceiptKind = "unread"
	// ReceiptBarrier: the pipe passed with BARRIER=1 was closed by all that had it,
	// which is what sd_notify_barrier(3) waits for.
	ReceiptBarrier ReceiptKind = "barrier"
)

// Receipt is one thing that became of a datagram after it was put into the
// receiver's queue.
type Receipt struct {
	// Kind says what became of it.
	Kind ReceiptKind
	// Seq is the number of the datagram's event, Send the event itself. Send is nil in what
	// [Decode] returns, and in a capture that was read from a file when the event is not
	// in the file, or too far back.
	Seq  uint64
	Send *Event
	// Time is when it left the queue or, for a barrier, when the pipe was closed.
	Time time.Time
	// Delay is the time from when it was put into the queue until Time, at least 0.
	Delay time.Duration
	// By is who read it, closed the socket it was in, or was the last to close
	// the pipe.
	By Reader
	// Bytes is what the reader's call returned, nil when it failed or when nobody
	// read it. With MSG_TRUNC in the flags of the call it is more than was read.
	Bytes *uint32
	// Errno is the symbolic error of the reader's call ("EFAULT"), with which the
	// datagram is lost; empty when it succeeded.
	Errno string
	// Truncated is MSG_TRUNC, ControlTruncated MSG_CTRUNC as the reader got them
	// (recvmsg(2)): its buffer was too small for the datagram, or for what came
	// with it.
	Truncated, ControlTruncated bool
	// SenderExited is how long the sender's process had been over when the datagram
	// left the queue, nil when it had not, as far as is known. systemd cannot tell
	// which unit a process belonged to that is gone.
	SenderExited *time.Duration
}

// slowRead is how long a datagram waits at most in the ordinary.
const slowRead = time.Second

// Ordinary reports whether r says what is to be expected: the datagram was read, whole,
// soon, and while its sender lived.
func (r *Receipt) Ordinary() bool {
	return r.Kind == ReceiptRead && r.Errno == "" && !r.Truncated && !r.ControlTruncated &&
		r.SenderExited == nil && r.Delay < slowRead
}

// Reader is a thread that did something with a datagram.
type Reader struct {
	// PID and TID are the thread group id and the thread id in the initial pid
	// namespace.
	PID, TID uint32
	// Comm is the name of the process as in /proc/PID/comm.
	Comm string
	// CgroupID is the id of the cgroup v2 it was in, Identity what the path of that says.
	CgroupID uint64
	Identity
	// StartTime is as in [Sender]; it has no JSON form.
	StartTime uint64
}

// Withheld is what a relay has kept to itself of a datagram that it read, judged by what
// the same process sent afterwards.
type Withheld struct {
	// Seq and Send are as in [Receipt].
	Seq  uint64
	Send *Event
	// Time is when it was judged.
	Time time.Time
	// Relay is the thread that read the datagram.
	Relay Reader
	// Message are the assignments that nothing the relay has sent since then holds:
	// of a part of the message, when the rest was passed on.
	Message Message
}
