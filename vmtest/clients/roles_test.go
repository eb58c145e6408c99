// SPDX-License-Identifier: Apache-2.0

package clients_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// roleEnv makes this binary play a client instead of running tests.
const roleEnv = "SDTRACE_CLIENT"

func play(role string) error {
	switch role {
	case "go-systemd":
		return playGoSystemd()
	case "rust-style":
		return playRustStyle()
	case "relayed":
		return playRelayed()
	case "container":
		return playContainer()
	case "journal":
		return playJournal()
	}
	return fmt.Errorf("no such role")
}

func playGoSystemd() error {
	for _, state := range []string{daemon.SdNotifyReady + "\nSTATUS=go-systemd", daemon.SdNotifyStopping} {
		sent, err := daemon.SdNotify(false, state)
		if err != nil {
			return err
		}
		if !sent {
			return errors.New("NOTIFY_SOCKET is not set")
		}
	}
	return nil
}

// playRustStyle sends as the sd-notify crate does: one unconnected socket,
// UnixDatagram::send_to, each message ending in a newline.
func playRustStyle() error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	to := &unix.SockaddrUnix{Name: os.Getenv("NOTIFY_SOCKET")}
	for _, message := range []string{"READY=1\nSTATUS=rust\n", "WATCHDOG=1\n"} {
		if err := unix.Sendto(fd, []byte(message), unix.MSG_NOSIGNAL, to); err != nil {
			return err
		}
	}
	return nil
}

// insideContainer is what the container tells about itself on its stdout.
type insideContainer struct {
	PID        uint32
	Namespaces namespaces
	// Cgroups are the lines of /proc/self/cgroup.
	Cgroups []string
}

func playContainer() error {
	address := os.Getenv("NOTIFY_SOCKET")
	if address != notifyInContainer {
		return fmt.Errorf("NOTIFY_SOCKET is %q, want %q", address, notifyInContainer)
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		return err
	}
	unconnected, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	for _, m := range containerMessages {
		if m.connected {
			_, err = conn.Write([]byte(m.payload))
		} else {
			err = unix.Sendto(unconnected, []byte(m.payload), 0, &unix.SockaddrUnix{Name: address})
		}
		if err != nil {
			return err
		}
	}
	self, err := ownNamespaces()
	if err != nil {
		return err
	}
	cgroups, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(insideContainer{
		PID: uint32(os.Getpid()), Namespaces: self, Cgroups: strings.Split(strings.TrimSpace(string(cgroups)), "\n"),
	})
}

// notifyInContainer is where runc binds its socket into a container.
const notifyInContainer = "/run/notify/notify.sock"

// containerMessages are what the container sends. runc's relay takes a datagram
// for its readiness when that begins with READY=.
var containerMessages = []struct {
	payload   string
	connected bool
}{
	{"STATUS=starting", false},
	{"READY=1\nSTATUS=up", true},
	{"WATCHDOG=1", false},
}

// besideJournal is what the role "journal" tells on its stdout.
type besideJournal struct {
	MntNS uint32
	// Arrived counts what each journal client delivered to the journal's sockets.
	Arrived map[string]int
}

// journalSentinel is sent to a notify socket after all journal traffic.
const journalSentinel = "STATUS=after the journal"

// playJournal runs clients of the journal against sockets of its own, in a
// mount namespace that the test made for it.
func playJournal() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("mounting /run: %w", err)
	}
	if err := os.MkdirAll("/run/systemd/journal", 0o755); err != nil {
		return err
	}
	stdout, err := net.Listen("unix", "/run/systemd/journal/stdout")
	if err != nil {
		return err
	}
	defer stdout.Close()

	self, err := ownNamespaces()
	if err != nil {
		return err
	}
	report := besideJournal{MntNS: self.Mnt, Arrived: map[string]int{}}
	for _, client := range journalClients {
		journal, err := newListener("/run/systemd/journal/socket")
		if err != nil {
			return err
		}
		cmd := exec.Command(client.argv[0], client.argv[1:]...)
		cmd.Stdin = strings.NewReader(client.stdin)
		cmd.Stderr = os.Stderr
		cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
		if client.stream {
			if err := cmd.Start(); err != nil {
				return err
			}
			n, err := readStream(stdout)
			if err != nil {
				return err
			}
			report.Arrived[client.name] = n
			if err := cmd.Wait(); err != nil {
				return fmt.Errorf("%s: %w", client.name, err)
			}
		} else if err := cmd.Run(); err != nil {
			return fmt.Errorf("%s: %w", client.name, err)
		}
		datagrams, err := journal.finish()
		if err != nil {
			return err
		}
		report.Arrived[client.name] += len(datagrams)
	}

	manager, err := newListener("/run/systemd/notify")
	if err != nil {
		return err
	}
	os.Setenv("NOTIFY_SOCKET", manager.address)
	if _, err := daemon.SdNotify(false, journalSentinel); err != nil {
		return err
	}
	datagrams, err := manager.finish()
	if err != nil {
		return err
	}
	if len(datagrams) != 1 {
		return fmt.Errorf("the notify socket received %+v, want the sentinel alone", datagrams)
	}
	return json.NewEncoder(os.Stdout).Encode(report)
}

// readStream counts the bytes of one connection to the journal's stdout socket.
func readStream(l net.Listener) (int, error) {
	conn, err := l.Accept()
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	buffer, total := make([]byte, 4096), 0
	for {
		n, err := conn.Read(buffer)
		total += n
		if err != nil {
			return total, nil
		}
	}
}

// journalClients speak the journal's protocols. Several send what a notify
// socket would take for a notification.
var journalClients = []struct {
	name   string
	argv   []string
	stdin  string
	stream bool
}{
	{
		name:  "logger",
		argv:  []string{"logger", "--journald"},
		stdin: "MESSAGE=READY=1\nPRIORITY=6\n",
	},
	{
		name:  "logger with a key of the protocol first",
		argv:  []string{"logger", "--journald"},
		stdin: "STATUS=fine\nMESSAGE=hello\n",
	},
	{
		name: "sd_journal_send",
		argv: []string{"/usr/bin/python3", "-c", `
import ctypes
lib = ctypes.CDLL("libsystemd.so.0")
assert lib.sd_journal_send(b"ERRNO=2", b"MESSAGE=no such file", b"PRIORITY=3", None) == 0
assert lib.sd_journal_send(b"READY=1", b"MESSAGE=with new\nline", None) == 0`},
	},
	{
		// What does not fit into the 8 MiB of send buffer that libsystemd asks for,
		// which the kernel doubles, goes as a memfd in an empty datagram.
		name: "sd_journal_send of a memfd",
		argv: []string{"/usr/bin/python3", "-c", `
import ctypes
lib = ctypes.CDLL("libsystemd.so.0")
assert lib.sd_journal_send(b"MESSAGE=" + b"x" * (17 << 20), None) == 0`},
	},
	{
		name: "a sender of the native protocol",
		argv: []string{"/usr/bin/python3", "-c", `
import socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.sendto(b"READY=1\nMESSAGE=sendto\n", "/run/systemd/journal/socket")
s.connect("/run/systemd/journal/socket")
s.send(b"STATUS=x\nMESSAGE=send\n")`},
	},
	{
		name:   "systemd-cat",
		argv:   []string{"systemd-cat", "printf", `READY=1\n`},
		stream: true,
	},
}

// namespaces are inode numbers, as in /proc/PID/ns.
type namespaces struct{ Mnt, Net, PID, User, Cgroup uint32 }

func ownNamespaces() (namespaces, error) {
	var n namespaces
	for name, to := range map[string]*uint32{"mnt": &n.Mnt, "net": &n.Net, "pid": &n.PID, "user": &n.User, "cgroup": &n.Cgroup} {
		link, err := os.Readlink(filepath.Join("/proc/self/ns", name))
		if err != nil {
			return n, err
		}
		if _, err := fmt.Sscanf(link, name+":[%d]", to); err != nil {
			return n, fmt.Errorf("reading namespace %q: %w", link, err)
		}
	}
	return n, nil
}
