// SPDX-License-Identifier: Apache-2.0

package destinations

import (
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/osthread"
	"github.com/sdtrace/sdtrace/internal/proc"
)

// openSender opens the directory of a sending thread in /proc, which is gone if the process
// with its number is another one by now. A thread can have a root directory and namespaces
// of its own.
func openSender(s *Send) (proc.Process, error) {
	process, err := proc.Open(int(s.PID))
	if err != nil {
		return process, err
	}
	defer process.Close()
	if now, err := process.Stat(); err != nil || !now.StartedAt(s.StartTime) {
		return process, unix.ESRCH
	}
	return process.OpenThread(int(s.TID))
}

// askIn runs ask in the network namespace of a send's socket, if the sender is in it still.
func askIn(s *Send, ask func()) {
	sender, err := openSender(s)
	if err != nil {
		return
	}
	defer sender.Close()
	namespace, err := sender.Open("ns/net", unix.O_RDONLY)
	if err != nil {
		return
	}
	defer unix.Close(namespace)
	var stat unix.Stat_t
	if unix.Fstat(namespace, &stat) != nil || stat.Ino != uint64(s.NetNS) {
		return
	}
	_ = osthread.Do(func() error {
		if err := netns.Set(netns.NsHandle(namespace)); err != nil {
			return err
		}
		ask()
		return nil
	})
}

// ownNamespace is the inode number of the network namespace of this process, 0 if that
// cannot be told.
func ownNamespace() uint64 {
	p, err := proc.Open(unix.Getpid())
	if err != nil {
		return 0
	}
	defer p.Close()
	inode, _ := p.Inode("ns/net", "net")
	return inode
}
