// SPDX-License-Identifier: Apache-2.0

package destinations

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/proc"
)

// mountWatch notices changes of the mounts in sdtrace's own mount namespace. It holds none
// of another one, as the file to ask keeps the namespace, and with it what is mounted there.
type mountWatch struct {
	namespace uint64
	table     int // /proc/self/mountinfo, or -1
	changed   time.Duration
}

func (w *mountWatch) open() {
	w.table = -1
	p, err := proc.Open(unix.Getpid())
	if err != nil {
		return
	}
	defer p.Close()
	if w.namespace, err = p.Inode("ns/mnt", "mnt"); err != nil {
		return
	}
	if w.table, err = p.Open("mountinfo", unix.O_RDONLY); err != nil {
		w.table = -1
	}
}

// check asks whether something was mounted or unmounted since it was asked last (proc(5):
// poll(2) says POLLPRI and POLLERR once). It returns the time at which that was noticed
// last, by CLOCK_BOOTTIME, 0 for never.
func (w *mountWatch) check() time.Duration {
	poll := []unix.PollFd{{Fd: int32(w.table), Events: unix.POLLPRI}}
	if n, err := unix.Poll(poll, 0); w.table < 0 || err != nil || n > 0 {
		w.changed = proc.BootTime()
	}
	return w.changed
}

func (w *mountWatch) close() {
	if w.table >= 0 {
		unix.Close(w.table)
	}
}
