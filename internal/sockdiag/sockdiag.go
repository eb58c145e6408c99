// SPDX-License-Identifier: Apache-2.0

// Package sockdiag asks the kernel for AF_UNIX sockets: by sock_diag(7), which lists those of
// one network namespace, and by a BPF iterator, which tells how many datagrams wait in them.
package sockdiag

import (
	"encoding/binary"
	"errors"
	"strconv"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/pkg/events"
)

// Socket is a bound AF_UNIX socket.
type Socket struct {
	// Address is as the socket was bound.
	Address events.Address
	// Inode is the inode number of the socket, as in ss -x and /proc/PID/fd.
	Inode uint32
	// NetNS is the inode number of the network namespace it was made in; 0 where only the
	// thread's own was asked.
	NetNS uint64
	// UID is the user who made it, nil before Linux 5.3.
	UID *uint32
	// Kind is SOCK_DGRAM, SOCK_STREAM or SOCK_SEQPACKET.
	Kind uint8
	// File is that of a path, the zero value for an abstract address.
	File FileID
	// NextBytes is the length of the datagram that would be read next, in bytes; 0 if none
	// waits, or an empty one (udiag_rqueue).
	NextBytes uint32
}

// IsDatagram reports whether the socket is of the type that sd_notify(3) takes.
func (s *Socket) IsDatagram() bool { return s.Kind == unix.SOCK_DGRAM }

// FileID identifies a file the way the kernel does: by the inode and the device of
// its file system (unix_diag_vfs). The zero value is none.
type FileID struct{ Inode, Device uint32 }

// FileOf returns the id of a file.
func FileOf(stat *unix.Stat_t) FileID {
	// The kernel's own form of a device number, which stat does not use.
	return FileID{Inode: uint32(stat.Ino), Device: unix.Major(stat.Dev)<<20 | unix.Minor(stat.Dev)}
}

// From struct unix_diag_req and its attributes (linux/unix_diag.h).
const (
	showName  = 0x01
	showVFS   = 0x02
	showPeer  = 0x04
	showQueue = 0x10
	showUID   = 0x40

	attrName  = 0
	attrVFS   = 1
	attrPeer  = 2
	attrQueue = 4
	attrUID   = 7
)

// request is struct unix_diag_req.
type request struct {
	inode uint32 // 0: every one
	show  uint32
}

func (request) Len() int { return 24 }

func (r request) Serialize() []byte {
	b := []byte{unix.AF_UNIX, 0, 0, 0}
	b = binary.NativeEndian.AppendUint32(b, ^uint32(0)) // in every state
	b = binary.NativeEndian.AppendUint32(b, r.inode)
	b = binary.NativeEndian.AppendUint32(b, r.show)
	return binary.NativeEndian.AppendUint64(b, ^uint64(0)) // no cookie
}

// dumpTries is how often a listing is begun anew because sockets came or went.
const dumpTries = 3

// Here lists the bound sockets of the thread's network namespace.
func Here() (sockets []Socket, err error) {
	for range dumpTries {
		sockets = sockets[:0]
		dump := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP)
		dump.AddData(request{show: showName | showVFS | showQueue | showUID})
		err = dump.ExecuteIter(unix.NETLINK_SOCK_DIAG, nl.SOCK_DIAG_BY_FAMILY, func(message []byte) bool {
			if s, ok := parse(message); ok {
				sockets = append(sockets, s)
			}
			return true
		})
		if errors.Is(err, unix.ENOENT) {
			// sock_diag_rcv_msg knows no handler for the family, and could load none.
			return nil, errors.New("this kernel cannot list AF_UNIX sockets: it has no unix_diag, nor the module of that name")
		}
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return sockets, err
		}
	}
	// What is there is right, if not complete.
	return sockets, nil
}

// Find describes a bound socket of the thread's network namespace.
func Find(inode uint32) (s Socket, found bool) {
	messages, err := ask(inode, showName|showUID)
	if err != nil || len(messages) == 0 {
		return Socket{}, false
	}
	return parse(messages[0])
}

// ask asks for one socket of the thread's network namespace.
func ask(inode, show uint32) ([][]byte, error) {
	one := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, 0)
	one.AddData(request{inode: inode, show: show})
	return one.Execute(unix.NETLINK_SOCK_DIAG, nl.SOCK_DIAG_BY_FAMILY)
}

// messageSize is the size of struct unix_diag_msg.
const messageSize = 16

// parse reads a struct unix_diag_msg and the attributes behind it. ok is false for a socket
// without an address.
func parse(message []byte) (s Socket, ok bool) {
	if len(message) < messageSize || message[0] != unix.AF_UNIX {
		return s, false
	}
	s.Kind = message[1]
	s.Inode = binary.NativeEndian.Uint32(message[4:])
	attrs, err := nl.ParseRouteAttr(message[messageSize:])
	if err != nil {
		return s, false
	}
	for _, a := range attrs {
		switch {
		case a.Attr.Type == attrName:
			s.Address = events.AddressOf(a.Value)
		case a.Attr.Type == attrVFS && len(a.Value) >= 8:
			s.File = FileID{binary.NativeEndian.Uint32(a.Value), binary.NativeEndian.Uint32(a.Value[4:])}
		case a.Attr.Type == attrQueue && len(a.Value) >= 4:
			s.NextBytes = binary.NativeEndian.Uint32(a.Value)
		case a.Attr.Type == attrUID && len(a.Value) >= 4:
			uid := binary.NativeEndian.Uint32(a.Value)
			s.UID = &uid
		}
	}
	return s, s.Address != ""
}

// A file is not always told by its numbers: some file systems (btrfs, overlayfs) show
// another device than the kernel knows it by. Connecting to it is what a sender does;
// the receiver does not notice.

// ConnectFile connects to the file of a socket, opened with O_PATH, and returns the inode
// number of the socket. The errors are those of connect(2): ECONNREFUSED when nobody has
// bound it, EPROTOTYPE for a socket of another type.
func ConnectFile(fd int) (inode uint32, err error) {
	return connect("/proc/self/fd/" + strconv.Itoa(fd))
}

// ConnectAbstract is the same for an abstract address of the thread's network namespace.
func ConnectAbstract(address events.Address) (inode uint32, err error) {
	return connect(string(address)) // unix.SockaddrUnix writes "@" so, too
}

func connect(name string) (uint32, error) {
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(s)
	if err := unix.Connect(s, &unix.SockaddrUnix{Name: name}); err != nil {
		return 0, err
	}
	return peerOf(s)
}

// peerOf asks for the inode number of the socket that one of ours is connected to.
func peerOf(fd int) (uint32, error) {
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return 0, err
	}
	messages, err := ask(uint32(stat.Ino), showPeer)
	if err != nil {
		return 0, err
	}
	for _, message := range messages {
		attrs, err := nl.ParseRouteAttr(message[min(messageSize, len(message)):])
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
