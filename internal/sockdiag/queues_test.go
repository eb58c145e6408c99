// SPDX-License-Identifier: Apache-2.0

package sockdiag_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/osthread"
	"github.com/sdtrace/sdtrace/internal/sockdiag"
	"github.com/sdtrace/sdtrace/vmtest"
)

// What this test binary is told by its environment when it is another process.
//
//	hold:  make a socket in which two datagrams wait, say its inode number, and wait
//	       until stdin is closed
//	crowd: the same with more files open than a read of an iterator passes
//	list:  say the error of List
const roleEnv = "SDTRACE_QUEUES_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleEnv) {
	case "hold":
		hold(0)
	case "crowd":
		hold(5 << 19)
	case "list":
		_, err := sockdiag.Queues(context.Background())
		fmt.Println(errors.Is(err, os.ErrPermission), err)
	default:
		os.Exit(m.Run())
	}
}

func hold(files int) {
	err := openMany(files)
	var s *socket
	if err == nil {
		s, err = newSocket()
	}
	if err == nil {
		err = s.send("", "x")
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(s.inode)
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// openMany opens this many files. Of one table there can be too few: threads get copies.
func openMany(files int) error {
	if files == 0 {
		return nil
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	const spare = 100
	each := int(min(limit.Max, 1<<16)) - spare
	limit.Cur = limit.Max
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	null, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	for n := 0; err == nil && n < each; n++ {
		_, err = unix.FcntlInt(uintptr(null), unix.F_DUPFD_CLOEXEC, 0)
	}
	copied := make(chan error)
	for n := each; err == nil && n < files; n += each {
		go func() {
			runtime.LockOSThread()
			copied <- unix.Unshare(unix.CLONE_FILES)
			select {}
		}()
		err = <-copied
	}
	return err
}

// socket is a bound datagram socket that nobody reads.
type socket struct {
	fd    int
	inode uint32
}

func newSocket() (*socket, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	var stat unix.Stat_t
	err = errors.Join(unix.Bind(fd, &unix.SockaddrUnix{}), unix.Fstat(fd, &stat))
	return &socket{fd: fd, inode: uint32(stat.Ino)}, err
}

func (s *socket) close() { unix.Close(s.fd) }

// send sends datagrams to the socket, and does not wait for room.
func (s *socket) send(payloads ...string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	name, err := unix.Getsockname(s.fd)
	if err != nil {
		return err
	}
	for _, payload := range payloads {
		if err := unix.Sendto(fd, []byte(payload), 0, name); err != nil {
			return err
		}
	}
	return nil
}

func mustSocket(t *testing.T) *socket {
	t.Helper()
	s, err := newSocket()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	return s
}

// start starts a process in new namespaces and returns its socket's inode number.
func start(t *testing.T, role string, namespaces uintptr) (inode uint32, end func()) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleEnv+"="+role)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespaces}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end = func() {
		in.Close()
		_ = cmd.Wait()
	}
	t.Cleanup(end)
	line, _ := bufio.NewReader(out).ReadString('\n')
	number, err := strconv.ParseUint(strings.TrimSpace(line), 10, 32)
	if err != nil {
		t.Fatalf("the process says %q", line)
	}
	return uint32(number), end
}

func requireRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("not declared: needs root")
	}
}

func list(t *testing.T) map[uint32]sockdiag.Queue {
	t.Helper()
	found, err := sockdiag.Queues(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestEveryDatagramThatWaitsIsCounted(t *testing.T) {
	requireRoot(t)
	for _, test := range []struct {
		name     string
		payloads []string
		read     int
		want     uint32
	}{
		{name: "none"},
		{name: "one", payloads: []string{"READY=1"}, want: 1},
		{name: "an empty one", payloads: []string{""}, want: 1},
		{name: "an empty one in front", payloads: []string{"", "READY=1"}, want: 2},
		{name: "five", payloads: []string{"a", "b", "", "d", "e"}, want: 5},
		{name: "three of five were read", payloads: []string{"a", "b", "", "d", "e"}, read: 3, want: 2},
		{name: "all were read", payloads: []string{"a", ""}, read: 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := mustSocket(t)
			if err := s.send(test.payloads...); err != nil {
				t.Fatal(err)
			}
			for range test.read {
				if _, _, err := unix.Recvfrom(s.fd, make([]byte, 64), unix.MSG_DONTWAIT); err != nil {
					t.Fatal(err)
				}
			}
			if q, found := list(t)[s.inode]; !found || q.Datagrams != test.want {
				t.Errorf("%d datagrams, %v, want %d", q.Datagrams, found, test.want)
			}
		})
	}
}

// A process sees the sockets of every network namespace, each with the limit that it was
// made with.
func TestTheLimitIsTheOneTheSocketWasMadeWith(t *testing.T) {
	requireRoot(t)
	limits := []uint32{3, 0, 700}
	sockets := make([]*socket, len(limits))
	err := osthread.Do(func() error {
		err := unix.Unshare(unix.CLONE_NEWNET)
		for i, limit := range limits {
			if err == nil {
				err = os.WriteFile("/proc/sys/net/unix/max_dgram_qlen", fmt.Append(nil, limit), 0)
			}
			if err == nil {
				sockets[i], err = newSocket()
			}
		}
		for err == nil { // one more fits
			err = sockets[0].send("x")
		}
		if errors.Is(err, unix.EAGAIN) {
			err = nil
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	found := list(t)
	for i, limit := range limits {
		defer sockets[i].close()
		if q, ok := found[sockets[i].inode]; !ok || q.Limit != limit {
			t.Errorf("the limit is %d, %v, want %d", q.Limit, ok, limit)
		}
	}
	if q := found[sockets[0].inode]; q.Datagrams != limits[0]+1 {
		t.Errorf("%d datagrams fill a queue with limit %d, want one more than that", q.Datagrams, limits[0])
	}
}

func TestSocketsInOtherNamespacesAreListedWhileTheirHolderLives(t *testing.T) {
	requireRoot(t)
	for name, namespaces := range map[string]uintptr{
		"none": 0, "network": unix.CLONE_NEWNET, "pid": unix.CLONE_NEWPID,
		"network, pid and mount": unix.CLONE_NEWNET | unix.CLONE_NEWPID | unix.CLONE_NEWNS,
	} {
		t.Run(name, func(t *testing.T) {
			inode, end := start(t, "hold", namespaces)
			if q, found := list(t)[inode]; !found || q.Datagrams != 2 {
				t.Errorf("%d datagrams, %v, want 2", q.Datagrams, found)
			}
			end()
			if q, found := list(t)[inode]; found {
				t.Errorf("%+v of a socket that is gone", q)
			}
		})
	}
}

func TestOnlyDatagramSocketsOfThisFamilyAreListed(t *testing.T) {
	requireRoot(t)
	inodes := make(map[string]uint32)
	for name, kind := range map[string][2]int{
		"unix datagram": {unix.AF_UNIX, unix.SOCK_DGRAM}, "unix raw": {unix.AF_UNIX, unix.SOCK_RAW},
		"unix stream": {unix.AF_UNIX, unix.SOCK_STREAM}, "unix seqpacket": {unix.AF_UNIX, unix.SOCK_SEQPACKET},
		"netlink": {unix.AF_NETLINK, unix.SOCK_DGRAM}, "inet": {unix.AF_INET, unix.SOCK_DGRAM},
	} {
		fd, err := unix.Socket(kind[0], kind[1]|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		defer unix.Close(fd)
		var stat unix.Stat_t
		if err := unix.Fstat(fd, &stat); err != nil {
			t.Fatal(err)
		}
		inodes[name] = uint32(stat.Ino)
	}
	found := list(t)
	for name, inode := range inodes {
		// unix_create() makes datagram sockets of raw ones.
		if _, listed := found[inode]; listed != (name == "unix datagram" || name == "unix raw") {
			t.Errorf("%s: listed is %v", name, listed)
		}
	}
}

func TestProcessesThatVanishAreNoError(t *testing.T) {
	vmtest.OnlyOn(t, "/proc, from the oldest to the newest", "5.10-amd64", "prove:sid-amd64")
	requireRoot(t)
	s := mustSocket(t)
	var stop atomic.Bool
	ended := make(chan error)
	go func() {
		for !stop.Load() {
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = append(os.Environ(), roleEnv+"=hold")
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}
			if err := cmd.Run(); err != nil {
				ended <- err
				return
			}
		}
		ended <- nil
	}()
	for range 10 {
		if _, found := list(t)[s.inode]; !found {
			t.Error("a socket that was there all the time is missing")
		}
	}
	stop.Store(true)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

func TestThousandsOfSocketsAreListed(t *testing.T) {
	vmtest.OnlyOn(t, "netlink, from the oldest to the newest", "5.10-amd64", "prove:sid-amd64")
	requireRoot(t)
	// Of 16 bytes each, more than one read returns; Go raises the limit of open files.
	const many = 3000
	inodes := make(map[uint32]bool)
	for range many {
		inodes[mustSocket(t).inode] = true
	}
	found := list(t)
	for inode := range inodes {
		if _, listed := found[inode]; !listed {
			t.Fatalf("socket %d is missing", inode)
		}
	}
}

// A read of the iterator ends after a million files, with an error if there was nothing
// of interest among them (MAX_ITER_OBJECTS).
func TestASocketAmongMillionsOfFilesIsListed(t *testing.T) {
	requireRoot(t)
	vmtest.Natively(t, "so many files keep an emulated kernel too long")
	inode, _ := start(t, "crowd", 0)
	if q, found := list(t)[inode]; !found || q.Datagrams != 2 {
		t.Errorf("%d datagrams, %v, want 2", q.Datagrams, found)
	}
}

func TestWhoMayNotLoadTheProgramIsToldSo(t *testing.T) {
	requireRoot(t)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{roleEnv + "=list"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(out), "true ") {
		t.Errorf("the error is %q, want one for want of a right", out)
	}
}

func TestListEndsWithItsContext(t *testing.T) {
	requireRoot(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := sockdiag.Queues(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v, want that of the context", err)
	}
}
