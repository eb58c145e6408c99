// SPDX-License-Identifier: Apache-2.0

package tracer

// What backends cannot know, a line each. The whole table stands in docs/events.md.
const (
	limitExe      = "sender.exe: when the process has gone by the time it is looked up"
	limitReceipts = "read, unread, barrier, withheld, hop_of: what becomes of a datagram once it is queued"
	limitLatency  = "result.latency_ns: of a send that did not wait for room, without --latency"
	limitDenied   = "sends that a security module refuses before the socket sees them, without --denied"
)

var tracepointLimits = []string{
	limitExe,
	limitReceipts,
	"result.latency_ns",
	"result.delivered: when the sender gave an address, or the receiver has a socket filter",
	"socket.bound, socket.inode, receiver: when the sender gave an address, unless it can be proven\nthat the address led to this socket when the send began",
	"socket.address: when a connected receiver has gone (ECONNREFUSED)",
	"claimed.pid, claimed.uid, claimed.gid: when the sender is in another pid or user namespace",
	"payload: by io_uring, splice, sendfile and 32-bit programs, or of memory that cannot be read",
}
