// SPDX-License-Identifier: Apache-2.0

// Package inventory finds the notify sockets of a host (sd_notify(3)) in all its
// network namespaces: who holds them, and which processes have one in NOTIFY_SOCKET.
package inventory

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/sdtrace/sdtrace/internal/access"
	"github.com/sdtrace/sdtrace/internal/enrich/machines"
	"github.com/sdtrace/sdtrace/internal/field"
	"github.com/sdtrace/sdtrace/internal/proc"
	"github.com/sdtrace/sdtrace/internal/sockdiag"
	"github.com/sdtrace/sdtrace/pkg/events"
)

// Inventory is what there is at a moment. Processes and sockets come and go while
// it is taken: what is gone before it was looked at is left out.
type Inventory struct {
	// Sockets are in the order of their addresses.
	Sockets []Socket
	// Clients are the processes that have NOTIFY_SOCKET in their environment, in
	// the order of their ids.
	Clients []Client
	// Unreadable are the processes and network namespaces that could not be looked at for want of a
	// right, sorted: what they hold is missing. They are named as comm[pid], by the path that a
	// namespace is bound to, or as net:[inode].
	Unreadable []string
	// LeftOut is what is missing for another reason, and why, sorted, each a sentence without a full stop: a process
	// that does not answer, or says that its environment is without end; or what was not looked at in time.
	LeftOut []string
}

// Socket is a bound AF_UNIX datagram socket.
type Socket struct {
	// Address is as the socket was bound.
	Address events.Address `json:"-"`
	// Inode is the inode number of the socket, as in ss -x and /proc/PID/fd.
	Inode uint32 `json:"inode"`
	// NetNS is the inode number of the network namespace it was made in.
	NetNS uint64 `json:"netns"`
	// UID is the user who made it, nil before Linux 5.3.
	UID *uint32 `json:"uid,omitempty"`
	// Notify says whether it is, or could be, a notify socket: by its name or
	// because some process has it in NOTIFY_SOCKET.
	Notify bool `json:"notify"`
	// File is what there is of the socket in the file system, as the first of Holders
	// sees it; nil for abstract addresses and where that could not be found out.
	File *File `json:"file,omitempty"`
	// NextBytes is the length of the datagram that would be read next, in bytes;
	// 0 if none waits, or an empty one (unix_diag: udiag_rqueue).
	NextBytes uint32 `json:"next_bytes"`
	// Queued is how many datagrams wait, empty ones among them, a moment before or
	// after NextBytes was asked for. nil means unknown: the kernel refused the BPF program
	// that counts them (see sdtrace check).
	Queued *uint32 `json:"queued,omitempty"`
	// MaxQueued is the limit of datagrams that wait: a sender waits while there are
	// more, so that one more fits. Where Queued is known it is that of the socket,
	// else what net.unix.max_dgram_qlen is now in its network namespace, of which a
	// socket takes over what it was when it was made. nil means unknown.
	MaxQueued *uint32 `json:"max_queued,omitempty"`
	// Holders are the processes with a file descriptor of it.
	Holders []Process `json:"holders,omitempty"`
}

// File is a name in the file system.
type File struct {
	// State is what is there.
	State FileState `json:"state"`
	// Path is where it is; not the socket's address if that was bound through
	// /proc/self/fd. "" for a file that is missing.
	Path events.Address `json:"-"`
	// Mode holds the permission bits, in octal: "0777". Mode, UID and GID are of the
	// host, and only set for a file that is there.
	Mode string  `json:"mode,omitempty"`
	UID  *uint32 `json:"uid,omitempty"`
	GID  *uint32 `json:"gid,omitempty"`
}

// FileState is what there is of a socket in the file system.
type FileState string

// The states.
const (
	FileThere    FileState = "there"    // the socket
	FileMissing  FileState = "missing"  // nothing: nobody can reach the socket by this name
	FileReplaced FileState = "replaced" // something else, such as a later socket
)

// Process is one, with what its control group says.
type Process struct {
	// PID is its number in the pid namespace of the reader.
	PID int `json:"pid"`
	// Comm is its name, of 15 bytes at most (proc_pid_comm(5)).
	Comm string `json:"comm"`
	// Identity is that of its cgroup v2 or, where that says only "/", of the first cgroup v1
	// hierarchy which says more.
	events.Identity
	// NetNS is the inode number of its network namespace.
	NetNS uint64 `json:"netns,omitempty"`
}

// Client is a process with NOTIFY_SOCKET in its environment, as that was when it
// was executed; or one that may have it, and has written over its environment.
type Client struct {
	Process
	// NotifySocket is the value, of any bytes; "" in state ClientOverwritten.
	NotifySocket string `json:"-"`
	// State says what it leads to for the process: from its root directory and network
	// namespace, with its user, groups and capabilities; "" where that could not be found out.
	State ClientState `json:"state,omitempty"`
	// Inode is the socket that it leads to, in state ClientOK, and in state ClientDenied if there is
	// one.
	Inode uint32 `json:"inode,omitempty"`
	// UID is the user as whom it uses files; nil when that is unknown.
	UID *uint32 `json:"uid,omitempty"`
	// Denied is what it may not use, in state ClientDenied.
	Denied *Denied `json:"denied,omitempty"`
	// Watchdog is what WATCHDOG_PID and WATCHDOG_USEC say; nil without WATCHDOG_USEC.
	Watchdog *Watchdog `json:"watchdog,omitempty"`
}

// Denied is a directory that a process may not search, or a socket that it may not write to.
type Denied struct {
	// Path is where the process sees it.
	Path events.Address `json:"path"`
	// IsSocket is whether it is the socket.
	IsSocket bool `json:"socket"`
	// Mode holds the permission bits, in octal: "0700". UID and GID are the owner's, of the host.
	Mode string `json:"mode"`
	UID  uint32 `json:"uid"`
	GID  uint32 `json:"gid"`
}

// Watchdog is what the environment of a process says of pings (sd_watchdog_enabled(3)).
type Watchdog struct {
	// State is what sd_watchdog_enabled(3) makes of it.
	State WatchdogState `json:"state"`
	// USec is WATCHDOG_USEC, in microseconds: a ping is due in each half of it. nil if it is no number.
	USec *uint64 `json:"usec,omitempty"`
	// PID is WATCHDOG_PID, in the process's own pid namespace; nil if it is missing, or no process id.
	PID *uint32 `json:"pid,omitempty"`
}

// WatchdogState is whether a process is to send pings by its environment.
type WatchdogState string

// The states.
const (
	WatchdogOK      WatchdogState = "ok"      // it is
	WatchdogOther   WatchdogState = "other"   // WATCHDOG_PID is another process: it is not
	WatchdogInvalid WatchdogState = "invalid" // no numbers
)

// ClientState is what a process's NOTIFY_SOCKET leads to.
type ClientState string

// The states.
const (
	ClientOK        ClientState = "ok"         // a datagram socket
	ClientMissing   ClientState = "missing"    // no such file: ENOENT
	ClientNobody    ClientState = "nobody"     // nobody has bound it, or not any more: ECONNREFUSED
	ClientNotSocket ClientState = "not_socket" // a file of another kind: ECONNREFUSED
	ClientWrongType ClientState = "wrong_type" // a stream or seqpacket socket: EPROTOTYPE
	ClientVsock     ClientState = "vsock"      // not on this machine
	ClientInvalid   ClientState = "invalid"    // no address that sd_notify(3) takes
	ClientDenied    ClientState = "denied"     // permissions: EACCES
	// ClientOverwritten is for the first process of a service or container that has written over its
	// environment, as programs do that set a title: what was in it is not known.
	ClientOverwritten ClientState = "overwritten"
)

// Options say what to look for.
type Options struct {
	// All is for every bound AF_UNIX datagram socket, not only notify sockets.
	All bool
}

// Take looks at all processes and network namespaces. Nothing that vanishes
// meanwhile is an error, and neither is what cannot be looked at: it is named. To look at all processes takes 20 s at
// most, and what was not looked at by then is left out.
// It needs root to be complete.
func Take(ctx context.Context, options Options) (*Inventory, error) {
	return take(ctx, options, sockdiag.Queues)
}

func take(ctx context.Context, options Options, listQueues queueLister) (*Inventory, error) {
	s := &scan{holders: make(map[uint32][]holder), attempts: make(map[attempt]*access.Denied)}
	defer s.namespaces.Close()
	if err := s.processes(ctx); err != nil {
		return nil, err
	}
	s.unreadable = append(s.unreadable, s.namespaces.AddMounted()...)
	if err := s.listSockets(ctx, listQueues); err != nil {
		return nil, err
	}
	s.resolveClients()
	wanted := s.choose(options.All)
	if err := s.findHolders(ctx, wanted); err != nil {
		return nil, err
	}
	return s.inventory(wanted, options.All), nil
}

// choose returns the sockets to look for in processes: those to report, and those
// of which the name is not known yet.
func (s *scan) choose(all bool) map[uint32]*Socket {
	pointedAt := make(map[uint32]bool)
	for _, c := range s.clients {
		if c.Inode != 0 {
			pointedAt[c.Inode] = true
		}
	}
	wanted := make(map[uint32]*Socket)
	for i := range s.sockets {
		socket := &s.sockets[i]
		if !socket.IsDatagram() {
			continue
		}
		_, through := boundThrough(socket.Address)
		notify := pointedAt[socket.Inode] || field.IsNotifyName(string(socket.Address))
		if all || notify || through {
			wanted[socket.Inode] = s.describe(socket, notify)
		}
	}
	return wanted
}

// describe is what is known of a socket before its holders are.
func (s *scan) describe(of *sockdiag.Socket, notify bool) *Socket {
	socket := &Socket{
		Address: of.Address, Inode: of.Inode, NetNS: of.NetNS, UID: of.UID, Notify: notify, NextBytes: of.NextBytes,
	}
	if q, known := s.queues[of.Inode]; known {
		socket.Queued, socket.MaxQueued = &q.Datagrams, &q.Limit
	} else if limit, known := s.queueLimits[of.NetNS]; known {
		socket.MaxQueued = &limit
	}
	return socket
}

func (s *scan) inventory(wanted map[uint32]*Socket, all bool) *Inventory {
	slices.Sort(s.unreadable)
	if !proc.IsHost() {
		s.leftOut = append(s.leftOut, "processes outside of this pid namespace are not seen")
	}
	if s.full.Load() {
		s.leftOut = append(s.leftOut, "no more files may be open (ulimit -n), and what could not be opened is missing")
	}
	for _, h := range proc.Hangs() {
		s.leftOut = append(s.leftOut, h.String())
	}
	slices.Sort(s.leftOut)
	inv := &Inventory{Clients: s.clientList(), Unreadable: s.unreadable, LeftOut: s.leftOut}
	for inode, socket := range wanted {
		holders := s.holders[inode]
		slices.SortFunc(holders, func(a, b holder) int { return cmp.Compare(a.process.PID, b.process.PID) })
		for i, h := range holders {
			if i == 0 {
				socket.File = h.file
			}
			socket.Holders = append(socket.Holders, h.process)
		}
		socket.Notify = socket.Notify || field.IsNotifyName(string(socket.Name()))
		if all || socket.Notify {
			inv.Sockets = append(inv.Sockets, *socket)
		}
	}
	slices.SortFunc(inv.Sockets, func(a, b Socket) int {
		return cmp.Or(cmp.Compare(a.Name(), b.Name()), cmp.Compare(a.NetNS, b.NetNS), cmp.Compare(a.Inode, b.Inode))
	})
	inv.refine()
	return inv
}

// refine names the units of machines with a service manager of their own.
func (inv *Inventory) refine() {
	machines := machines.New()
	for i := range inv.Sockets {
		for j := range inv.Sockets[i].Holders {
			machines.Refine(&inv.Sockets[i].Holders[j].Identity)
		}
	}
	for i := range inv.Clients {
		machines.Refine(&inv.Clients[i].Identity)
	}
}

// Name is what a socket is called: by where its file is, if that is known, else its Address.
func (s *Socket) Name() events.Address {
	if s.File != nil && s.File.State == FileThere {
		return s.File.Path
	}
	return s.Address
}

func (s *scan) clientList() []Client {
	clients := make([]Client, 0, len(s.clients))
	for _, c := range s.clients {
		clients = append(clients, c.Client)
	}
	slices.SortFunc(clients, func(a, b Client) int { return cmp.Compare(a.PID, b.PID) })
	return clients
}

// String is the process as it is called in a line of text: comm[pid].
func (p Process) String() string { return fmt.Sprintf("%s[%d]", p.Comm, p.PID) }
