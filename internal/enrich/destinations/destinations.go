// SPDX-License-Identifier: Apache-2.0

// Package destinations finds the sockets that addresses led to, for captures whose programs see
// no receiver.
package destinations

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/budget"
	"github.com/sdtrace/sdtrace/internal/osthread"
	"github.com/sdtrace/sdtrace/internal/proc"
	"github.com/sdtrace/sdtrace/internal/sockdiag"
	"github.com/sdtrace/sdtrace/pkg/events"
)

const (
	// changeSlack is how much later than its change time a file may have changed for
	// everybody to see. The time is that of the last tick (ktime_get_coarse_real_ts64), up
	// to 10 ms ago, more if the CPU that keeps it was held up, as those of virtual
	// machines are; and a rename takes it before it moves the name. A file made at T so
	// has a time in (T - changeSlack, T]: it is believed to have been there only from its
	// time + changeSlack on, which is never before T.
	changeSlack = 100 * time.Millisecond
	// sendsApart is how far two sends of a thread are apart at least when they were not
	// made by one system call. With the oldest kernels the messages of a sendmmsg(2) are
	// all reported when it ends.
	sendsApart = time.Second
	// tracksMax, filesMax and namesMax bound what is remembered.
	tracksMax = 16384
	filesMax  = 16384
	namesMax  = 1 << 16
)

// Send is a datagram sent to an address, and not over a connection, that did not fail.
type Send struct {
	// PID and TID are the sending process and thread in the initial pid namespace.
	PID, TID uint32
	// StartTime is when the process was started, in nanoseconds of CLOCK_BOOTTIME.
	StartTime uint64
	// MntNS is the inode number of the thread's mount namespace.
	MntNS uint32
	// NetNS is the inode number of the network namespace of the sending socket, in which
	// abstract addresses are looked up (unix_find_abstract); 0 if it is unknown.
	NetNS uint32
	// Address is as the sender wrote it.
	Address events.Address
	// Ended is when the call ended, since CLOCK_BOOTTIME 0.
	Ended time.Duration
}

// Destination is the socket that a datagram was sent to.
type Destination struct {
	// Inode is the inode number of the socket, as in ss -x.
	Inode uint32
	// Bound is the address it was bound to, "" if that is unknown.
	Bound events.Address
	// NetNS is the inode number of the network namespace it was made in, 0 if unknown.
	NetNS uint64
	// UID is the user who made it, nil if unknown, and before Linux 5.3.
	UID *uint32
}

// Destinations finds out to which socket an address led when a datagram was sent there. The
// answer is right or there is none: it takes proof that the address led to the same socket
// since before the send began. Its methods can be called from any goroutine.
//
// Of a path, the proof is the change times of the files on the way (see follow); of an
// abstract name, that it was the same socket's when it was looked up before. When a send
// began is not known: it may have waited for room in the receiver's queue. It did not
// begin before its process did, and not before the thread's send before that had ended.
//
// Taken for granted is that the mounts in the sender's mount namespace stay between the
// send and the look, a moment later, unless it is sdtrace's own.
type Destinations struct {
	stop    context.CancelFunc
	stopped chan struct{}
	asked   chan struct{} // there is one in it since Find was called
	netns   uint64        // its own network namespace

	mu     sync.Mutex
	clock  steadyClock
	mounts mountWatch
	budget budget.Budget
	tracks map[track]*answer
	files  map[fileVersion]Destination
	names  map[abstractName]sighting
	known  map[uint32]Destination // of the last listing
}

// track is what one thread's sends to one address have in common.
type track struct {
	pid, tid, mntns, netns uint32
	startTime              uint64
	address                events.Address
}

// answer is what a look found out.
type answer struct {
	Destination // Inode 0: none
	// The address led there from since until the look, until.
	since, until time.Duration
	// before is the end of a send of the thread, since or later; 0 for none.
	before time.Duration
	// root is the root directory that the thread had, from rooted on.
	root   unix.Statx_t
	rooted time.Duration
}

// fileVersion identifies a socket's file as long as nobody changes it. To what socket it
// leads never changes (unix_bind_bsd makes the file), and a number that passes to another
// file comes with another time.
type fileVersion struct {
	mount, inode uint64
	device       uint64
	changed      time.Time
}

type abstractName struct {
	netns uint64
	name  events.Address
}

// sighting is a socket that had a name, at a time by CLOCK_BOOTTIME and since.
type sighting struct {
	inode uint32
	first time.Duration
}

// Watch begins to note which sockets there are. Call Close at the end.
func Watch() *Destinations {
	ctx, cancel := context.WithCancel(context.Background())
	d := &Destinations{
		stop: cancel, stopped: make(chan struct{}), asked: make(chan struct{}, 1),
		tracks: make(map[track]*answer), files: make(map[fileVersion]Destination),
		names: make(map[abstractName]sighting),
	}
	d.netns = ownNamespace()
	d.mounts.open()
	d.clock.check()
	go d.run(ctx)
	return d
}

// Close ends the watching.
func (d *Destinations) Close() {
	d.stop()
	<-d.stopped
	d.mounts.close()
}

// Find returns the socket that a datagram was sent to. It takes less than a millisecond,
// and a tenth of the time at most: when it is asked more than that allows, it has no answer.
func (d *Destinations) Find(s Send) (Destination, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	key := track{s.PID, s.TID, s.MntNS, s.NetNS, s.StartTime, s.Address}
	a := d.tracks[key]
	if a == nil || s.Ended > a.until {
		select {
		case d.asked <- struct{}{}:
		default:
		}
		// By the time of the event, as to read the clock takes as long as all the rest.
		if !d.budget.Allows(s.Ended) {
			return Destination{}, false
		}
		if a == nil {
			a = new(answer)
			d.remember(key, a)
		}
		// By the clock a busy machine would use up the budget, and nothing would be found there.
		d.budget.Spend(osthread.CPUTime(func() { d.look(&s, a) }))
	}
	if a.Inode == 0 || a.since > s.Ended {
		return Destination{}, false
	}
	proven := a.since <= time.Duration(s.StartTime) ||
		a.before != 0 && a.since <= a.before && a.before <= s.Ended-sendsApart
	if a.before < a.since || a.before == 0 {
		a.before = s.Ended
	}
	if !proven {
		return Destination{}, false
	}
	if found, known := d.known[a.Inode]; known && a.NetNS == 0 {
		a.Destination = found
	}
	return a.Destination, true
}

// Do says which socket an event's address led to, if that is known for sure.
func (d *Destinations) Do(r *events.Record) {
	e := r.Event
	if e == nil || e.Receiver != nil || e.Socket.Inode != 0 || e.Result.Errno != "" {
		return
	}
	found, ok := d.Find(Send{
		PID: e.Sender.PID, TID: e.Sender.TID, StartTime: e.Sender.StartTime,
		MntNS: e.Sender.MntNS, NetNS: e.Socket.SenderNetNS,
		Address: e.Socket.Address, Ended: e.BootTime,
	})
	if ok {
		e.Socket.Inode, e.Socket.Bound = uint64(found.Inode), found.Bound
		e.Receiver = &events.Receiver{UID: found.UID, NetNS: uint32(found.NetNS)}
	}
}

func (d *Destinations) remember(key track, a *answer) {
	if len(d.tracks) >= tracksMax {
		clear(d.tracks)
	}
	d.tracks[key] = a
}

// look finds out where an address leads now, and since when.
func (d *Destinations) look(s *Send, a *answer) {
	a.Destination, a.until = Destination{}, proc.BootTime()
	switch {
	case s.Address.IsAbstract():
		d.lookUp(s, a)
	case s.Address.IsAbsolute():
		d.follow(s, a)
	}
	// Where a relative path leads cannot be proven: chdir(2) leaves no trace.
}

// follow follows a path as the sender does.
func (d *Destinations) follow(s *Send, a *answer) {
	thread, err := openSender(s)
	if err != nil {
		return
	}
	defer thread.Close()
	var top [2]byte
	n, err := unix.Readlinkat(thread.FD, "root", top[:])
	if err != nil {
		return
	}
	w, err := proc.Within(thread, string(s.Address), func(thread proc.Process) (way, error) {
		return goTo(thread, string(s.Address))
	}, func(w way) { unix.Close(w.file) })
	d.budget.Spend(w.cost)
	if err != nil {
		return
	}
	defer unix.Close(w.file)
	// The root is another one if the thread has gone to another namespace meanwhile.
	if mntns, err := thread.Inode("ns/mnt", "mnt"); err != nil || mntns != uint64(s.MntNS) {
		return
	}
	// Asked after the way was taken, so that nothing before is missed.
	a.since = max(d.clock.check(), d.clock.at(w.changed)+changeSlack)
	if uint64(s.MntNS) == d.mounts.namespace {
		a.since = max(a.since, d.mounts.check())
	}
	// From the top of a mount namespace one goes to another root with chroot(2), but not
	// back. Below it, it may have done so after the send.
	if string(top[:n]) != rootLink {
		if !sameFile(&w.root, &a.root) || a.rooted == 0 {
			a.root, a.rooted = w.root, proc.BootTime()
		}
		a.since = max(a.since, a.rooted)
	} else {
		a.rooted = 0
	}
	a.Destination = d.socketOf(w.file, &w.stat, a.until)
}

// way is where a path has led to from a thread's root directory.
type way struct {
	file       int
	stat, root unix.Statx_t
	changed    time.Time     // as follow has it
	cost       time.Duration // of a processor
}

// goTo follows a path as a thread does.
func goTo(thread proc.Process, path string) (w way, err error) {
	w.cost = osthread.CPUTime(func() {
		if thread.IsOnFUSE(path) {
			err = proc.ErrFUSE
			return
		}
		var root int
		if root, err = thread.Open("root", unix.O_PATH|unix.O_DIRECTORY); err != nil {
			return
		}
		defer unix.Close(root)
		if w.root, err = statOf(root); err == nil {
			w.file, w.stat, w.changed, err = follow(root, path)
		}
	})
	return w, err
}

// socketOf returns the socket of a file.
func (d *Destinations) socketOf(file int, stat *unix.Statx_t, now time.Duration) Destination {
	if stat.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return Destination{}
	}
	version := fileVersion{
		mount: stat.Mnt_id, inode: stat.Ino, device: unix.Mkdev(stat.Dev_major, stat.Dev_minor),
		changed: changeTime(stat),
	}
	if found, known := d.files[version]; known {
		return found
	}
	inode, err := sockdiag.ConnectFile(file)
	if err != nil {
		return Destination{}
	}
	found := Destination{Inode: inode}
	if s, ok := sockdiag.Find(inode); ok {
		found = Destination{Inode: inode, Bound: s.Address, NetNS: d.netns, UID: s.UID}
	} else if listed, ok := d.known[inode]; ok {
		found = listed
	}
	// What is made within one tick may have the same time.
	if d.clock.at(version.changed)+changeSlack <= now {
		if len(d.files) >= filesMax {
			clear(d.files)
		}
		d.files[version] = found
	}
	return found
}

// lookUp looks an abstract name up in the namespace of the sending socket.
func (d *Destinations) lookUp(s *Send, a *answer) {
	if s.NetNS == 0 {
		return
	}
	var found Destination
	ask := func() {
		inode, err := sockdiag.ConnectAbstract(s.Address)
		if err != nil {
			return
		}
		found = Destination{Inode: inode, Bound: s.Address, NetNS: uint64(s.NetNS)}
		if socket, ok := sockdiag.Find(inode); ok {
			found.UID = socket.UID
		}
	}
	if uint64(s.NetNS) == d.netns {
		ask()
	} else {
		// On a thread of its own, whose time is not the caller's.
		askIn(s, func() { d.budget.Spend(osthread.CPUTime(ask)) })
	}
	if found.Inode == 0 {
		return
	}
	a.Destination, a.since = found, d.sight(abstractName{found.NetNS, s.Address}, found.Inode, proc.BootTime())
}

// sight notes that a socket has a name now, and returns since when it is known to. A
// socket keeps its name until it is closed, and its inode number is its own until then.
func (d *Destinations) sight(name abstractName, inode uint32, now time.Duration) time.Duration {
	seen, known := d.names[name]
	if known && seen.inode == inode {
		return seen.first
	}
	if !known && len(d.names) >= namesMax {
		return now
	}
	d.names[name] = sighting{inode, now}
	return now
}
