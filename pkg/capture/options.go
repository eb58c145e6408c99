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
	// page size; 0 means 4 MiB.
	RingSize uint32
	// InFlight is how many sends can be under way at a time (fentry); 0 means 8192.
	InFlight uint32
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
	// RingFull, InFlightFull and Missed are the losses, as in [events.Lost].
	RingFull, InFlightFull, Missed uint64
	// Receipts is how many receipts are missing at most, as in [events.Lost].
	Receipts uint64
}

// Seen is how many AF_UNIX datagrams were sent on the host, at most: each is in one of Ignored,
// Filtered, Captured and the losses, of which Missed is an upper bound.
func (s Stats) Seen() uint64 {
	return s.Ignored + s.Filtered + s.Captured + s.RingFull + s.InFlightFull + s.Missed
}
