// SPDX-License-Identifier: Apache-2.0

package systemd_test

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
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/await"
)

// insideDirectory is where a container has the relay's directory.
const insideDirectory = "/run/notify"

// facts are what a container knows about itself.
type facts struct {
	PID        int
	Namespaces map[string]string
	Notify     string // NOTIFY_SOCKET
	// Stored are the files that systemd had kept, by name.
	Stored map[string]file
}

// file tells one file from another of the same content.
type file struct {
	Inode   uint64
	Content string
}

// request is what the test wants a container to do, response what came of it.
type (
	request struct {
		ID   int
		Op   string
		Args []string
		N    int
	}
	response struct {
		ID     int
		Error  string
		Output string
		Files  []file
	}
)

// container is the test's end of a process in a container.
type container struct {
	conn *net.UnixConn
	dec  *json.Decoder
	facts
	// pids are its numbers: here, for systemd, and for itself.
	pids []int
	err  error

	mu      sync.Mutex
	last    int
	pending map[int]chan response
	gone    bool
}

func (c *container) read() {
	for {
		var r response
		err := c.dec.Decode(&r)
		c.mu.Lock()
		if err != nil {
			c.gone = true
			for _, waiting := range c.pending {
				close(waiting)
			}
			c.mu.Unlock()
			return
		}
		c.pending[r.ID] <- r
		delete(c.pending, r.ID)
		c.mu.Unlock()
	}
}

// begin asks the container to do something. The channel is closed without a
// response if the container ends before.
func (c *container) begin(r request) <-chan response {
	c.mu.Lock()
	defer c.mu.Unlock()
	done := make(chan response, 1)
	if c.gone {
		close(done)
		return done
	}
	c.last++
	r.ID = c.last
	c.pending[r.ID] = done
	// If this fails, so does reading.
	_ = json.NewEncoder(c.conn).Encode(r)
	return done
}

// call asks and waits.
func (c *container) call(t *testing.T, r request) response {
	t.Helper()
	return finish(t, r.Op, c.begin(r))
}

func finish(t *testing.T, what string, done <-chan response) response {
	t.Helper()
	r := await.Receive(t, what+" in the container", done)
	if r.Error != "" {
		t.Fatalf("%s in the container: %s", what, r.Error)
	}
	return r
}

// notify makes the container send a datagram.
func (c *container) notify(t *testing.T, lines ...string) {
	t.Helper()
	c.call(t, request{Op: "notify", Args: []string{strings.Join(lines, "\n")}})
}

// barrier returns when systemd has read what the container sent before.
func (c *container) barrier(t *testing.T) {
	t.Helper()
	c.call(t, request{Op: "barrier"})
}

// tell is notify and barrier.
func (c *container) tell(t *testing.T, lines ...string) {
	t.Helper()
	c.notify(t, lines...)
	c.barrier(t)
}

// pidsOfPeer returns the numbers that a process has, in the namespaces from
// here to its own.
func pidsOfPeer(conn *net.UnixConn) ([]int, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var peer *unix.Ucred
	if e := raw.Control(func(fd uintptr) { peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); e != nil || err != nil {
		return nil, errors.Join(e, err)
	}
	return pidsOf(int(peer.Pid))
}

func pidsOf(pid int) ([]int, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(status)) {
		if list, ok := strings.CutPrefix(line, "NSpid:"); ok {
			var pids []int
			for _, field := range strings.Fields(list) {
				n, err := strconv.Atoi(field)
				if err != nil {
					return nil, err
				}
				pids = append(pids, n)
			}
			return pids, nil
		}
	}
	return nil, errors.New("no NSpid in /proc/PID/status")
}

// firstUID is the user that root of a container is outside.
const firstUID = 100000

// playContainer is what a runtime is: it starts a process in namespaces of its
// own, hands it signals, and ends as it does.
func playContainer(args []string) error {
	name, directory := args[0], args[1]
	clock, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	if len(args) > 3 {
		status, err := strconv.Atoi(args[3])
		if err != nil {
			return err
		}
		os.Exit(status)
	}
	if err := unix.Unshare(unix.CLONE_NEWTIME); err != nil {
		return fmt.Errorf("making a time namespace: %w", err)
	}
	offsets := fmt.Sprintf("monotonic %d 0\nboottime %d 0\n", clock, clock)
	if err := os.WriteFile("/proc/self/timens_offsets", []byte(offsets), 0); err != nil {
		return fmt.Errorf("setting clocks: %w", err)
	}
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGHUP, unix.SIGTERM, unix.SIGINT)

	cmd := exec.Command("/proc/self/exe", "inside", name, directory)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	n, _ := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if pid := os.Getenv("LISTEN_PID"); n > 0 && pid != strconv.Itoa(os.Getpid()) {
		return fmt.Errorf("the stored files are for process %s, not for %d", pid, os.Getpid())
	}
	for fd := 3; fd < 3+n; fd++ {
		cmd.ExtraFiles = append(cmd.ExtraFiles, os.NewFile(uintptr(fd), "stored"))
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:                 unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		UidMappings:                []syscall.SysProcIDMap{{ContainerID: 0, HostID: firstUID, Size: 65536}},
		GidMappings:                []syscall.SysProcIDMap{{ContainerID: 0, HostID: firstUID, Size: 65536}},
		GidMappingsEnableSetgroups: true,
		Credential:                 &syscall.Credential{},
		Pdeathsig:                  unix.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting the container: %w", err)
	}
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s)
		}
	}()
	var exit *exec.ExitError
	if err := cmd.Wait(); errors.As(err, &exit) {
		if status := exit.Sys().(syscall.WaitStatus); status.Signaled() {
			os.Exit(128 + int(status.Signal()))
		}
		os.Exit(exit.ExitCode())
	} else if err != nil {
		return err
	}
	return nil
}

// playInside is the first process of a container: it does what the test asks
// for until it is told to end, and reloads on SIGHUP.
func playInside(args []string) error {
	name, directory := args[0], args[1]
	conn, err := net.Dial("unix", "/shared/"+name+".sock")
	if err != nil {
		return err
	}
	if err := mountInside(directory); err != nil {
		return err
	}
	f, err := ownFacts()
	if err != nil {
		return err
	}
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGHUP, unix.SIGTERM, unix.SIGINT)
	go func() {
		for s := range signals {
			if s != unix.SIGHUP {
				os.Exit(0)
			}
			for _, state := range []string{daemon.SdNotifyReloading + "\n" + monotonic(), daemon.SdNotifyReady} {
				if _, err := daemon.SdNotify(false, state); err != nil {
					fmt.Fprintf(os.Stderr, "inside: reloading: %v\n", err)
				}
			}
		}
	}()

	var mu sync.Mutex
	enc, dec := json.NewEncoder(conn), json.NewDecoder(conn)
	if err := enc.Encode(hello{Facts: f}); err != nil {
		return err
	}
	for {
		var r request
		if err := dec.Decode(&r); err != nil {
			return fmt.Errorf("the test is gone: %w", err)
		}
		go func() {
			answer, err := act(r)
			answer.ID = r.ID
			if err != nil {
				answer.Error = err.Error()
			}
			mu.Lock()
			defer mu.Unlock()
			_ = enc.Encode(answer)
		}()
	}
}

// mountInside gives the container's first process what a runtime would.
func mountInside(directory string) error {
	source, err := unix.Open(directory, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening the relay's directory: %w", err)
	}
	defer unix.Close(source)
	const strict = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	// Hides the host's own socket.
	if err := unix.Mount("tmpfs", "/run", "tmpfs", strict, "mode=0755"); err != nil {
		return fmt.Errorf("mounting /run: %w", err)
	}
	if err := os.Mkdir(insideDirectory, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", source), insideDirectory, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mounting the relay's directory: %w", err)
	}
	if err := unix.Mount("", insideDirectory, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|strict, ""); err != nil {
		return fmt.Errorf("making the relay's directory read-only: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", strict, ""); err != nil {
		return fmt.Errorf("mounting /proc: %w", err)
	}
	return nil
}

func ownFacts() (facts, error) {
	f := facts{PID: os.Getpid(), Notify: os.Getenv("NOTIFY_SOCKET"), Namespaces: map[string]string{}, Stored: map[string]file{}}
	for _, ns := range []string{"mnt", "net", "pid", "time", "user"} {
		link, err := os.Readlink(filepath.Join("/proc/self/ns", ns))
		if err != nil {
			return f, err
		}
		f.Namespaces[ns] = link
	}
	n, _ := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	for i, name := range strings.Split(os.Getenv("LISTEN_FDNAMES"), ":") {
		if i >= n {
			break
		}
		kept, err := identify(3 + i)
		if err != nil {
			return f, err
		}
		f.Stored[name] = kept
	}
	return f, nil
}

func identify(fd int) (file, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return file{}, err
	}
	content := make([]byte, 256)
	n, err := unix.Pread(fd, content, 0)
	return file{Inode: st.Ino, Content: string(content[:max(n, 0)])}, err
}

// monotonic is the assignment that says when a reload began.
func monotonic() string {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		panic(err)
	}
	return "MONOTONIC_USEC=" + strconv.FormatInt(now.Nano()/1000, 10)
}

// act does what a request asks for, inside.
func act(r request) (response, error) {
	switch r.Op {
	case "hello":
		return response{}, nil
	case "notify":
		return response{}, notifyHost(r.Args[0])
	case "barrier":
		return response{}, barrier()
	case "store":
		return store(r.Args[0], r.N)
	case "main": // a file descriptor of itself goes along
		fd, err := unix.PidfdOpen(os.Getpid(), 0)
		if err != nil {
			return response{}, err
		}
		defer unix.Close(fd)
		return response{}, send(r.Args[0], fd)
	case "ping":
		return response{}, ping(r.N)
	case "run":
		out, err := exec.Command(r.Args[0], r.Args[1:]...).CombinedOutput()
		return response{Output: string(out)}, err
	case "exit":
		os.Exit(r.N)
	}
	return response{}, fmt.Errorf("no operation %q", r.Op)
}

func notifyHost(state string) error {
	sent, err := daemon.SdNotify(false, state)
	if err == nil && !sent {
		err = errors.New("NOTIFY_SOCKET is not set")
	}
	return err
}

// send is notifyHost with file descriptors.
func send(state string, fds ...int) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Sendmsg(fd, []byte(state), unix.UnixRights(fds...), &unix.SockaddrUnix{Name: os.Getenv("NOTIFY_SOCKET")}, unix.MSG_NOSIGNAL)
}

// barrier is sd_notify_barrier(3).
func barrier() error {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	err := send("BARRIER=1", p[1])
	unix.Close(p[1])
	defer unix.Close(p[0])
	if err != nil {
		return err
	}
	for {
		poll := []unix.PollFd{{Fd: int32(p[0])}}
		if _, err := unix.Poll(poll, -1); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// store gives the host n files to keep, each in a datagram of its own.
func store(name string, n int) (response, error) {
	var r response
	for i := range n {
		fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
		if err != nil {
			return r, err
		}
		defer unix.Close(fd)
		if _, err := unix.Write(fd, fmt.Appendf(nil, "%s %d", name, i)); err != nil {
			return r, err
		}
		f, err := identify(fd)
		if err != nil {
			return r, err
		}
		r.Files = append(r.Files, f)
		if err := send("FDSTORE=1\nFDNAME="+name, fd); err != nil {
			return r, err
		}
	}
	return r, nil
}

// ping keeps the watchdog content n times, four times as often as needed.
func ping(n int) error {
	limit, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return err
	}
	if limit == 0 {
		return fmt.Errorf("there is no watchdog: WATCHDOG_PID=%s WATCHDOG_USEC=%s", os.Getenv("WATCHDOG_PID"), os.Getenv("WATCHDOG_USEC"))
	}
	ticker := time.NewTicker(limit / 4) //nolint:forbidigo // as a daemon does
	defer ticker.Stop()
	for range n {
		<-ticker.C
		if err := notifyHost(daemon.SdNotifyWatchdog); err != nil {
			return err
		}
	}
	return nil
}

// playSend sends a datagram from outside of any container, says so, and stays
// for as long as its standard input does.
func playSend(args []string) error {
	os.Setenv("NOTIFY_SOCKET", args[0])
	if err := notifyHost(strings.Join(args[1:], "\n")); err != nil {
		return err
	}
	fmt.Println("sent")
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}
