// SPDX-License-Identifier: Apache-2.0

// Package inventory finds the notify sockets of a host (sd_notify(3)) in all its
// network namespaces: who holds them, and which processes have one in NOTIFY_SOCKET.
package inventory

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/sdtrace/sdtrace/pkg/identity"
)

// Inventory is what there is at a moment. Processes and sockets come and go while
// it is taken: what is gone before it was looked at is left out.
type Inventory struct {
	// Sockets are in the order of their addresses.
	Sockets []Socket
	// Clients are the processes that have NOTIFY_SOCKET in their environment, in
	// the order of their ids.
	Clients []Client
	// Unreadable is how many processes and network namespaces could not be looked
	// at for want of a right: what they hold is missing.
	Unreadable int
}

// Socket is a bound AF_UNIX datagram socket.
type Socket struct {
	// Address is as the socket was bound: a path, or "@" and an abstract name. It
	// holds any byte: see events.FormatAddress.
	Address string `json:"-"`
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
	// after NextBytes was asked for. nil means unknown: see Options.Queues.
	Queued *uint32 `json:"queued,omitempty"`
	// MaxQueued is the limit of datagrams that wait: a sender waits while there are
	// more, so that one more fits. Where Queued is known it is that of the socket,
	// else what net.unix.max_dgram_qlen is now in its network namespace, of which a
	// socket takes over what it was when it was made. nil means unknown.
	MaxQueued *uint32 `json:"max_queued,omitempty"`
	// Holders are the processes with a file descriptor of it.
	Holders []Process `json:"holders,omitempty"`
}

// Queue is the receive queue of a datagram socket.
type Queue struct {
	// Datagrams is how many wait, empty ones among them (struct sock,
	// sk_receive_queue.qlen).
	Datagrams uint32
	// Limit is what net.unix.max_dgram_qlen was in the socket's network namespace when
	// it was made (sk_max_ack_backlog): a sender waits while there are more than that
	// (unix_recvq_full), unless it is the one the socket is connected to.
	Limit uint32
}

// File is a name in the file system.
type File struct {
	State FileState `json:"state"`
	// Path is where it is; not the socket's address if that was bound through
	// /proc/self/fd. It holds any byte; "" for a file that is missing.
	Path string `json:"-"`
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
	PID  int    `json:"pid"`
	Comm string `json:"comm"`
	// Cgroup is the path of its cgroup v2 or, where that says only "/", that of the
	// first cgroup v1 hierarchy which says more.
	Cgroup    string     `json:"cgroup,omitempty"`
	Unit      string     `json:"unit,omitempty"`
	UserUnit  string     `json:"user_unit,omitempty"`
	Slice     string     `json:"slice,omitempty"`
	Container *Container `json:"container,omitempty"`
	// NetNS is the inode number of its network namespace.
	NetNS uint64 `json:"netns,omitempty"`
}

// Container is what the control group says about one: see identity.Identity.
type Container struct {
	Runtime string `json:"runtime,omitempty"`
	ID      string `json:"id,omitempty"`
	// Name is what the runtime calls it, if that is something else than ID; [Take] leaves
	// it empty. It holds UTF-8.
	Name   string `json:"name,omitempty"`
	PodUID string `json:"pod_uid,omitempty"`
}

// Client is a process with NOTIFY_SOCKET in its environment, as that was when it
// was executed.
type Client struct {
	Process
	// NotifySocket is the value, of any bytes.
	NotifySocket string `json:"-"`
	// State says what it leads to from the process's root directory and network
	// namespace; "" where that could not be found out.
	State ClientState `json:"state,omitempty"`
	// Inode is the socket that it leads to, in state ClientOK.
	Inode uint32 `json:"inode,omitempty"`
}

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
)

// Options say what to look for.
type Options struct {
	// All is for every bound AF_UNIX datagram socket, not only notify sockets.
	All bool
	// Queues tells the queues of datagram sockets by the inode number of the socket, as
	// queues.List does; those that it leaves out are unknown. It is called once, while
	// the sockets are listed. nil, and an error, leave all of them unknown.
	Queues func(context.Context) (map[uint32]Queue, error)
}

// Take looks at all processes and network namespaces. Nothing that vanishes
// meanwhile is an error, and neither is what cannot be looked at: it is counted.
// It needs root to be complete.
func Take(ctx context.Context, options Options) (*Inventory, error) {
	return take(ctx, &taking{}, options)
}

func take(ctx context.Context, t *taking, options Options) (*Inventory, error) {
	t.holders = make(map[uint32][]holder)
	defer t.close()
	if err := t.scanProcesses(ctx); err != nil {
		return nil, err
	}
	t.addMountedNamespaces()
	if err := t.listSockets(ctx, options.Queues); err != nil {
		return nil, err
	}
	t.resolveClients()
	wanted := t.choose(options.All)
	if err := t.findHolders(ctx, wanted); err != nil {
		return nil, err
	}
	return t.inventory(wanted, options.All), nil
}

// choose returns the sockets to look for in processes: those to report, and those
// of which the name is not known yet.
func (t *taking) choose(all bool) map[uint32]*Socket {
	pointedAt := make(map[uint32]bool)
	for _, c := range t.clients {
		if c.State == ClientOK {
			pointedAt[c.Inode] = true
		}
	}
	wanted := make(map[uint32]*Socket)
	for i := range t.sockets {
		s := &t.sockets[i]
		if !s.isDatagram() || s.Address == "" {
			continue
		}
		_, through := boundThrough(s.Address)
		s.Notify = pointedAt[s.Inode] || IsNotifyName(s.Address)
		if all || s.Notify || through {
			wanted[s.Inode] = &s.Socket
		}
	}
	return wanted
}

func (t *taking) inventory(wanted map[uint32]*Socket, all bool) *Inventory {
	inv := &Inventory{Clients: t.clientList(), Unreadable: t.unreadable}
	for inode, s := range wanted {
		holders := t.holders[inode]
		slices.SortFunc(holders, func(a, b holder) int { return cmp.Compare(a.process.PID, b.process.PID) })
		for i, h := range holders {
			if i == 0 {
				s.File = h.file
			}
			s.Holders = append(s.Holders, h.process)
		}
		s.Notify = s.Notify || IsNotifyName(s.name())
		if all || s.Notify {
			inv.Sockets = append(inv.Sockets, *s)
		}
	}
	slices.SortFunc(inv.Sockets, func(a, b Socket) int {
		return cmp.Or(cmp.Compare(a.name(), b.name()), cmp.Compare(a.NetNS, b.NetNS), cmp.Compare(a.Inode, b.Inode))
	})
	return inv
}

// name is what a socket is called: by where its file is, if that is known.
func (s *Socket) name() string {
	if s.File != nil && s.File.State == FileThere {
		return s.File.Path
	}
	return s.Address
}

func (t *taking) clientList() []Client {
	clients := make([]Client, 0, len(t.clients))
	for _, c := range t.clients {
		clients = append(clients, c.Client)
	}
	slices.SortFunc(clients, func(a, b Client) int { return cmp.Compare(a.PID, b.PID) })
	return clients
}

// IsNotifyName reports whether an address is that of a notify socket by its name
// alone: those of systemd, of its containers, and of the runtimes' relays.
func IsNotifyName(address string) bool {
	for _, end := range []string{"/systemd/notify", "/run/host/notify", "/notify.sock", "/notify/notify"} {
		if strings.HasSuffix(address, end) {
			return true
		}
	}
	return false
}

// setIdentity fills in what the control group says.
func (p *Process) setIdentity(cgroup string) {
	p.Cgroup = cgroup
	id := identity.Parse(cgroup)
	p.Unit, p.UserUnit, p.Slice = id.Unit, id.UserUnit, id.Slice
	if id.ContainerID != "" || id.PodUID != "" {
		p.Container = &Container{Runtime: id.Runtime, ID: id.ContainerID, PodUID: id.PodUID}
	}
}

// String is the process as it is called in a line of text: comm[pid].
func (p Process) String() string { return fmt.Sprintf("%s[%d]", p.Comm, p.PID) }
