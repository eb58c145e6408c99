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
	"syscall"
	"time"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/osthread"
	"github.com/sdtrace/sdtrace/internal/proc"
	"github.com/sdtrace/sdtrace/pkg/events"
)

// Manager is a connection to a service manager. Its methods can be called from any goroutine.
type Manager struct {
	conn *dbus.Conn
	// Version is the first number of systemd's version.
	Version int
	// PID is the service manager in the caller's pid namespace.
	PID int
	// Since is when the connection was there, by CLOCK_MONOTONIC: what has changed before is not known.
	Since time.Duration
	// Listed are the services that were there then.
	Listed []Listed

	changes changes
}

// Connect connects to the service manager that is process pid of the caller's pid namespace, or one
// below it, and has the notify socket at that address. Its private socket is beside that. It takes
// root, or for a user's service manager to be that user. The connection ends with the context. The
// error says that there is no such socket, that it may not be connected to, or that the service
// manager has not answered until the context ended.
func Connect(ctx context.Context, pid int, notify events.Address) (*Manager, error) {
	m := &Manager{PID: pid}
	if err := m.connect(ctx, path.Dir(string(notify))+"/private"); err != nil {
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
	if err := m.list(ctx); err != nil {
		m.Close()
		return nil, fmt.Errorf("asking the service manager %d for its services: %w", pid, err)
	}
	return m, nil
}

// list asks for the states of all services at once.
func (m *Manager) list(ctx context.Context) error {
	asked := proc.Monotonic()
	answer := m.conn.Object(busName, managerPath).CallWithContext(ctx, "org.freedesktop.systemd1.Manager.ListUnitsByPatterns", 0,
		[]string{}, []string{"*.service"})
	var units []systemd.UnitStatus
	if err := answer.Store(&units); err != nil {
		return err
	}
	m.changes.list(units, answer.ResponseSequence, asked)
	m.Since = proc.Monotonic()
	for _, unit := range units {
		m.Listed = append(m.Listed, Listed{Unit: unit.Name, Active: unit.ActiveState, Sub: unit.SubState})
	}
	return nil
}

// Listed is a service that was there when the connection was made, with its ActiveState and SubState.
type Listed struct{ Unit, Active, Sub string }

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
	// There is no bus, and so no Hello. The user is left to SO_PEERCRED: in a user namespace it is another one.
	if err := conn.Auth([]dbus.Auth{dbus.AuthExternal("")}); err != nil {
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

// JobWaits returns the units whose jobs a job waits for (org.freedesktop.systemd1(5), GetJobBefore).
func (m *Manager) JobWaits(ctx context.Context, job uint32) (units []string, err error) {
	var jobs []systemd.JobStatus
	answer := m.conn.Object(busName, managerPath).CallWithContext(ctx, "org.freedesktop.systemd1.Manager.GetJobBefore", 0, job)
	if err := answer.Store(&jobs); err != nil {
		return nil, err
	}
	for _, j := range jobs {
		units = append(units, j.Unit)
	}
	return units, nil
}

// Restart asks for a unit to be restarted, or started if it does not run, and does not wait for that.
func (m *Manager) Restart(ctx context.Context, unit string) error {
	return m.conn.Object(busName, managerPath).CallWithContext(ctx, "org.freedesktop.systemd1.Manager.RestartUnit", 0, unit, "replace").Err
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

// A service manager refuses whom it does not see in its pid namespace (getpeercred), or sees as
// another user than itself where it is in a user namespace, and the kernel keeps who called
// connect(2). So a child in that pid namespace calls it, as that user, which shares the socket.
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

// dial connects to a stream socket, whose path is as the service manager has it.
func dial(ctx context.Context, pid int, address string) (net.Conn, error) {
	manager, err := proc.Open(pid)
	if err != nil {
		return nil, err
	}
	defer manager.Close()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), address)
	defer file.Close()
	inside, err := manager.Open("root"+address, unix.O_PATH)
	if err != nil {
		return nil, err
	}
	private := os.NewFile(uintptr(inside), address)
	defer private.Close()
	child := exec.CommandContext(ctx, "/proc/self/exe")
	child.Args, child.ExtraFiles = []string{connector, "/proc/self/fd/4"}, []*os.File{file, private}
	asChild := false
	if own, err := sharesNamespace(manager, "pid"); err != nil {
		return nil, err
	} else if !own {
		asChild = true
	}
	if own, err := sharesNamespace(manager, "user"); err != nil {
		return nil, err
	} else if !own {
		status, err := manager.Status()
		if err != nil {
			return nil, err
		}
		asChild = true
		child.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: status.UID}}
	}
	if asChild {
		err = osthread.Do(func() error { return runIn(manager, child) })
	} else {
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d", inside)})
	}
	if err != nil {
		return nil, err
	}
	return net.FileConn(file)
}

// sharesNamespace says whether a process is in this one's namespace of a kind.
func sharesNamespace(p proc.Process, kind string) (bool, error) {
	own, err := os.Readlink("/proc/self/ns/" + kind)
	if err != nil {
		return false, err
	}
	its, err := p.Link("ns/" + kind)
	return own == its, err
}

// runIn runs a child in the pid namespace of a process. It is called on a thread of its own, of which
// the children are there from then on.
func runIn(p proc.Process, child *exec.Cmd) error {
	namespace, err := p.Open("ns/pid", unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer unix.Close(namespace)
	if err := unix.Setns(namespace, unix.CLONE_NEWPID); err != nil {
		return os.NewSyscallError("setns", err)
	}
	var said bytes.Buffer
	child.Stderr = &said
	if err := child.Run(); err != nil {
		return fmt.Errorf("%s: %w", strings.TrimSpace(said.String()), err)
	}
	return nil
}
