// SPDX-License-Identifier: Apache-2.0

package relay

import "golang.org/x/sys/unix"

// The file descriptors of a container can be of any kind, also such that
// closing them waits for somebody (FUSE, NFS, a socket that lingers). That must
// not hold up the relay.
const (
	closers  = 4
	closable = 4096 // how many can wait to be closed
)

// closer closes file descriptors in the background.
type closer struct {
	fds chan int
}

func newCloser() *closer {
	c := &closer{fds: make(chan int, closable)}
	for range closers {
		go func() {
			for fd := range c.fds {
				unix.Close(fd)
			}
		}()
	}
	return c
}

// close takes a file descriptor over. The caller asks full before it receives more.
func (c *closer) close(fd int) {
	if isPipe(fd) {
		unix.Close(fd)
		return
	}
	c.fds <- fd
}

// full reports whether the next batch could bring more than there is room for.
func (c *closer) full() bool { return len(c.fds) > closable-(batch+1)*maxFDs }

// stop ends the background work when it is done.
func (c *closer) stop() { close(c.fds) }
