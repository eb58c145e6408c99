// SPDX-License-Identifier: Apache-2.0

//go:build linux

package conformance

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/proc"
	"github.com/sdtrace/sdtrace/pkg/events"
)

// socket is a notify socket.
type socket struct {
	path     string
	fd       int
	messages chan message
	stop     chan struct{}
	done     chan struct{} // the reading
}

// message is one that was read.
type message struct {
	at   time.Time
	mono time.Duration
	text *events.Text
	size uint32
	// pid and uid are the sender's as the kernel tells them (SCM_CREDENTIALS).
	pid, uid uint32
	fds      int
	cut      bool // MSG_CTRUNC
	gone     bool // the sender
	// handles is whether the application handles the reload signal then.
	status proc.Status
	// named is the process of MAINPID=, 0 for none.
	named uint32
	// isMark is set for what [socket.mark] has sent.
	isMark bool
	// refusals are what versions of systemd would have made of its lines that they do not heed.
	refusals []refusal
}

// listen makes the socket, and reads from it until it is closed.
func listen(path string) (*socket, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	s := &socket{path: path, fd: fd, messages: make(chan message, 1024), stop: make(chan struct{}), done: make(chan struct{})}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
		return nil, errors.Join(os.NewSyscallError("setsockopt", err), unix.Close(fd))
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return nil, errors.Join(os.NewSyscallError("bind", err), unix.Close(fd))
	}
	if err := os.Chmod(path, 0o777); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	go s.read()
	return s, nil
}

// close ends the reading.
func (s *socket) close() {
	close(s.stop)
	_ = unix.Shutdown(s.fd, unix.SHUT_RDWR) // which wakes it
	<-s.done
	unix.Close(s.fd)
}

// mark sends a message of our own behind all that was sent until now.
func (s *socket) mark() error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	return os.NewSyscallError("sendto", unix.Sendto(fd, []byte("X_SDTRACE=1"), 0, &unix.SockaddrUnix{Name: s.path}))
}

func (s *socket) read() {
	defer close(s.done)
	const fdsMax = 253
	payload := make([]byte, events.MaxPayload+1)
	control := make([]byte, unix.CmsgSpace(unix.SizeofUcred)+unix.CmsgSpace(4*fdsMax))
	for {
		n, controlled, flags, _, err := unix.Recvmsg(s.fd, payload, control, unix.MSG_CMSG_CLOEXEC|unix.MSG_TRUNC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 && controlled == 0 {
			return // it was shut down
		}
		m := message{at: time.Now(), mono: proc.Monotonic(), size: uint32(n), text: new(events.Text), cut: flags&unix.MSG_CTRUNC != 0}
		kept := append([]byte(nil), payload[:min(n, len(payload))]...)
		m.text.Split(kept, false)
		m.control(control[:controlled])
		m.isMark = int(m.pid) == os.Getpid()
		if p, err := proc.Open(int(m.pid)); err != nil {
			m.gone = true
		} else {
			m.status, _ = p.Status()
			p.Close()
		}
		select {
		case s.messages <- m:
		case <-s.stop:
			return
		}
	}
}

// control takes note of who has sent it and closes what came with it, as a service manager does: that ends a barrier.
func (m *message) control(control []byte) {
	parts, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return
	}
	for i := range parts {
		if fds, err := unix.ParseUnixRights(&parts[i]); err == nil {
			m.fds += len(fds)
			for _, fd := range fds {
				unix.Close(fd)
			}
		}
		if who, err := unix.ParseUnixCredentials(&parts[i]); err == nil {
			m.pid, m.uid = uint32(who.Pid), who.Uid
		}
	}
}

// lines are the assignments.
func (m *message) lines() (all []events.Assignment) {
	for _, l := range m.text.Lines {
		if a, ok := l.Assignment(); ok {
			all = append(all, a)
		}
	}
	return all
}

func (m *message) value(key string) (string, bool) { return m.text.Lookup(key) }

func (m *message) has(key, value string) bool {
	got, ok := m.value(key)
	return ok && got == value
}
