// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// taking is an inventory under way.
type taking struct {
	// onlyHolders leaves out the clients and the files of sockets.
	onlyHolders bool

	mu         sync.Mutex
	namespaces map[uint64]int // network namespaces: an open file of each, by inode number
	clients    []client
	sockets    []boundSocket // of all kinds, in all namespaces
	holders    map[uint32][]holder
	unreadable int
}

type client struct {
	Client
	file fileID // of the path that NOTIFY_SOCKET is; zero: not found
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
		if !t.onlyHolders {
			denied = isDenied(t.addClient(d)) || denied
		}
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
		c.State, c.file = lookAt(d, value)
	}
	t.mu.Lock()
	t.clients = append(t.clients, c)
	t.mu.Unlock()
	return nil
}

// lookAt says what is at a path as a process sees it: a state, or a socket's file.
func lookAt(d processDir, path string) (ClientState, fileID) {
	fd, stat, err := d.openPath(path)
	if err != nil {
		if isMissing(err) {
			return ClientMissing, fileID{}
		}
		return "", fileID{}
	}
	defer unix.Close(fd)
	if stat.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return ClientNotSocket, fileID{}
	}
	return "", fileOf(&stat)
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
		case c.file != (fileID{}):
			if s = byFile[c.file]; s == nil {
				c.State, c.Inode = reach(&c.Client)
				continue
			}
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
	bound := make(map[uint32]*boundSocket)
	for i := range t.sockets {
		bound[t.sockets[i].Inode] = &t.sockets[i]
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
			h := holder{process: process}
			if !t.onlyHolders {
				h.file = fileSeenBy(d, bound[inode])
			}
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
func fileSeenBy(d processDir, socket *boundSocket) *File {
	address := socket.Address
	if !strings.HasPrefix(address, "/") {
		return nil
	}
	if fd, found := boundThrough(address); found {
		return fileIn(d, fd, socket)
	}
	fd, stat, err := d.openPath(address)
	if err != nil {
		if isMissing(err) {
			return &File{State: FileMissing}
		}
		return nil
	}
	defer unix.Close(fd)
	if fileOf(&stat) == socket.file {
		return newFile(FileThere, address, &stat)
	}
	switch state, other := connectTo(fd); {
	case state == "":
		return nil
	case state == ClientOK && other == socket.Inode:
		return newFile(FileThere, address, &stat)
	}
	return newFile(FileReplaced, address, &stat)
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
func fileIn(d processDir, fd string, socket *boundSocket) *File {
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
		if unix.Fstatat(dir, name, &stat, unix.AT_SYMLINK_NOFOLLOW) == nil && isFileOf(dir, name, &stat, socket) {
			found = newFile(FileThere, string(link[:n])+"/"+name, &stat)
		}
		return found == nil
	})
	return found
}

// isFileOf reports whether a file is that of a socket. Where its inode number alone is
// the same, the file system may show another device than it has.
func isFileOf(dir int, name string, stat *unix.Stat_t, socket *boundSocket) bool {
	id := fileOf(stat)
	if id == socket.file || id.inode != socket.file.inode || stat.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return id == socket.file
	}
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	state, inode := connectTo(fd)
	return state == ClientOK && inode == socket.Inode
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
