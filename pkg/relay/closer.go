// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"sync"

	"golang.org/x/sys/unix"
)

// The file descriptors of senders can be of any kind, also such that closing them waits for somebody (FUSE, NFS, a socket
// that lingers). That must not hold up the relay, nor the closing of what others have passed.
const (
	closersMost     = 64 // that close at a time, each of which a file descriptor can hold up
	closersOfDenied = 32 // of them for what was passed by who may not notify: a user can have many numbers
	closersOfOwner  = 4  // of them for what one owner has passed
)

// owner is who has passed a file descriptor: the processes of a user, at the socket of a member.
type owner struct {
	member string
	uid    uint32
	denied bool // they may not notify
}

// closer closes file descriptors in the background. It has no bound of its own: the receiver takes no more of them when
// too many wait.
type closer struct {
	mu      sync.Mutex
	waiting map[owner][]int
	running map[owner]int // goroutines that close
	all     int           // of them
	denied  int           // of these, for who may not notify
	held    int           // file descriptors that are not closed yet
	most    int           // from so many on, full
}

func newCloser() *closer {
	return &closer{waiting: make(map[owner][]int), running: make(map[owner]int), most: heldMost()}
}

// heldMost is how many file descriptors can wait to be closed: half of those that this process may have open.
func heldMost() int {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return batch * maxFDs
	}
	return int(min(limit.Cur/2, 1<<16))
}

// close takes a file descriptor over.
func (c *closer) close(of owner, fd int) {
	if isPipe(fd) {
		unix.Close(fd)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held++
	c.waiting[of] = append(c.waiting[of], fd)
	c.start(of)
}

// start has one more goroutine close what an owner has passed, if there may be one more.
func (c *closer) start(of owner) {
	if len(c.waiting[of]) == 0 || c.running[of] >= closersOfOwner || c.all >= closersMost || of.denied && c.denied >= closersOfDenied {
		return
	}
	c.running[of]++
	c.all++
	if of.denied {
		c.denied++
	}
	go c.run(of)
}

// run closes what an owner has passed, until nothing of it is left.
func (c *closer) run(of owner) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.waiting[of]) > 0 {
		list := c.waiting[of]
		fd := list[len(list)-1]
		c.waiting[of] = list[:len(list)-1]
		c.mu.Unlock()
		if fileType(fd) == unix.S_IFSOCK {
			// Who has set it may set it again, and may hold the socket: either waits here alone.
			_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{})
		}
		unix.Close(fd)
		c.mu.Lock()
		c.held--
	}
	delete(c.waiting, of)
	if c.running[of]--; c.running[of] == 0 {
		delete(c.running, of)
	}
	c.all--
	if of.denied {
		c.denied--
	}
	for other := range c.waiting { // that had to wait for one of all
		c.start(other)
	}
}

// full reports whether so many wait that no more are to be taken.
func (c *closer) full() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.held >= c.most
}

// fileType is the type of a file as in stat(2), 0 if it cannot be told.
func fileType(fd int) uint16 {
	stat, _ := statQuietly(fd)
	return stat.Mode & unix.S_IFMT
}

// statQuietly looks at a file without asking a file system that may not answer.
func statQuietly(fd int) (stat unix.Statx_t, err error) {
	err = unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &stat)
	return stat, err
}

// pipes is the file system of pipes without a name, by one of our own.
var pipes = sync.OnceValue(func() (stat unix.Statx_t) {
	var ends [2]int
	if unix.Pipe2(ends[:], unix.O_CLOEXEC) != nil {
		return stat
	}
	stat, _ = statQuietly(ends[0])
	unix.Close(ends[0])
	unix.Close(ends[1])
	return stat
})

// isPipe reports whether fd is a pipe without a name, of which closing waits for nobody: a FIFO can be the last that keeps
// a file system.
func isPipe(fd int) bool {
	stat, err := statQuietly(fd)
	of := pipes()
	return err == nil && stat.Mode&unix.S_IFMT == unix.S_IFIFO && stat.Dev_major == of.Dev_major && stat.Dev_minor == of.Dev_minor
}
