// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Process is an open /proc/PID. What is read through it is about one process,
// even if its number passes to another one: that fails with ESRCH.
type Process struct {
	// PID is the number in the pid namespace of the mounted /proc.
	PID int
	// FD is the directory, opened with O_PATH.
	FD int
}

// Open opens the directory of a process. The error is ENOENT when there is none.
func Open(pid int) (Process, error) {
	fd, err := unix.Open("/proc/"+strconv.Itoa(pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	return Process{PID: pid, FD: fd}, err
}

// Self is this process; it must not be closed.
var Self = sync.OnceValue(func() Process {
	p, err := Open(unix.Getpid())
	if err != nil {
		p.FD = -1 // no /proc: nothing can be read
	}
	return p
})

// initialPIDNS is the inode number of the host's pid namespace (kernel: PID_NS_INIT_INO).
const initialPIDNS = 0xeffffffc

// IsHost reports whether this process is in the host's pid namespace, or cannot tell: in another one, numbers of processes
// are others'.
func IsHost() bool {
	own, err := Self().Inode("ns/pid", "pid")
	return err != nil || own == initialPIDNS
}

// Close closes the directory.
func (p Process) Close() { unix.Close(p.FD) }

// Open opens a file of the process, such as "ns/net".
func (p Process) Open(name string, flags int) (fd int, err error) {
	return unix.Openat(p.FD, name, flags|unix.O_CLOEXEC, 0)
}

// OpenThread opens the directory of one of the process's threads.
func (p Process) OpenThread(tid int) (Process, error) {
	fd, err := p.Open("task/"+strconv.Itoa(tid), unix.O_PATH|unix.O_DIRECTORY)
	return Process{PID: p.PID, FD: fd}, err
}

const (
	// readMax is the length of the longest file that is read, in bytes. A program of 65,530 mappings, as many as there
	// may be, has a maps of 8 MiB.
	readMax = 16 << 20
	// executedMax is that of environ and cmdline: as much as a program can be executed with together, unless its stack may
	// be larger than it may be by default (getconf ARG_MAX). A process can say that it has as much as it likes
	// (prctl(2), PR_SET_MM_MAP).
	executedMax = 2 << 20
)

// Read reads a whole file of the process. The error is EFBIG for one that is longer than 16 MiB, or 2 MiB for environ
// and cmdline; and [ErrHangs] for one that lies in memory which does not answer.
func (p Process) Read(name string) ([]byte, error) {
	if name != "environ" && name != "cmdline" && name != "maps" {
		return p.read(name)
	}
	return Within(p, name, func(p Process) ([]byte, error) { return p.read(name) }, nil)
}

func (p Process) read(name string) ([]byte, error) {
	fd, err := p.Open(name, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	most := readMax
	if name == "environ" || name == "cmdline" {
		most = executedMax
	}
	content := make([]byte, 0, 1024)
	for {
		if len(content) == cap(content) {
			content = append(content, 0)[:len(content)]
		}
		n, err := unix.Read(fd, content[len(content):cap(content)])
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return nil, err
		case n == 0:
			return content, nil
		case len(content)+n > most:
			return nil, unix.EFBIG
		default:
			content = content[:len(content)+n]
		}
	}
}

// Link reads a symbolic link of the process, such as "exe".
func (p Process) Link(name string) (string, error) {
	var link [unix.PathMax]byte
	n, err := unix.Readlinkat(p.FD, name, link[:])
	if err != nil {
		return "", err
	}
	return string(link[:n]), nil
}

// Inode reads the number off a link such as ns/net, which is "net:[4026531840]".
func (p Process) Inode(name, kind string) (uint64, error) {
	var link [64]byte
	n, err := unix.Readlinkat(p.FD, name, link[:])
	if err != nil {
		return 0, err
	}
	inode, ok := ParseInode(link[:n], kind)
	if !ok {
		return 0, fmt.Errorf("%s of process %d is %q", name, p.PID, link[:n])
	}
	return inode, nil
}

// ParseInode reads "KIND:[NUMBER]".
func ParseInode(link []byte, kind string) (inode uint64, ok bool) {
	if len(link) < len(kind)+4 || string(link[:len(kind)]) != kind || link[len(kind)] != ':' || link[len(link)-1] != ']' {
		return 0, false
	}
	for _, c := range link[len(kind)+2 : len(link)-1] {
		if c < '0' || c > '9' {
			return 0, false
		}
		inode = 10*inode + uint64(c-'0')
	}
	return inode, true
}

// Stat reads /proc/PID/stat. The error is ESRCH for a file that is not like one.
func (p Process) Stat() (Stat, error) {
	content, err := p.Read("stat")
	if err != nil {
		return Stat{}, err
	}
	stat, ok := ParseStat(content)
	if !ok {
		return Stat{}, unix.ESRCH
	}
	return stat, nil
}

// Status reads /proc/PID/status.
func (p Process) Status() (Status, error) {
	content, err := p.Read("status")
	if err != nil {
		return Status{}, err
	}
	return ParseStatus(content)
}

// Comm is the name of the process, at most 15 bytes (proc_pid_comm(5)).
func (p Process) Comm() (string, error) {
	comm, err := p.Read("comm")
	return strings.TrimSuffix(string(comm), "\n"), err
}

// Cgroup is the path of the process's control group that says most: the one of version 2
// unless it is the root, else the first of version 1 that is not.
func (p Process) Cgroup() (string, error) {
	text, err := p.Read("cgroup")
	if err != nil {
		return "", err
	}
	return bestCgroup(text), nil
}

func bestCgroup(text []byte) string {
	best := ""
	for _, c := range ParseCgroups(text) {
		switch {
		case c.Unified && (c.Path != "/" || best == ""):
			best = c.Path
		case !c.Unified && c.Path != "/" && (best == "" || best == "/") && !strings.HasPrefix(c.Controllers, "name="):
			best = c.Path
		}
	}
	return best
}

// NotifySocket returns the value of NOTIFY_SOCKET in the environment that the process was
// executed with.
func (p Process) NotifySocket() (value string, ok bool, err error) {
	found, err := Within(p, "environ", func(p Process) (variable string, err error) {
		return p.variable("NOTIFY_SOCKET=")
	}, nil)
	value, ok = strings.CutPrefix(found, "NOTIFY_SOCKET=")
	return value, ok, err
}

// variable reads the environment until it comes to a variable that begins so, and keeps no more of it than that: "" is
// for none. The error is EFBIG when it has not come in as much as may be read.
func (p Process) variable(begin string) (string, error) {
	fd, err := p.Open("environ", unix.O_RDONLY)
	if err != nil {
		return "", err
	}
	file := os.NewFile(uintptr(fd), "environ")
	defer file.Close()
	const most = 16 << 10 // of one variable
	all := &io.LimitedReader{R: file, N: executedMax + 1}
	lines := bufio.NewReaderSize(all, most)
	for isBegin := true; ; {
		text, err := lines.ReadSlice(0)
		if isBegin && bytes.HasPrefix(text, []byte(begin)) && !errors.Is(err, bufio.ErrBufferFull) {
			return string(bytes.TrimSuffix(text, []byte{0})), nil
		}
		isBegin = err == nil
		switch {
		case err == nil || errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && all.N == 0:
			return "", unix.EFBIG
		case errors.Is(err, io.EOF):
			return "", nil
		default:
			return "", err
		}
	}
}

// Variable finds a variable in an environment block (proc_pid_environ(5)): the first one of
// the name, as getenv(3) does.
func Variable(environ []byte, name string) (value string, ok bool) {
	for variable := range bytes.SplitSeq(environ, []byte{0}) {
		if value, found := bytes.CutPrefix(variable, []byte(name)); found && len(value) > 0 && value[0] == '=' {
			return string(value[1:]), true
		}
	}
	return "", false
}

// IsEnvironment reports whether an environment block holds variables only: some programs write their title
// over it (setproctitle(3bsd)), and others clear it.
func IsEnvironment(block []byte) bool {
	if len(block) == 0 {
		return true
	}
	rest, ended := bytes.CutSuffix(block, []byte{0})
	for variable := range bytes.SplitSeq(rest, []byte{0}) {
		if bytes.IndexByte(variable, '=') <= 0 {
			return false
		}
	}
	return ended
}

// OpenPath opens a path, as O_PATH, as the process sees it (openat2(2), RESOLVE_IN_ROOT). The error is [ErrHangs]
// when a file system on the way does not answer, [ErrFUSE] when another process is to answer for it.
func (p Process) OpenPath(path string) (fd int, stat unix.Stat_t, err error) {
	type opened struct {
		fd   int
		stat unix.Stat_t
	}
	o, err := Within(p, path, func(p Process) (o opened, err error) {
		o.fd, o.stat, err = p.openPath(path)
		return o, err
	}, func(o opened) { unix.Close(o.fd) })
	if err != nil {
		return -1, stat, err
	}
	return o.fd, o.stat, nil
}

// resolveCached is RESOLVE_CACHED (openat2(2)), which golang.org/x/sys does not have.
const resolveCached = 0x20

func (p Process) openPath(path string) (fd int, stat unix.Stat_t, err error) {
	root, err := p.Open("root", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return -1, stat, err
	}
	defer unix.Close(root)
	how := &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | resolveCached}
	fd, err = unix.Openat2(root, path, how)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINVAL) { // a file system is to be asked; before Linux 5.12
		if p.IsOnFUSE(path) {
			return -1, stat, ErrFUSE
		}
		how.Resolve = unix.RESOLVE_IN_ROOT
		fd, err = unix.Openat2(root, path, how)
	}
	if err != nil {
		return -1, stat, err
	}
	if err := unix.Fstat(fd, &stat); err != nil {
		unix.Close(fd)
		return -1, stat, err
	}
	return fd, stat, nil
}

// ReadPath reads what a regular file holds at the beginning, up to a number of bytes, at a path as the
// process sees it. The error is [os.ErrInvalid] for another kind of file, and as for [Process.OpenPath].
func (p Process) ReadPath(path string, most int) ([]byte, error) {
	return Within(p, path, func(p Process) ([]byte, error) {
		fd, stat, err := p.openPath(path)
		if err != nil {
			return nil, err
		}
		defer unix.Close(fd)
		if stat.Mode&unix.S_IFMT != unix.S_IFREG {
			return nil, os.ErrInvalid
		}
		file, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
		if err != nil {
			return nil, err
		}
		defer file.Close()
		return io.ReadAll(io.LimitReader(file, int64(most)))
	}, nil)
}

// Sockets returns the inode numbers of the sockets that the process has open and that are
// wanted, each once.
func (p Process) Sockets(wanted func(inode uint32) bool) (held []uint32) {
	p.eachSocket(func(inode uint32) bool {
		if wanted(inode) && !slices.Contains(held, inode) {
			held = append(held, inode)
		}
		return true
	})
	return held
}

// Holds reports whether the process has a file descriptor of a socket.
func (p Process) Holds(socket uint32) bool {
	return p.HoldsAny(func(inode uint32) bool { return inode == socket })
}

// HoldsAny reports whether one of the sockets that the process has open is wanted. It looks no
// further than the first.
func (p Process) HoldsAny(wanted func(inode uint32) bool) (holds bool) {
	p.eachSocket(func(inode uint32) bool {
		holds = wanted(inode)
		return !holds
	})
	return holds
}

// eachSocket calls look for the sockets that the process has open until it returns false.
func (p Process) eachSocket(look func(inode uint32) bool) {
	fd, err := p.Open("fd", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	EachEntry(fd, func(name string) bool {
		var link [32]byte
		n, err := unix.Readlinkat(fd, name, link[:])
		if err != nil {
			return true
		}
		if inode, ok := ParseInode(link[:n], "socket"); ok {
			return look(uint32(inode))
		}
		return true
	})
}

// EachEntry calls look for the names in an open directory until it returns false.
func EachEntry(dir int, look func(name string) bool) {
	EachEntryOf(dir, func(_ uint64, _ uint8, name string) bool { return look(name) })
}

// EachEntryOf calls look for the entries of an open directory until it returns false: with the inode number and the type
// of the file (readdir(3), DT_…), as far as the file system tells them.
func EachEntryOf(dir int, look func(inode uint64, kind uint8, name string) bool) {
	// struct linux_dirent64: inode, offset, length of the entry, type, name with a NUL.
	const length, kind, name = 16, 18, 19
	var entries [8192]byte
	for {
		n, err := unix.ReadDirent(dir, entries[:])
		if err != nil || n <= 0 {
			return
		}
		for rest := entries[:n]; len(rest) > name; {
			end := int(binary.NativeEndian.Uint16(rest[length:]))
			if end <= name || end > len(rest) {
				return
			}
			text, _, _ := bytes.Cut(rest[name:end], []byte{0})
			if s := string(text); s != "." && s != ".." && !look(binary.NativeEndian.Uint64(rest), rest[kind], s) {
				return
			}
			rest = rest[end:]
		}
	}
}

// PIDs lists the processes of the mounted /proc below root ("/" for this machine's).
func PIDs(root string) ([]int, error) {
	dir, err := os.Open(root + "/proc")
	if err != nil {
		return nil, fmt.Errorf("listing processes: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("listing processes: %w", err)
	}
	pids := make([]int, 0, len(names))
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// Each calls look for every process, several at a time. Processes that are gone are left out. The error says that /proc is
// not there, or that no more files may be open.
func Each(ctx context.Context, look func(Process)) error {
	all, err := PIDs("/")
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return errors.New("/proc shows no process: mount it (proc(5))")
	}
	var full atomic.Bool
	pids := make(chan int, len(all))
	for _, pid := range all {
		pids <- pid
	}
	close(pids)
	var group sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() {
			for pid := range pids {
				if ctx.Err() != nil {
					return
				}
				p, err := Open(pid)
				switch {
				case err == nil:
					look(p)
					p.Close()
				case IsFull(err):
					full.Store(true)
				}
			}
		})
	}
	group.Wait()
	if full.Load() && ctx.Err() == nil {
		return fmt.Errorf("looking at processes: %w (ulimit -n)", unix.EMFILE)
	}
	return ctx.Err()
}

// IsMissing reports whether an error says that there is no such file.
func IsMissing(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR)
}

// IsFull reports whether an error says that no more files may be open.
func IsFull(err error) bool { return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) }

// IsDenied reports whether an error is for want of a right, and not because what
// was looked at is gone.
func IsDenied(err error) bool { return errors.Is(err, fs.ErrPermission) }
