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

// datagram is what one recvmsg yields. Its fields are valid until the next.
type datagram struct {
	payload []byte
	cred    *unix.Ucred // nil: the kernel gave none
	pidfd   int         // of the sender; -1: none
	fds     []int       // what the sender passed; the receiver of the datagram closes them
	refused Reason      // not ReasonNone: the datagram is not whole
}

// receiver holds the buffers of a receive loop. It is not to be copied once
// init was called.
type receiver struct {
	header  unix.Msghdr
	vector  unix.Iovec
	payload [events.MaxPayload + 1]byte // one more: to tell a datagram that is too long
	control [256 + 4*maxFDs]byte        // room for the fds, the credentials and a pidfd
	fds     [maxFDs]int
	cred    unix.Ucred
}

func (r *receiver) init() {
	r.vector.Base = &r.payload[0]
	r.vector.SetLen(len(r.payload))
	r.header.Iov = &r.vector
	r.header.SetIovlen(1)
	r.header.Control = &r.control[0]
}

// receive takes the next datagram off a socket, without waiting. The error is
// unix.EAGAIN when there is none.
func (r *receiver) receive(fd int, d *datagram) error {
	r.header.SetControllen(len(r.control))
	r.header.Flags = 0
	var n uintptr
	for {
		var errno unix.Errno
		// Not unix.Recvmsg: it allocates, and drops what came with a sender's
		// address that it cannot read.
		n, _, errno = unix.Syscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&r.header)),
			unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		if errno == 0 {
			break
		}
		if !errors.Is(errno, unix.EINTR) {
			return errno
		}
	}
	*d = datagram{payload: r.payload[:n], pidfd: -1}
	r.parseControl(d)
	switch {
	case r.header.Flags&unix.MSG_CTRUNC != 0:
		d.refused = ReasonControlTruncated
	case r.header.Flags&unix.MSG_TRUNC != 0 || n > events.MaxPayload:
		d.refused = ReasonTooLong
	case d.cred == nil || d.cred.Pid <= 0:
		d.refused = ReasonNoCredentials
	}
	return nil
}

func (r *receiver) parseControl(d *datagram) {
	fds := r.fds[:0]
	rest := r.control[:r.header.Controllen]
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
				r.cred = *(*unix.Ucred)(unsafe.Pointer(&data[0]))
				d.cred = &r.cred
			}
		case unix.SCM_PIDFD:
			// Negative is the error for which there is none.
			if len(data) >= 4 {
				d.pidfd = max(-1, int(int32(binary.NativeEndian.Uint32(data))))
			}
		}
	}
	d.fds = fds
}
