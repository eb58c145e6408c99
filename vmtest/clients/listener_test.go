// SPDX-License-Identifier: Apache-2.0

package clients_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// datagram is what a notify socket's owner gets to see.
type datagram struct {
	Payload string
	// PID, UID and GID are the credentials that the kernel vouches for: those of
	// the sender or, with its permission, those the sender claimed.
	PID, UID, GID uint32
	// FDs are the kinds of the descriptors passed, as events.FD names them.
	FDs []string
}

// listener owns a notify socket the way a service manager does: bound, with
// SO_PASSCRED, and closing all descriptors as soon as they come.
type listener struct {
	address string
	inode   uint64

	fd, stop int
	result   chan received
}

type received struct {
	datagrams []datagram
	err       error
}

// listen binds address, a path or "@" and an abstract name, until the test ends.
func listen(t *testing.T, address string) *listener {
	t.Helper()
	l, err := newListener(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if l.result != nil {
			_, _ = l.finish()
		}
	})
	return l
}

func newListener(address string) (*listener, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("making a socket: %w", err)
	}
	fail := func(verb string, err error) (*listener, error) {
		unix.Close(fd)
		return nil, fmt.Errorf("%s %s: %w", verb, address, err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
		return fail("setting SO_PASSCRED of", err)
	}
	if !strings.HasPrefix(address, "@") {
		if err := os.MkdirAll(filepath.Dir(address), 0o755); err != nil {
			return fail("making the directory of", err)
		}
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: address}); err != nil {
		return fail("binding", err)
	}
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return fail("reading the inode of", err)
	}
	stop, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return fail("making the stop of", err)
	}
	l := &listener{address: address, inode: stat.Ino, fd: fd, stop: stop, result: make(chan received, 1)}
	go func(result chan<- received) {
		var r received
		r.datagrams, r.err = l.receive()
		result <- r
	}(l.result)
	return l, nil
}

// finish returns everything that was sent to the socket up to now, in order,
// and closes it. It is to be called once the senders have ended.
func (l *listener) finish() ([]datagram, error) {
	if _, err := unix.Write(l.stop, []byte{1, 0, 0, 0, 0, 0, 0, 0}); err != nil {
		return nil, fmt.Errorf("stopping %s: %w", l.address, err)
	}
	r := <-l.result
	l.result = nil
	unix.Close(l.fd)
	unix.Close(l.stop)
	if !strings.HasPrefix(l.address, "@") {
		os.Remove(l.address)
	}
	return r.datagrams, r.err
}

// receive reads until the stop is set and nothing is left in the queue.
func (l *listener) receive() ([]datagram, error) {
	var got []datagram
	for {
		ready := []unix.PollFd{{Fd: int32(l.fd), Events: unix.POLLIN}, {Fd: int32(l.stop), Events: unix.POLLIN}}
		if _, err := unix.Poll(ready, -1); err != nil {
			if errors.Is(err, unix.EINTR) {
				continue
			}
			return got, fmt.Errorf("waiting on %s: %w", l.address, err)
		}
		// The stop was set after the last send, so a queue that is empty now
		// stays so.
		if ready[0].Revents == 0 {
			return got, nil
		}
		d, err := receiveOne(l.fd)
		if err != nil {
			return got, fmt.Errorf("receiving on %s: %w", l.address, err)
		}
		got = append(got, d)
	}
}

func receiveOne(fd int) (datagram, error) {
	var d datagram
	payload := make([]byte, 1<<16)
	control := make([]byte, unix.CmsgSpace(253*4)+unix.CmsgSpace(unix.SizeofUcred))
	n, controlLen, flags, _, err := unix.Recvmsg(fd, payload, control, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return d, err
	}
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		return d, fmt.Errorf("datagram does not fit: flags %#x", flags)
	}
	d.Payload = string(payload[:n])
	messages, err := unix.ParseSocketControlMessage(control[:controlLen])
	if err != nil {
		return d, err
	}
	for _, message := range messages {
		switch message.Header.Type {
		case unix.SCM_CREDENTIALS:
			creds, err := unix.ParseUnixCredentials(&message)
			if err != nil {
				return d, err
			}
			d.PID, d.UID, d.GID = uint32(creds.Pid), creds.Uid, creds.Gid
		case unix.SCM_RIGHTS:
			fds, err := unix.ParseUnixRights(&message)
			if err != nil {
				return d, err
			}
			for _, fd := range fds {
				d.FDs = append(d.FDs, kindOf(fd))
				unix.Close(fd)
			}
		}
	}
	return d, nil
}

// kindOf names what a descriptor refers to by its link in /proc (proc(5)).
func kindOf(fd int) string {
	link, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return err.Error()
	}
	for prefix, kind := range map[string]string{
		"pipe:[": "pipe", "socket:[": "socket", "/memfd:": "memfd",
		"anon_inode:[pidfd]": "pidfd", "pidfd:[": "pidfd", "anon_inode:[eventfd]": "eventfd",
	} {
		if strings.HasPrefix(link, prefix) {
			return kind
		}
	}
	return "file"
}
