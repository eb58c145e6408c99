// SPDX-License-Identifier: Apache-2.0

package access

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/osthread"
	"github.com/sdtrace/sdtrace/internal/proc"
	"github.com/sdtrace/sdtrace/internal/sockdiag"
	"github.com/sdtrace/sdtrace/pkg/events"
)

// State is what an address leads to for a process.
type State string

// The states.
const (
	OK        State = "ok"         // a datagram socket
	Missing   State = "missing"    // no such file: ENOENT
	Nobody    State = "nobody"     // nobody has bound it, or not any more: ECONNREFUSED
	NotSocket State = "not_socket" // a file of another kind: ECONNREFUSED
	WrongType State = "wrong_type" // a stream or seqpacket socket: EPROTOTYPE
	Forbidden State = "denied"     // permissions: EACCES
)

// Reach is what an address of a notify socket leads to for a process: from its root directory and network
// namespace, with its user, groups and capabilities.
type Reach struct {
	// State is "" when that could not be found out.
	State State
	// Inode is the socket in state OK.
	Inode uint32
	// Root is its root directory, as [Root] has it.
	Root string
	// Denied is what the process may not use in state Forbidden.
	Denied *Denied
}

// ReachOf finds out what an address leads to for a process. It connects to the socket, and sends nothing.
func ReachOf(p proc.Process, address events.Address) (r Reach) {
	r.Root = Root(p) // first: it may be about to end
	switch {
	case address.IsAbstract():
		_ = osthread.Do(func() error { // what fails is not known
			netns, err := p.Open("ns/net", unix.O_RDONLY)
			if err != nil {
				return err
			}
			defer unix.Close(netns)
			if err := unix.Setns(netns, unix.CLONE_NEWNET); err != nil {
				return err
			}
			r.connected(sockdiag.ConnectAbstract(address))
			return nil
		})
		return r
	case !address.IsAbsolute():
		return r
	}
	fd, stat, err := p.OpenPath(string(address))
	missing := err != nil && proc.IsMissing(err)
	if err == nil {
		defer unix.Close(fd)
	}
	switch denied, denies := Try(p, string(address)); {
	case denies == nil && denied != nil:
		r.State, r.Denied = Forbidden, denied
		return r
	case missing:
		r.State = Missing
		return r
	case err != nil:
		return r
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFSOCK {
		r.State = NotSocket
		return r
	}
	r.connected(sockdiag.ConnectFile(fd))
	return r
}

// connected takes note of how connecting has ended.
func (r *Reach) connected(inode uint32, err error) {
	switch {
	case err == nil:
		r.State, r.Inode = OK, inode
	case errors.Is(err, unix.ECONNREFUSED):
		r.State = Nobody
	case errors.Is(err, unix.EPROTOTYPE):
		r.State = WrongType
	}
}

// Root is the root directory of a process, as this process sees it; "" if that is the same, or not known.
func Root(p proc.Process) string {
	root, err := p.Link("root")
	if err != nil || root == "/" || !strings.HasPrefix(root, "/") {
		return ""
	}
	return root
}
