// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// socket is a notify socket, bound as a service manager binds its own.
type socket struct {
	*net.UnixConn
	path string
}

func listen(path string) (*socket, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("making a notify socket: %w", err)
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("making a notify socket: %w", err)
	}
	raw, err := conn.SyscallConn()
	if err == nil {
		var failed error
		if err = raw.Control(func(fd uintptr) {
			failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
		}); err == nil {
			err = failed
		}
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("setting SO_PASSCRED: %w", err)
	}
	return &socket{conn, path}, nil
}

// receive returns one message. It closes the descriptors that come with it, which
// is what a sender's BARRIER=1 waits for.
func (s *socket) receive() (string, error) {
	payload, control := make([]byte, 4096), make([]byte, 4096)
	n, controlLen, _, _, err := s.ReadMsgUnix(payload, control)
	if err != nil {
		return "", err
	}
	messages, err := unix.ParseSocketControlMessage(control[:controlLen])
	if err != nil {
		return "", err
	}
	for _, message := range messages {
		fds, err := unix.ParseUnixRights(&message)
		if err != nil {
			continue // SCM_CREDENTIALS
		}
		for _, fd := range fds {
			unix.Close(fd)
		}
	}
	return string(payload[:n]), nil
}

// discard receives until the socket is closed.
func (s *socket) discard() {
	for {
		if _, err := s.receive(); err != nil {
			return
		}
	}
}

func (s *socket) waitFor(assignment string) error {
	for {
		message, err := s.receive()
		if err != nil {
			return err
		}
		for line := range strings.Lines(message) {
			if strings.TrimSuffix(line, "\n") == assignment {
				return nil
			}
		}
	}
}
