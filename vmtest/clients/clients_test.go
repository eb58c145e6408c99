// SPDX-License-Identifier: Apache-2.0

package clients_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sdtrace/sdtrace/internal/await"
	"github.com/sdtrace/sdtrace/internal/tracer"
	"github.com/sdtrace/sdtrace/pkg/events"
)

// client is an unmodified program that sends notifications.
type client struct {
	name string
	// argv is run with NOTIFY_SOCKET set.
	argv []string
	// role makes it this binary's own, instead of argv.
	role string
	// comm is the sender's.
	comm string
	// wrapped is set when the sender is a child of the process that is run.
	wrapped bool
	// pathOnly and abstractOnly limit the kind of address.
	pathOnly, abstractOnly bool
	want                   []message
}

type message struct {
	payload string
	fds     []string
	// claimsParent is set when the client sends on behalf of its parent.
	claimsParent bool
}

const python = "/usr/bin/python3"

var clients = []client{
	{
		name: "systemd-notify",
		argv: []string{"systemd-notify", "--ready", "--status=hello"},
		comm: "systemd-notify",
		want: []message{
			{payload: "READY=1\nSTATUS=hello", claimsParent: true},
			{payload: "BARRIER=1", fds: []string{"pipe"}},
		},
	},
	{
		name: "systemd-notify without barrier",
		argv: []string{"systemd-notify", "--no-block", "--status=working…", "MAINPID=4711", "X_FOO=bar"},
		comm: "systemd-notify",
		want: []message{{payload: "STATUS=working…\nMAINPID=4711\nX_FOO=bar", claimsParent: true}},
	},
	{
		name: "libsystemd",
		argv: []string{python, "-c", `
import ctypes, os, socket
lib = ctypes.CDLL("libsystemd.so.0")
assert lib.sd_notify(0, b"READY=1\nSTATUS=libsystemd") == 1
fds = [os.pipe()[1], os.memfd_create("state"), os.pidfd_open(os.getpid()), os.open("/proc/self/exe", os.O_RDONLY),
       socket.socket(socket.AF_UNIX).detach(), ctypes.CDLL(None).eventfd(0, 0)]
array = (ctypes.c_int * len(fds))(*fds)
assert lib.sd_pid_notify_with_fds(os.getppid(), 0, b"FDSTORE=1\nFDNAME=all", array, len(fds)) == 1
assert lib.sd_notify_barrier(0, ctypes.c_uint64(60000000)) == 1`},
		comm: "python3",
		want: []message{
			{payload: "READY=1\nSTATUS=libsystemd"},
			{
				payload: "FDSTORE=1\nFDNAME=all", claimsParent: true,
				fds: []string{"pipe", "memfd", "pidfd", "file", "socket", "eventfd"},
			},
			{payload: "BARRIER=1", fds: []string{"pipe"}},
		},
	},
	{
		name: "go-systemd",
		role: "go-systemd",
		comm: "go-systemd",
		want: []message{{payload: "READY=1\nSTATUS=go-systemd"}, {payload: "STOPPING=1"}},
	},
	{
		name: "Python's socket module",
		argv: []string{python, "-c", `
import os, socket
to = os.environ["NOTIFY_SOCKET"]
if to[0] == "@":
    to = "\0" + to[1:]
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.sendto(b"STATUS=sendto", to)
s.connect(to)
s.sendall(b"READY=1\nSTATUS=sendall")
s.sendall(b"")
s.sendmsg([b"WATCH", b"DOG=1"])
s.sendall(b"STATUS=\xff\x00\x1b[2J\r\n")`},
		comm: "python3",
		want: []message{
			{payload: "STATUS=sendto"},
			{payload: "READY=1\nSTATUS=sendall"},
			{payload: ""},
			{payload: "WATCHDOG=1"},
			{payload: "STATUS=\xff\x00\x1b[2J\r\n"},
		},
	},
	{
		name:     "perl's IO::Socket::UNIX",
		argv:     []string{"perl", "-MIO::Socket::UNIX", "-e", `IO::Socket::UNIX->new(Type => SOCK_DGRAM, Peer => $ENV{NOTIFY_SOCKET})->send("READY=1\nSTATUS=perl") or die $!`},
		comm:     "perl",
		pathOnly: true,
		want:     []message{{payload: "READY=1\nSTATUS=perl"}},
	},
	{
		name: "perl's Socket",
		argv: []string{"perl", "-MSocket", "-e", `
			my $name = $ENV{NOTIFY_SOCKET};
			$name =~ s/^@/\0/;
			my $to = pack_sockaddr_un($name);
			socket(my $s, AF_UNIX, SOCK_DGRAM, 0) or die $!;
			send($s, "READY=1", 0, $to) or die $!;
			connect($s, $to) or die $!;
			syswrite($s, "STATUS=perl") or die $!;`},
		comm: "perl",
		want: []message{{payload: "READY=1"}, {payload: "STATUS=perl"}},
	},
	{
		name:     "sh and socat's UNIX-SENDTO",
		argv:     []string{"sh", "-c", `printf 'READY=1\nSTATUS=sh' | socat -u - "UNIX-SENDTO:$NOTIFY_SOCKET"`},
		comm:     "socat",
		wrapped:  true,
		pathOnly: true,
		want:     []message{{payload: "READY=1\nSTATUS=sh"}},
	},
	{
		name:     "sh and socat's UNIX-CONNECT",
		argv:     []string{"sh", "-c", `printf 'READY=1\nSTATUS=sh' | socat -u - "UNIX-CONNECT:$NOTIFY_SOCKET,type=2"`},
		comm:     "socat",
		wrapped:  true,
		pathOnly: true,
		want:     []message{{payload: "READY=1\nSTATUS=sh"}},
	},
	{
		name:         "sh and socat's ABSTRACT-SENDTO",
		argv:         []string{"sh", "-c", `printf 'READY=1\nSTATUS=sh' | socat -u - "ABSTRACT-SENDTO:${NOTIFY_SOCKET#@}"`},
		comm:         "socat",
		wrapped:      true,
		abstractOnly: true,
		want:         []message{{payload: "READY=1\nSTATUS=sh"}},
	},
	{
		name: "Rust's send_to",
		role: "rust-style",
		comm: "rust-style",
		want: []message{{payload: "READY=1\nSTATUS=rust\n"}, {payload: "WATCHDOG=1\n"}},
	},
}

func TestWhatRealClientsSendIsCapturedExactly(t *testing.T) {
	withBackend(t, func(t *testing.T, backend string) {
		abstract := "@" + filepath.Base(base) + "-" + backend
		c := open(t, backend, tracer.Filter{Sockets: []string{filepath.Join(base, backend, "*"), abstract + "*"}})
		for i, client := range clients {
			if !client.abstractOnly {
				t.Run(client.name+"/path", func(t *testing.T) {
					runClient(t, c, client, filepath.Join(base, backend, fmt.Sprint(i), "notify.sock"))
				})
			}
			if !client.pathOnly {
				t.Run(client.name+"/abstract", func(t *testing.T) {
					runClient(t, c, client, fmt.Sprintf("%s-%d/notify.sock", abstract, i))
				})
			}
		}
	})
}

func runClient(t *testing.T, c capture, client client, address string) {
	l := listen(t, address)
	pid := client.run(t, address)
	arrived, err := l.finish()
	if err != nil {
		t.Fatal(err)
	}
	got := c.drain(t)

	var wantArrived []datagram
	var want []seen
	self, err := ownNamespaces()
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range client.want {
		if i >= len(arrived) {
			break
		}
		d := datagram{Payload: m.payload, PID: pid, FDs: m.fds}
		s := seen{
			Payload: m.payload, FDs: m.fds, Comm: client.comm, Address: address, Type: "dgram",
			PID: pid, PPID: uint32(os.Getpid()), Namespaces: self,
		}
		switch {
		case client.wrapped:
			d.PID = arrived[i].PID
			s.PID, s.PPID = arrived[i].PID, pid
		case m.claimsParent:
			d.PID, s.ClaimedPID = uint32(os.Getpid()), uint32(os.Getpid())
		case arrived[i].PID == uint32(os.Getpid()) && m.payload == "BARRIER=1":
			// Newer versions of systemd-notify send the barrier in the name of
			// their parent too.
			d.PID, s.ClaimedPID = uint32(os.Getpid()), uint32(os.Getpid())
		}
		s.NSPID = s.PID
		wantArrived = append(wantArrived, d)
		want = append(want, s)
	}
	if len(arrived) != len(client.want) {
		t.Errorf("the socket received %d datagrams, want %d: %+v", len(arrived), len(client.want), arrived)
	} else if diff := cmp.Diff(wantArrived, arrived); diff != "" {
		t.Errorf("the socket received something else (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want, seenOf(got)); diff != "" {
		t.Errorf("captured something else (-want +got):\n%s", diff)
	}
	for _, e := range got {
		checkEvent(t, e, c.Backend(), l.inode, address)
	}
}

// run starts the client, waits for its end and returns its pid.
func (c client) run(t *testing.T, address string) uint32 {
	t.Helper()
	argv := c.argv
	env := []string{"PATH=" + os.Getenv("PATH"), "NOTIFY_SOCKET=" + address}
	if c.role != "" {
		argv = []string{roleBinary(t, c.role)}
		env = append(env, roleEnv+"="+c.role)
	}
	cmd := exec.CommandContext(await.Context(t), argv[0], argv[1:]...)
	cmd.Env = env
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Run(); err != nil {
		t.Fatalf("running %s: %v\n%s", c.name, err, output.String())
	}
	return uint32(cmd.Process.Pid)
}

// roleBinary is this binary under the name of the role, which becomes its comm.
func roleBinary(t *testing.T, role string) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), role)
	if err := os.Symlink(exe, link); err != nil {
		t.Fatal(err)
	}
	return link
}

// seen is the part of an event that every backend has to get right.
type seen struct {
	Payload, Comm, Address, Type string
	PID, NSPID, PPID, UID, GID   uint32
	ClaimedPID                   uint32 // 0: none
	FDs                          []string
	Namespaces                   namespaces
}

func seenOf(got []*events.Event) []seen {
	var all []seen
	for _, e := range got {
		s := seen{
			Payload: string(e.Payload), Comm: e.Sender.Comm, Address: string(e.Socket.Address), Type: e.Socket.Type,
			PID: e.Sender.PID, NSPID: e.Sender.NSPID, PPID: e.Sender.PPID, UID: e.Sender.UID, GID: e.Sender.GID,
			Namespaces: namespaces{
				Mnt: e.Sender.MntNS, Net: e.Sender.NetNS, PID: e.Sender.PIDNS, User: e.Sender.UserNS, Cgroup: e.Sender.CgroupNS,
			},
		}
		if e.Claimed != nil {
			// Every sender here is in the initial pid namespace or claims nothing,
			// so both numbers are the same where both are known.
			s.ClaimedPID = max(e.Claimed.PID, e.Claimed.NSPID)
		}
		for _, fd := range e.FDs {
			s.FDs = append(s.FDs, fd.Type)
		}
		all = append(all, s)
	}
	return all
}

// checkEvent holds the rest of an event against the rule that a field is right
// or absent.
func checkEvent(t *testing.T, e *events.Event, backend string, inode uint64, bound string) {
	t.Helper()
	size := uint32(len(e.Payload))
	if e.Backend != backend {
		t.Errorf("backend is %q, want %q", e.Backend, backend)
	}
	if e.Payload == nil || e.Truncated || e.Size == nil || *e.Size != size {
		t.Errorf("payload %q: size %v and truncated %v, want %d and false", e.Payload, pointed(e.Size), e.Truncated, size)
	}
	if e.Result.Errno != "" || e.Result.Bytes == nil || *e.Result.Bytes != size {
		t.Errorf("payload %q: result is %v bytes, errno %q, want %d bytes", e.Payload, pointed(e.Result.Bytes), e.Result.Errno, size)
	}
	if e.Result.Delivered != nil && !*e.Result.Delivered {
		t.Errorf("payload %q: not delivered, though it was received", e.Payload)
	}
	if e.Socket.Bound != "" && string(e.Socket.Bound) != bound {
		t.Errorf("payload %q: receiver bound to %q, want %q", e.Payload, e.Socket.Bound, bound)
	}
	if e.Socket.Inode != 0 && e.Socket.Inode != inode {
		t.Errorf("payload %q: receiver's inode is %d, want %d", e.Payload, e.Socket.Inode, inode)
	}
	if backend == "fentry" && (e.Socket.Bound == "" || e.Socket.Inode == 0 || e.Result.Delivered == nil) {
		t.Errorf("payload %q: receiver unknown: %+v, delivered %v", e.Payload, e.Socket, pointed(e.Result.Delivered))
	}
	if c := e.Claimed; c != nil {
		if c.PID != 0 && c.NSPID != 0 && c.PID != c.NSPID {
			t.Errorf("payload %q: claims pid %d, in its namespace %d", e.Payload, c.PID, c.NSPID)
		}
		if c.UID == nil || *c.UID != 0 || c.GID == nil || *c.GID != 0 {
			t.Errorf("payload %q: claims uid %v and gid %v, want 0 and 0", e.Payload, pointed(c.UID), pointed(c.GID))
		}
	}
}

func pointed[T any](p *T) any {
	if p == nil {
		return "unknown"
	}
	return *p
}

func TestSendersCgroupIsTheOneInProc(t *testing.T) {
	content, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(content)), "\n")
	withBackend(t, func(t *testing.T, backend string) {
		address := filepath.Join(base, "cgroup-"+backend, "notify.sock")
		c := open(t, backend, tracer.Filter{Sockets: []string{address}})
		l := listen(t, address)
		client{name: "systemd-notify", argv: []string{"systemd-notify", "--no-block", "--ready"}}.run(t, address)
		if _, err := l.finish(); err != nil {
			t.Fatal(err)
		}
		got := c.drain(t)
		if len(got) != 1 {
			t.Fatalf("captured %d events, want 1", len(got))
		}
		if s := got[0].Sender; !inCgroupLines(lines, s.CgroupController, s.Cgroup) {
			t.Errorf("cgroup is %q of controller %q, want one of %q", s.Cgroup, s.CgroupController, lines)
		}
	})
}

// inCgroupLines looks for a path in lines like those of /proc/PID/cgroup
// (cgroups(7)). No controller means cgroup v2.
func inCgroupLines(lines []string, controller, path string) bool {
	for _, line := range lines {
		fields := strings.SplitN(line, ":", 3)
		if len(fields) != 3 || fields[2] != path {
			continue
		}
		for name := range strings.SplitSeq(fields[1], ",") {
			if strings.TrimPrefix(name, "name=") == strings.TrimPrefix(controller, "name=") {
				return true
			}
		}
	}
	return false
}
