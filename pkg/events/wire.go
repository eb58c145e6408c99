// SPDX-License-Identifier: Apache-2.0

package events

import (
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

// DecodeWire decodes the record of a send into e, which it overwrites. It fills
// what the kernel knows and leaves Seq, Backend, Sender.Exe and what package
// identity reads out of the cgroup path alone. Controller names in
// Sender.CgroupController are looked up in controllers by cgroup_subsys_id. Nothing
// of record is kept. id is what receipts for it are tied to it by, none if none will
// come. The error wraps [ErrBadRecord].
func DecodeWire(e *Event, record []byte, clock Clock, controllers []string) (id DatagramID, err error) {
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
	*e = Event{
		Time: clock.Boot.Add(time.Duration(h.TimeNS)), BootTime: time.Duration(h.TimeNS),
		Sender: Sender{
			PID: h.PID, TID: h.TID, PPID: h.PPID, NSPID: h.NSPID,
			Comm: cString(h.Comm[:]), UID: h.UID, GID: h.GID,
			CgroupID: h.CgroupID, Cgroup: cgroupPath(cgroup, known(flagCgroupPartial)),
			MntNS: h.MntNS, NetNS: h.NetNS, PIDNS: h.PIDNS, UserNS: h.UserNS, CgroupNS: h.CgroupNS,
			StartTime: h.StartTime,
		},
		Socket: Socket{
			Address: socketName(address), Bound: socketName(bound),
			Inode: h.SocketInode, Type: socketType(h.SocketType),
		},
	}
	if c := int(h.CgroupController) - 1; c >= 0 && c < len(controllers) {
		e.Sender.CgroupController = controllers[c]
	}
	if known(flagClaimed) {
		e.Claimed = &Claimed{PID: h.ClaimedPID, NSPID: h.ClaimedNSPID}
		if known(flagClaimedIDs) {
			e.Claimed.UID, e.Claimed.GID = &h.ClaimedUID, &h.ClaimedGID
		}
	}
	if known(flagReceiver) {
		uid := h.ReceiverUID
		e.Receiver = &Receiver{UID: &uid, NetNS: h.ReceiverNetNS, CgroupID: h.ReceiverCgroupID}
	} else {
		e.Socket.SenderNetNS = h.ReceiverNetNS
	}
	e.Result = wireResult(&h)
	if known(flagSize) {
		size := h.Size
		e.Size = &size
	}
	if known(flagPayload) {
		e.Payload = append(make([]byte, 0, len(payload)), payload...)
		e.Truncated = e.Size != nil && int(*e.Size) > len(payload)
	}
	for _, kind := range fds {
		e.FDs = append(e.FDs, FD{Type: fdType(kind)})
	}
	if h.SKB != 0 {
		id = DatagramID{h.SKB, h.TimeNS - h.LatencyNS}
	}
	return id, nil
}

func wireResult(h *WireHeader) Result {
	var r Result
	if h.Result >= 0 {
		n := uint32(h.Result)
		r.Bytes = &n
	} else {
		r.Errno = errnoName(-h.Result)
	}
	if h.Flags&flagLatency != 0 {
		r.Latency = time.Duration(h.LatencyNS)
	}
	if h.Flags&(flagDelivered|flagNotDelivered) != 0 {
		delivered := h.Flags&flagDelivered != 0
		r.Delivered = &delivered
	}
	return r
}

func cString(b []byte) string {
	s, _, _ := strings.Cut(string(b), "\x00")
	return s
}

// cgroupPath turns the names from the leaf up into a path; the root has none.
func cgroupPath(names []byte, partial bool) string {
	if partial {
		return ""
	}
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
