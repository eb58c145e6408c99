// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// maxNames is how many names of file descriptors are remembered of a container whose number is not limited: whoever has
// stored one may remove it.
const maxNames = 1024

// store is what the host keeps of a container's file descriptors, by FDNAME. Where their number is limited, the relay has
// them open, too, and so knows, as the host does, which it has already, and which it drops because the other end is gone
// (systemd: service_add_fd_store, on_fd_store_io).
type store struct {
	names map[string][]kept
	count int
}

// kept is a file descriptor that the host keeps.
type kept struct {
	fd      int  // our own of the same file; -1: none
	counted bool // in count
	watched bool // when the other end is gone, so is it
}

// has reports whether there is one with a name.
func (s *store) has(name string) bool { return len(s.names[name]) > 0 }

// more is how many of these file descriptors the host has not yet under a name.
func (s *store) more(name string, fds []int) (n int) {
	for i, fd := range fds {
		again := slices.ContainsFunc(fds[:i], func(other int) bool { return isSameFile(other, fd) })
		if !again && !s.holds(name, fd) {
			n++
		}
	}
	return n
}

// holds reports whether the host has a file descriptor under a name.
func (s *store) holds(name string, fd int) bool {
	return slices.ContainsFunc(s.names[name], func(k kept) bool { return k.fd >= 0 && isSameFile(k.fd, fd) })
}

// isSameFile reports whether two file descriptors are of the same open file, as systemd's same_fd does (kcmp(2)).
func isSameFile(a, b int) bool {
	const kcmpFile = 0
	pid := uintptr(os.Getpid())
	order, _, errno := unix.RawSyscall6(unix.SYS_KCMP, pid, pid, kcmpFile, uintptr(a), uintptr(b), 0)
	return errno == 0 && order == 0
}

// add notes what the host was given under a name. With limited it holds what is new; polled says that the host is to
// look for the other end's going.
func (s *store) add(name string, fds []int, limited, polled bool) {
	if s.names == nil {
		s.names = make(map[string][]kept)
	}
	if !limited {
		s.names[name] = []kept{{fd: -1}} // how many does not matter
		return
	}
	for _, fd := range fds {
		if s.holds(name, fd) {
			continue
		}
		k := kept{fd: -1, counted: true}
		if own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); err == nil {
			// Of another kind of file, asking may wait for somebody.
			kind := fileType(own)
			k = kept{fd: own, counted: true, watched: polled && (kind == unix.S_IFIFO || kind == unix.S_IFSOCK)}
		}
		s.names[name] = append(s.names[name], k)
		s.count++
	}
}

// remove forgets those with a name, and hands ours to drop.
func (s *store) remove(name string, drop func(fd int)) {
	for _, k := range s.names[name] {
		if k.counted {
			s.count--
		}
		if k.fd >= 0 {
			drop(k.fd)
		}
	}
	delete(s.names, name)
}

// hungUp forgets the one whose other end is gone. fd is our own.
func (s *store) hungUp(fd int, drop func(fd int)) {
	for name, list := range s.names {
		for i, k := range list {
			if k.fd != fd {
				continue
			}
			drop(fd)
			s.count--
			if s.names[name] = append(list[:i:i], list[i+1:]...); len(s.names[name]) == 0 {
				delete(s.names, name)
			}
			return
		}
	}
}

// watched calls f with each of ours that tells when the other end is gone.
func (s *store) watched(f func(fd int)) {
	for _, list := range s.names {
		for _, k := range list {
			if k.watched {
				f(k.fd)
			}
		}
	}
}
