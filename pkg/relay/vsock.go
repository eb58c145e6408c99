// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// vsockTimeout is how long the host has to take a datagram over AF_VSOCK.
const vsockTimeout = 10 * time.Second

// vsockUpstream sends to the host of a virtual machine: each datagram over a
// connection of its own, as sd_notify(3) does, and made in the background,
// since connecting waits for the other machine. Only one is under way at a time.
type vsockUpstream struct {
	address vsockAddress
	wake    int // eventfd: readable when the last datagram is done
	work    chan []byte
	busy    bool
	result  chan error
}

func dialVsock(a vsockAddress) (*vsockUpstream, error) {
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("making an eventfd: %w", err)
	}
	u := &vsockUpstream{address: a, wake: wake, work: make(chan []byte), result: make(chan error, 1)}
	go u.run()
	return u, nil
}

func (u *vsockUpstream) run() {
	for payload := range u.work {
		u.result <- u.deliver(payload)
		if err := signalEventfd(u.wake); err != nil {
			return
		}
	}
	unix.Close(u.wake)
}

// send returns errBusy while the datagram is under way: the caller sends it
// again, and learns then what became of it.
func (u *vsockUpstream) send(payload []byte, _ []int, _ int) error {
	if !u.busy {
		u.busy = true
		u.work <- append([]byte(nil), payload...)
	}
	select {
	case err := <-u.result:
		drainEventfd(u.wake)
		u.busy = false
		return err
	default:
		return errBusy
	}
}

func (u *vsockUpstream) sendAll([]*entry, int) int { return 0 }

func (u *vsockUpstream) writable() (int, int16) { return u.wake, unix.POLLIN }

func (u *vsockUpstream) passesFDs() bool { return false }

func (u *vsockUpstream) close() { close(u.work) }

// deliver sends one datagram over the first kind of socket that there is, in
// the order of systemd (pid_notify_with_fds_internal).
func (u *vsockUpstream) deliver(payload []byte) error {
	kinds := []int{unix.SOCK_DGRAM, unix.SOCK_SEQPACKET, unix.SOCK_STREAM}
	if u.address.kind != 0 {
		kinds = []int{u.address.kind}
	}
	var err error
	for _, kind := range kinds {
		var connected bool
		connected, err = u.deliverBy(kind, payload)
		// A host that has a socket of another kind there resets the connection.
		if connected || !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.EPROTONOSUPPORT) &&
			!errors.Is(err, unix.ESOCKTNOSUPPORT) && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ECONNRESET) {
			break
		}
	}
	var errno unix.Errno
	if errors.As(err, &errno) && errno != unix.EAGAIN {
		return sendError(errno)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errAway, err)
	}
	return nil
}

func (u *vsockUpstream) deliverBy(kind int, payload []byte) (connected bool, err error) {
	fd, err := unix.Socket(unix.AF_VSOCK, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	bindPrivileged(fd)
	timeout := unix.NsecToTimeval(vsockTimeout.Nanoseconds())
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &timeout)
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout)
	_ = unix.SetsockoptTimeval(fd, unix.AF_VSOCK, unix.SO_VM_SOCKETS_CONNECT_TIMEOUT, &timeout)
	if err := connectVsock(fd, &unix.SockaddrVM{CID: u.address.cid, Port: u.address.port}); err != nil {
		return false, err
	}
	for rest := payload; len(rest) > 0; {
		n, err := unix.SendmsgN(fd, rest, nil, nil, unix.MSG_NOSIGNAL)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return true, err
		}
		rest = rest[n:]
	}
	if kind == unix.SOCK_DGRAM {
		return true, nil
	}
	return true, awaitClose(fd)
}

// connectVsock connects without waiting in connect(2): a signal ends that with EINTR (vsock_connect), as
// Go's runtime sends them to itself, and the host may have taken the connection by then. It would get
// an empty message.
func connectVsock(fd int, to *unix.SockaddrVM) error {
	if err := unix.SetNonblock(fd, true); err != nil {
		return err
	}
	err := unix.Connect(fd, to)
	if errors.Is(err, unix.EINPROGRESS) {
		err = awaitConnection(fd)
	}
	if err != nil {
		return err
	}
	return unix.SetNonblock(fd, false)
}

// awaitConnection waits until a socket is connected, or cannot be.
func awaitConnection(fd int) error {
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	for until := time.Now().Add(vsockTimeout); ; {
		// The kernel gives up by itself (SO_VM_SOCKETS_CONNECT_TIMEOUT), and this a moment later.
		n, err := unix.Poll(poll, int((max(time.Until(until), 0) + time.Second).Milliseconds()))
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return err
		case n == 0:
			return unix.ETIMEDOUT
		}
		errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err == nil && errno != 0 {
			err = unix.Errno(errno)
		}
		return err
	}
}

// bindPrivileged takes a port that only root can take, by which the host knows
// that root of this machine speaks.
func bindPrivileged(fd int) {
	for port := uint32(1023); port > 0; port-- {
		err := unix.Bind(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_ANY, Port: port})
		if !errors.Is(err, unix.EADDRINUSE) {
			return
		}
	}
}

// awaitClose waits until the host has closed the connection, which it does
// when it has read the message.
func awaitClose(fd int) error {
	if err := unix.Shutdown(fd, unix.SHUT_WR); err != nil {
		return err
	}
	var b [1]byte
	for {
		n, err := unix.Read(fd, b[:])
		switch {
		case errors.Is(err, unix.EINTR), n > 0:
		case errors.Is(err, unix.EAGAIN):
			return os.ErrDeadlineExceeded
		default:
			return err
		}
	}
}
