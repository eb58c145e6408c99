// SPDX-License-Identifier: Apache-2.0

package sockdiag

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/moby/sys/mountinfo"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/osthread"
	"github.com/sdtrace/sdtrace/internal/proc"
)

// Namespaces are open network namespaces. The zero value is ready to use; Add methods can be
// called from several goroutines.
type Namespaces struct {
	mu    sync.Mutex
	files map[uint64]int // by inode number
}

// Close closes their files.
func (n *Namespaces) Close() {
	for _, fd := range n.files {
		unix.Close(fd)
	}
	n.files = nil
}

// AddOf adds the namespace of a process.
func (n *Namespaces) AddOf(p proc.Process) error {
	inode, err := p.Inode("ns/net", "net")
	if err != nil || n.has(inode) {
		return err
	}
	fd, err := p.Open("ns/net", unix.O_RDONLY)
	if err != nil {
		return err
	}
	n.add(fd)
	return nil
}

// AddMounted adds the namespaces that are bound to a name, as ip netns and docker do, whether
// a process is in them or not. It returns the paths of those that could not be opened for want of a
// right.
func (n *Namespaces) AddMounted() (denied []string) {
	mounts, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		return !strings.HasPrefix(m.Root, "net:["), false
	})
	if err != nil {
		return nil
	}
	for _, m := range mounts {
		if inode, ok := proc.ParseInode([]byte(m.Root), "net"); ok && n.has(inode) {
			continue
		}
		fd, err := unix.Open(m.Mountpoint, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			n.add(fd)
		} else if proc.IsDenied(err) {
			denied = append(denied, m.Mountpoint)
		}
	}
	return denied
}

func (n *Namespaces) has(inode uint64) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	_, known := n.files[inode]
	return known
}

// add takes over a file of a network namespace.
func (n *Namespaces) add(fd int) {
	var stat unix.Stat_t
	if unix.Fstat(fd, &stat) != nil {
		unix.Close(fd)
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, known := n.files[stat.Ino]; known {
		unix.Close(fd)
		return
	}
	if n.files == nil {
		n.files = make(map[uint64]int)
	}
	n.files[stat.Ino] = fd
}

// Listing is what the network namespaces have.
type Listing struct {
	// Sockets are the bound sockets, of all types.
	Sockets []Socket
	// QueueLimits are net.unix.max_dgram_qlen now, by the inode number of the namespace;
	// a namespace of which it is unknown is left out.
	QueueLimits map[uint64]uint32
	// Denied are the namespaces that could not be entered for want of a right, each as net:[inode].
	Denied []string
}

// List lists the sockets of all the namespaces.
func (n *Namespaces) List(ctx context.Context) (*Listing, error) {
	l := &Listing{QueueLimits: make(map[uint64]uint32)}
	err := osthread.Do(func() error { return n.listInto(ctx, l) })
	return l, err
}

func (n *Namespaces) listInto(ctx context.Context, l *Listing) error {
	for inode, fd := range n.files {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := netns.Set(netns.NsHandle(fd)); err != nil {
			if !proc.IsDenied(err) {
				return fmt.Errorf("entering network namespace %d: %w", inode, err)
			}
			l.Denied = append(l.Denied, fmt.Sprintf("net:[%d]", inode))
			continue
		}
		sockets, err := Here()
		if err != nil {
			return fmt.Errorf("listing the sockets of network namespace %d: %w", inode, err)
		}
		if limit, known := queueLimitHere(); known {
			l.QueueLimits[inode] = limit
		}
		for _, s := range sockets {
			s.NetNS = inode
			l.Sockets = append(l.Sockets, s)
		}
	}
	return nil
}

// queueLimitHere is net.unix.max_dgram_qlen of the thread's network namespace.
func queueLimitHere() (limit uint32, known bool) {
	text, err := os.ReadFile("/proc/sys/net/unix/max_dgram_qlen")
	if err != nil {
		return 0, false
	}
	number, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 32)
	// A socket takes it over as unsigned: -1 is no limit.
	return uint32(number), err == nil
}

// All lists the sockets of all network namespaces that a process is in or that have a name.
// It needs root to be complete.
func All(ctx context.Context) ([]Socket, error) {
	var n Namespaces
	defer n.Close()
	if err := proc.Each(ctx, func(p proc.Process) { _ = n.AddOf(p) }); err != nil {
		return nil, err
	}
	n.AddMounted()
	l, err := n.List(ctx)
	return l.Sockets, err
}
