// SPDX-License-Identifier: Apache-2.0

package capture

// Options say what a live capture is to capture, and how. The zero value captures every datagram
// to any notify socket with the first backend that works, and finds out all that it can.
type Options struct {
	// Match narrows the capture down.
	Match Match
	// All captures every AF_UNIX datagram, not only those to notify sockets.
	All bool
	// Backend is "fentry", "tracepoint", or "auto" (also when empty): the first of them that
	// loads and attaches.
	Backend string
	// RingSize is the size of the ring buffer in bytes, a power of two and a multiple of the
	// page size; 0 means 8 MiB.
	RingSize uint32
	// Latency has the fentry backend tell of each datagram how long its send took until it was queued, and not only of those
	// that waited for room. It costs each AF_UNIX datagram of the host a tenth of a microsecond.
	Latency bool
	// Denied has the fentry backend see sends that a security module refuses before the socket does. It costs each send of
	// the host a tenth of a microsecond, TCP's too.
	Denied bool
	// NoVerdicts leaves out what service managers make of the datagrams: none is asked about its
	// units.
	NoVerdicts bool
	// Stages come behind those that the capture has itself.
	Stages []Stage
	// Clock is what tells the stages the time; nil is the wall clock.
	Clock Clock
}

// Stats are totals since the start of a live capture, in datagrams but for Receipts.
type Stats struct {
	// Ignored is how many AF_UNIX datagrams do not count as notifications.
	Ignored uint64
	// Filtered is how many did not match. Some of them may not have counted as
	// notifications either: where matching was cheaper, that was not asked.
	Filtered uint64
	// Captured is how many were captured.
	Captured uint64
	// RingFull and Missed are the losses, as in [events.Lost].
	RingFull, Missed uint64
	// Receipts is how many receipts are missing at most, as in [events.Lost].
	Receipts uint64
	// Unknown is what may have been datagrams.
	Unknown Unknown
}

// Unknown is what may have sent datagrams that are in no other count. It is 0 but with the tracepoint backend before Linux
// 6.3, which sees the ends of system calls alone.
type Unknown struct {
	// IOUring is how many requests io_uring_enter(2) handed over, of any kind. What a thread of the kernel takes by itself
	// (IORING_SETUP_SQPOLL) is not among them.
	IOUring uint64
	// Splice is how many calls of splice(2) and sendfile(2) moved something to a datagram socket, each as one datagram or more.
	Splice uint64
	// Compat is how many calls of 32-bit programs sent or wrote to a datagram socket.
	Compat uint64
}

// Seen is how many AF_UNIX datagrams were sent on the host, at most: each is in one of Ignored,
// Filtered, Captured and the losses, of which Missed is an upper bound.
func (s Stats) Seen() uint64 {
	return s.Ignored + s.Filtered + s.Captured + s.RingFull + s.Missed
}
