// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"encoding/binary"
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/pkg/events"
)

// maxFDs is how many file descriptors a message can carry (kernel: SCM_MAX_FD).
const maxFDs = 253

// datagram is what a sender has sent. Its fields are valid until the next.
type datagram struct {
	payload []byte
	cred    *unix.Ucred // nil: the kernel gave none
	pidfd   int         // of the sender; -1: none
	gone    bool        // the kernel says that the sender has been reaped
	fds     []int       // what the sender passed; the receiver of the datagram closes them
	noFDs   bool        // it had file descriptors, of which none was taken
	refused Reason      // not ReasonNone: the datagram is not whole
}

// batch is how many datagrams are received, or sent, with one system call.
const batch = 8

// multiHeader is struct mmsghdr (recvmmsg(2)).
type multiHeader struct {
	header unix.Msghdr
	length uint32
}

// receiver holds the buffers of a receive loop. It is not to be copied once
// init was called.
type receiver struct {
	headers   [batch]multiHeader
	slots     [batch]slot
	datagrams [batch]datagram
}

// slot is what one datagram is received into.
type slot struct {
	vector  unix.Iovec
	payload [events.MaxPayload + 1]byte // one more: to tell a datagram that is too long
	control [256 + 4*maxFDs]byte        // room for the fds, the credentials and a pidfd
	fds     [maxFDs]int
	cred    unix.Ucred
}

func (r *receiver) init() {
	for i := range r.slots {
		s, h := &r.slots[i], &r.headers[i].header
		s.vector.Base = &s.payload[0]
		s.vector.SetLen(len(s.payload))
		h.Iov = &s.vector
		h.SetIovlen(1)
		h.Control = &s.control[0]
	}
}

// receive takes what is there off a socket, at most a batch, without waiting.
// The error is unix.EAGAIN when there is nothing.
//
// It makes a raw system call, and so does what follows until the datagram is with
// the host: none of them waits, so Go's scheduler need not know. Telling it
// wakes, after a pause, a thread of the runtime first: 8 µs of the 45 that a
// datagram is under way.
// With hasRoom false no file descriptors are taken: there is room for the credentials alone, which come first, and the
// kernel drops the rest.
func (r *receiver) receive(fd int, hasRoom bool) ([]datagram, error) {
	room := len(r.slots[0].control)
	if !hasRoom {
		room = unix.CmsgSpace(unix.SizeofUcred)
	}
	for i := range r.headers {
		r.headers[i].header.SetControllen(room)
	}
	var n uintptr
	for {
		var errno unix.Errno
		// Not unix.Recvmsg: it allocates, and drops what came with a sender's
		// address that it cannot read.
		n, _, errno = unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&r.headers)), batch,
			unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC, 0, 0)
		if errno == 0 {
			break
		}
		if !errors.Is(errno, unix.EINTR) {
			return nil, errno
		}
	}
	for i := range n {
		h, s := &r.headers[i], &r.slots[i]
		r.datagrams[i] = s.datagram(&h.header, int(h.length), hasRoom)
	}
	return r.datagrams[:n], nil
}

// datagram is what was received into a slot.
func (s *slot) datagram(h *unix.Msghdr, size int, hasRoom bool) datagram {
	d := datagram{payload: s.payload[:size], pidfd: -1}
	s.parseControl(&d, int(h.Controllen))
	d.noFDs = h.Flags&unix.MSG_CTRUNC != 0 && !hasRoom
	switch {
	case h.Flags&unix.MSG_CTRUNC != 0 && hasRoom:
		d.refused = ReasonControlTruncated
	case h.Flags&unix.MSG_TRUNC != 0 || size > events.MaxPayload:
		d.refused = ReasonTooLong
	case d.cred == nil || d.cred.Pid <= 0:
		d.refused = ReasonNoCredentials
	}
	return d
}

func (s *slot) parseControl(d *datagram, length int) {
	fds := s.fds[:0]
	rest := s.control[:length]
	for len(rest) >= unix.CmsgLen(0) {
		header, data, next, err := unix.ParseOneSocketControlMessage(rest)
		if err != nil {
			// The kernel writes whole headers; what it cut it says by MSG_CTRUNC.
			break
		}
		rest = next
		if header.Level != unix.SOL_SOCKET {
			continue
		}
		switch header.Type {
		case unix.SCM_RIGHTS:
			for ; len(data) >= 4; data = data[4:] {
				fds = append(fds, int(int32(binary.NativeEndian.Uint32(data))))
			}
		case unix.SCM_CREDENTIALS:
			if len(data) >= unix.SizeofUcred {
				s.cred = *(*unix.Ucred)(unsafe.Pointer(&data[0]))
				d.cred = &s.cred
			}
		case unix.SCM_PIDFD:
			// Negative is the error for which there is none: of a process that has been reaped ESRCH, or EINVAL
			// (kernel: pidfd_prepare).
			if len(data) >= 4 {
				n := int(int32(binary.NativeEndian.Uint32(data)))
				d.pidfd = max(-1, n)
				d.gone = n == -int(unix.ESRCH) || n == -int(unix.EINVAL)
			}
		}
	}
	d.fds = fds
}

// closePidfds closes what the kernel has made to say who the senders are. It
// has given them numbers one after the other, mostly, and whatever lies between
// two of them then is one of them, too.
func closePidfds(datagrams []datagram) {
	first, last := 0, -1
	for _, d := range datagrams {
		switch {
		case d.pidfd < 0:
			continue
		case d.pidfd != last+1:
			closeRange(first, last)
			first = d.pidfd
		}
		last = d.pidfd
	}
	closeRange(first, last)
}

// closeRange closes the file descriptors from first to last.
func closeRange(first, last int) {
	if first > last || unix.CloseRange(uint(first), uint(last), 0) == nil {
		return
	}
	for fd := first; fd <= last; fd++ { // seccomp(2) may not know the call
		unix.Close(fd)
	}
}
