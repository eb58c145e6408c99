// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/proc"
)

// Member is one container and the socket it notifies through. One of Listen and
// File is set.
type Member struct {
	// Name tells several containers apart, in a composed STATUS= and in decisions.
	Name string
	// Listen is where to make the socket: a path, of any length, in a directory
	// that is there, or "@abstract". Every user may send to it.
	Listen string
	// ListenNetNS is the path of the network namespace in which an abstract
	// address is to be, such as /proc/4711/ns/net; "" is the relay's own.
	ListenNetNS string
	// File is an AF_UNIX datagram socket that is bound already. It stays the caller's.
	File *os.File
	// Container says which senders belong to the container.
	Container Container
	// Access says which of those may notify.
	Access Access
}

// member is a container at run time.
type member struct {
	name     string
	listener *listener
	identity *identity
	filter   *filter
	rec      recorder // with no sender

	// What it has said, of which the unit is composed.
	ready, reloading, stopping, pinged bool
	status                             []byte

	store  store
	paused bool // reading failed: not before the next turn of the clock
}

func newMember(config Member, r *Relay) (*member, error) {
	m := &member{
		name:   config.Name,
		filter: newFilter(&r.policy, &r.unit),
		rec:    recorder{counters: &r.counters, callback: r.callback, member: config.Name},
	}
	var err error
	if m.identity, err = newIdentity(config.Container, config.Access); err != nil {
		return nil, err
	}
	if m.listener, err = listen(config, r.noFDs); err != nil {
		m.identity.close()
		return nil, err
	}
	return m, nil
}

func (m *member) close() {
	m.listener.close()
	m.identity.close()
}

// origin is who wrote the datagram at hand; it answers the filter's questions.
type origin struct {
	relay    *Relay
	member   *member
	process  *process
	datagram *datagram
	target   target // what the last question found
}

func (o *origin) mainPID(pid uint64) (int, uint64, Reason) {
	t, why := o.member.identity.findTarget(o.process, pid)
	return o.found(t, why)
}

func (o *origin) mainPIDFD() (int, uint64, Reason) {
	if len(o.datagram.fds) != 1 {
		return 0, 0, ReasonFDCount
	}
	pid, ok := pidOfPidfd(o.datagram.fds[0])
	if !ok {
		return 0, 0, ReasonInvalid
	}
	if why := o.member.identity.vet(pid, o.datagram.fds[0]); why != ReasonNone {
		return 0, 0, why
	}
	held, err := unix.FcntlInt(uintptr(o.datagram.fds[0]), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return 0, 0, ReasonUnidentified
	}
	return o.found(target{pid: pid, pidfd: held, inode: proc.PIDFDInode(held)}, ReasonNone)
}

func (o *origin) found(t target, why Reason) (int, uint64, Reason) {
	o.drop()
	if why == ReasonNone {
		o.target = t
	}
	return t.pid, t.inode, why
}

// drop lets go of what was found.
func (o *origin) drop() {
	o.target.close()
	o.target = target{}
}

// take hands what was found over to the caller.
func (o *origin) take() target {
	t := o.target
	o.target = target{}
	return t
}

func (o *origin) hostClock(usec uint64) (uint64, bool) {
	o.member.identity.refreshClock(o.process, o.datagram.pidfd)
	if !o.process.offsetKnown {
		return 0, false
	}
	now := o.now()
	host := int64(min(usec, now+uint64(max(o.process.offset, 0)))) - o.process.offset
	return min(uint64(max(host, 0)), now), true
}

func (o *origin) now() uint64 { return uint64(proc.Monotonic().Microseconds()) }

func (o *origin) stopsUnit() bool {
	if !o.process.main {
		return false
	}
	o.member.stopping = true
	for _, m := range o.relay.members {
		if !m.stopping {
			return false
		}
	}
	return true
}

func (o *origin) reloadsUnit() bool {
	return len(o.relay.members) == 1 || o.relay.unitReady && !o.relay.unitReloading
}

func (o *origin) readiesUnit() bool {
	return o.relay.all(func(m *member) bool { return m == o.member || m.ready && !m.reloading })
}
