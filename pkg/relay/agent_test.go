// SPDX-License-Identifier: Apache-2.0

package relay_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/await"
)

// An agent is this test binary in a process of its own, mostly in namespaces of
// its own: the container. It does what it is told over its stdin.
const agentEnv = "SDTRACE_RELAY_AGENT"

func TestMain(m *testing.M) {
	if os.Getenv(agentEnv) != "" {
		runAgent()
		return
	}
	os.Exit(m.Run())
}

// order is one thing for an agent to do.
type order struct {
	Do      string   // as in obey
	Socket  string   `json:",omitempty"`
	Payload []byte   `json:",omitempty"`
	FDs     []string `json:",omitempty"` // kinds of file descriptors to pass: pipe, memfd, pidfd
	PID     int      `json:",omitempty"` // claimed as sender, or the child to reap
	Block   bool     `json:",omitempty"` // send as sd_notify does, for as long as it takes
	From    int      `json:",omitempty"` // number of the first datagram of a flood
	Count   int      `json:",omitempty"` // how many
	Args    []string `json:",omitempty"` // of a program to execute
}

// answer is what came of it.
type answer struct {
	Errno     unix.Errno
	PID       int // own number, in its own pid namespace
	Released  bool
	Monotonic uint64 // µs
}

func runAgent() {
	in := json.NewDecoder(os.Stdin)
	out := json.NewEncoder(os.Stdout)
	_ = out.Encode(obey(order{}))
	for {
		var o order
		if err := in.Decode(&o); err != nil {
			return
		}
		_ = out.Encode(obey(o))
	}
}

func obey(o order) answer {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	a := answer{PID: os.Getpid(), Monotonic: uint64(now.Nano() / 1000)}
	switch o.Do {
	case "send":
		a.Errno = agentSend(o, agentFDs(o.FDs))
	case "flood":
		a.Errno = flood(o)
	case "barrier":
		var ends [2]int
		err := unix.Pipe2(ends[:], unix.O_CLOEXEC)
		if len(o.FDs) > 0 { // a socket, of which closing is left to the relay's background
			ends, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		}
		if err != nil {
			a.Errno = errnoOf(err)
			break
		}
		a.Errno = agentSend(o, []int{ends[1]})
		unix.Close(ends[1])
		a.Released = awaitHangup(ends[0])
		unix.Close(ends[0])
	case "child":
		child := exec.Command("/proc/self/exe")
		child.Env = append(os.Environ(), agentEnv+"=1")
		// Its stdin stays open for as long as this agent lives.
		_, _ = child.StdinPipe()
		if err := child.Start(); err == nil {
			a.PID = child.Process.Pid
		}
	case "setuid":
		_ = unix.Setgid(o.PID)
		_ = unix.Setuid(o.PID)
	case "exec": // which says hello again
		a.Errno = errnoOf(unix.Exec(o.Args[0], o.Args, os.Environ()))
	case "serve a stuck file":
		a.Errno = errnoOf(serveStuckFile(o.Args[0]))
	case "open a stuck file":
		var err error
		stuckFile, err = unix.Open(o.Args[0], unix.O_RDONLY|unix.O_CLOEXEC, 0)
		a.Errno = errnoOf(err)
	case "pass the stuck file": // as often as a datagram can
		a.Errno = agentSend(o, slices.Repeat([]int{stuckFile}, 253))
	case "reap":
		_ = unix.Kill(o.PID, unix.SIGKILL)
		_, _ = unix.Wait4(o.PID, nil, 0, nil)
	}
	return a
}

// awaitHangup says whether it came. Go's runtime interrupts system calls now and then.
func awaitHangup(fd int) bool {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd)}}, int(await.Patience.Milliseconds()))
		if !errors.Is(err, unix.EINTR) {
			return n == 1
		}
	}
}

// errnoOf is what a system call failed with.
func errnoOf(err error) (errno unix.Errno) {
	errors.As(err, &errno)
	return errno
}

func agentFDs(kinds []string) (fds []int) {
	for _, kind := range kinds {
		switch kind {
		case "pipe":
			var ends [2]int
			_ = unix.Pipe2(ends[:], unix.O_CLOEXEC)
			unix.Close(ends[0])
			fds = append(fds, ends[1])
		case "memfd":
			fd, _ := unix.MemfdCreate("agent", unix.MFD_CLOEXEC)
			fds = append(fds, fd)
		case "pidfd":
			fd, _ := unix.PidfdOpen(os.Getpid(), 0)
			fds = append(fds, fd)
		case "pidfd of a thread":
			threads, _ := os.ReadDir("/proc/self/task")
			tid, _ := strconv.Atoi(threads[len(threads)-1].Name()) // not the first, which is the process
			if fd, err := unix.PidfdOpen(tid, unix.PIDFD_THREAD); err == nil {
				fds = append(fds, fd)
			}
		}
	}
	return fds
}

func agentSend(o order, fds []int) unix.Errno {
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return errnoOf(err)
	}
	defer unix.Close(s)
	_ = unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 8<<20)
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
		if o.Do == "send" {
			defer func() {
				for _, fd := range fds {
					unix.Close(fd)
				}
			}()
		}
	}
	if o.PID != 0 {
		oob = append(oob, unix.UnixCredentials(&unix.Ucred{Pid: int32(o.PID), Uid: uint32(os.Getuid()), Gid: uint32(os.Getgid())})...)
	}
	flags := unix.MSG_NOSIGNAL
	if !o.Block {
		flags |= unix.MSG_DONTWAIT
	}
	if err := unix.Sendmsg(s, o.Payload, oob, &unix.SockaddrUnix{Name: o.Socket}, flags); err != nil {
		return errnoOf(err)
	}
	return 0
}

// agent is a running one.
type agent struct {
	t    testing.TB
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *json.Decoder
	self answer
	pid  int // in the namespace of the test
}

// startAgent starts an agent by unshare(1) with these options, none for one
// that shares the namespaces of the test.
func startAgent(t testing.TB, unshare ...string) *agent {
	t.Helper()
	args := append(append([]string{"unshare"}, unshare...), os.Args[0])
	cmd := exec.Command(args[0], args[1:]...)
	return runAsAgent(t, cmd)
}

func runAsAgent(t testing.TB, cmd *exec.Cmd) *agent {
	t.Helper()
	cmd.Env = append(os.Environ(), agentEnv+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	a := &agent{t: t, cmd: cmd, in: in, out: json.NewDecoder(bufio.NewReader(out)), pid: cmd.Process.Pid}
	t.Cleanup(a.stop)
	a.self = a.answer()
	if children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", a.pid)); err == nil {
		// unshare --fork stays above the agent.
		if child, err := strconv.Atoi(strings.TrimSpace(string(children))); err == nil && isFork(cmd.Args) {
			a.pid = child
		}
	}
	return a
}

func command(args ...string) *exec.Cmd { return exec.Command(args[0], args[1:]...) }

func isFork(args []string) bool {
	for _, arg := range args {
		if arg == "--fork" {
			return true
		}
	}
	return false
}

func (a *agent) stop() {
	a.in.Close()
	_ = a.cmd.Wait()
}

func (a *agent) answer() answer {
	a.t.Helper()
	var got answer
	if err := a.out.Decode(&got); err != nil {
		a.t.Fatalf("agent: %v", err)
	}
	return got
}

func (a *agent) do(o order) answer {
	a.t.Helper()
	a.post(o)
	return a.answer()
}

// post does not wait until it is done.
func (a *agent) post(o order) {
	a.t.Helper()
	if err := json.NewEncoder(a.in).Encode(o); err != nil {
		a.t.Fatalf("agent: %v", err)
	}
}

// send sends a datagram that has to be accepted at once.
func (a *agent) send(socket, payload string, fds ...string) {
	a.t.Helper()
	if got := a.do(order{Do: "send", Socket: socket, Payload: []byte(payload), FDs: fds}); got.Errno != 0 {
		a.t.Fatalf("sending %q: %v", payload, got.Errno)
	}
}

// sendWaiting sends as sd_notify does, which waits for room.
func (a *agent) sendWaiting(socket, payload string) {
	a.t.Helper()
	if got := a.do(order{Do: "send", Socket: socket, Payload: []byte(payload), Block: true}); got.Errno != 0 {
		a.t.Fatalf("sending %q: %v", payload, got.Errno)
	}
}

// host is a notify socket as systemd has it.
type host struct {
	t    testing.TB
	path string
	fd   int
}

// message is what the host reads.
type message struct {
	text string
	pid  int
	fds  []int
}

func newHost(t testing.TB, path string) *host {
	t.Helper()
	h := &host{t: t, path: path}
	h.listen()
	t.Cleanup(h.close)
	return h
}

func (h *host) listen() {
	h.t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		h.t.Fatal(err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
		h.t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: h.path}); err != nil {
		h.t.Fatal(err)
	}
	h.fd = fd
}

func (h *host) close() {
	if h.fd >= 0 {
		unix.Close(h.fd)
		os.Remove(h.path)
		h.fd = -1
	}
}

// next waits for a datagram. Barriers are answered by closing what came with them.
func (h *host) next() message {
	h.t.Helper()
	m, ok := h.receive(await.Patience)
	if !ok {
		h.t.Fatal("the host got nothing")
	}
	return m
}

func (h *host) receive(wait time.Duration) (message, bool) {
	h.t.Helper()
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(h.fd), Events: unix.POLLIN}}, int(wait.Milliseconds()))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if n == 0 {
			return message{}, false
		}
		payload, oob := make([]byte, 8192), make([]byte, 4096)
		n, oobn, flags, _, err := unix.Recvmsg(h.fd, payload, oob, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		if err != nil || flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
			h.t.Fatalf("the host cannot read: %v, flags %#x", err, flags)
		}
		m := message{text: string(payload[:n])}
		parts, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil {
			h.t.Fatal(err)
		}
		for _, part := range parts {
			if cred, err := unix.ParseUnixCredentials(&part); err == nil {
				m.pid = int(cred.Pid)
			}
			if fds, err := unix.ParseUnixRights(&part); err == nil {
				m.fds = fds
			}
		}
		return m, true
	}
}

func (m message) closeFDs() {
	for _, fd := range m.fds {
		unix.Close(fd)
	}
}

// expect reads one datagram and compares its text.
func (h *host) expect(text string) message {
	h.t.Helper()
	m := h.next()
	if m.text != text {
		h.t.Fatalf("the host got %q, want %q", m.text, text)
	}
	return m
}
