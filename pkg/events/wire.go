// SPDX-License-Identifier: Apache-2.0

package events

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// WireHeader is the fixed part of struct event in bpf/event.h, field by field and
// without padding of its own. The C is the source of truth: a test of package
// tracer holds the offsets against the object's BTF.
type WireHeader struct {
	Type                                                 uint32
	Result                                               int32
	TimeNS, LatencyNS, CgroupID, StartTime, SocketInode  uint64
	ReceiverCgroupID, SKB                                uint64
	Size, PID, TID, PPID, NSPID, UID, GID                uint32
	MntNS, NetNS, PIDNS, UserNS, CgroupNS                uint32
	ClaimedPID, ClaimedNSPID, ClaimedUID, ClaimedGID     uint32
	ReceiverNetNS, ReceiverUID, Flags                    uint32
	PayloadLen, AddressLen, BoundLen, CgroupLen, FDCount uint16
	SocketType, CgroupController                         uint8
	Comm                                                 [16]byte
}

// wireHeaderSize is the offset of data in struct event. It is less than
// unsafe.Sizeof, which rounds up to the alignment of 8.
const wireHeaderSize = int(unsafe.Offsetof(WireHeader{}.Comm)) + 16

// The flags of struct event.
const (
	flagLatency = 1 << iota
	flagSize
	flagPayload
	flagClaimed
	flagClaimedIDs
	flagDelivered
	flagNotDelivered
	flagCgroupPartial
	flagReceiver
)

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
type DatagramID struct{ SKB, StartNS uint64 }

// Decoder decodes the records of a capture. It remembers the names it has met, so that those
// of a sender that sends again cost no memory. It must not be used concurrently.
type Decoder struct {
	// Controllers are the names of cgroup controllers by cgroup_subsys_id, for
	// Sender.CgroupController.
	Controllers []string

	comms, addresses, cgroups names
}

// names are strings by the bytes that they are made of.
type names map[string]string

// namesMax is how many a large host has at a time.
const namesMax = 16384

// of returns the string for raw, which spell makes of it if it was not met before.
func (n *names) of(raw []byte, spell func([]byte) string) string {
	if name, known := (*n)[string(raw)]; known {
		return name
	}
	if *n == nil || len(*n) >= namesMax {
		*n = make(names)
	}
	name := spell(raw)
	(*n)[string(raw)] = name
	return name
}

// SendBuffer holds an event and what it points to, to be used for one event after another.
type SendBuffer struct {
	// Event is valid until the next use.
	Event Event

	size, bytes, receiverUID, claimedUID, claimedGID uint32

	delivered bool
	claimed   Claimed
	receiver  Receiver
	payload   []byte
	fds       []FD
}

// Send decodes the record of a send into b, which it overwrites. It fills what the kernel
// knows and leaves Seq, Backend, Sender.Exe and what package identity reads out of the
// cgroup path alone. Nothing of record is kept. id is what receipts for it are tied to it
// by, none if none will come. The error wraps [ErrBadRecord].
func (d *Decoder) Send(b *SendBuffer, record []byte, clock Clock) (id DatagramID, err error) {
	var h WireHeader
	if len(record) < wireHeaderSize {
		return id, fmt.Errorf("%w: %d bytes, want at least %d", ErrBadRecord, len(record), wireHeaderSize)
	}
	if native := [2]byte{1, 0}; binary.NativeEndian.Uint16(native[:]) != 1 {
		return id, errors.New("big-endian machines are not supported")
	}
	// A copy, so that neither alignment nor lifetime of record matter.
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&h)), wireHeaderSize), record)
	data := record[wireHeaderSize:]
	if h.PayloadLen > MaxPayload {
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
	payload, address, bound := take(h.PayloadLen), take(h.AddressLen), take(h.BoundLen)
	cgroup, fds := take(h.CgroupLen), take(h.FDCount)
	if data == nil {
		return id, fmt.Errorf("%w: %d bytes are too few for what it holds", ErrBadRecord, len(record))
	}

	known := func(flag uint32) bool { return h.Flags&flag != 0 }
	e := &b.Event
	*e = Event{
		Time: clock.Boot.Add(time.Duration(h.TimeNS)), BootTime: time.Duration(h.TimeNS),
		Sender: Sender{
			PID: h.PID, TID: h.TID, PPID: h.PPID, NSPID: h.NSPID,
			Comm: d.comm(&h.Comm), UID: h.UID, GID: h.GID, CgroupID: h.CgroupID,
			MntNS: h.MntNS, NetNS: h.NetNS, PIDNS: h.PIDNS, UserNS: h.UserNS, CgroupNS: h.CgroupNS,
			StartTime: h.StartTime,
		},
		Socket: Socket{
			Address: d.addresses.of(address, socketName), Bound: d.addresses.of(bound, socketName),
			Inode: h.SocketInode, Type: socketType(h.SocketType),
		},
	}
	if !known(flagCgroupPartial) {
		e.Sender.Cgroup = d.cgroups.of(cgroup, cgroupPath)
	}
	if c := int(h.CgroupController) - 1; c >= 0 && c < len(d.Controllers) {
		e.Sender.CgroupController = d.Controllers[c]
	}
	if known(flagClaimed) {
		b.claimed = Claimed{PID: h.ClaimedPID, NSPID: h.ClaimedNSPID}
		if known(flagClaimedIDs) {
			b.claimedUID, b.claimedGID = h.ClaimedUID, h.ClaimedGID
			b.claimed.UID, b.claimed.GID = &b.claimedUID, &b.claimedGID
		}
		e.Claimed = &b.claimed
	}
	if known(flagReceiver) {
		b.receiverUID = h.ReceiverUID
		b.receiver = Receiver{UID: &b.receiverUID, NetNS: h.ReceiverNetNS, CgroupID: h.ReceiverCgroupID}
		e.Receiver = &b.receiver
	} else {
		e.Socket.SenderNetNS = h.ReceiverNetNS
	}
	b.decodeResult(&h)
	if known(flagSize) {
		b.size = h.Size
		e.Size = &b.size
	}
	if known(flagPayload) {
		// Not nil, which means unknown.
		b.payload = append(nonNil(b.payload), payload...)
		e.Payload = b.payload
		e.Truncated = e.Size != nil && int(*e.Size) > len(payload)
	}
	b.fds = b.fds[:0]
	for _, kind := range fds {
		b.fds = append(b.fds, FD{Type: fdType(kind)})
	}
	if len(fds) > 0 {
		e.FDs = b.fds
	}
	if h.SKB != 0 {
		id = DatagramID{h.SKB, h.TimeNS - h.LatencyNS}
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

func (b *SendBuffer) decodeResult(h *WireHeader) {
	r := &b.Event.Result
	if h.Result >= 0 {
		b.bytes = uint32(h.Result)
		r.Bytes = &b.bytes
	} else {
		r.Errno = errnoName(-h.Result)
	}
	if h.Flags&flagLatency != 0 {
		r.Latency = time.Duration(h.LatencyNS)
	}
	if h.Flags&(flagDelivered|flagNotDelivered) != 0 {
		b.delivered = h.Flags&flagDelivered != 0
		r.Delivered = &b.delivered
	}
}

// comm is the name in a NUL-padded array.
func (d *Decoder) comm(raw *[16]byte) string {
	name := raw[:]
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

// socketName writes the NUL before an abstract name as "@". A relative path that
// begins with one gets a "./".
func socketName(name []byte) string {
	switch {
	case len(name) > 0 && name[0] == 0:
		return "@" + string(name[1:])
	case len(name) > 0 && name[0] == '@':
		return "./" + string(name)
	}
	return string(name)
}

func socketType(t uint8) string {
	switch t {
	case syscall.SOCK_DGRAM:
		return "dgram"
	case syscall.SOCK_SEQPACKET:
		return "seqpacket"
	}
	return ""
}

// fdTypes are the names of enum fd_kind in bpf/event.h; the first is the unknown.
var fdTypes = [...]string{
	"", "file", "directory", "symlink", "char", "block", "pipe", "socket", "memfd", "pidfd",
	"eventfd", "timerfd", "signalfd", "epoll", "inotify", "fanotify", "io_uring", "userfaultfd",
	"perf_event", "bpf", "namespace", "anon_inode",
}

func fdType(kind uint8) string {
	if int(kind) < len(fdTypes) {
		return fdTypes[kind]
	}
	return fdTypes[0]
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
	if name := errnoNames[syscall.Errno(n)]; name != "" {
		return name
	}
	return strconv.Itoa(int(n))
}
