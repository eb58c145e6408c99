// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// taking is an inventory under way.
type taking struct {
	mu         sync.Mutex
	namespaces map[uint64]int // network namespaces: an open file of each, by inode number
	clients    []client
	sockets    []boundSocket // of all kinds, in all namespaces
	holders    map[uint32][]holder
	unreadable int
}

type client struct {
	Client
	stat *unix.Stat_t // of the path that NOTIFY_SOCKET is; nil: not found
}

type holder struct {
	process Process
	file    *File
}

func (t *taking) close() {
	for _, fd := range t.namespaces {
		unix.Close(fd)
	}
}

func (t *taking) deny() {
	t.mu.Lock()
	t.unreadable++
	t.mu.Unlock()
}

// scanProcesses finds network namespaces and the clients.
func (t *taking) scanProcesses(ctx context.Context) error {
	t.namespaces = make(map[uint64]int)
	return eachProcess(ctx, func(d processDir) {
		denied := isDenied(t.addNamespaceOf(d))
		denied = isDenied(t.addClient(d)) || denied
		if denied {
			t.deny()
		}
	})
}

func (t *taking) addNamespaceOf(d processDir) error {
	inode, err := d.inode("ns/net", "net")
	if err != nil {
		return err
	}
	t.mu.Lock()
	_, known := t.namespaces[inode]
	t.mu.Unlock()
	if known {
		return nil
	}
	fd, err := d.open("ns/net", unix.O_RDONLY)
	if err != nil {
		return err
	}
	t.addNamespace(fd)
	return nil
}

// addNamespace takes over a file of a network namespace.
func (t *taking) addNamespace(fd int) {
	var stat unix.Stat_t
	if unix.Fstat(fd, &stat) != nil {
		unix.Close(fd)
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, known := t.namespaces[stat.Ino]; known {
		unix.Close(fd)
		return
	}
	t.namespaces[stat.Ino] = fd
}

// addClient looks for NOTIFY_SOCKET in the environment of a process.
func (t *taking) addClient(d processDir) error {
	value, ok, err := d.notifySocket()
	if err != nil || !ok {
		return err
	}
	process, err := d.describe()
	if err != nil {
		return err
	}
	c := client{Client: Client{Process: process, NotifySocket: value, State: addressState(value)}}
	if c.State == "" && value[0] == '/' {
		stat, err := d.lookUp(value)
		switch {
		case err == nil && stat.Mode&unix.S_IFMT != unix.S_IFSOCK:
			c.State = ClientNotSocket
		case err == nil:
			c.stat = &stat
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
			c.State = ClientMissing
		}
	}
	t.mu.Lock()
	t.clients = append(t.clients, c)
	t.mu.Unlock()
	return nil
}

// sunPathMax is the longest path that fits into sun_path with its NUL (unix(7)).
const sunPathMax = 107

// addressState is the state of a client by the form of the address alone, "" if
// that is right (sd_notify(3)).
func addressState(value string) ClientState {
	switch {
	case strings.HasPrefix(value, "vsock"):
		return ClientVsock
	case len(value) < 2 || len(value) > sunPathMax+1 || (value[0] != '/' && value[0] != '@'):
		return ClientInvalid
	case value[0] == '/' && len(value) > sunPathMax:
		return ClientInvalid
	}
	return ""
}

// resolveClients finds the sockets that clients mean.
func (t *taking) resolveClients() {
	type abstract struct {
		netns uint64
		name  string
	}
	byFile := make(map[fileID]*boundSocket)
	byName := make(map[abstract]*boundSocket)
	for i := range t.sockets {
		s := &t.sockets[i]
		if s.file != (fileID{}) {
			byFile[s.file] = s
		}
		if strings.HasPrefix(s.Address, "@") {
			byName[abstract{s.NetNS, s.Address}] = s
		}
	}
	for i := range t.clients {
		c := &t.clients[i]
		var s *boundSocket
		switch {
		case c.State != "":
			continue
		case c.stat != nil:
			s = byFile[fileOf(c.stat)]
		case c.NotifySocket[0] == '@' && c.NetNS != 0:
			s = byName[abstract{c.NetNS, c.NotifySocket}]
		default:
			continue
		}
		switch {
		case s == nil:
			c.State = ClientNobody
		case !s.isDatagram():
			c.State = ClientWrongType
		default:
			c.State, c.Inode = ClientOK, s.Inode
		}
	}
}

// findHolders finds the processes that hold the wanted sockets.
func (t *taking) findHolders(ctx context.Context, wanted map[uint32]*Socket) error {
	files := make(map[uint32]fileID)
	for i := range t.sockets {
		files[t.sockets[i].Inode] = t.sockets[i].file
	}
	return eachProcess(ctx, func(d processDir) {
		held := heldBy(d, wanted)
		if len(held) == 0 {
			return
		}
		process, err := d.describe()
		if err != nil {
			return
		}
		for _, inode := range held {
			h := holder{process: process, file: fileSeenBy(d, wanted[inode].Address, files[inode])}
			t.mu.Lock()
			t.holders[inode] = append(t.holders[inode], h)
			t.mu.Unlock()
		}
	})
}

// heldBy returns those of the wanted sockets of which a process has a file descriptor.
func heldBy(d processDir, wanted map[uint32]*Socket) (held []uint32) {
	fd, err := d.open("fd", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	eachEntry(fd, func(name string) bool {
		var link [32]byte
		n, err := unix.Readlinkat(fd, name, link[:])
		if err != nil {
			return true
		}
		inode, ok := parseInode(link[:n], "socket")
		if _, want := wanted[uint32(inode)]; ok && want && !slices.Contains(held, uint32(inode)) {
			held = append(held, uint32(inode))
		}
		return true
	})
	return held
}

// fileSeenBy looks for the file of a socket as a process sees it.
func fileSeenBy(d processDir, address string, socket fileID) *File {
	if !strings.HasPrefix(address, "/") || socket == (fileID{}) {
		return nil
	}
	if fd, found := boundThrough(address); found {
		return fileIn(d, fd, socket)
	}
	stat, err := d.lookUp(address)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return &File{State: FileMissing}
	case err != nil:
		return nil
	case fileOf(&stat) != socket:
		return newFile(FileReplaced, address, &stat)
	}
	return newFile(FileThere, address, &stat)
}

func newFile(state FileState, path string, stat *unix.Stat_t) *File {
	return &File{
		State: state, Path: path, Mode: fmt.Sprintf("%04o", stat.Mode&0o7777), UID: &stat.Uid, GID: &stat.Gid,
	}
}

// boundThrough recognizes /proc/self/fd/N/NAME: programs bind so to a path that is
// longer than an address, and may give the file another name afterwards.
func boundThrough(address string) (fd string, ok bool) {
	rest, ok := strings.CutPrefix(address, "/proc/self/fd/")
	if !ok {
		return "", false
	}
	fd, _, ok = strings.Cut(rest, "/")
	_, err := strconv.ParseUint(fd, 10, 31)
	return fd, ok && err == nil
}

// fileIn looks for the file of a socket in a directory that a process has open.
func fileIn(d processDir, fd string, socket fileID) *File {
	dir, err := d.open("fd/"+fd, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil
	}
	defer unix.Close(dir)
	var link [unix.PathMax]byte
	n, err := unix.Readlinkat(d.fd, "fd/"+fd, link[:])
	if err != nil {
		return nil
	}
	var found *File
	eachEntry(dir, func(name string) bool {
		var stat unix.Stat_t
		if unix.Fstatat(dir, name, &stat, unix.AT_SYMLINK_NOFOLLOW) == nil && fileOf(&stat) == socket {
			found = newFile(FileThere, string(link[:n])+"/"+name, &stat)
		}
		return found == nil
	})
	return found
}

// eachEntry calls look for the names in a directory until it returns false.
func eachEntry(dir int, look func(name string) bool) {
	var entries [8192]byte
	var names []string
	for {
		n, err := unix.ReadDirent(dir, entries[:])
		if err != nil || n <= 0 {
			return
		}
		_, _, names = unix.ParseDirent(entries[:n], -1, names[:0])
		for _, name := range names {
			if !look(name) {
				return
			}
		}
	}
}
