// SPDX-License-Identifier: Apache-2.0

package tracer_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A tracer does not show what its own process sends, so agents send: this test
// binary again, told over a pipe what to do. An agent lives through many cases.

// agentEnv makes the test binary an agent; it holds the agent's comm.
const agentEnv = "SDTRACE_TEST_AGENT"

// step is one thing for an agent to do. Op is a way to send or one of the
// operations in [worker.run]; the other fields are its arguments.
type step struct {
	Op string
	// Sock is the agent's name for a socket.
	Sock string
	Type int
	// Addr is the content of sun_path up to the length of the address.
	Addr []byte
	// Parts are the payload, an iovec each where the way to send has iovecs.
	Parts [][]byte
	// Msgs are the messages of sendmmsg.
	Msgs  []message
	Flags int
	// BadBuffer sends from memory that may not be read.
	BadBuffer bool
	// FDs are the kinds of file descriptors to pass.
	FDs   []string
	Creds *creds
	// Before is how many more control messages come before, each with a file descriptor.
	Before int
	// Path and Target are file names.
	Path, Target string
	// N is a number: of bytes, of repetitions, of threads.
	N int
	// Spawn is what children to make.
	Spawn *spawn
	// UIDs are a real, an effective and a saved user id.
	UIDs [3]int
}

// message is one of several in one call.
type message struct {
	Addr  []byte
	Parts [][]byte
}

// creds is what goes into SCM_CREDENTIALS.
type creds struct{ PID, UID, GID int }

// outcome is what a step's system call returned.
type outcome struct {
	N     int
	Errno syscall.Errno
	// PIDs are the processes or threads that a step made.
	PIDs []int
}

// hello is the first thing an agent says.
type hello struct{ PID, TID int }

// parts is a payload in one piece.
func parts(payload string) [][]byte { return [][]byte{[]byte(payload)} }

// pathAddr is the address of a path socket, with the terminating NUL.
func pathAddr(path string) []byte { return append([]byte(path), 0) }

// abstractAddr is the address of an abstract socket of this run.
func abstractAddr(name string) []byte { return []byte("\x00" + abstractPrefix + name) }

// addressText is how an event shows an address.
func addressText(addr []byte) string {
	if addr[0] == 0 {
		return "@" + string(addr[1:])
	}
	return strings.TrimSuffix(string(addr), "\x00")
}

// sockaddr lays an address out as the system calls want it.
func sockaddr(addr []byte) (*unix.RawSockaddrUnix, uintptr) {
	if addr == nil {
		return nil, 0
	}
	// With room for more than is allowed (struct sockaddr_storage).
	room := new([16]uint64)
	sa := (*unix.RawSockaddrUnix)(unsafe.Pointer(room))
	sa.Family = unix.AF_UNIX
	copy((*[126]byte)(unsafe.Pointer(&sa.Path))[:], addr)
	return sa, uintptr(2 + len(addr))
}

// bind binds a socket to an address that x/sys/unix cannot express.
func bindTo(fd int, addr []byte) error {
	sa, n := sockaddr(addr)
	if _, _, e := unix.Syscall(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(sa)), n); e != 0 {
		return e
	}
	return nil
}

func connectTo(fd int, addr []byte) error {
	sa, n := sockaddr(addr)
	if _, _, e := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(sa)), n); e != 0 {
		return e
	}
	return nil
}

// agentSpec is how to start an agent.
type agentSpec struct {
	comm string
	// uid and gid are its ids on the host; when they are not zero and attr has
	// no user namespace, it gets them as credentials.
	uid, gid int
	attr     syscall.SysProcAttr
	// env is added to its environment.
	env []string
}

// agent is a process that sends.
type agent struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	enc *json.Encoder
	dec *json.Decoder

	comm     string
	uid, gid uint32
	// pid is its process id for the test, which runs in the initial pid
	// namespace, nspid and nstid the ids it sees itself; the sending thread is
	// not the leader.
	pid, nspid, nstid uint32
}

// startAgent starts an agent for one test.
func startAgent(t *testing.T, spec agentSpec) *agent {
	t.Helper()
	a, err := newAgent(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.stop)
	return a
}

func newAgent(spec agentSpec) (*agent, error) {
	// Reached through /proc, the binary needs no directory that the agent's
	// user may search.
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{
		agentEnv + "=" + spec.comm,
		// A signal that preempts a goroutine would end a blocked send.
		"GODEBUG=asyncpreemptoff=1",
	}
	cmd.Env = append(cmd.Env, spec.env...)
	cmd.Dir = "/"
	cmd.Stderr = os.Stderr
	attr := spec.attr
	if attr.Cloneflags&unix.CLONE_NEWUSER == 0 && spec.uid|spec.gid != 0 {
		attr.Credential = &syscall.Credential{Uid: uint32(spec.uid), Gid: uint32(spec.gid)}
	}
	cmd.SysProcAttr = &attr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting an agent: %w", err)
	}
	a := &agent{
		cmd: cmd, in: in, enc: json.NewEncoder(in), dec: json.NewDecoder(out),
		comm: spec.comm, uid: uint32(spec.uid), gid: uint32(spec.gid), pid: uint32(cmd.Process.Pid),
	}
	if err := a.greet(); err != nil {
		a.stop()
		return nil, err
	}
	return a, nil
}

func (a *agent) greet() error {
	var h hello
	if err := a.dec.Decode(&h); err != nil {
		return fmt.Errorf("waiting for agent %s: %w", a.comm, err)
	}
	a.nspid, a.nstid = uint32(h.PID), uint32(h.TID)
	return nil
}

// stop ends an agent and waits for it. A send at whose end the kernel skipped a program is counted
// with the thread's next send or with the thread's end: who adds up all sends of an agent stops it before.
func (a *agent) stop() {
	_ = a.in.Close()
	_ = a.cmd.Wait()
}

// kill ends an agent by SIGKILL and waits for it.
func (a *agent) kill() {
	_ = a.cmd.Process.Kill()
	_ = a.cmd.Wait()
}

// do lets an agent take one step.
func (a *agent) do(t *testing.T, s step) outcome {
	t.Helper()
	a.begin(t, s)
	o, err := a.finish()
	if err != nil {
		t.Fatalf("agent %s did not %s: %v", a.comm, s.Op, err)
	}
	return o
}

// begin lets an agent begin with a step; finish waits for the end of it.
func (a *agent) begin(t *testing.T, s step) {
	t.Helper()
	if err := a.enc.Encode(s); err != nil {
		t.Fatalf("telling agent %s to %s: %v", a.comm, s.Op, err)
	}
}

func (a *agent) finish() (o outcome, err error) {
	err = a.dec.Decode(&o)
	return o, err
}

// must lets an agent take steps that have to succeed, and returns what the last
// one returned.
func (a *agent) must(t *testing.T, steps ...step) outcome {
	t.Helper()
	var o outcome
	for _, s := range steps {
		if o = a.do(t, s); o.Errno != 0 {
			t.Fatalf("agent %s: %s %s %q: %v", a.comm, s.Op, s.Sock, s.Addr, o.Errno)
		}
	}
	return o
}

// join moves an agent, or any process, into a cgroup.
func join(t *testing.T, dir string, pid uint32) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(int(pid))), 0); err != nil {
		t.Fatal(err)
	}
}

// tid is the sending thread in the initial pid namespace.
func (a *agent) tid(t *testing.T) uint32 {
	t.Helper()
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", a.pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/comm", a.pid, task.Name()))
		if err == nil && strings.TrimSpace(string(comm)) == workerComm {
			tid, err := strconv.Atoi(task.Name())
			if err != nil {
				t.Fatal(err)
			}
			return uint32(tid)
		}
	}
	t.Fatalf("agent %s has no thread %s", a.comm, workerComm)
	return 0
}

// workerComm is the name of the sending thread, which must not be taken for
// the process's.
const workerComm = "sdt-worker"

func init() {
	// Only here is the main thread certain to be the one that runs: its name
	// is the process's, and it must not become the sending thread.
	if os.Getenv(agentEnv) != "" {
		runtime.LockOSThread()
	}
}

// runAgent is the main function of an agent.
func runAgent() {
	comm := append([]byte(os.Getenv(agentEnv)), 0)
	if err := unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&comm[0])), 0, 0, 0); err != nil {
		fail(err)
	}
	enc, dec := json.NewEncoder(os.Stdout), json.NewDecoder(os.Stdin)
	todo, done := make(chan step), make(chan outcome)
	ready := make(chan int)
	go func() {
		runtime.LockOSThread()
		name := append([]byte(workerComm), 0)
		if err := unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name[0])), 0, 0, 0); err != nil {
			fail(err)
		}
		ready <- unix.Gettid()
		w := &worker{socks: map[string]int{}}
		for s := range todo {
			done <- w.run(s)
		}
	}()
	if err := enc.Encode(hello{PID: os.Getpid(), TID: <-ready}); err != nil {
		fail(err)
	}
	for {
		var s step
		if err := dec.Decode(&s); errors.Is(err, io.EOF) {
			os.Exit(0)
		} else if err != nil {
			fail(err)
		}
		var o outcome
		switch s.Op {
		case "new cgroup namespace":
			// Executing makes the whole process take the one thread's
			// namespace; the new image says hello again.
			err := unix.Unshare(unix.CLONE_NEWCGROUP)
			if err == nil {
				err = syscall.Exec("/proc/self/exe", os.Args, os.Environ())
			}
			fail(err)
		case "execute": // which says hello again
			fail(syscall.Exec(s.Path, os.Args, os.Environ()))
		default:
			todo <- s
			o = <-done
		}
		if err := enc.Encode(o); err != nil {
			fail(err)
		}
	}
}

// fail ends an agent that cannot go on.
func fail(err error) {
	fmt.Fprintln(os.Stderr, "agent:", err)
	os.Exit(3)
}

// worker is the thread of an agent that takes the steps.
type worker struct {
	socks    map[string]int
	ring     *uring
	compat   *compatMemory
	noAccess []byte
	passed   []int // file descriptors
	// threads yields the result of each blocked thread that has come back.
	threads chan outcome
	blocked int
}

// result turns what a function of x/sys/unix returned into an outcome.
func result(n int, err error) outcome {
	var errno syscall.Errno
	if err != nil && !errors.As(err, &errno) {
		fail(err)
	}
	return outcome{N: n, Errno: errno}
}

// raw turns what a raw system call returned into an outcome.
func raw(n, _ uintptr, errno syscall.Errno) outcome {
	return outcome{N: int(n), Errno: errno}
}

func (w *worker) run(s step) outcome {
	switch s.Op {
	case "socket":
		fd, err := unix.Socket(unix.AF_UNIX, s.Type|unix.SOCK_CLOEXEC, 0)
		w.socks[s.Sock] = fd
		return result(fd, err)
	case "bind":
		return result(0, bindTo(w.socks[s.Sock], s.Addr))
	case "connect":
		return result(0, connectTo(w.socks[s.Sock], s.Addr))
	case "close":
		return result(0, unix.Close(w.socks[s.Sock]))
	case "set send buffer":
		return result(0, unix.SetsockoptInt(w.socks[s.Sock], unix.SOL_SOCKET, unix.SO_SNDBUF, s.N))
	case "close passed":
		for _, fd := range w.passed {
			_ = unix.Close(fd)
		}
		w.passed = nil
		return outcome{}
	case "bind mount":
		return result(0, unix.Mount(s.Path, s.Target, "", unix.MS_BIND, ""))
	case "unshare network":
		return result(0, unix.Unshare(unix.CLONE_NEWNET))
	case "setresuid":
		return raw(unix.RawSyscall(unix.SYS_SETRESUID, uintptr(s.UIDs[0]), uintptr(s.UIDs[1]), uintptr(s.UIDs[2])))
	case "flood":
		return w.flood(s)
	case "blocked threads":
		return w.blockThreads(s)
	case "join blocked threads":
		return w.joinThreads()
	case "send while it changes":
		return w.sendWhileItChanges(s)
	case "send at once":
		return sendAtOnce(s)
	case "spawn":
		return w.spawn(s)
	case "32-bit write", "32-bit sendto", "32-bit sendmsg":
		return w.sendCompat(s)
	default:
		return w.send(s)
	}
}

// send makes one of the system calls that send a datagram.
func (w *worker) send(s step) outcome {
	fd := uintptr(w.socks[s.Sock])
	var payload []byte
	for _, p := range s.Parts {
		payload = append(payload, p...)
	}
	size := uintptr(len(payload))
	// What the kernel gets as a number, or inside another structure, has to be
	// on the heap, for stacks move, and alive until the call is over.
	var keep []any
	defer func() { runtime.KeepAlive(keep) }()
	base := func(p []byte) *byte {
		if s.BadBuffer {
			return w.badBuffer()
		}
		owned := append(append([]byte{}, p...), 0)
		keep = append(keep, owned)
		return &owned[0]
	}
	buf := uintptr(unsafe.Pointer(base(payload)))
	vectors := func(in [][]byte) []unix.Iovec {
		list := make([]unix.Iovec, len(in))
		for i, p := range in {
			list[i].Base = base(p)
			list[i].SetLen(len(p))
		}
		return list
	}
	header := func(m message) *unix.Msghdr {
		h := &unix.Msghdr{}
		keep = append(keep, h)
		if name, n := sockaddr(m.Addr); name != nil {
			h.Name, h.Namelen = (*byte)(unsafe.Pointer(name)), uint32(n)
		}
		if list := vectors(m.Parts); len(list) > 0 {
			h.Iov = &list[0]
			h.SetIovlen(len(list))
		}
		if control := w.control(s); len(control) > 0 {
			h.Control = &control[0]
			h.SetControllen(len(control))
		}
		return h
	}
	name, nameLen := sockaddr(s.Addr)
	switch s.Op {
	case "send":
		return raw(unix.Syscall6(unix.SYS_SENDTO, fd, buf, size, uintptr(s.Flags), 0, 0))
	case "sendto":
		return raw(unix.Syscall6(unix.SYS_SENDTO, fd, buf, size, uintptr(s.Flags), uintptr(unsafe.Pointer(name)), nameLen))
	case "sendmsg":
		h := header(message{Addr: s.Addr, Parts: s.Parts})
		return raw(unix.Syscall(unix.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(h)), uintptr(s.Flags)))
	case "sendmmsg", "sendmmsg again":
		type mmsghdr struct {
			h   unix.Msghdr
			len uint32
			_   [4]byte
		}
		list := make([]mmsghdr, len(s.Msgs))
		for i, m := range s.Msgs {
			list[i].h = *header(m)
		}
		if s.Op == "sendmmsg again" { // after a call that ended before the second message
			good := list[1].h.Iov
			list[1].h.Iov = (*unix.Iovec)(unsafe.Pointer(w.badBuffer()))
			if o := raw(unix.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&list[0])), uintptr(len(list)), uintptr(s.Flags), 0, 0)); o.N != 1 {
				return o
			}
			list[1].h.Iov = good
		}
		return raw(unix.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&list[0])), uintptr(len(list)), uintptr(s.Flags), 0, 0))
	case "write":
		return raw(unix.Syscall(unix.SYS_WRITE, fd, buf, size))
	case "writev":
		list := vectors(s.Parts)
		return raw(unix.Syscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&list[0])), uintptr(len(list))))
	case "pwritev2":
		list := vectors(s.Parts)
		return raw(unix.Syscall6(unix.SYS_PWRITEV2, fd, uintptr(unsafe.Pointer(&list[0])), uintptr(len(list)), ^uintptr(0), ^uintptr(0), 0))
	case "splice":
		return w.splice(int(fd), payload)
	case "sendfile":
		return w.sendfile(int(fd), payload)
	}
	if w.ring == nil {
		ring, err := newRing()
		if err != nil {
			return result(0, err)
		}
		w.ring = ring
	}
	switch s.Op {
	case "io_uring send":
		return w.ring.submit(ringSend, 0, fd, buf, size)
	case "io_uring send async":
		return w.ring.submit(ringSend, ringAsync, fd, buf, size)
	case "io_uring write":
		return w.ring.submit(ringWrite, 0, fd, buf, size)
	case "io_uring sendmsg":
		h := header(message{Addr: s.Addr, Parts: s.Parts})
		return w.ring.submit(ringSendmsg, 0, fd, uintptr(unsafe.Pointer(h)), 1)
	case "io_uring sendmsg async":
		h := header(message{Addr: s.Addr, Parts: s.Parts})
		return w.ring.submit(ringSendmsg, ringAsync, fd, uintptr(unsafe.Pointer(h)), 1)
	}
	fail(fmt.Errorf("an agent cannot %q", s.Op))
	return outcome{}
}

// sendWhileItChanges sends what another thread writes to meanwhile: the last byte of the payload.
func (w *worker) sendWhileItChanges(s step) outcome {
	payload := append(bytes.Join(s.Parts, nil), 'A')
	last := &payload[len(payload)-1]
	var over atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		for !over.Load() {
			*last = 'A' + (*last-'A'+1)%26
			runtime.Gosched()
		}
	}()
	name, nameLen := sockaddr(s.Addr)
	o := raw(unix.Syscall6(unix.SYS_SENDTO, uintptr(w.socks[s.Sock]), uintptr(unsafe.Pointer(&payload[0])), uintptr(len(payload)),
		uintptr(s.Flags), uintptr(unsafe.Pointer(name)), nameLen))
	over.Store(true)
	<-done
	return o
}

// badBuffer is memory that may not be read.
func (w *worker) badBuffer() *byte {
	if w.noAccess == nil {
		var err error
		if w.noAccess, err = unix.Mmap(-1, 0, 1<<16, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON); err != nil {
			fail(err)
		}
	}
	return unsafe.SliceData(w.noAccess)
}

// control builds the control messages of a step. The file descriptors it
// passes stay open in the agent until it is told to close them.
func (w *worker) control(s step) []byte {
	var control []byte
	for range s.Before {
		control = append(control, unix.UnixRights(0)...)
	}
	if s.Creds != nil {
		control = append(control, unix.UnixCredentials(&unix.Ucred{
			Pid: int32(s.Creds.PID), Uid: uint32(s.Creds.UID), Gid: uint32(s.Creds.GID),
		})...)
	}
	if len(s.FDs) > 0 {
		var fds []int
		opened := map[string]int{}
		for _, kind := range s.FDs {
			if _, ok := opened[kind]; !ok {
				opened[kind] = openKind(kind)
				w.passed = append(w.passed, opened[kind])
			}
			fds = append(fds, opened[kind])
		}
		control = append(control, unix.UnixRights(fds...)...)
	}
	return control
}

// openKind opens a file descriptor of a kind, by the name an event gives it.
func openKind(kind string) int {
	var fd int
	var err error
	switch kind {
	case "pipe":
		var p [2]int
		err = unix.Pipe2(p[:], unix.O_CLOEXEC)
		fd = p[1]
	case "socket":
		fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	case "memfd":
		fd, err = unix.MemfdCreate("sdt", 0)
	case "pidfd":
		fd, err = unix.PidfdOpen(os.Getpid(), 0)
	case "file":
		fd, err = unix.Open("/proc/self/exe", unix.O_RDONLY, 0)
	case "directory":
		fd, err = unix.Open("/", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	case "char":
		fd, err = unix.Open("/dev/null", unix.O_RDWR, 0)
	case "tty":
		fd, err = unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY, 0)
	case "eventfd":
		fd, err = unix.Eventfd(0, 0)
	case "timerfd":
		fd, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, 0)
	case "epoll":
		fd, err = unix.EpollCreate1(0)
	case "signalfd":
		fd, err = unix.Signalfd(-1, &unix.Sigset_t{}, 0)
	case "inotify":
		fd, err = unix.InotifyInit1(0)
	default:
		err = fmt.Errorf("unknown kind of file descriptor %q", kind)
	}
	if err != nil {
		fail(fmt.Errorf("opening a %s: %w", kind, err))
	}
	return fd
}

// splice moves a payload through a pipe into a socket.
func (w *worker) splice(fd int, payload []byte) outcome {
	var p [2]int
	if err := unix.Pipe(p[:]); err != nil {
		return result(0, err)
	}
	defer func() { _, _ = unix.Close(p[0]), unix.Close(p[1]) }()
	if _, err := unix.Write(p[1], payload); err != nil {
		return result(0, err)
	}
	n, err := unix.Splice(p[0], nil, fd, nil, len(payload), 0)
	return result(int(n), err)
}

// sendfile moves a payload from a file into a socket.
func (w *worker) sendfile(fd int, payload []byte) outcome {
	file, err := unix.MemfdCreate("sdt", 0)
	if err != nil {
		return result(0, err)
	}
	defer func() { _ = unix.Close(file) }()
	if _, err := unix.Write(file, payload); err != nil {
		return result(0, err)
	}
	var from int64
	return result(unix.Sendfile(fd, file, &from, len(payload)))
}

// receiver is a socket of the test, which agents send to.
type receiver struct {
	t    *testing.T
	fd   int
	addr []byte
}

// listen binds a receiver. Its directory is made, its socket may be written to
// by everybody.
func listen(t *testing.T, addr []byte, kind int) *receiver {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	r := &receiver{t: t, fd: fd, addr: addr}
	t.Cleanup(r.close)
	path := addressText(addr)
	if addr[0] != 0 {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	if err := bindTo(fd, addr); err != nil {
		t.Fatalf("binding %q: %v", addr, err)
	}
	if addr[0] != 0 {
		if err := os.Chmod(path, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if kind != unix.SOCK_DGRAM {
		if err := unix.Listen(fd, 8); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// listenPath binds a datagram receiver below the run's directory.
func listenPath(t *testing.T, name string) *receiver {
	t.Helper()
	return listen(t, pathAddr(filepath.Join(root, name)), unix.SOCK_DGRAM)
}

func (r *receiver) close() {
	if r.fd >= 0 {
		_ = unix.Close(r.fd)
		r.fd = -1
	}
}

// path is the name of a path socket.
func (r *receiver) path() string { return addressText(r.addr) }

// inode is the socket's inode number, as ss -x shows it.
func (r *receiver) inode() uint64 {
	var st unix.Stat_t
	if err := unix.Fstat(r.fd, &st); err != nil {
		r.t.Fatal(err)
	}
	return st.Ino
}

// drain receives all that is queued.
func (r *receiver) drain() []string {
	r.t.Helper()
	var got []string
	buf := make([]byte, 1<<17)
	for {
		n, _, err := unix.Recvfrom(r.fd, buf, 0)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return got
		case errors.Is(err, unix.EINTR):
		case err != nil:
			r.t.Fatalf("receiving on %q: %v", r.addr, err)
		default:
			got = append(got, string(buf[:n]))
		}
	}
}

// dropAll attaches a socket filter that throws every datagram away: the sender
// is told that it was sent.
func (r *receiver) dropAll() {
	r.t.Helper()
	prog := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
	err := unix.SetsockoptSockFprog(r.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]})
	if err != nil {
		r.t.Fatal(err)
	}
}

// procLink is the inode number in a /proc link such as "net:[4026531840]".
func procLink(t *testing.T, path string) uint32 {
	t.Helper()
	link, err := os.Readlink(path)
	if err != nil {
		t.Fatal(err)
	}
	_, number, _ := strings.Cut(strings.TrimSuffix(link, "]"), "[")
	inode, err := strconv.ParseUint(number, 10, 32)
	if err != nil {
		t.Fatalf("%s is %q", path, link)
	}
	return uint32(inode)
}

// inSyscall reports whether a thread sleeps inside a system call.
func inSyscall(t *testing.T, pid uint32, tid int, number uintptr) bool {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/syscall", pid, tid))
	if err != nil {
		t.Fatal(err)
	}
	call, _, _ := strings.Cut(string(text), " ")
	return call == strconv.Itoa(int(number))
}
