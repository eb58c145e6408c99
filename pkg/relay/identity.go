// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/cgroupfs"
	"github.com/sdtrace/sdtrace/internal/proc"
)

// Access says which processes of a container may notify, as NotifyAccess= does
// for a unit (systemd.service(5)).
type Access uint8

const (
	// AccessAll admits every process of the container.
	AccessAll Access = iota
	// AccessMain admits the main process: the one that has number 1 in the
	// container's pid namespace, the one named by [Container].PID, the command, or
	// the one whose MAINPID= was forwarded last.
	AccessMain
	// AccessExec admits the main process and those that were started in the
	// container from outside, by the runtime: their parent is not in it.
	AccessExec
)

// ParseAccess reads "all", "main" or "exec".
func ParseAccess(s string) (Access, error) {
	for access, name := range []string{"all", "main", "exec"} {
		if s == name {
			return Access(access), nil
		}
	}
	return 0, fmt.Errorf("unknown access %q: want main, exec or all", s)
}

// Container says which processes are of a container. What is set must all hold.
// The zero value is every process that can reach the socket.
type Container struct {
	// PID is a process of the container, seen from here: all of its pid
	// namespace, and of those below it, belong. Its pid namespace must not be
	// the relay's own.
	PID int
	// Cgroup is the path of a control group, from the root of the hierarchy as
	// seen from here, such as /system.slice/docker-3f2a….scope: its processes
	// and those of all groups below belong. It need not exist yet.
	Cgroup string
	// NetNS is the path of a network namespace, such as /run/netns/web.
	NetNS string
	// Descendants admits what descends from the relay's own process. With Adopt,
	// others are admitted too, once one of them sends from a pid namespace below
	// the relay's: that namespace is then the container's. This is for runtimes
	// whose containers descend from a daemon, and only for a socket that nobody
	// else can reach.
	Descendants, Adopt bool
	// Closed says that nobody else can reach the socket: a sender that is gone before it is looked at is believed.
	Closed bool
}

// isAnybody reports whether every process that can reach the socket is of the container.
func (c Container) isAnybody() bool {
	c.Closed = false
	return c == Container{}
}

// limits for what is remembered about senders.
const (
	maxRemembered = 1024
	maxPinned     = 64 // on kernels where remembering one takes a file descriptor
)

// process is what is known about a sender.
type process struct {
	pid     int
	pin     int    // pidfd, where the kernel does not say by itself who sends; else -1
	refused Reason // ReasonNone: it may notify
	main    bool
	pidNS   namespace
	// offset is how far its CLOCK_MONOTONIC is ahead of the host's, in µs.
	offset      int64
	offsetKnown bool
	// What a process can change after the verdict on it: these are read where the container is known by them.
	cgroup  uint64   // the id of its control group; 0: unknown
	cgroups []string // of all hierarchies, where the id does not tell
	netLink namespaceLink
	netNS   namespace
	// timeLink leads to the time namespace that offset is about.
	timeLink namespaceLink
	timeNS   namespace
}

// senderKey identifies a process: by the inode of its pidfd, for as long as the
// system runs; without one by its number, while a pidfd of ours is alive.
type senderKey struct {
	pid   int
	inode uint64
}

// sighting is that of the sender of the datagram before, by the kernel's pidfd.
type sighting struct {
	process *process // nil: none
	pidfd   int
	lives   bool // it did, after the datagrams at hand were received
}

// mainProcess is the main process that was identified last. What it sends just
// before it ends may be read when it has been reaped, and before Linux 6.16 all that
// the kernel then tells of the sender is its number. It is not another's so soon: the
// end is noticed at once, and alloc_pid gives a number anew only after all others.
type mainProcess struct {
	process *process // nil: none
	held    target
	ended   bool // what it has sent is in the socket
}

// identity finds out whether a process is of a container.
type identity struct {
	container Container
	access    Access
	command   int // pid of a process that counts as the main one too; 0: none
	named     int // that of the one that the host was told is the main one, which lives; 0: none

	ownPIDNS namespace
	pidNS    namespace // zero: not known, or not asked for
	pidNSFD  int       // holds pidNS; -1: none
	// top is where the main process is number 1, where pidNS does not say: the topmost pid namespace below our own
	// on the way to the first sender that is in one. Whoever makes himself another one, in it or beside it, is not
	// main there.
	top     namespace
	topFD   int // holds top; -1: none
	netNS   namespace
	netNSFD int
	own     int64 // the relay's own offset of CLOCK_MONOTONIC

	senders map[senderKey]*process
	last    sighting
	main    mainProcess
	started mainProcess // the command
	// cgroups says by their ids, the one thing the kernel still tells about a process that is gone, which control groups are
	// the container's alone. Of those in proving what is in the socket may have been sent before.
	cgroups map[uint64]bool
	proving []uint64
	proved  time.Time // when one was looked at last that is not the container's alone
	offset  *int64    // the last that was known of a sender
	// descendants are processes that are known to descend from us, with when they were started, in ticks.
	descendants map[int]uint64
}

func newIdentity(c Container, access Access) (*identity, error) {
	id := &identity{
		container: c, access: access, pidNSFD: -1, topFD: -1, netNSFD: -1,
		senders: make(map[senderKey]*process),
		cgroups: make(map[uint64]bool),
	}
	if err := id.open(); err != nil {
		id.close()
		return nil, err
	}
	return id, nil
}

func (id *identity) open() (err error) {
	c := &id.container
	if id.ownPIDNS, err = statNamespace("/proc/self/ns/pid"); err != nil {
		return err
	}
	id.own, _ = monotonicOffset(os.Getpid())
	if c.PID != 0 {
		id.pidNSFD, id.pidNS, err = openPIDNamespace(c.PID)
		if err != nil {
			return fmt.Errorf("identifying the container by process %d: %w", c.PID, err)
		}
		if id.pidNS == id.ownPIDNS {
			return fmt.Errorf("process %d is in no pid namespace of its own: name its cgroup", c.PID)
		}
	}
	if c.NetNS != "" {
		id.netNSFD, err = unix.Open(c.NetNS, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("opening network namespace %s: %w", c.NetNS, err)
		}
		if id.netNS, err = namespaceOf(id.netNSFD); err != nil {
			return err
		}
	}
	if c.Cgroup != "" {
		c.Cgroup = cgroupPath(c.Cgroup)
	}
	if c.Descendants {
		id.proveOwnCgroup()
	}
	return nil
}

// cgroupPath makes the path in the hierarchy of one in the file system.
func cgroupPath(path string) string {
	path = filepath.Clean("/" + path)
	for _, mount := range []string{"/sys/fs/cgroup/unified", "/sys/fs/cgroup"} {
		if rest, found := strings.CutPrefix(path, mount); found && (rest == "" || rest[0] == '/') {
			return "/" + strings.TrimPrefix(rest, "/")
		}
	}
	return path
}

func (id *identity) close() {
	for _, fd := range []int{id.pidNSFD, id.topFD, id.netNSFD} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	id.pidNSFD, id.topFD, id.netNSFD = -1, -1, -1
	id.forget()
	id.forgetMain()
	id.started.held.close()
}

func (id *identity) forget() {
	for _, p := range id.senders {
		if p.pin >= 0 {
			unix.Close(p.pin)
			p.pin = -1
		}
	}
	clear(id.senders)
}

// identify says who has sent a datagram. pidfd is what the kernel gave with it,
// or -1, and stays open until forgetLast; gone says that there is none because the sender has been reaped, so that
// its number may be another's. The result is valid until the next call.
func (id *identity) identify(pid, pidfd int, gone bool) *process {
	if id.command != 0 && pid == os.Getpid() {
		// In our name speaks who takes us for its parent, as systemd-notify(1) does: COMMAND, which is our child.
		pid, pidfd, gone = id.command, -1, false
	}
	if gone {
		return id.inspectGone(&process{pid: pid, pin: -1}, -1)
	}
	if pidfd < 0 {
		return id.lookUp(pid, pidfd)
	}
	if id.isLast(pid) {
		return id.last.process
	}
	p := id.lookUp(pid, pidfd)
	id.last = sighting{process: p, pidfd: pidfd}
	return p
}

// isLast reports whether the sender is the one before: it has its number, and
// that one still had it when both datagrams had been received.
func (id *identity) isLast(pid int) bool {
	if id.last.process == nil || id.last.process.pid != pid {
		return false
	}
	id.last.lives = id.last.lives || alive(id.last.pidfd)
	return id.last.lives
}

// forgetLast is for when the datagrams at hand are done with.
func (id *identity) forgetLast() { id.last = sighting{} }

func (id *identity) lookUp(pid, pidfd int) *process {
	key := senderKey{pid: pid}
	if pidfd >= 0 {
		key.inode = proc.PIDFDInode(pidfd)
	}
	if p, known := id.senders[key]; known {
		held := pidfd
		if p.pin >= 0 {
			held = p.pin
		}
		if (p.pin < 0 || alive(p.pin)) && !id.changed(p, held) {
			return p
		}
		if p.pin >= 0 {
			unix.Close(p.pin)
			p.pin = -1
		}
		delete(id.senders, key)
	}
	pin := -1
	if key.inode == 0 {
		var err error
		if pin, err = unix.PidfdOpen(pid, 0); err != nil {
			return id.inspectGone(&process{pid: pid, pin: -1}, -1)
		}
		pidfd = pin
	}
	p := id.inspect(pid, pidfd)
	p.pin = pin
	if p.refused != ReasonUnidentified {
		id.remember(key, p)
	} else if pin >= 0 {
		unix.Close(pin)
		p.pin = -1
	}
	return p
}

func (id *identity) remember(key senderKey, p *process) {
	if len(id.senders) >= maxRemembered || (p.pin >= 0 && len(id.senders) >= maxPinned) {
		id.forget()
	}
	id.senders[key] = p
}

// inspect looks at a process that is held by a pidfd.
func (id *identity) inspect(pid, pidfd int) *process {
	p := &process{pid: pid, pin: -1}
	fd, ns, err := openPIDNamespace(pid)
	if err != nil {
		// It may live, and only not be shown to us.
		if alive(pidfd) {
			if !id.container.isAnybody() || id.access != AccessAll {
				p.refused = ReasonUnidentified
			}
			return p
		}
		return id.inspectGone(p, pidfd)
	}
	defer unix.Close(fd)
	p.pidNS = ns
	id.noteChangeable(p, pidfd)
	p.refused = id.belongs(pid, fd, ns)
	if p.refused == ReasonNone {
		p.main = id.isMain(pid, fd, ns)
		p.refused = id.admits(p)
	}
	p.offset, p.offsetKnown = monotonicOffset(pid)
	p.offset -= id.own
	if !alive(pidfd) {
		// What was read may be about another process that has the number now.
		return id.inspectGone(&process{pid: pid, pin: -1}, pidfd)
	}
	if p.refused == ReasonNone {
		id.learn(p, pidfd)
	}
	if p.main {
		id.holdMain(p, pidfd)
	}
	return p
}

// noteChangeable keeps what changed compares.
func (id *identity) noteChangeable(p *process, pidfd int) {
	c := &id.container
	if c.Cgroup != "" {
		p.cgroups, _ = readCgroups(p.pid)
		// One path is that of the hierarchy whose id the kernel tells.
		if cgroup, ok := cgroupID(pidfd); ok && len(p.cgroups) == 1 {
			p.cgroup = cgroup
		}
	}
	if c.NetNS != "" {
		p.netLink = linkTo(p.pid, "ns/net")
		p.netNS, _ = p.netLink.namespace()
	}
	p.timeLink = linkTo(p.pid, "ns/time")
	p.timeNS, _ = p.timeLink.namespace()
}

// changed reports whether a process that is remembered has left the control group or the network namespace that the
// verdict on it rests on. Of one that is gone the verdict stays.
func (id *identity) changed(p *process, pidfd int) bool {
	c := &id.container
	if c.Cgroup != "" {
		if cgroup, ok := cgroupID(pidfd); ok && p.cgroup != 0 {
			if cgroup != p.cgroup {
				return true
			}
		} else if now, err := readCgroups(p.pid); err == nil && !slices.Equal(now, p.cgroups) {
			return true
		}
	}
	if c.NetNS != "" {
		now, ok := p.netLink.namespace()
		return ok && now != p.netNS
	}
	return false
}

// refreshClock reads the clock of a sender anew, which it may have changed by executing a program in another time
// namespace. pidfd is as for identify.
func (id *identity) refreshClock(p *process, pidfd int) {
	if p.pin >= 0 {
		pidfd = p.pin
	}
	if pidfd < 0 || p.timeLink == nil {
		return
	}
	now, ok := p.timeLink.namespace()
	if !ok || now == p.timeNS {
		return
	}
	if offset, known := monotonicOffset(p.pid); alive(pidfd) {
		p.offset, p.offsetKnown, p.timeNS = offset-id.own, known, now
	}
}

// allIsRead is for when nothing is left in the socket.
func (id *identity) allIsRead() {
	if id.main.ended {
		id.forgetMain()
	}
	for _, cgroup := range id.proving {
		id.cgroups[cgroup] = true
	}
	id.proving = id.proving[:0]
}

// holdMain keeps the main process until forgetMain.
func (id *identity) holdMain(p *process, pidfd int) {
	held, err := unix.FcntlInt(uintptr(pidfd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return // its last datagram may be refused
	}
	id.forgetMain()
	id.main = mainProcess{process: p, held: target{pid: p.pid, pidfd: held, inode: proc.PIDFDInode(held)}}
}

// forgetMain is for when nothing of the main process can be left in the socket.
func (id *identity) forgetMain() {
	id.main.held.close()
	id.main = mainProcess{}
}

// gone is the main process, or the command, if that is who is gone, else nil. pidfd is -1 if there is nothing but its
// number.
func (id *identity) gone(pid, pidfd int) *process {
	for _, main := range []*mainProcess{&id.main, &id.started} {
		held := &main.held
		if main.process != nil && pid == held.pid && (pidfd < 0 || (held.inode != 0 && held.inode == proc.PIDFDInode(pidfd))) {
			return main.process
		}
	}
	return nil
}

// learn keeps what helps to identify processes that exit as soon as they have sent.
func (id *identity) learn(p *process, pidfd int) {
	if p.offsetKnown {
		id.offset = &p.offset
	}
	if p.pidNS == id.ownPIDNS {
		return
	}
	cgroup, ok := cgroupID(pidfd)
	proven, known := id.cgroups[cgroup]
	if !ok || proven || slices.Contains(id.proving, cgroup) || time.Since(id.proved) < proveEvery {
		return
	}
	if !known && len(id.cgroups) >= maxRemembered {
		maps.DeleteFunc(id.cgroups, func(_ uint64, proven bool) bool { return !proven })
		if len(id.cgroups) >= maxRemembered {
			return
		}
	}
	id.cgroups[cgroup] = false
	if id.prove(p.pid, cgroup) {
		id.proving = append(id.proving, cgroup)
	} else {
		id.proved = time.Now()
	}
}

// proveEvery is how often a control group is looked at, at most, after one that is not the container's alone.
const proveEvery = time.Second

// cgroupMost is how many processes of a control group are looked at, at most, to prove that it is the container's.
const cgroupMost = 256

// prove reports whether the control group of a process is the container's alone: all that are in it are of the container, and
// nobody but root, or who we are, can move another process into it. So a process that was in it from now on descends from
// those, or was put there by who may do so.
func (id *identity) prove(pid int, cgroup uint64) bool {
	paths, err := readCgroups(pid)
	if err != nil || paths[0] == "" || paths[0] == "/" {
		return false
	}
	var dir, procs unix.Stat_t
	if unix.Stat(cgroupfs.Dir(paths[0]), &dir) != nil || dir.Ino != cgroup ||
		unix.Stat(filepath.Join(cgroupfs.Dir(paths[0]), "cgroup.procs"), &procs) != nil ||
		(procs.Uid != 0 && procs.Uid != uint32(os.Geteuid())) || procs.Mode&0o022 != 0 {
		return false
	}
	list, err := os.ReadFile(filepath.Join(cgroupfs.Dir(paths[0]), "cgroup.procs"))
	if err != nil || bytes.Count(list, []byte("\n")) > cgroupMost {
		return false
	}
	for line := range strings.FieldsSeq(string(list)) {
		pid, err := strconv.Atoi(line)
		if err != nil || pid == os.Getpid() {
			continue
		}
		fd, ns, err := openPIDNamespace(pid)
		if err != nil {
			return false
		}
		why := id.belongs(pid, fd, ns)
		unix.Close(fd)
		if why != ReasonNone {
			return false
		}
	}
	return true
}

// proveOwnCgroup looks, before anybody can send, whether we are alone in our control group.
func (id *identity) proveOwnCgroup() {
	own, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return
	}
	defer unix.Close(own)
	if cgroup, ok := cgroupID(own); ok && id.prove(os.Getpid(), cgroup) {
		id.cgroups[cgroup] = true
	}
}

// inspectGone judges a process that has been reaped: it is the main one, or is
// known by the cgroup it was in (Linux 6.13; of an exited process 6.15).
func (id *identity) inspectGone(p *process, pidfd int) *process {
	if main := id.gone(p.pid, pidfd); main != nil {
		return main
	}
	if id.access != AccessAll || !id.belonged(pidfd) {
		p.refused = ReasonUnidentified
		return p
	}
	p.pidNS = id.pidNS
	if id.offset != nil {
		p.offset, p.offsetKnown = *id.offset, true
	}
	return p
}

// belonged reports whether a process that is gone was of the container.
func (id *identity) belonged(pidfd int) bool {
	c := id.container
	if c.isAnybody() || c.Adopt || c.Closed {
		return true // it could reach the socket
	}
	cgroup, ok := cgroupID(pidfd)
	if !ok {
		return false
	}
	if id.cgroups[cgroup] {
		return true
	}
	return c.Cgroup != "" && c.PID == 0 && c.NetNS == "" && id.findCgroup(cgroup)
}

// cgroupID is that of the process behind a pidfd, also when it is gone.
func cgroupID(pidfd int) (uint64, bool) {
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_CGROUPID | unix.PIDFD_INFO_EXIT}
	if unix.IoctlPidfdInfo(pidfd, &info) != nil || info.Mask&unix.PIDFD_INFO_CGROUPID == 0 {
		return 0, false
	}
	return info.Cgroupid, true
}

// findCgroup reports whether the control group with an id is the container's, or below that.
func (id *identity) findCgroup(cgroup uint64) bool {
	path, above := cgroupfs.PathOf(cgroup)
	if path != "" || above != "" || os.Geteuid() == 0 {
		return anyBelow([]string{path, above}, id.container.Cgroup)
	}
	// Who is not root looks for it.
	found, left := false, 256
	_ = filepath.WalkDir(cgroupfs.Dir(id.container.Cgroup), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return fs.SkipDir // it has been removed
		}
		if !d.IsDir() {
			return nil
		}
		var stat unix.Stat_t
		found = unix.Stat(path, &stat) == nil && stat.Ino == cgroup
		if left--; found || left == 0 {
			return fs.SkipAll
		}
		return nil
	})
	return found
}

// belongs says whether a process is of the container: ReasonNone,
// ReasonNotMember or ReasonUnidentified. fd is its pid namespace ns.
func (id *identity) belongs(pid, fd int, ns namespace) Reason {
	c := &id.container
	if c.PID != 0 && !isBelow(fd, id.pidNS) {
		return ReasonNotMember
	}
	if c.NetNS != "" {
		of, err := statNamespace(procPath(pid, "ns/net"))
		if err != nil {
			return ReasonUnidentified
		}
		if of != id.netNS {
			return ReasonNotMember
		}
	}
	if c.Cgroup != "" {
		paths, err := readCgroups(pid)
		if err != nil {
			return ReasonUnidentified
		}
		if !anyBelow(paths, c.Cgroup) {
			return ReasonNotMember
		}
	}
	if c.Descendants || c.Adopt {
		return id.descends(pid, fd, ns)
	}
	return ReasonNone
}

func (id *identity) descends(pid, fd int, ns namespace) Reason {
	if id.container.Descendants && id.isDescendant(pid) {
		return ReasonNone
	}
	// Who was put by a runtime into the namespace that a descendant has sent from.
	if id.container.Descendants && id.topFD >= 0 && isBelow(fd, id.top) {
		return ReasonNone
	}
	if id.container.Adopt && ns != id.ownPIDNS {
		if id.pidNS == (namespace{}) {
			// Of the first sender's the topmost: it may have made itself one in the container.
			held, top, err := topBelow(fd, id.ownPIDNS)
			if err != nil {
				return ReasonUnidentified
			}
			id.pidNS, id.pidNSFD = top, held
		}
		if isBelow(fd, id.pidNS) {
			return ReasonNone
		}
	}
	return ReasonNotMember
}

func anyBelow(paths []string, cgroup string) bool {
	for _, path := range paths {
		if rest, found := strings.CutPrefix(path, cgroup); found && (rest == "" || rest[0] == '/' || cgroup == "/") {
			return true
		}
	}
	return false
}

// climbMost is how many ancestors of a sender are looked at, at most.
const climbMost = 1024

// isDescendant climbs from a process to its ancestors, until one is ours or is known to be a descendant.
func (id *identity) isDescendant(pid int) bool {
	own := os.Getpid()
	way := make(map[int]uint64)
	for range climbMost {
		p, err := proc.Open(pid)
		if err != nil {
			return false
		}
		stat, err := p.Stat()
		p.Close()
		if err != nil || stat.PPID == 0 {
			return false
		}
		way[pid] = stat.StartTicks
		if started, known := id.descendants[pid]; known && started == stat.StartTicks || stat.PPID == own {
			if id.descendants == nil || len(id.descendants)+len(way) > 8*climbMost {
				id.descendants = make(map[int]uint64)
			}
			maps.Copy(id.descendants, way)
			return true
		}
		pid = stat.PPID
	}
	return false
}

func (id *identity) isMain(pid, fd int, ns namespace) bool {
	if pid == id.container.PID || pid == id.command || pid == id.named {
		return true
	}
	if ns == id.ownPIDNS || ns != id.mainNS(fd) {
		return false
	}
	s, err := readStatus(pid)
	return err == nil && s.NSPID == 1
}

// mainNS is the pid namespace in which the main process is number 1, none if that is not known. fd is a sender's.
func (id *identity) mainNS(fd int) namespace {
	if id.pidNS != (namespace{}) {
		return id.pidNS
	}
	if id.topFD < 0 {
		if held, top, err := topBelow(fd, id.ownPIDNS); err == nil {
			id.top, id.topFD = top, held
		}
	}
	return id.top
}

// setCommand makes a child of ours a main process, which is known also if it is gone when its first datagram is read.
func (id *identity) setCommand(pid int) {
	id.command = pid
	if pidfd, err := unix.PidfdOpen(pid, 0); err == nil {
		id.started = mainProcess{
			process: id.inspect(pid, pidfd),
			held:    target{pid: pid, pidfd: pidfd, inode: proc.PIDFDInode(pidfd)},
		}
	}
}

// setNamed notes which process the host was told is the main one, 0 for none any more. What is known of senders was
// judged by the one before.
func (id *identity) setNamed(pid int) {
	if id.named != pid {
		id.named = pid
		id.forget()
		id.forgetLast()
	}
}

// admits applies the access mode to a process of the container.
func (id *identity) admits(p *process) Reason {
	switch {
	case id.access == AccessAll || p.main:
		return ReasonNone
	case id.access == AccessMain:
		return ReasonNotMain
	}
	s, err := readStatus(p.pid)
	if err != nil {
		return ReasonUnidentified
	}
	if s.PPID == 0 {
		return ReasonNone
	}
	fd, ns, err := openPIDNamespace(s.PPID)
	if err != nil {
		return ReasonUnidentified
	}
	defer unix.Close(fd)
	if ns == p.pidNS || (id.pidNS != namespace{} && isBelow(fd, id.pidNS)) {
		return ReasonNotExec
	}
	return ReasonNone
}

// target is a process that a message names, held by a pidfd. The zero value is none.
type target struct {
	pid   int
	pidfd int
	inode uint64
}

func (t target) close() {
	if t.pid != 0 {
		unix.Close(t.pidfd)
	}
}

// findTarget translates a process id from the namespace of a sender, and makes
// sure that it is of the container.
func (id *identity) findTarget(from *process, number uint64) (target, Reason) {
	if number > math.MaxInt32 {
		return target{}, ReasonNoSuchProcess
	}
	if from.pidNS == id.ownPIDNS {
		if id.container.isAnybody() && !sameCgroups(from.pid, int(number)) {
			// Nobody said what the container is: at least what systemd asks for.
			return target{}, ReasonForeignProcess
		}
		return id.pin(int(number), nil)
	}
	fd, err := id.namespaceFD(from)
	if err != nil {
		return target{}, ReasonUnidentified
	}
	defer unix.Close(fd)
	lookup := func() int { return translatePID(fd, from.pidNS, int(number)) }
	pid := lookup()
	if pid == 0 {
		return target{}, ReasonNoSuchProcess
	}
	return id.pin(pid, lookup)
}

func sameCgroups(a, b int) bool {
	one, err := readCgroups(a)
	if err != nil {
		return false
	}
	other, err := readCgroups(b)
	return err == nil && slices.Equal(one, other)
}

// namespaceFD opens the pid namespace of a sender, which may be gone.
func (id *identity) namespaceFD(from *process) (int, error) {
	fd, ns, err := openPIDNamespace(from.pid)
	if err == nil && ns == from.pidNS {
		return fd, nil
	}
	if err == nil {
		unix.Close(fd)
	}
	if id.pidNSFD < 0 || from.pidNS != id.pidNS {
		return -1, errors.New("the sender's pid namespace is gone")
	}
	return unix.FcntlInt(uintptr(id.pidNSFD), unix.F_DUPFD_CLOEXEC, 0)
}

// pin holds a process and checks then that the number still means it, by
// lookup, and that it is of the container.
func (id *identity) pin(pid int, lookup func() int) (target, Reason) {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return target{}, ReasonNoSuchProcess
	}
	if lookup != nil && lookup() != pid {
		unix.Close(pidfd)
		return target{}, ReasonNoSuchProcess
	}
	if why := id.vet(pid, pidfd); why != ReasonNone {
		unix.Close(pidfd)
		return target{}, why
	}
	return target{pid: pid, pidfd: pidfd, inode: proc.PIDFDInode(pidfd)}, ReasonNone
}

// vet makes sure that a process held by a pidfd is of the container.
func (id *identity) vet(pid, pidfd int) Reason {
	fd, ns, err := openPIDNamespace(pid)
	if err != nil {
		return ReasonNoSuchProcess
	}
	defer unix.Close(fd)
	if pid == os.Getpid() || id.belongs(pid, fd, ns) != ReasonNone {
		return ReasonForeignProcess
	}
	if !alive(pidfd) {
		return ReasonNoSuchProcess
	}
	return ReasonNone
}
