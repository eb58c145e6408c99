// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// HasPIDFS reports whether the inode number of a pidfd identifies a process
// for as long as the system runs (Linux 6.9).
var HasPIDFS = sync.OnceValue(func() bool {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var fs unix.Statfs_t
	return unix.Fstatfs(fd, &fs) == nil && fs.Type == unix.PID_FS_MAGIC
})

// PIDFDInode is the number by which systemd knows the process of a pidfd as MAINPIDFDID
// (sd_pidfd_get_inode_id(3)), 0 where the kernel has none.
func PIDFDInode(pidfd int) uint64 {
	if !HasPIDFS() {
		return 0
	}
	var stat unix.Stat_t
	_, _, errno := unix.RawSyscall(unix.SYS_FSTAT, uintptr(pidfd), uintptr(unsafe.Pointer(&stat)), 0)
	if errno != 0 {
		return 0
	}
	return stat.Ino
}
