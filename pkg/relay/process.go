// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/proc"
)

// namespace identifies a namespace for as long as somebody is in it, or holds
// it open. The zero value is none.
type namespace struct{ dev, ino uint64 }

func namespaceOf(fd int) (namespace, error) {
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return namespace{}, err
	}
	return namespace{stat.Dev, stat.Ino}, nil
}

// statNamespace is the namespace at a path such as /proc/1/ns/pid.
func statNamespace(path string) (namespace, error) {
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); err != nil {
		return namespace{}, fmt.Errorf("looking at %s: %w", path, err)
	}
	return namespace{stat.Dev, stat.Ino}, nil
}

// namespaceLink is the link to a namespace of a process, to be looked at often. It ends with a NUL.
type namespaceLink []byte

func linkTo(pid int, name string) namespaceLink { return append([]byte(procPath(pid, name)), 0) }

// namespace is what the link leads to. ok is false if it leads nowhere, as when the process is gone. It allocates nothing.
func (l namespaceLink) namespace() (ns namespace, ok bool) {
	var stat unix.Statx_t
	at := unix.AT_FDCWD
	_, _, errno := unix.RawSyscall6(unix.SYS_STATX, uintptr(at), uintptr(unsafe.Pointer(&l[0])), 0, unix.STATX_INO,
		uintptr(unsafe.Pointer(&stat)), 0)
	return namespace{unix.Mkdev(stat.Dev_major, stat.Dev_minor), stat.Ino}, errno == 0
}

func procPath(pid int, name string) string {
	return "/proc/" + strconv.Itoa(pid) + "/" + name
}

// openPIDNamespace opens the pid namespace of a process.
func openPIDNamespace(pid int) (fd int, ns namespace, err error) {
	fd, err = unix.Open(procPath(pid, "ns/pid"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, namespace{}, fmt.Errorf("opening %s: %w", procPath(pid, "ns/pid"), err)
	}
	ns, err = namespaceOf(fd)
	if err != nil {
		unix.Close(fd)
		return -1, namespace{}, err
	}
	return fd, ns, nil
}

// isBelow reports whether the pid namespace behind fd is ns or a descendant of
// it (ioctl_nsfs(2), NS_GET_PARENT).
func isBelow(fd int, ns namespace) bool {
	level, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	for err == nil {
		current, statErr := namespaceOf(level)
		if statErr != nil || current == ns {
			unix.Close(level)
			return statErr == nil
		}
		var parent int
		parent, err = unix.IoctlRetInt(level, unix.NS_GET_PARENT)
		unix.Close(level)
		level = parent
	}
	// EPERM: the parent is out of our own namespace's sight.
	return false
}

// topBelow opens the topmost pid namespace below another one, own, on the way to the one behind fd. The error says that there
// is none.
func topBelow(fd int, own namespace) (top int, ns namespace, err error) {
	level, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	for err == nil {
		var parent int
		if parent, err = unix.IoctlRetInt(level, unix.NS_GET_PARENT); err != nil {
			break
		}
		above, statErr := namespaceOf(parent)
		if statErr == nil && above == own {
			unix.Close(parent)
			ns, err = namespaceOf(level)
			return level, ns, err
		}
		unix.Close(level)
		level, err = parent, statErr
	}
	if level >= 0 {
		unix.Close(level)
	}
	return -1, namespace{}, err
}

// readStatus reads /proc/PID/status.
func readStatus(pid int) (proc.Status, error) {
	p, err := proc.Open(pid)
	if err != nil {
		return proc.Status{}, err
	}
	defer p.Close()
	return p.Status()
}

// readCgroups returns the paths of a process's cgroups, that of version 2
// first, then those of the hierarchies of version 1.
func readCgroups(pid int) ([]string, error) {
	p, err := proc.Open(pid)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	text, err := p.Read("cgroup")
	if err != nil {
		return nil, err
	}
	paths := []string{""}
	for _, c := range proc.ParseCgroups(text) {
		if c.Unified {
			paths[0] = c.Path
		} else {
			paths = append(paths, c.Path)
		}
	}
	return paths, nil
}

// monotonicOffset is how far CLOCK_MONOTONIC of a process is ahead of that of
// the initial time namespace, in µs (time_namespaces(7)). known is false for a
// process whose children live by another clock than itself, since the file is
// about them.
func monotonicOffset(pid int) (usec int64, known bool) {
	own, err := statNamespace(procPath(pid, "ns/time"))
	if errors.Is(err, unix.ENOENT) {
		// No time namespaces: the offset is 0 if the process still exists, unknown if it is gone.
		_, err := os.Stat(procPath(pid, "ns/pid"))
		return 0, err == nil
	}
	if err != nil {
		return 0, false
	}
	children, err := statNamespace(procPath(pid, "ns/time_for_children"))
	if err != nil || own != children {
		return 0, false
	}
	text, err := os.ReadFile(procPath(pid, "timens_offsets"))
	if err != nil {
		return 0, false
	}
	for line := range bytes.Lines(text) {
		var clock string
		var sec, nsec int64
		if n, _ := fmt.Sscan(string(line), &clock, &sec, &nsec); n == 3 && clock == "monotonic" {
			return sec*1e6 + nsec/1e3, true
		}
	}
	return 0, false
}

// alive reports whether the process behind a pidfd has not been reaped: what
// /proc says about its number is then about it.
func alive(pidfd int) bool {
	err := unix.PidfdSendSignal(pidfd, 0, nil, 0)
	return err == nil || errors.Is(err, unix.EPERM)
}

// pidOfPidfd returns the process that a pidfd stands for, in our pid namespace.
// ok is false for anything else, for a thread (PIDFD_THREAD), and for a process that is gone or not visible.
func pidOfPidfd(fd int) (pid int, ok bool) {
	link, err := os.Readlink(through(fd, ""))
	if err != nil || (link != "anon_inode:[pidfd]" && !strings.HasPrefix(link, "pidfd:[")) {
		return 0, false
	}
	text, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(fd))
	if err != nil {
		return 0, false
	}
	for line := range bytes.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(string(line)), ":")
		switch value = strings.TrimSpace(value); name {
		case "flags":
			flags, err := strconv.ParseUint(value, 8, 64)
			if err != nil || flags&unix.PIDFD_THREAD != 0 {
				return 0, false
			}
		case "Pid":
			pid, err := strconv.Atoi(value)
			return pid, err == nil && pid > 0
		}
	}
	return 0, false
}

// translatePID finds the process that has a number in the pid namespace behind
// fd, which is ns. It returns its number in ours, or 0.
func translatePID(fd int, ns namespace, number int) int {
	pid, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.NS_GET_TGID_FROM_PIDNS, uintptr(number))
	switch errno {
	case 0:
		return int(pid)
	case unix.ESRCH:
		return 0
	}
	// Before Linux 6.11 (ENOTTY).
	return searchPID(ns, number)
}

// searchPID is translatePID by looking at all processes.
func searchPID(ns namespace, number int) int {
	pids, err := proc.PIDs("/")
	if err != nil {
		return 0
	}
	for _, pid := range pids {
		if of, err := statNamespace(procPath(pid, "ns/pid")); err != nil || of != ns {
			continue
		}
		if s, err := readStatus(pid); err == nil && s.NSPID == number {
			return pid
		}
	}
	return 0
}

func signalEventfd(fd int) error {
	one := binary.NativeEndian.AppendUint64(nil, 1)
	_, err := unix.Write(fd, one)
	return err
}

func drainEventfd(fd int) {
	var count [8]byte
	_, _ = unix.Read(fd, count[:])
}
