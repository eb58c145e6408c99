// SPDX-License-Identifier: Apache-2.0

package verdict_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/await"
	"github.com/sdtrace/sdtrace/vmtest/pid1"
)

// agentRole is the first argument of this binary when it is a process of a unit, which does what
// the test says.
const agentRole = "agent"

// order is one thing that an agent is told to do.
type order struct {
	// Send is a datagram to the service manager, with FDs file descriptors, as from Claim (0: no
	// credentials are attached) and UID.
	Send  []byte
	FDs   int
	Claim int
	UID   int
	// Fork starts an agent of that name as a child.
	Fork string
	// Ignore ignores a signal.
	Ignore int
	// PIDFD is a process of which a pidfd is passed along.
	PIDFD int
	// Lone lets a child send that is over, and waited for, when the agent answers.
	Lone bool
	// Hang fills the service manager's queue, and then sends once more, which does not return before that reads.
	Hang bool
	// Barrier waits until the service manager has read everything before (sd_notify_barrier(3)).
	Barrier bool
}

// answer is what an agent says when it is done.
type answer struct {
	Err string
}

// hello is the first thing that an agent says.
type hello struct {
	Name string
	PID  int // in its own pid namespace
	UID  int
}

func playAgent(args []string) {
	run := func() error { return runAgent(args[0], args[1]) }
	if len(args) > 2 { // one that sends, and that is all
		run = (&order{Send: []byte(args[2])}).send
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "agent:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// runAgent connects to the test of the unit, and does what it says until it hangs up.
func runAgent(unit, name string) error {
	conn, err := net.Dial("unix", "/shared/"+unit+".sock")
	if err != nil {
		return err
	}
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP) // to be told to reload is not the end
	in, out := json.NewDecoder(conn), json.NewEncoder(conn)
	if err := out.Encode(hello{Name: name, PID: os.Getpid(), UID: os.Getuid()}); err != nil {
		return err
	}
	for {
		var o order
		if err := in.Decode(&o); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		var a answer
		if err := o.do(unit); err != nil {
			a.Err = err.Error()
		}
		if err := out.Encode(a); err != nil {
			return err
		}
	}
}

func (o *order) do(unit string) error {
	if o.Ignore != 0 {
		signal.Ignore(syscall.Signal(o.Ignore))
	}
	switch {
	case o.Fork != "":
		return exec.Command("/proc/self/exe", agentRole, unit, o.Fork).Start()
	case o.Lone:
		return exec.Command("/proc/self/exe", agentRole, unit, "lone", string(o.Send)).Run()
	case o.Send != nil:
		return o.send()
	case o.Hang:
		return hang()
	case o.Barrier:
		return barrier()
	}
	return nil
}

func barrier() error {
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	defer read.Close()
	err = sendTo([]byte("BARRIER=1"), unix.UnixRights(int(write.Fd())))
	write.Close()
	if err != nil {
		return err
	}
	if _, err := read.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		return fmt.Errorf("the barrier's end: %w", err)
	}
	return nil
}

func hang() error {
	for sent := true; sent; {
		s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		// Its own buffer may be full before the queue is: then another socket has room.
		for sent = false; err == nil; sent = sent || err == nil {
			err = unix.Sendto(s, []byte("STATUS=full"), unix.MSG_DONTWAIT, &unix.SockaddrUnix{Name: "/run/systemd/notify"})
		}
		unix.Close(s)
		if !errors.Is(err, unix.EAGAIN) {
			return err
		}
	}
	go func() { _ = sendTo([]byte("STATUS=through"), nil) }()
	return nil
}

func sendTo(payload, control []byte) error {
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	return unix.Sendmsg(s, payload, control, &unix.SockaddrUnix{Name: "/run/systemd/notify"}, 0)
}

func (o *order) send() error {
	var control []byte
	if o.FDs > 0 {
		var files []int
		if o.PIDFD != 0 {
			fd, err := unix.PidfdOpen(o.PIDFD, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			files = append(files, fd)
		}
		for len(files) < o.FDs {
			// The other end stays open: a store keeps nothing that nobody writes to.
			var ends [2]int
			if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
				return err
			}
			files = append(files, ends[0])
		}
		control = unix.UnixRights(files...)
	}
	if o.Claim != 0 {
		control = append(control, unix.UnixCredentials(&unix.Ucred{Pid: int32(o.Claim), Uid: uint32(o.UID)})...)
	}
	return sendTo(o.Send, control)
}

// unit is a service that a manager knows, with agents in it.
type unit struct {
	m    *pid1.Systemd
	name string // without .service
	mu   sync.Mutex
	came map[string]*agent
	// stopping is whether the unit has said STOPPING=1, which no property tells, ignoring
	// whether its main process ignores the reload signal.
	stopping, ignoring bool
}

// agent is an agent, seen from the test.
type agent struct {
	hello
	host int // its process id on this side
	conn *net.UnixConn
	in   *json.Decoder
	out  *json.Encoder
}

// define writes a unit file. %A in its lines is the command of an agent, to which its name is added.
// logged is how many lines of systemd's are shown of a test that has failed.
const logged = 50

func define(t *testing.T, m *pid1.Systemd, name string, lines ...string) *unit {
	t.Helper()
	u := &unit{m: m, name: name, came: make(map[string]*agent)}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: filepath.Join(m.Shared, name+".sock")})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(m.Shared, name+".sock"), 0o777); err != nil {
		t.Fatal(err)
	}
	go u.accept(l)
	t.Cleanup(func() {
		if t.Failed() {
			log := strings.Split(m.Console.About(name+".service"), "\n")
			t.Logf("what systemd said last of it:\n%s", strings.Join(log[max(0, len(log)-logged):], "\n"))
		}
		_, _ = m.Systemctl(await.Context(t), "kill", "--signal=KILL", name+".service")
		l.Close()
	})
	file := "[Unit]\nDefaultDependencies=no\n[Service]\n" +
		strings.ReplaceAll(strings.Join(lines, "\n"), "%A", "/roles "+agentRole+" "+name) + "\n"
	if err := os.WriteFile(m.Inside("/run/systemd/system/"+name+".service"), []byte(file), 0o644); err != nil {
		t.Fatal(err)
	}
	return u
}

func (u *unit) accept(l *net.UnixListener) {
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			return
		}
		a := &agent{conn: conn, in: json.NewDecoder(conn), out: json.NewEncoder(conn)}
		if err := a.in.Decode(&a.hello); err != nil {
			continue
		}
		raw, err := conn.SyscallConn()
		if err != nil {
			continue
		}
		_ = raw.Control(func(fd uintptr) {
			if peer, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
				a.host = int(peer.Pid)
			}
		})
		u.mu.Lock()
		u.came[a.Name] = a
		u.mu.Unlock()
	}
}

// agent waits for the one of a name.
func (u *unit) agent(t *testing.T, name string) (a *agent) {
	t.Helper()
	await.Until(t, u.name+" has an agent "+name, func() bool {
		u.mu.Lock()
		defer u.mu.Unlock()
		a = u.came[name]
		return a != nil
	})
	return a
}

// tell tells an agent to do something that it may not survive.
func (a *agent) tell(t *testing.T, o order) {
	t.Helper()
	if err := a.out.Encode(o); err != nil {
		t.Fatal(err)
	}
}

// do has an agent do something.
func (a *agent) do(t *testing.T, o order) {
	t.Helper()
	a.tell(t, o)
	var done answer
	if err := a.in.Decode(&done); err != nil {
		t.Fatal(err)
	}
	if done.Err != "" {
		t.Fatalf("agent %s: %s", a.Name, done.Err)
	}
}
