// SPDX-License-Identifier: Apache-2.0

package events

import "time"

// Lost says how many datagrams of interest were not captured since the last
// Lost record or the start. Counts are exact unless said otherwise.
type Lost struct {
	// Time is when the counters were read.
	Time time.Time
	// RingFull counts datagrams for which the ring buffer had no room.
	RingFull uint64
	// By says whose datagrams RingFull counts, as far as is known, those who have lost the most first. When the ring
	// buffer runs short, each has a share of what is left.
	By []LostBy
	// Missed counts datagrams for which the kernel skipped a program, because
	// another run of it on the same CPU was preempted halfway (only on kernels
	// that preempt themselves). It is an upper bound when there are datagrams
	// that do not count as notifications: what a skipped run was for is unknown.
	// On the tracepoint backend it also counts those whose destination could not
	// be read from the sender's memory.
	Missed uint64
	// Receipts counts what is missing of what became of datagrams, which Count
	// leaves out: for want of room in the ring buffer or in the table of those that
	// are followed, or because the kernel skipped a program. It is an upper bound,
	// as Missed is.
	Receipts uint64
	// Names counts names of notify sockets, out of NOTIFY_SOCKET of some process's environment, that
	// were given up because one user's processes have more than there is room for: the oldest ones
	// of that user. No datagram is counted for it. One to such a socket is captured only if it reads
	// like a notification.
	Names uint64
}

// LostBy is who has sent datagrams that were lost: a control group, two levels below the root, such as that of a
// unit or of a user; or a user whose processes are in none such.
type LostBy struct {
	// CgroupID is the id of the control group, 0 for a user, Cgroup its path, "" if it is not known any more; the JSON has none that is not UTF-8.
	CgroupID uint64
	Cgroup   string
	// UID is the user, if CgroupID is 0.
	UID uint32
	// Count is how many datagrams.
	Count uint64
}

// Count is the number of datagrams lost, all reasons together.
func (l Lost) Count() uint64 { return l.RingFull + l.Missed }
