// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package systemd1 asks service managers for the state of their units: the host's, those of users,
// and those in containers and other pid namespaces, by org.freedesktop.systemd1(5) over the private
// socket of each.
package systemd1

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/osthread"
	"github.com/sdtrace/sdtrace/pkg/events"
)

// Manager is a connection to a service manager. Its methods can be called from any goroutine.
type Manager struct {
	conn *dbus.Conn
	// Version is the first number of systemd's version.
	Version int
	// PID is the service manager in the caller's pid namespace.
	PID int

	changes changes
}

// Connect connects to the service manager that is process pid of the caller's pid namespace, or one
// below it, and has the notify socket at that address. Its private socket is beside that. It takes
// root, or for a user's service manager to be that user. The connection ends with the context. The
// error says that there is no such socket, that it may not be connected to, or that the service
// manager has not answered until the context ended.
func Connect(ctx context.Context, pid int, notify events.Address) (*Manager, error) {
	m := &Manager{PID: pid}
	if err := m.connect(ctx, fmt.Sprintf("/proc/%d/root%s/private", pid, path.Dir(string(notify)))); err != nil {
		return nil, fmt.Errorf("connecting to the service manager %d: %w", pid, err)
	}
	version, err := m.greet(ctx)
	if err == nil {
		m.Version, err = parseVersion(version)
	}
	if err != nil {
		m.Close()
		return nil, fmt.Errorf("asking the service manager %d for its version: %w", pid, err)
	}
	return m, nil
}

const (
	busName     = "org.freedesktop.systemd1" // means nothing where there is no bus
	managerPath = "/org/freedesktop/systemd1"
)

func (m *Manager) connect(ctx context.Context, private string) error {
	c, err := dial(ctx, m.PID, private)
	if err != nil {
		return err
	}
	conn, err := dbus.NewConn(buffered{c, bufio.NewReader(c)}, dbus.WithContext(ctx),
		dbus.WithSignalHandler(&m.changes), dbus.WithIncomingInterceptor(anonymous))
	if err != nil {
		return errors.Join(err, c.Close())
	}
	// There is no bus, and so no Hello.
	if err := conn.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(os.Getuid()))}); err != nil {
		return errors.Join(err, conn.Close())
	}
	m.conn = conn
	return nil
}

// anonymous takes a message's sender away. It means nothing where there is no bus, and the library
// panics on some signals that say to be from one.
func anonymous(m *dbus.Message) { delete(m.Headers, dbus.FieldSender) }

// buffered is a connection of which much is read at once: the library reads a message field by field.
type buffered struct {
	net.Conn
	in *bufio.Reader
}

func (b buffered) Read(p []byte) (int, error) { return b.in.Read(p) }

// nudgeAfter is how long the answer to the first question is waited for until something more is sent.
const nudgeAfter = 10 * time.Millisecond

// greet asks for the version of systemd, which is the first question. When that comes in one piece with
// the end of the authentication, systemd leaves it unread until more comes (sd-bus:
// bus_socket_auth_verify, seen with 252).
func (m *Manager) greet(ctx context.Context) (version string, err error) {
	object := m.conn.Object(busName, managerPath)
	question := object.GoWithContext(ctx, "org.freedesktop.DBus.Properties.Get", 0, make(chan *dbus.Call, 1),
		"org.freedesktop.systemd1.Manager", "Version")
	nudge := time.NewTicker(nudgeAfter)
	defer nudge.Stop()
	for {
		select {
		case answer := <-question.Done:
			err := answer.Store(&version)
			return version, err
		case <-nudge.C:
			object.GoWithContext(ctx, "org.freedesktop.DBus.Peer.Ping", dbus.FlagNoReplyExpected, nil)
		}
	}
}

// Sync returns when the service manager has done what was asked of it before: it has read all
// datagrams that were sent to it until now, because it looks at these first (systemd:
// EVENT_PRIORITY_NOTIFY), and [Manager.Changes] counts all that they have changed.
func (m *Manager) Sync(ctx context.Context) error {
	return m.conn.Object(busName, managerPath).CallWithContext(ctx, "org.freedesktop.DBus.Peer.Ping", 0).Err
}

// Close ends the connection.
func (m *Manager) Close() { _ = m.conn.Close() }

// parseVersion returns the first number of a version such as "257.13-1~deb13u1", or "v258".
func parseVersion(text string) (int, error) {
	digits := strings.TrimPrefix(text, "v")
	end := strings.IndexFunc(digits, func(r rune) bool { return r < '0' || r > '9' })
	if end >= 0 {
		digits = digits[:end]
	}
	version, err := strconv.Atoi(digits)
	if err != nil {
		return 0, fmt.Errorf("%q is no version of systemd", text)
	}
	return version, nil
}

// connector is the name of a process that connects a socket for its parent, descriptor 3, to the
// path that is its only argument.
const connector = "sdtrace-connect"

// A service manager refuses whom it does not see in its pid namespace (getpeercred), and the kernel
// keeps the process that called connect(2). So a child in that namespace calls it, which shares the
// socket.
func init() {
	if len(os.Args) != 2 || os.Args[0] != connector {
		return
	}
	if err := unix.Connect(3, &unix.SockaddrUnix{Name: os.Args[1]}); err != nil {
		fmt.Fprint(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// dial connects to a stream socket as a process of a service manager's pid namespace.
func dial(ctx context.Context, pid int, address string) (net.Conn, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), address)
	defer file.Close()
	own, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return nil, err
	}
	its, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid))
	if err != nil {
		return nil, err
	}
	if own == its {
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: address})
	} else {
		err = osthread.Do(func() error { return connectIn(ctx, pid, file, address) })
	}
	if err != nil {
		return nil, err
	}
	return net.FileConn(file)
}

// connectIn has a child in the pid namespace of a process connect. It is called on a thread of its
// own, of which the children are there from then on.
func connectIn(ctx context.Context, pid int, socket *os.File, address string) error {
	namespace, err := os.Open(fmt.Sprintf("/proc/%d/ns/pid", pid))
	if err != nil {
		return err
	}
	defer namespace.Close()
	if err := unix.Setns(int(namespace.Fd()), unix.CLONE_NEWPID); err != nil {
		return os.NewSyscallError("setns", err)
	}
	child := exec.CommandContext(ctx, "/proc/self/exe")
	child.Args, child.ExtraFiles = []string{connector, address}, []*os.File{socket}
	var said bytes.Buffer
	child.Stderr = &said
	if err := child.Run(); err != nil {
		return fmt.Errorf("%s: %w", strings.TrimSpace(said.String()), err)
	}
	return nil
}
