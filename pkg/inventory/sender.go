// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"strconv"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/pkg/procstat"
	"github.com/sdtrace/sdtrace/pkg/thread"
)

// openSender opens the directory of a sending thread in /proc, which is gone if the process
// with its number is another one by now. A thread can have a root directory and namespaces
// of its own.
func openSender(s *Send) (processDir, error) {
	process, err := openProcess(int(s.PID))
	if err != nil {
		return process, err
	}
	defer process.close()
	stat, err := process.read("stat")
	if err != nil {
		return process, err
	}
	if now, ok := procstat.Parse(stat); !ok || !now.StartedAt(s.StartTime) {
		return process, unix.ESRCH
	}
	fd, err := process.open("task/"+strconv.FormatUint(uint64(s.TID), 10), unix.O_PATH|unix.O_DIRECTORY)
	return processDir{pid: process.pid, fd: fd}, err
}

// askIn runs ask in the network namespace of a send's socket, if the sender is in it still.
func askIn(s *Send, ask func()) {
	sender, err := openSender(s)
	if err != nil {
		return
	}
	defer sender.close()
	namespace, err := sender.open("ns/net", unix.O_RDONLY)
	if err != nil {
		return
	}
	defer unix.Close(namespace)
	var stat unix.Stat_t
	if unix.Fstat(namespace, &stat) != nil || stat.Ino != uint64(s.NetNS) {
		return
	}
	_ = thread.Apart(func() error {
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
	d, err := openProcess(unix.Getpid())
	if err != nil {
		return 0
	}
	defer d.close()
	inode, _ := d.inode("ns/net", "net")
	return inode
}
