// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/osthread"
	"github.com/sdtrace/sdtrace/internal/proc"
)

// receiveBuffer is what systemd gives its own notify socket, in bytes
// (systemd: NOTIFY_RCVBUF_SIZE).
const receiveBuffer = 8 << 20

// listener is a socket that containers send to.
type listener struct {
	fd          int
	dir         int    // O_PATH of the directory the socket lies in; -1: not in a file system
	name        string // in dir
	dev         uint64
	ino         uint64
	isElsewhere bool // in a network namespace that was named

	noFDs  bool // none are wanted
	noRoom bool // none can be taken at the moment
}

// listen makes the socket of a member, or takes over the one that it brings.
func listen(m Member, noFDs bool) (*listener, error) {
	l := &listener{fd: -1, dir: -1, noFDs: noFDs}
	err := l.open(m)
	if err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

func (l *listener) open(m Member) error {
	if m.File != nil {
		return l.adopt(m.File)
	}
	address, err := ParseAddress(m.Listen)
	if err != nil {
		return err
	}
	switch {
	case address.vsock != nil:
		return fmt.Errorf("listening on %s: only on a path or an abstract address", m.Listen)
	case m.ListenNetNS != "" && !address.isAbstract():
		return fmt.Errorf("listening on %s: only an abstract address lives in a network namespace", m.Listen)
	}
	l.isElsewhere = m.ListenNetNS != ""
	if err := l.socket(m.ListenNetNS); err != nil {
		return fmt.Errorf("listening on %s: %w", m.Listen, err)
	}
	if address.isAbstract() {
		err = unix.Bind(l.fd, &unix.SockaddrUnix{Name: m.Listen})
	} else {
		err = l.bindPath(m.Listen)
	}
	if err != nil {
		return fmt.Errorf("listening on %s: %w", m.Listen, err)
	}
	return nil
}

// adopt takes a socket that somebody else has bound, such as systemd's socket
// activation. The caller keeps its own file descriptor.
func (l *listener) adopt(file *os.File) error {
	fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("taking over %s: %w", file.Name(), err)
	}
	l.fd = fd
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	kind, kindErr := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil || kindErr != nil || domain != unix.AF_UNIX || kind != unix.SOCK_DGRAM {
		return fmt.Errorf("taking over %s: not an AF_UNIX datagram socket", file.Name())
	}
	return l.setOptions()
}

// socket makes the socket, in another network namespace if one is named.
func (l *listener) socket(netNS string) error {
	open := func() (err error) {
		l.fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		return err
	}
	var err error
	if netNS == "" {
		err = open()
	} else {
		err = inNetNS(netNS, open)
	}
	if err != nil {
		return err
	}
	return l.setOptions()
}

// inNetNS calls f on a thread that is in the network namespace at path.
func inNetNS(path string, f func() error) error {
	target, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening network namespace %s: %w", path, err)
	}
	defer unix.Close(target)
	return osthread.Do(func() error {
		if err := unix.Setns(target, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("entering network namespace %s: %w", path, err)
		}
		return f()
	})
}

// setOptions asks the kernel to say who sends. Before binding, so that no
// datagram comes without.
func (l *listener) setOptions() error {
	if err := unix.SetsockoptInt(l.fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
		return fmt.Errorf("setting SO_PASSCRED: %w", err)
	}
	if l.noFDs {
		l.refuseFDs(true)
	}
	if proc.HasPIDFS() {
		// Linux 6.5; without it a sender is looked up by its number.
		if err := unix.SetsockoptInt(l.fd, unix.SOL_SOCKET, unix.SO_PASSPIDFD, 1); err != nil && !errors.Is(err, unix.ENOPROTOOPT) {
			return fmt.Errorf("setting SO_PASSPIDFD: %w", err)
		}
	}
	if unix.SetsockoptInt(l.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		_ = unix.SetsockoptInt(l.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
	}
	return nil
}

// refuseFDs has the kernel refuse datagrams with file descriptors, of which their senders see EPERM, or take them again.
// Before Linux 6.16 it cannot, and they come.
func (l *listener) refuseFDs(refuse bool) {
	value := 1
	if refuse {
		value = 0
	}
	_ = unix.SetsockoptInt(l.fd, unix.SOL_SOCKET, unix.SO_PASSRIGHTS, value)
}

// makeRoom says whether there is room for file descriptors, and so for a pidfd of the sender, in what is received next.
func (l *listener) makeRoom(is bool) {
	if is != l.noRoom {
		return
	}
	l.noRoom = !is
	if proc.HasPIDFS() {
		value := 0
		if is {
			value = 1
		}
		_ = unix.SetsockoptInt(l.fd, unix.SOL_SOCKET, unix.SO_PASSPIDFD, value)
	}
	l.refuseFDs(l.noRoom || l.noFDs)
}

// bindPath binds to a path of any length, so that every user can send. What a
// relay that is gone has left there is replaced, a socket in use is not.
func (l *listener) bindPath(path string) error {
	dir, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening the directory: %w", err)
	}
	l.dir, l.name = dir, filepath.Base(path)
	if err := refuseInUse(l.dir, l.name); err != nil {
		return err
	}
	// What it is bound to is what others are shown, so the path itself if it fits.
	address, name := path, l.name
	if absolute, err := filepath.Abs(path); err == nil {
		address = absolute
	}
	if len(address) > sunPathMax {
		address = through(l.dir, name)
	}
	if len(address) > sunPathMax {
		name = ".sdtrace-" + strconv.Itoa(os.Getpid()) + "-" + strconv.Itoa(l.fd)
		address = through(l.dir, name)
	}
	if err := l.clear(name); err != nil {
		return err
	}
	// The mode of an AF_UNIX socket that is not bound yet is that of its file (unix_bind_bsd).
	if err := unix.Fchmod(l.fd, 0o666); err != nil {
		return fmt.Errorf("opening the socket to every user: %w", err)
	}
	err = withoutUmask(func() error { return unix.Bind(l.fd, &unix.SockaddrUnix{Name: address}) })
	if err != nil {
		return err
	}
	if err := l.publish(name); err != nil {
		_ = unix.Unlinkat(l.dir, name, 0)
		return err
	}
	return nil
}

// clear removes a socket that nobody reads any more. It is taken aside first: since it was looked at, another relay may have
// made its own there, which is put back.
func (l *listener) clear(name string) error {
	aside := ".sdtrace-" + strconv.Itoa(os.Getpid()) + "-" + strconv.Itoa(l.fd) + "-old"
	switch err := unix.Renameat(l.dir, name, l.dir, aside); {
	case errors.Is(err, unix.ENOENT):
		return nil
	case err != nil:
		return err
	}
	if refuseInUse(l.dir, aside) != nil {
		_ = unix.Renameat2(l.dir, aside, l.dir, name, unix.RENAME_NOREPLACE) // else there is a third one
		return unix.EADDRINUSE
	}
	return unix.Unlinkat(l.dir, aside, 0)
}

// publish gives the socket its name, if it has another one still.
func (l *listener) publish(bound string) error {
	var stat unix.Stat_t
	err := unix.Fstatat(l.dir, bound, &stat, unix.AT_SYMLINK_NOFOLLOW)
	for tries := 0; errors.Is(err, unix.ENOENT) && tries < 100; tries++ {
		// Another relay has taken it aside, to look whether it is in use: see clear.
		time.Sleep(time.Millisecond)
		err = unix.Fstatat(l.dir, bound, &stat, unix.AT_SYMLINK_NOFOLLOW)
	}
	if err != nil {
		return err
	}
	if bound != l.name {
		if err := l.clear(l.name); err != nil {
			return err
		}
		err := unix.Renameat2(l.dir, bound, l.dir, l.name, unix.RENAME_NOREPLACE)
		if errors.Is(err, unix.EEXIST) {
			return unix.EADDRINUSE
		}
		if err != nil {
			return err
		}
	}
	l.dev, l.ino = stat.Dev, stat.Ino
	return nil
}

// withoutUmask calls f on a thread of which the umask takes nothing away, so that
// a socket appears with the mode it is to have.
func withoutUmask(f func() error) error {
	return osthread.Do(func() error {
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fmt.Errorf("getting a umask of its own: %w", err)
		}
		unix.Umask(0)
		return f()
	})
}

// refuseInUse returns an error unless the name is free or that of a socket
// that nobody reads any more.
func refuseInUse(dir int, name string) error {
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return err
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return errors.New("the file is there and is not a socket")
	}
	probe, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(probe)
	if err := unix.Connect(probe, &unix.SockaddrUnix{Name: through(fd, "")}); !errors.Is(err, unix.ECONNREFUSED) {
		return unix.EADDRINUSE
	}
	return nil
}

// through is a short path to a name in an open directory, or to the open file
// itself when the name is "".
func through(fd int, name string) string {
	path := "/proc/self/fd/" + strconv.Itoa(fd)
	if name == "" {
		return path
	}
	return path + "/" + name
}

// close closes the socket and removes its name, if it is still the one that
// was bound here.
func (l *listener) close() {
	if l.dir >= 0 {
		var stat unix.Stat_t
		err := unix.Fstatat(l.dir, l.name, &stat, unix.AT_SYMLINK_NOFOLLOW)
		if err == nil && l.ino != 0 && stat.Dev == l.dev && stat.Ino == l.ino {
			_ = unix.Unlinkat(l.dir, l.name, 0)
		}
		unix.Close(l.dir)
		l.dir = -1
	}
	if l.fd >= 0 {
		unix.Close(l.fd)
		l.fd = -1
	}
}

// isAt reports whether an address leads to the socket, by whatever name.
func (l *listener) isAt(a Address) bool {
	bound, err := unix.Getsockname(l.fd)
	name, ok := bound.(*unix.SockaddrUnix)
	if err != nil || !ok || a.vsock != nil {
		return false
	}
	if a.isAbstract() {
		return name.Name == a.text && !l.isElsewhere
	}
	own, other := unix.Stat_t{Dev: l.dev, Ino: l.ino}, unix.Stat_t{}
	if l.ino == 0 && (strings.HasPrefix(name.Name, "@") || unix.Stat(name.Name, &own) != nil) {
		return false
	}
	return unix.Stat(a.text, &other) == nil && own.Dev == other.Dev && own.Ino == other.Ino
}
