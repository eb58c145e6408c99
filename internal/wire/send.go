// SPDX-License-Identifier: Apache-2.0

// Package wire decodes the records that the programs of package bpf write. Their layout is
// that of the types that bpf2go generates from the C.
package wire

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/bpf"
	"github.com/sdtrace/sdtrace/pkg/events"
)

// headerSize is the size of the fixed part of struct event, in bytes.
const headerSize = int(unsafe.Offsetof(bpf.FentryEvent{}.Data))

// ErrBadRecord means that a record is shorter than it says, or says what the
// kernel side never writes.
var ErrBadRecord = errors.New("malformed record")

// Clock turns the kernel's CLOCK_BOOTTIME into wall-clock time.
type Clock struct {
	// Boot is the wall-clock time of CLOCK_BOOTTIME 0.
	Boot time.Time
}

// DatagramID tells the datagrams of a capture apart that are in flight or in a queue.
// The zero value is none.
type DatagramID struct{ SKB, QueuedNS uint64 }

// Decoder decodes the records of a capture. It remembers the names it has met, so that those
// of a sender that sends again cost no memory. It must not be used concurrently.
type Decoder struct {
	// Controllers are the names of cgroup controllers by cgroup_subsys_id, for
	// Sender.CgroupController.
	Controllers []string

	comms, cgroups names[string]
	// Two, as a datagram has one of each.
	addresses, bound names[events.Address]

	header  bpf.FentryEvent
	receipt bpf.FentryReceipt
}

// names interns strings so that repeated names do not allocate.
type names[T ~string] struct {
	all map[string]T
	// last is what was asked for last, which mostly is the next one, too.
	raw  []byte
	last T
}

// namesMax is how many a large host has at a time.
const namesMax = 16384

// of returns the string for raw, which spell makes of it if it was not met before.
func (n *names[T]) of(raw []byte, spell func([]byte) T) T {
	if n.all != nil && bytes.Equal(raw, n.raw) {
		return n.last
	}
	name, known := n.all[string(raw)]
	if !known {
		if n.all == nil || len(n.all) >= namesMax {
			n.all = make(map[string]T)
		}
		name = spell(raw)
		n.all[string(raw)] = name
	}
	n.raw, n.last = append(n.raw[:0], raw...), name
	return name
}

// SendBuffer holds an event and what it points to, to be used for one event after another.
type SendBuffer struct {
	// Event is valid until the next use.
	Event events.Event
	// UnsureNames says that the kernel could not tell whether the names match that were
	// asked for, UnsureKey whether the message begins with a key of the protocol.
	UnsureNames, UnsureKey bool

	size, bytes, receiverUID, claimedUID, claimedGID uint32

	delivered bool
	claimed   events.Claimed
	receiver  events.Receiver
	payload   []byte
	text      events.Text
	fds       []events.FD
}

// Send decodes the record of a send into b, which it overwrites. It fills what the kernel
// knows and leaves Seq, Backend, Sender.Exe and what a cgroup path says alone. Nothing of record is kept. id is what receipts for it are tied to it
// by, none if none will come. The error wraps [ErrBadRecord].
func (d *Decoder) Send(b *SendBuffer, record []byte, clock Clock) (id DatagramID, err error) {
	if len(record) < headerSize {
		return id, fmt.Errorf("%w: %d bytes, want at least %d", ErrBadRecord, len(record), headerSize)
	}
	// A copy, so that neither alignment nor lifetime of record matter.
	h := &d.header
	copy(unsafe.Slice((*byte)(unsafe.Pointer(h)), headerSize), record)
	data := record[headerSize:]
	if h.PayloadLen > events.MaxPayload {
		return id, fmt.Errorf("%w: payload of %d bytes", ErrBadRecord, h.PayloadLen)
	}
	take := func(n uint16) (part []byte) {
		if data == nil || int(n) > len(data) {
			data = nil
			return nil
		}
		part, data = data[:n:n], data[n:]
		return part
	}
	payload, bound := take(h.PayloadLen), take(h.BoundLen)
	cgroup, fds, address := take(h.CgroupLen), take(h.FdCount), take(h.AddressLen)
	if data == nil {
		return id, fmt.Errorf("%w: %d bytes are too few for what it holds", ErrBadRecord, len(record))
	}

	known := func(flag bpf.FentryEventFlag) bool { return h.Flags&uint32(flag) != 0 }
	if known(bpf.FentryEventFlagEVENT_ADDRESS_BOUND) {
		address = bound
	}
	b.UnsureNames, b.UnsureKey = known(bpf.FentryEventFlagEVENT_UNSURE_NAMES), known(bpf.FentryEventFlagEVENT_UNSURE_KEY)
	e := &b.Event
	*e = events.Event{
		Time: clock.Boot.Add(time.Duration(h.TimeNs)), BootTime: time.Duration(h.TimeNs),
		Sender: events.Sender{
			PID: h.Pid, TID: h.Tid, PPID: h.Ppid, NSPID: h.NsPid,
			Comm: d.comm(&h.Comm), UID: h.Uid, GID: h.Gid, CgroupID: h.CgroupId,
			MntNS: h.Mntns, NetNS: h.Netns, PIDNS: h.Pidns, UserNS: h.Userns, CgroupNS: h.Cgroupns,
			StartTime: h.StartTime, Execs: h.Execs,
		},
		Socket: events.Socket{
			Address: d.addresses.of(address, events.AddressOf), Bound: d.bound.of(bound, events.AddressOf),
			Inode: h.SocketInode, Type: socketType(h.SocketType),
		},
	}
	if !known(bpf.FentryEventFlagEVENT_CGROUP_PARTIAL) {
		e.Sender.Cgroup = d.cgroups.of(cgroup, cgroupPath)
	}
	if c := int(h.CgroupController) - 1; c >= 0 && c < len(d.Controllers) {
		e.Sender.CgroupController = d.Controllers[c]
	}
	if known(bpf.FentryEventFlagEVENT_CLAIMED) {
		b.claimed = events.Claimed{PID: h.ClaimedPid, NSPID: h.ClaimedNsPid}
		if known(bpf.FentryEventFlagEVENT_CLAIMED_IDS) {
			b.claimedUID, b.claimedGID = h.ClaimedUid, h.ClaimedGid
			b.claimed.UID, b.claimed.GID = &b.claimedUID, &b.claimedGID
		}
		e.Claimed = &b.claimed
	}
	if known(bpf.FentryEventFlagEVENT_RECEIVER) {
		b.receiverUID = h.ReceiverUid
		b.receiver = events.Receiver{UID: &b.receiverUID, NetNS: h.ReceiverNetns, CgroupID: h.ReceiverCgroupId}
		e.Receiver = &b.receiver
	} else {
		e.Socket.SenderNetNS = h.ReceiverNetns
	}
	switch {
	case known(bpf.FentryEventFlagEVENT_CONNECT):
		e.Call = events.CallConnect
	case known(bpf.FentryEventFlagEVENT_SOCKET):
		e.Call = events.CallSocket
	}
	b.decodeResult(h)
	if known(bpf.FentryEventFlagEVENT_SIZE) {
		b.size = h.Size
		e.Size = &b.size
	}
	if known(bpf.FentryEventFlagEVENT_PAYLOAD) {
		// Not nil, which means unknown.
		b.payload = append(nonNil(b.payload), payload...)
		e.Payload = b.payload
		e.Truncated = e.Size != nil && int(*e.Size) > len(payload)
		b.text.Split(b.payload, e.Truncated)
		e.Text = &b.text
	}
	b.fds = b.fds[:0]
	for _, kind := range fds {
		b.fds = append(b.fds, events.FD{Type: fdType(kind)})
	}
	if len(fds) > 0 {
		e.FDs = b.fds
	}
	if h.Skb != 0 {
		id = DatagramID{h.Skb, h.TimeNs}
	}
	return id, nil
}

// nonNil is an empty slice with the memory of room.
func nonNil(room []byte) []byte {
	if room == nil {
		return []byte{}
	}
	return room[:0]
}

func (b *SendBuffer) decodeResult(h *bpf.FentryEvent) {
	r := &b.Event.Result
	if h.Result >= 0 {
		b.bytes = uint32(h.Result)
		r.Bytes = &b.bytes
	} else {
		r.Errno = errnoName(-h.Result)
	}
	if h.Flags&uint32(bpf.FentryEventFlagEVENT_LATENCY) != 0 {
		r.Latency = time.Duration(h.LatencyNs)
	}
	if h.Flags&uint32(bpf.FentryEventFlagEVENT_DELIVERED|bpf.FentryEventFlagEVENT_NOT_DELIVERED) != 0 {
		b.delivered = h.Flags&uint32(bpf.FentryEventFlagEVENT_DELIVERED) != 0
		r.Delivered = &b.delivered
	}
}

// comm is the name in a NUL-padded array.
func (d *Decoder) comm(raw *[16]int8) string {
	name := (*[16]byte)(unsafe.Pointer(raw))[:]
	if end := bytes.IndexByte(name, 0); end >= 0 {
		name = name[:end]
	}
	return d.comms.of(name, func(b []byte) string { return string(b) })
}

// cgroupPath turns the names from the leaf up into a path; the root has none.
func cgroupPath(names []byte) string {
	parts := strings.Split(strings.TrimSuffix(string(names), "\x00"), "\x00")
	var path strings.Builder
	for i := len(parts) - 1; i >= 0; i-- {
		path.WriteByte('/')
		path.WriteString(parts[i])
	}
	return path.String()
}

func socketType(t uint8) string {
	switch t {
	case unix.SOCK_DGRAM:
		return "dgram"
	case unix.SOCK_SEQPACKET:
		return "seqpacket"
	}
	return ""
}

// fdTypes are the names of enum fd_kind; the unknown has none.
var fdTypes = [...]string{
	bpf.FentryFdKindFD_UNKNOWN:     "",
	bpf.FentryFdKindFD_FILE:        "file",
	bpf.FentryFdKindFD_DIRECTORY:   "directory",
	bpf.FentryFdKindFD_SYMLINK:     "symlink",
	bpf.FentryFdKindFD_CHAR:        "char",
	bpf.FentryFdKindFD_BLOCK:       "block",
	bpf.FentryFdKindFD_PIPE:        "pipe",
	bpf.FentryFdKindFD_SOCKET:      "socket",
	bpf.FentryFdKindFD_MEMFD:       "memfd",
	bpf.FentryFdKindFD_PIDFD:       "pidfd",
	bpf.FentryFdKindFD_EVENTFD:     "eventfd",
	bpf.FentryFdKindFD_TIMERFD:     "timerfd",
	bpf.FentryFdKindFD_SIGNALFD:    "signalfd",
	bpf.FentryFdKindFD_EPOLL:       "epoll",
	bpf.FentryFdKindFD_INOTIFY:     "inotify",
	bpf.FentryFdKindFD_FANOTIFY:    "fanotify",
	bpf.FentryFdKindFD_IO_URING:    "io_uring",
	bpf.FentryFdKindFD_USERFAULTFD: "userfaultfd",
	bpf.FentryFdKindFD_PERF_EVENT:  "perf_event",
	bpf.FentryFdKindFD_BPF:         "bpf",
	bpf.FentryFdKindFD_NAMESPACE:   "namespace",
	bpf.FentryFdKindFD_ANON_INODE:  "anon_inode",
}

func fdType(kind uint8) string {
	if int(kind) < len(fdTypes) {
		return fdTypes[kind]
	}
	return ""
}

// errnoName is the symbolic name of an error number; a system call that a signal
// interrupts fails inside the kernel with numbers of its own (linux/errno.h).
func errnoName(n int32) string {
	switch n {
	case 512:
		return "ERESTARTSYS"
	case 513:
		return "ERESTARTNOINTR"
	case 514:
		return "ERESTARTNOHAND"
	}
	if name := unix.ErrnoName(unix.Errno(n)); name != "" {
		return name
	}
	return strconv.Itoa(int(n))
}
