// SPDX-License-Identifier: Apache-2.0

// Package access tries whether another process may send to a socket in the file system.
package access

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/osthread"
	"github.com/sdtrace/sdtrace/internal/proc"
)

// Denied is what a process may not use: a directory that it may not search, or a socket that it may not
// write to (path_resolution(7), unix(7)).
type Denied struct {
	// Path is that directory or socket, as the process sees it.
	Path string
	// IsSocket is whether it is the socket.
	IsSocket bool
	// Mode holds the permission bits, and UID and GID the owner, as the reader sees them.
	Mode     uint32
	UID, GID uint32
}

// Who is as whom a process uses files. Two that are the same may use the same.
type Who struct {
	uid, gid     uint32
	groups       string
	capabilities uint64 // of dacMask
	// userns and root are inode numbers: of the user namespace, and of the root directory, which is in
	// the mount namespace mntns.
	userns, mntns, root uint64
}

// dacMask holds CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH (capabilities(7)).
const dacMask = 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_DAC_READ_SEARCH

// Of says as whom a process uses files.
func Of(p proc.Process) (Who, error) {
	s, err := p.Status()
	if err != nil {
		return Who{}, err
	}
	return of(p, s)
}

func of(p proc.Process, s proc.Status) (Who, error) {
	return proc.Within(p, "root", func(p proc.Process) (Who, error) { return whoIs(p, s) }, nil)
}

func whoIs(p proc.Process, s proc.Status) (w Who, err error) {
	w = Who{uid: s.FSUID, gid: s.FSGID, groups: fmt.Sprint(s.Groups), capabilities: s.Effective & dacMask}
	if w.userns, err = p.Inode("ns/user", "user"); err != nil {
		return Who{}, err
	}
	if w.mntns, err = p.Inode("ns/mnt", "mnt"); err != nil {
		return Who{}, err
	}
	root, err := p.Open("root", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return Who{}, err
	}
	defer unix.Close(root)
	var stat unix.Statx_t
	if err := unix.Statx(root, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_INO, &stat); err != nil {
		return Who{}, err
	}
	w.root = stat.Ino
	return w, nil
}

// UID is the user as whom a process uses files.
func (w Who) UID() uint32 { return w.uid }

// Try tries on a thread of its own, as a process would, to reach the socket at an absolute path that the
// process sees, and returns what it may not use on the way, nil if nothing refuses it. What does not exist
// refuses nothing. It takes root's rights, and no security module is asked, which knows the process itself.
// The error is [proc.ErrHangs] or [proc.ErrFUSE] as for [proc.Process.OpenPath].
func Try(p proc.Process, path string) (*Denied, error) {
	return proc.WithinPath(p, path, func(p proc.Process) (*Denied, error) { return try(p, path) }, nil)
}

func try(p proc.Process, path string) (denied *Denied, err error) {
	s, err := p.Status()
	if err != nil {
		return nil, err
	}
	w, err := whoIs(p, s)
	if err != nil {
		return nil, err
	}
	self, err := proc.Open(unix.Getpid())
	if err != nil {
		return nil, err
	}
	defer self.Close()
	own, err := self.Inode("ns/user", "user")
	if err != nil {
		return nil, err
	}
	root, err := p.Open("root", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(root)
	if w.userns == own {
		return tryAs(root, path, s, w.capabilities)
	}
	// Its capabilities count for what belongs to users and groups of its user namespace (kernel:
	// capable_wrt_inode_uidgid).
	if denied, err = tryAs(root, path, s, 0); denied == nil || w.capabilities == 0 {
		return denied, err
	}
	if isMapped, err := p.Maps(denied.UID, denied.GID); err != nil || !isMapped {
		return denied, err
	}
	return tryAs(root, path, s, w.capabilities)
}

// tryAs tries it below a root directory with the user, the groups and some of the capabilities of a process.
func tryAs(root int, path string, s proc.Status, capabilities uint64) (denied *Denied, err error) {
	err = osthread.Do(func() error {
		if err := become(s, capabilities); err != nil {
			return err
		}
		denied, err = walk(root, path)
		return err
	})
	return denied, err
}

// become changes the credentials of this thread alone (setfsuid(2), capset(2)).
func become(s proc.Status, capabilities uint64) error {
	var groups unsafe.Pointer
	if len(s.Groups) > 0 {
		groups = unsafe.Pointer(&s.Groups[0])
	}
	// The wrapper would change all threads.
	_, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(s.Groups)), uintptr(groups), 0)
	runtime.KeepAlive(s.Groups)
	if errno != 0 {
		return fmt.Errorf("taking over its groups: %w", errno)
	}
	if err := unix.Setfsgid(int(s.FSGID)); err != nil {
		return fmt.Errorf("taking over its group: %w", err)
	}
	if err := unix.Setfsuid(int(s.FSUID)); err != nil {
		return fmt.Errorf("taking over its user: %w", err)
	}
	// The call does not say that it was refused.
	if now, _ := unix.SetfsuidRetUid(-1); uint32(now) != s.FSUID {
		return fmt.Errorf("taking over its user: %w", unix.EPERM)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("asking for capabilities: %w", err)
	}
	data[0].Effective, data[1].Effective = uint32(capabilities), uint32(capabilities>>32)
	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("taking over its capabilities: %w", err)
	}
	return nil
}

// walk goes to a path, and returns what refuses it.
func walk(root int, path string) (*Denied, error) {
	names := strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
	here, err := open(root, "/")
	if err != nil {
		return nil, err
	}
	defer func() { unix.Close(here) }()
	for i := range names {
		next, err := open(root, "/"+strings.Join(names[:i+1], "/"))
		switch {
		case errors.Is(err, unix.EACCES):
			return deniedAt(here, names[:i], false)
		case err != nil:
			return nil, nil //nolint:nilerr // it refuses nothing
		}
		unix.Close(here)
		here = next
	}
	err = unix.Faccessat2(here, "", unix.W_OK, unix.AT_EMPTY_PATH|unix.AT_EACCESS)
	if errors.Is(err, unix.EACCES) {
		return deniedAt(here, names, true)
	}
	return nil, err
}

func open(root int, path string) (int, error) {
	return unix.Openat2(root, path, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
}

func deniedAt(fd int, names []string, isSocket bool) (*Denied, error) {
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return nil, err
	}
	return &Denied{
		Path: "/" + strings.Join(names, "/"), IsSocket: isSocket, Mode: stat.Mode & 0o7777, UID: stat.Uid, GID: stat.Gid,
	}, nil
}
