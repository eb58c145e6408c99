// SPDX-License-Identifier: Apache-2.0

package tracer

// What backends cannot know, a line each. The whole table stands in docs/events.md.
const (
	limitExe      = "sender.exe: when the process has gone by the time it is looked up"
	limitReceipts = "read, unread, barrier, withheld, hop_of: what becomes of a datagram once it is queued"
	limitLatency  = "result.latency_ns: of a send that did not wait for room, without --latency"
	limitClaims   = "claimed.pid, claimed.uid, claimed.gid: when the sender is in another pid or user namespace"
	// Where the kernel preempts a thread between two tracepoints, another datagram takes the place of its own.
	limitPreempted = "socket.bound, socket.inode, receiver, result.delivered: when the kernel preempted the sender in its send\n(and the payload then, by io_uring, splice, sendfile and 32-bit programs)"
	limitDenied    = "sends that a security module refuses before the socket sees them, without --denied"
)

var tracepointLimits = []string{
	limitExe,
	limitReceipts,
	"result.latency_ns",
	"socket.address: when a connected receiver has gone (ECONNREFUSED)",
}
