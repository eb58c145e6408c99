// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/access"
	"github.com/sdtrace/sdtrace/internal/identity"
	"github.com/sdtrace/sdtrace/internal/proc"
	"github.com/sdtrace/sdtrace/internal/sockdiag"
	"github.com/sdtrace/sdtrace/pkg/events"
)

// scan is an inventory under way.
type scan struct {
	namespaces  sockdiag.Namespaces
	sockets     []sockdiag.Socket // of all kinds, in all namespaces
	queues      map[uint32]sockdiag.Queue
	queueLimits map[uint64]uint32 // by network namespace

	directories sync.Map    // what *directory is at a sockdiag.FileID
	full        atomic.Bool // no more files could be opened

	mu         sync.Mutex
	clients    []client
	attempts   map[attempt]*access.Denied
	holders    map[uint32][]holder
	unreadable []string
	leftOut    []string
}

type client struct {
	Client
	file sockdiag.FileID // of the path that NOTIFY_SOCKET is; zero: not found
}

// attempt is who tries to reach a path.
type attempt struct {
	access.Who
	path string
}

type holder struct {
	process Process
	file    *File
}

// processes finds network namespaces and the clients.
func (s *scan) processes(ctx context.Context) error {
	return s.each(ctx, "NOTIFY_SOCKET of some processes", func(p proc.Process) {
		added := s.namespaces.AddOf(p)
		err := s.addClient(p)
		switch {
		case proc.IsDenied(added) || proc.IsDenied(err):
			s.addUnreadable(p)
		case proc.IsFull(added) || proc.IsFull(err):
			s.full.Store(true)
		}
		if errors.Is(err, unix.EFBIG) {
			s.leaveOut(p, "its environment is longer than 2 MiB")
		}
	})
}

// lookLimit is how long it may take to look at all processes, once for what they have, once for what they hold.
const lookLimit = 10 * time.Second

// each calls look for every process, for some time. what is not known then is left out.
func (s *scan) each(ctx context.Context, what string, look func(proc.Process)) error {
	limited, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	err := proc.Each(limited, look)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		s.leftOut = append(s.leftOut, fmt.Sprintf("%s: to look at all takes more than %s", what, lookLimit))
		return nil
	}
	return err
}

func (s *scan) addUnreadable(p proc.Process) {
	stat, err := p.Stat() // everybody may
	if err != nil || stat.IsKernel {
		return
	}
	s.mu.Lock()
	s.unreadable = append(s.unreadable, Process{PID: p.PID, Comm: stat.Comm}.String())
	s.mu.Unlock()
}

func (s *scan) leaveOut(p proc.Process, why string) {
	stat, err := p.Stat()
	if err != nil {
		return
	}
	s.mu.Lock()
	s.leftOut = append(s.leftOut, fmt.Sprintf("%s: %s", Process{PID: p.PID, Comm: stat.Comm}, why))
	s.mu.Unlock()
}

// queueLister tells the queues of datagram sockets by the inode number of the socket. What it
// leaves out, and everything when it fails, is unknown.
type queueLister func(context.Context) (map[uint32]sockdiag.Queue, error)

// listSockets asks every network namespace for its sockets and, at the same time, for
// their queues.
func (s *scan) listSockets(ctx context.Context, listQueues queueLister) error {
	type listed struct {
		*sockdiag.Listing
		err error
	}
	done := make(chan listed, 1)
	go func() {
		listing, err := s.namespaces.List(ctx)
		done <- listed{listing, err}
	}()
	s.queues, _ = listQueues(ctx)
	l := <-done
	s.sockets, s.queueLimits = l.Sockets, l.QueueLimits
	s.unreadable = append(s.unreadable, l.Denied...)
	return l.err
}

// describe says what is known about a process by itself.
func describe(p proc.Process) (Process, error) {
	comm, err := p.Comm()
	if err != nil {
		return Process{}, err
	}
	cgroup, err := p.Cgroup()
	if err != nil {
		return Process{}, err
	}
	process := Process{PID: p.PID, Comm: comm, Identity: identity.Parse(cgroup)}
	process.NetNS, _ = p.Inode("ns/net", "net")
	return process, nil
}

// addClient looks for NOTIFY_SOCKET in the environment of a process.
func (s *scan) addClient(p proc.Process) error {
	environ, err := p.Read("environ")
	if err != nil {
		return err
	}
	value, ok := proc.Variable(environ, "NOTIFY_SOCKET")
	if !ok && proc.IsEnvironment(environ) {
		return nil
	}
	process, err := describe(p)
	if err != nil {
		return err
	}
	c := client{Client: Client{Process: process, NotifySocket: value}}
	switch {
	case !ok && !isFirst(p, &process):
		return nil
	case !ok:
		c.State = ClientOverwritten
	default:
		s.look(p, &c, environ)
	}
	s.mu.Lock()
	s.clients = append(s.clients, c)
	s.mu.Unlock()
	return nil
}

// look finds what there is to know of a client but for the socket.
func (s *scan) look(p proc.Process, c *client, environ []byte) {
	c.State = addressState(c.NotifySocket)
	c.Watchdog = watchdog(p, environ)
	who, err := access.Of(p)
	if err == nil {
		uid := who.UID()
		c.UID = &uid
	}
	if c.State != "" || c.NotifySocket[0] != '/' {
		return
	}
	c.State, c.file = s.lookAt(p, c.NotifySocket)
	if err != nil {
		return
	}
	if denied := s.try(p, attempt{who, c.NotifySocket}); denied != nil {
		c.Denied = &Denied{
			Path: events.Address(denied.Path), IsSocket: denied.IsSocket, Mode: octal(denied.Mode), UID: denied.UID, GID: denied.GID,
		}
	}
}

// try finds out what refuses a process to reach a path: once for all that are alike.
func (s *scan) try(p proc.Process, a attempt) *access.Denied {
	s.mu.Lock()
	denied, tried := s.attempts[a]
	s.mu.Unlock()
	if tried {
		return denied
	}
	denied, err := access.Try(p, a.path)
	if err != nil {
		return nil // it is gone, or that is not ours to try
	}
	s.mu.Lock()
	s.attempts[a] = denied
	s.mu.Unlock()
	return denied
}

// isFirst reports whether a process is the first one of a service or container: its parent belongs to
// something else.
func isFirst(p proc.Process, process *Process) bool {
	if !strings.Contains(process.Cgroup+"/", ".service/") && process.Container == nil {
		return false
	}
	status, err := p.Status()
	if err != nil || status.PPID == 0 {
		return err == nil
	}
	parent, err := proc.Open(status.PPID)
	if err != nil {
		return true
	}
	defer parent.Close()
	cgroup, err := parent.Cgroup()
	return err != nil || cgroup != process.Cgroup
}

// watchdog is what an environment says of pings, nil for nothing.
func watchdog(p proc.Process, environ []byte) *Watchdog {
	usec, ok := proc.Variable(environ, "WATCHDOG_USEC")
	if !ok {
		return nil
	}
	w := &Watchdog{State: WatchdogOK}
	if n, err := strconv.ParseUint(usec, 10, 64); err == nil && n > 0 && n < 1<<64-1 {
		w.USec = &n
	} else {
		w.State = WatchdogInvalid
	}
	text, ok := proc.Variable(environ, "WATCHDOG_PID")
	if !ok {
		return w // it is for every process
	}
	pid, err := strconv.ParseUint(text, 10, 31)
	if err != nil || pid == 0 {
		w.State = WatchdogInvalid
		return w
	}
	of := uint32(pid)
	w.PID = &of
	if status, err := p.Status(); err == nil && w.State == WatchdogOK && status.NSPID != int(pid) {
		w.State = WatchdogOther
	}
	return w
}

// octal is how permission bits are written.
func octal(mode uint32) string { return fmt.Sprintf("%04o", mode) }

// lookAt says what is at a path as a process sees it: a state, or a socket's file.
func (s *scan) lookAt(p proc.Process, path string) (ClientState, sockdiag.FileID) {
	fd, stat, err := p.OpenPath(path)
	switch {
	case proc.IsMissing(err):
		return ClientMissing, sockdiag.FileID{}
	case errors.Is(err, proc.ErrFUSE):
		s.leaveOut(p, "where NOTIFY_SOCKET leads: "+err.Error())
		return "", sockdiag.FileID{}
	case err != nil:
		return "", sockdiag.FileID{}
	}
	defer unix.Close(fd)
	if stat.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return ClientNotSocket, sockdiag.FileID{}
	}
	return "", sockdiag.FileOf(&stat)
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

// resolveClients finds the sockets that clients mean, and which of these they may not reach.
func (s *scan) resolveClients() {
	s.findSockets()
	for i := range s.clients {
		if c := &s.clients[i]; c.Denied != nil {
			c.State = ClientDenied
		}
	}
}

// findSockets finds the sockets that clients mean.
func (s *scan) findSockets() {
	type abstract struct {
		netns uint64
		name  events.Address
	}
	byFile := make(map[sockdiag.FileID]*sockdiag.Socket)
	byName := make(map[abstract]*sockdiag.Socket)
	for i := range s.sockets {
		socket := &s.sockets[i]
		if socket.File != (sockdiag.FileID{}) {
			byFile[socket.File] = socket
		}
		if socket.Address.IsAbstract() {
			byName[abstract{socket.NetNS, socket.Address}] = socket
		}
	}
	for i := range s.clients {
		c := &s.clients[i]
		var socket *sockdiag.Socket
		switch {
		case c.State != "":
			continue
		case c.file != (sockdiag.FileID{}):
			if socket = byFile[c.file]; socket == nil {
				c.State, c.Inode = reach(&c.Client)
				continue
			}
		case c.NotifySocket[0] == '@' && c.NetNS != 0:
			socket = byName[abstract{c.NetNS, events.Address(c.NotifySocket)}]
		default:
			continue
		}
		switch {
		case socket == nil:
			c.State = ClientNobody
		case !socket.IsDatagram():
			c.State = ClientWrongType
		default:
			c.State, c.Inode = ClientOK, socket.Inode
		}
	}
}

// reach finds out by connecting what a client's path leads to.
func reach(c *Client) (ClientState, uint32) {
	p, err := proc.Open(c.PID)
	if err != nil {
		return "", 0
	}
	defer p.Close()
	fd, _, err := p.OpenPath(c.NotifySocket)
	if err != nil {
		return "", 0
	}
	defer unix.Close(fd)
	// It must be the same process still.
	if value, _, err := p.NotifySocket(); err != nil || value != c.NotifySocket {
		return "", 0
	}
	return connectTo(fd)
}

// connectTo says what a file leads to who connects. The state is "" for an error that says
// nothing about the socket.
func connectTo(fd int) (ClientState, uint32) {
	inode, err := sockdiag.ConnectFile(fd)
	switch {
	case err == nil:
		return ClientOK, inode
	case errors.Is(err, unix.ECONNREFUSED):
		return ClientNobody, 0
	case errors.Is(err, unix.EPROTOTYPE):
		return ClientWrongType, 0
	}
	return "", 0
}

// findHolders finds the processes that hold the wanted sockets.
func (s *scan) findHolders(ctx context.Context, wanted map[uint32]*Socket) error {
	bound := make(map[uint32]*sockdiag.Socket)
	for i := range s.sockets {
		bound[s.sockets[i].Inode] = &s.sockets[i]
	}
	return s.each(ctx, "who holds some of the sockets", func(p proc.Process) {
		held := p.Sockets(func(inode uint32) bool { return wanted[inode] != nil })
		if len(held) == 0 {
			return
		}
		process, err := describe(p)
		if err != nil {
			return
		}
		for _, inode := range held {
			h := holder{process: process, file: s.fileSeenBy(p, bound[inode])}
			s.mu.Lock()
			s.holders[inode] = append(s.holders[inode], h)
			s.mu.Unlock()
		}
	})
}

// fileSeenBy looks for the file of a socket as a process sees it.
func (s *scan) fileSeenBy(p proc.Process, socket *sockdiag.Socket) *File {
	address := socket.Address
	if !address.IsAbsolute() {
		return nil
	}
	if fd, found := boundThrough(address); found {
		return s.fileIn(p, fd, socket)
	}
	fd, stat, err := p.OpenPath(string(address))
	if err != nil {
		if proc.IsMissing(err) {
			return &File{State: FileMissing}
		}
		return nil
	}
	defer unix.Close(fd)
	if sockdiag.FileOf(&stat) == socket.File {
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

func newFile(state FileState, path events.Address, stat *unix.Stat_t) *File {
	return &File{
		State: state, Path: path, Mode: octal(stat.Mode & 0o7777), UID: &stat.Uid, GID: &stat.Gid,
	}
}

// boundThrough recognizes /proc/self/fd/N/NAME: programs bind so to a path that is
// longer than an address, and may give the file another name afterwards.
func boundThrough(address events.Address) (fd string, ok bool) {
	rest, ok := strings.CutPrefix(string(address), "/proc/self/fd/")
	if !ok {
		return "", false
	}
	fd, _, ok = strings.Cut(rest, "/")
	_, err := strconv.ParseUint(fd, 10, 31)
	return fd, ok && err == nil
}

// fileIn looks for the file of a socket in a directory that a process has open.
func (s *scan) fileIn(p proc.Process, fd string, socket *sockdiag.Socket) *File {
	link, err := p.Link("fd/" + fd)
	if err != nil {
		return nil
	}
	found, _ := proc.WithinPath(p, link, func(p proc.Process) (*File, error) { return s.findIn(p, fd, link, socket), nil }, nil)
	return found
}

// findIn does so where the directory is said to be.
func (s *scan) findIn(p proc.Process, fd, link string, socket *sockdiag.Socket) *File {
	dir, err := p.Open("fd/"+fd, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil
	}
	defer unix.Close(dir)
	list, err := s.list(dir)
	if err != nil {
		return nil
	}
	for _, name := range list.candidates(socket) {
		var stat unix.Stat_t
		if unix.Fstatat(dir, name, &stat, unix.AT_SYMLINK_NOFOLLOW) == nil && isFileOf(dir, name, &stat, socket) {
			return newFile(FileThere, events.Address(link+"/"+name), &stat)
		}
	}
	return nil
}

// directory is what is in one that may be sockets, by inode number.
type directory struct {
	names map[uint64][]string
	count int
}

// list lists a directory, each once: many sockets can be bound in one.
func (s *scan) list(dir int) (*directory, error) {
	var stat unix.Stat_t
	if err := unix.Fstat(dir, &stat); err != nil {
		return nil, err
	}
	id := sockdiag.FileOf(&stat)
	if known, ok := s.directories.Load(id); ok {
		return known.(*directory), nil
	}
	d := &directory{names: make(map[uint64][]string)}
	proc.EachEntryOf(dir, func(inode uint64, kind uint8, name string) bool {
		if kind == unix.DT_SOCK || kind == unix.DT_UNKNOWN {
			d.names[inode] = append(d.names[inode], name)
			d.count++
		}
		return d.count < entriesMax
	})
	s.directories.Store(id, d)
	return d, nil
}

const (
	// entriesMax is how many entries of a directory are listed, candidatesMax how many are looked at where the inode
	// numbers of a directory are not those of its files, as overlayfs may have it.
	entriesMax, candidatesMax = 100_000, 1000
)

// candidates are the names that may be a socket's.
func (d *directory) candidates(socket *sockdiag.Socket) []string {
	if names := d.names[uint64(socket.File.Inode)]; names != nil || d.count > candidatesMax {
		return names
	}
	return slices.Concat(slices.Collect(maps.Values(d.names))...)
}

// isFileOf reports whether a file is that of a socket. Where its inode number alone is
// the same, the file system may show another device than it has.
func isFileOf(dir int, name string, stat *unix.Stat_t, socket *sockdiag.Socket) bool {
	id := sockdiag.FileOf(stat)
	if id == socket.File || id.Inode != socket.File.Inode || stat.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return id == socket.File
	}
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	state, inode := connectTo(fd)
	return state == ClientOK && inode == socket.Inode
}
