// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sendBuffer is what sd_notify(3) asks for, in bytes (systemd: SNDBUF_SIZE).
const sendBuffer = 8 << 20

// The ways in which a send upstream does not work out.
var (
	// errBusy: the host did not read what came before; wait for upstream.writable.
	errBusy = errors.New("the host does not read")
	// errAway: nobody is there, or nobody who lets us; try again later.
	errAway = errors.New("the host's socket is not available")
	// errRefused: this datagram will never be taken.
	errRefused = errors.New("the host's socket refuses the datagram")
	// errNoFDs: with file descriptors it is refused (SO_PASSRIGHTS, Linux 6.16); without them it may be taken.
	errNoFDs = errors.New("the host's socket takes no file descriptors")
)

// upstream sends to the host's notify socket. It never waits.
type upstream interface {
	// send sends one datagram with file descriptors, as the process pid (0: as
	// what we are). The errors are errBusy, errAway, errRefused and errNoFDs, wrapped.
	send(payload []byte, fds []int, pid int) error
	// sendAll sends the payloads of at most a batch of entries, as far as that
	// works, and returns how many.
	sendAll(entries []*entry, pid int) int
	// writable returns a file descriptor and the poll events on which to send
	// again after errBusy.
	writable() (fd int, events int16)
	// passesFDs reports whether file descriptors arrive.
	passesFDs() bool
	close()
}

func dial(a Address) (upstream, error) {
	switch {
	case a.text == "":
		return nil, errors.New("no upstream: where should notifications be forwarded to?")
	case a.vsock != nil:
		u, err := dialVsock(*a.vsock)
		if err != nil {
			return nil, err
		}
		return u, nil
	}
	u, err := dialUnix(a)
	if err != nil {
		return nil, err
	}
	return u, nil
}

// unixUpstream sends every datagram to a name, and not through a connection:
// a host that is restarted binds a new socket to the same name.
type unixUpstream struct {
	fd      int
	path    string // "" if the address is abstract
	dir     int    // O_PATH of what the long path starts from; -1: none is needed or known
	name    unix.RawSockaddrUnix
	nameLen uint32

	headers [batch]multiHeader
	vectors [batch]unix.Iovec
	control [256 + 4*maxFDs]byte
}

func dialUnix(a Address) (*unixUpstream, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("making a socket to the host: %w", err)
	}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, sendBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer)
	}
	u := &unixUpstream{fd: fd, dir: -1}
	u.name.Family = unix.AF_UNIX
	if a.isAbstract() {
		u.setName(a.text[1:], true)
	} else {
		u.path = a.text
		u.resolve()
	}
	return u, nil
}

// setName puts a name that is known to fit into the address.
func (u *unixUpstream) setName(name string, abstract bool) {
	path := u.name.Path[:]
	clear(path)
	if abstract {
		path = path[1:]
	}
	for i := range len(name) {
		path[i] = int8(name[i])
	}
	// The NUL in front of an abstract name counts, and so does one behind a path.
	u.nameLen = uint32(unsafe.Offsetof(u.name.Path)) + uint32(len(name)) + 1
}

// resolve makes an address of the path. One that is longer than sun_path goes
// through an open file: its directory, or, where the last name alone is too
// long, the socket itself. An error leaves an address that names nothing, which
// is what sending then says.
func (u *unixUpstream) resolve() {
	if len(u.path) <= sunPathMax {
		u.setName(u.path, false)
		return
	}
	if u.dir >= 0 {
		unix.Close(u.dir)
	}
	dir, name := filepath.Dir(u.path), filepath.Base(u.path)
	if len(through(int(^uint32(0)>>1), name)) > sunPathMax {
		dir, name = u.path, ""
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		u.dir = -1
		u.setName("/proc/self/fd/-1", false)
		return
	}
	u.dir = fd
	u.setName(through(fd, name), false)
}

func (u *unixUpstream) send(payload []byte, fds []int, pid int) error {
	errno := u.sendAs(payload, fds, pid)
	if gone(errno) && len(u.path) > sunPathMax {
		u.resolve()
		errno = u.sendAs(payload, fds, pid)
	}
	if errno == unix.EPERM && len(fds) > 0 {
		return errNoFDs
	}
	return sendError(errno)
}

// sendAs sends one datagram as a process if it may, else as what we are.
func (u *unixUpstream) sendAs(payload []byte, fds []int, pid int) unix.Errno {
	errno := u.sendmsg(payload, fds, pid)
	if pid != 0 && mayNotClaim(errno) {
		errno = u.sendmsg(payload, fds, 0)
	}
	return errno
}

// mayNotClaim reports whether the kernel refuses the credentials of another process, without the right to claim them, or as
// that process is gone: then we send as what we are, as sd_pid_notify(3) does. With any other error the host, which
// may heed that process alone, is asked again later.
func mayNotClaim(errno unix.Errno) bool {
	return errno == unix.EPERM || errno == unix.ESRCH || errno == unix.EINVAL
}

// sendmsg sends one datagram.
func (u *unixUpstream) sendmsg(payload []byte, fds []int, pid int) unix.Errno {
	u.prepare(0, payload, u.putControl(fds, pid))
	_, errno := u.sendPrepared(1)
	return errno
}

func (u *unixUpstream) sendAll(entries []*entry, pid int) int {
	control := u.putControl(nil, pid)
	for i, e := range entries {
		u.prepare(i, e.payload, control)
	}
	n, _ := u.sendPrepared(len(entries))
	return n
}

// prepare makes the header of a datagram with so much of the ancillary data.
func (u *unixUpstream) prepare(i int, payload []byte, control int) {
	v := &u.vectors[i]
	v.Base = unsafe.SliceData(payload)
	v.SetLen(len(payload))
	h := unix.Msghdr{Name: (*byte)(unsafe.Pointer(&u.name)), Namelen: u.nameLen, Iov: v}
	h.SetIovlen(1)
	if control > 0 {
		h.Control = &u.control[0]
		h.SetControllen(control)
	}
	u.headers[i].header = h
}

// sendPrepared sends as many datagrams as there are headers prepared. An error
// is about the first.
func (u *unixUpstream) sendPrepared(count int) (int, unix.Errno) {
	defer clear(u.vectors[:count])
	for {
		// Not unix.SendmsgN: it makes the address anew for every datagram.
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(u.fd), uintptr(unsafe.Pointer(&u.headers)), uintptr(count),
			unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		switch errno {
		case 0:
			return int(n), 0
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}

// putControl writes the ancillary data and returns its length.
func (u *unixUpstream) putControl(fds []int, pid int) int {
	n := 0
	if len(fds) > 0 {
		data := u.putHeader(n, unix.SCM_RIGHTS, 4*len(fds))
		for i, fd := range fds {
			binary.NativeEndian.PutUint32(data[4*i:], uint32(fd))
		}
		n += unix.CmsgSpace(4 * len(fds))
	}
	if pid != 0 {
		data := u.putHeader(n, unix.SCM_CREDENTIALS, unix.SizeofUcred)
		// The real ids, as sd_pid_notify(3) does.
		*(*unix.Ucred)(unsafe.Pointer(&data[0])) = unix.Ucred{
			Pid: int32(pid), Uid: uint32(unix.Getuid()), Gid: uint32(unix.Getgid()),
		}
		n += unix.CmsgSpace(unix.SizeofUcred)
	}
	return n
}

func (u *unixUpstream) putHeader(at, kind, size int) []byte {
	h := (*unix.Cmsghdr)(unsafe.Pointer(&u.control[at]))
	h.Level = unix.SOL_SOCKET
	h.Type = int32(kind)
	h.SetLen(unix.CmsgLen(size))
	return u.control[at+unix.CmsgLen(0):]
}

// writable connects, so that polling tells when the host's queue has room
// (kernel: unix_dgram_poll). Sending goes on by name.
func (u *unixUpstream) writable() (int, int16) {
	for {
		_, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(u.fd), uintptr(unsafe.Pointer(&u.name)), uintptr(u.nameLen))
		if errno != unix.EINTR {
			return u.fd, unix.POLLOUT
		}
	}
}

func (u *unixUpstream) passesFDs() bool { return true }

func (u *unixUpstream) close() {
	unix.Close(u.fd)
	if u.dir >= 0 {
		unix.Close(u.dir)
	}
}

// gone reports whether the name leads nowhere, or to nobody.
func gone(errno unix.Errno) bool {
	switch errno {
	case unix.ENOENT, unix.ENOTDIR, unix.ECONNREFUSED, unix.ECONNRESET, unix.ENOTCONN, unix.EPIPE, unix.ESTALE:
		return true
	}
	return false
}

// sendError makes one of the three errors of upstream.send of an errno.
func sendError(errno unix.Errno) error {
	switch errno {
	case 0:
		return nil
	case unix.EAGAIN:
		return errBusy
	case unix.EMSGSIZE, unix.EINVAL, unix.EBADF:
		return fmt.Errorf("%w: %w", errRefused, errno)
	}
	return fmt.Errorf("%w: %w", errAway, errno)
}
