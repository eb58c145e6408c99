// SPDX-License-Identifier: Apache-2.0

// Package events holds what a capture yields: one [Event] for each datagram,
// what became of it, the parser of the sd_notify text, and the encoder to JSON
// Lines and back. It imports the standard library alone.
package events

import "time"

// Event is one datagram that a process sent to an AF_UNIX socket. A field that
// could not be determined is nil, empty or zero and is left out of the JSON;
// docs/events.md says which backend can know what.
type Event struct {
	// Seq numbers the captured events of one run in kernel order, from 1.
	Seq uint64
	// Time is the wall-clock time at which the send call ended.
	Time time.Time
	// BootTime is the same by CLOCK_BOOTTIME, which nobody sets; 0 when unknown.
	BootTime time.Duration
	// Backend is "fentry" or "tracepoint".
	Backend string

	// Sender is who made the send call.
	Sender Sender
	// Claimed is what the sender wrote into SCM_CREDENTIALS, nil when it
	// attached none. systemd attributes the message to these, not to Sender.
	Claimed *Claimed
	// Refused is the claim of the same send that the kernel refused before, nil without one:
	// sd_notify(3) sends again without SCM_CREDENTIALS then.
	Refused *Refused
	// Socket is where the datagram was sent.
	Socket Socket
	// Receiver says whose the receiving socket is, nil when it was not seen.
	Receiver *Receiver
	// Result says how the send call ended.
	Result Result
	// HopOf is the datagram that the same process read before and passes on with
	// this one, nil if none is known. Of one that [Decode] returns, only Seq is set.
	HopOf *Event

	// Call is the system call that has failed before anything was sent, "" for a send: [CallConnect] for a
	// notify socket, or [CallSocket] for an AF_UNIX datagram socket of a process with NOTIFY_SOCKET. There
	// is no payload.
	Call Call

	// Trouble says why the call has failed, in a sentence without a full stop, as the sender was seen just after it:
	// its root directory, its user and what that may not use; "" if nothing was found.
	Trouble string

	// Awaited is set when a [Verdict] on the datagram follows in the stream.
	Awaited bool

	// Size is the whole length of the datagram in bytes, nil when unknown.
	Size *uint32
	// Truncated is set when Payload holds less than the datagram did.
	Truncated bool
	// Payload is the datagram's first bytes, at most [MaxPayload]. Nil means
	// unknown; an empty datagram has a non-nil Payload of length 0.
	Payload []byte
	// Text is Payload split into lines, set by what decodes an event; see [Event.TextOf].
	Text *Text
	// FDs are the file descriptors passed with SCM_RIGHTS, in order.
	FDs []FD
}

// Call is a system call.
type Call string

// The calls that come before a send.
const (
	CallConnect Call = "connect"
	CallSocket  Call = "socket"
)

// MaxPayload is the number of payload bytes that are captured, in bytes:
// systemd's NOTIFY_BUFFER_MAX, beyond which it refuses a datagram.
const MaxPayload = 4096

// Sender is the thread that made the send call, as the kernel saw it then.
type Sender struct {
	// PID and TID are the thread group id and the thread id in the initial pid
	// namespace; PPID is the parent's.
	PID, TID, PPID uint32
	// NSPID is the PID as the sender itself sees it, in its own pid namespace.
	NSPID uint32
	// Comm is the process's name, of the thread group leader, as in
	// /proc/PID/comm; at most 15 bytes.
	Comm string
	// Exe is the path of the executable, read from /proc after the event and
	// only kept when the process is still the same.
	Exe string
	// UID and GID are the real ids in the initial user namespace.
	UID, GID uint32

	// CgroupID is the id of the cgroup v2 the sender was in: the inode number of
	// its directory.
	CgroupID uint64
	// Identity is that of Cgroup, taken in the kernel at the time of the send. It is the
	// cgroup v2 path, unless that is "/" and CgroupController names a v1 hierarchy which
	// says more.
	Identity
	// CgroupController is the cgroup v1 controller whose hierarchy Cgroup is
	// in ("pids", "memory", …), empty for cgroup v2.
	CgroupController string

	// MntNS, NetNS, PIDNS, UserNS and CgroupNS are the inode numbers of the sender's
	// namespaces, as in /proc/PID/ns.
	MntNS, NetNS, PIDNS, UserNS, CgroupNS uint32

	// StartTime is when the thread group leader was started, in nanoseconds of
	// CLOCK_BOOTTIME. Together with PID it names the process for good.
	StartTime uint64
	// Execs is how many programs the process, and those that it comes from, have executed
	// (task_struct.self_exec_id): another number tells that it has executed another one. It has no JSON form.
	Execs uint32
}

// Claimed is the content of an SCM_CREDENTIALS control message (unix(7)).
type Claimed struct {
	// PID is the claimed process in the initial pid namespace, 0 when only
	// NSPID is known.
	PID uint32
	// NSPID is the claimed process as written by the sender, in the sender's
	// pid namespace, 0 when unknown.
	NSPID uint32
	// UID and GID are the claimed ids in the initial user namespace, nil when
	// the sender wrote them in another one and the backend cannot translate.
	UID, GID *uint32
}

// Refused is a claim of credentials that the kernel refused (kernel: scm_check_creds).
type Refused struct {
	Claimed
	// Errno is the error's name, such as "EPERM".
	Errno string
}

// Socket is the destination of a datagram.
type Socket struct {
	// Address is the destination as the sender wrote it or, for a connected
	// socket, as getpeername(2) gives it.
	Address Address
	// Bound is the address that the receiving socket was bound to.
	Bound Address
	// Inode is the inode number of the receiving socket, as in ss -x.
	Inode uint64
	// Type is "dgram" or "seqpacket".
	Type string
	// SenderNetNS is the inode number of the network namespace in which the sending
	// socket was made, and in which an abstract Address is looked up; not always the
	// sender's own. 0 when unknown, as it is when Inode is known.
	SenderNetNS uint32
}

// Receiver is the receiving socket's owner. A socket does not know which process reads it, so
// the process that holds it is looked up afterwards.
type Receiver struct {
	// UID is the user who made the socket, in the initial user namespace; nil when
	// unknown.
	UID *uint32
	// NetNS is the inode number of the network namespace it was made in, 0 when unknown.
	NetNS uint32
	// CgroupID is the id of the cgroup v2 in which it was made, 0 when unknown
	// (sk_cgrp_data). Cgroup is another one when a process holds the socket that did not
	// make it.
	CgroupID uint64
	// PID and Comm are the process that holds the socket, of several the one with
	// the lowest number; 0 if none was found.
	PID  uint32
	Comm string
	// Identity is that of the process or, when none was found, of the cgroup in which the
	// socket was made.
	Identity
}

// Result says how the send call ended.
type Result struct {
	// Bytes is what the call returned, nil when it failed.
	Bytes *uint32
	// Errno is the symbolic error ("ENOENT"), empty when the call succeeded.
	Errno string
	// Latency is the time spent in the kernel's send function, 0 when unknown.
	Latency time.Duration
	// Delivered tells whether the datagram was put into the receiver's queue.
	// Nil means unknown: a send can succeed although a socket filter of the
	// receiver threw the datagram away.
	Delivered *bool
}

// Failed reports whether the datagram is known not to have arrived.
func (r Result) Failed() bool {
	return r.Errno != "" || (r.Delivered != nil && !*r.Delivered)
}

// FD is one file descriptor passed with SCM_RIGHTS.
type FD struct {
	// Type is what it refers to: "pipe", "socket", "memfd", "pidfd", "file" or another
	// one of docs/events.md, empty when unknown.
	Type string `json:"type,omitempty"`
}
