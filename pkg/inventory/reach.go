// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"encoding/binary"
	"errors"
	"strconv"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// A file is not always told by its numbers: some file systems (btrfs, overlayfs) show
// another device than the kernel knows it by. Connecting to it is what a sender does;
// the receiver does not notice.

// reach finds out by connecting what a client's path leads to.
func reach(c *Client) (ClientState, uint32) {
	d, err := openProcess(c.PID)
	if err != nil {
		return "", 0
	}
	defer d.close()
	fd, _, err := d.openPath(c.NotifySocket)
	if err != nil {
		return "", 0
	}
	defer unix.Close(fd)
	// It must be the same process still.
	if value, _, err := d.notifySocket(); err != nil || value != c.NotifySocket {
		return "", 0
	}
	return connectTo(fd)
}

// connectTo connects to the file of a socket and returns the socket's inode number in
// state ClientOK. The state is "" for an error that says nothing about the socket.
func connectTo(fd int) (ClientState, uint32) {
	return connectToAddress("/proc/self/fd/" + strconv.Itoa(fd))
}

// connectToAddress is the same for an address, of the thread's network namespace.
func connectToAddress(address string) (ClientState, uint32) {
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", 0
	}
	defer unix.Close(s)
	err = unix.Connect(s, &unix.SockaddrUnix{Name: address})
	switch {
	case errors.Is(err, unix.ECONNREFUSED):
		return ClientNobody, 0
	case errors.Is(err, unix.EPROTOTYPE):
		return ClientWrongType, 0
	case err != nil:
		return "", 0
	}
	inode, err := peerOf(s)
	if err != nil {
		return "", 0
	}
	return ClientOK, inode
}

// peerOf asks for the inode number of the socket that one of ours is connected to.
func peerOf(fd int) (uint32, error) {
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return 0, err
	}
	messages, err := diagnose(uint32(stat.Ino), showPeer)
	if err != nil {
		return 0, err
	}
	for _, message := range messages {
		attrs, err := nl.ParseRouteAttr(message[min(diagSize, len(message)):])
		if err != nil {
			return 0, err
		}
		for _, a := range attrs {
			if a.Attr.Type == attrPeer && len(a.Value) >= 4 {
				return binary.NativeEndian.Uint32(a.Value), nil
			}
		}
	}
	return 0, errors.New("the kernel does not say which socket it is")
}

// diagnose asks for one socket of the thread's network namespace.
func diagnose(inode, show uint32) ([][]byte, error) {
	request := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, 0)
	request.AddData(diagRequest{inode: inode, show: show})
	return request.Execute(unix.NETLINK_SOCK_DIAG, nl.SOCK_DIAG_BY_FAMILY)
}

// socketHere describes a bound socket of the thread's network namespace.
func socketHere(inode uint32) (boundSocket, bool) {
	messages, err := diagnose(inode, showName|showUID)
	if err != nil || len(messages) == 0 {
		return boundSocket{}, false
	}
	return parseDiag(messages[0])
}
