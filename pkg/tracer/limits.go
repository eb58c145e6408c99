// SPDX-License-Identifier: Apache-2.0

package tracer

// Limits says, a line each, what the backend with this hook cannot know. The whole
// table stands in docs/events.md.
func Limits(backend, hook string) []string {
	const (
		exe      = "sender.exe: when the process has gone by the time it is looked up"
		receipts = "read, unread, barrier, withheld, hop_of: what becomes of a datagram once it is queued"
	)
	switch {
	case backend == "fentry" && hook == withReceipts:
		return []string{exe, "read, unread, barrier: of datagrams of SOCK_SEQPACKET"}
	case backend == "fentry":
		return []string{exe, receipts}
	}
	limits := []string{
		exe,
		receipts,
		"result.latency_ns",
		"result.delivered: when the sender gave an address, or the receiver has a socket filter",
		"socket.bound, socket.inode, receiver: when the sender gave an address, and since when that leads there cannot be proven",
		"socket.address: when a connected receiver has gone (ECONNREFUSED)",
		"claimed.pid, claimed.uid, claimed.gid: when the sender is in another pid or user namespace",
		"payload: by io_uring, splice, sendfile and 32-bit programs, or of memory that cannot be read",
	}
	if hook == "sys_exit" {
		return append(limits,
			"sends by io_uring, splice, sendfile and 32-bit programs are not seen at all",
			"the error that ended a sendmmsg after its first message")
	}
	return append(limits, "sends that a security module refuses before the socket sees them are not seen at all")
}
