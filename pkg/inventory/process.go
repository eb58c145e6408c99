// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// processDir is an open /proc/PID. What is read through it is about one process,
// even if its number passes to another one: that fails with ESRCH.
type processDir struct {
	pid int
	fd  int
}

func openProcess(pid int) (processDir, error) {
	fd, err := unix.Open("/proc/"+strconv.Itoa(pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	return processDir{pid: pid, fd: fd}, err
}

func (d processDir) close() { unix.Close(d.fd) }

func (d processDir) open(name string, flags int) (int, error) {
	return unix.Openat(d.fd, name, flags|unix.O_CLOEXEC, 0)
}

func (d processDir) read(name string) ([]byte, error) {
	fd, err := d.open(name, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
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
		default:
			content = content[:len(content)+n]
		}
	}
}

// inode reads the number off a link such as ns/net, which is "net:[4026531840]".
func (d processDir) inode(name, kind string) (uint64, error) {
	var link [64]byte
	n, err := unix.Readlinkat(d.fd, name, link[:])
	if err != nil {
		return 0, err
	}
	inode, ok := parseInode(link[:n], kind)
	if !ok {
		return 0, fmt.Errorf("%s of process %d is %q", name, d.pid, link[:n])
	}
	return inode, nil
}

// parseInode reads "KIND:[NUMBER]".
func parseInode(link []byte, kind string) (inode uint64, ok bool) {
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

// describe says what is known about a process by itself.
func (d processDir) describe() (Process, error) {
	comm, err := d.read("comm")
	if err != nil {
		return Process{}, err
	}
	p := Process{PID: d.pid, Comm: strings.TrimSuffix(string(comm), "\n")}
	cgroups, err := d.read("cgroup")
	if err != nil {
		return Process{}, err
	}
	p.setIdentity(bestCgroup(cgroups))
	p.NetNS, _ = d.inode("ns/net", "net")
	return p, nil
}

// bestCgroup chooses among the lines of /proc/PID/cgroup the path that says most:
// that of version 2 unless it is the root, else the first of version 1 that is not.
func bestCgroup(text []byte) string {
	best := ""
	for line := range bytes.Lines(text) {
		fields := strings.SplitN(strings.TrimSuffix(string(line), "\n"), ":", 3)
		if len(fields) != 3 {
			continue
		}
		path := fields[2]
		switch {
		case fields[0] == "0" && (path != "/" || best == ""):
			best = path
		case fields[0] != "0" && path != "/" && (best == "" || best == "/") && !strings.HasPrefix(fields[1], "name="):
			best = path
		}
	}
	return best
}

// notifySocket returns the value of NOTIFY_SOCKET in the environment.
func (d processDir) notifySocket() (value string, ok bool, err error) {
	environ, err := d.read("environ")
	if err != nil {
		return "", false, err
	}
	for variable := range bytes.SplitSeq(environ, []byte{0}) {
		if value, found := bytes.CutPrefix(variable, []byte("NOTIFY_SOCKET=")); found {
			return string(value), true, nil
		}
	}
	return "", false, nil
}

// openPath opens a path, as O_PATH, as the process sees it (openat2(2), RESOLVE_IN_ROOT).
func (d processDir) openPath(path string) (fd int, stat unix.Stat_t, err error) {
	root, err := d.open("root", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return -1, stat, err
	}
	defer unix.Close(root)
	fd, err = unix.Openat2(root, path, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT,
	})
	if err != nil {
		return -1, stat, err
	}
	if err := unix.Fstat(fd, &stat); err != nil {
		unix.Close(fd)
		return -1, stat, err
	}
	return fd, stat, nil
}

// isMissing reports whether an error says that there is no such file.
func isMissing(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR)
}

// eachProcess calls look for every process, several at a time.
func eachProcess(ctx context.Context, look func(processDir)) error {
	dir, err := os.Open("/proc")
	if err != nil {
		return fmt.Errorf("listing processes: %w", err)
	}
	names, err := dir.Readdirnames(-1)
	dir.Close()
	if err != nil {
		return fmt.Errorf("listing processes: %w", err)
	}
	pids := make(chan int, len(names))
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids <- pid
		}
	}
	close(pids)
	var group sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() {
			for pid := range pids {
				if ctx.Err() != nil {
					return
				}
				if d, err := openProcess(pid); err == nil {
					look(d)
					d.close()
				}
			}
		})
	}
	group.Wait()
	return ctx.Err()
}

// isDenied reports whether an error is for want of a right, and not because what
// was looked at is gone.
func isDenied(err error) bool { return errors.Is(err, fs.ErrPermission) }
