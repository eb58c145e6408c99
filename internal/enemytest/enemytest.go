// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package enemytest has processes that are not to be looked at, for tests of what looks at all.
package enemytest

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/osthread"
	"github.com/sdtrace/sdtrace/vmtest"
)

// The kinds of enemies.
const (
	// EndlessEnvironment and EndlessArguments say that theirs are a TiB long.
	EndlessEnvironment = "endless-environment"
	EndlessArguments   = "endless-arguments"
	// SilentMemory has a page that whoever touches waits for ever (userfaultfd(2)).
	SilentMemory = "silent-memory"
	// DeafFiles has NOTIFY_SOCKET in a file system whose requests nobody takes (fuse(4)), SilentFiles in one
	// whose requests are taken and not answered, LinkedFiles a link to such a one.
	DeafFiles   = "deaf-files"
	SilentFiles = "silent-files"
	LinkedFiles = "linked-files"
	// BigDirectory has many sockets that it has bound through a descriptor, by which there is a directory
	// of many files now.
	BigDirectory = "big-directory"
)

// Kinds are all of them.
func Kinds() []string {
	return []string{EndlessEnvironment, EndlessArguments, SilentMemory, DeafFiles, SilentFiles, LinkedFiles, BigDirectory}
}

// Play makes this process an enemy of a kind, with a directory of its own for what it needs, and returns with the end of
// its input. Once it is one it says a line: which process is not to be looked at, and where its memory is, 0 for a kind
// without. The error says what could not be done.
func Play(kind, dir string) error {
	if os.Getenv(again) != "" {
		return wait(os.Getpid(), 0)
	}
	var at uintptr
	var err error
	switch kind {
	case EndlessEnvironment, EndlessArguments:
		const size = 1 << 40
		if at, err = reserve(size); err == nil {
			err = describeMemory(kind, uint64(at), size)
		}
	case SilentMemory:
		size := os.Getpagesize()
		if at, err = reserve(size); err == nil {
			err = registerFaults(at, size)
		}
	case DeafFiles, SilentFiles, LinkedFiles:
		return osthread.Do(func() error { return playFiles(kind, dir) })
	case BigDirectory:
		err = fillDirectory(dir)
	default:
		err = fmt.Errorf("there is no enemy of the kind %q", kind)
	}
	if err != nil {
		return err
	}
	return wait(os.Getpid(), at)
}

// Start starts a program that plays an enemy, as [Play] does, until end is called or the test is over. It says which process is
// not to be looked at, and where its memory is. A test that needs FUSE is left out in a machine whose kernel has none.
func Start(t testing.TB, cmd *exec.Cmd) (pid int, memory uintptr, end func()) {
	t.Helper()
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
	end = func() {
		_ = in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	t.Cleanup(end)
	line, _ := bufio.NewReader(out).ReadString('\n')
	if strings.Contains(line, "/dev/fuse") && !vmtest.Native() {
		t.Skip("not declared: this kernel has no FUSE: " + line)
	}
	if _, err := fmt.Sscan(line, &pid, &memory); err != nil {
		t.Fatalf("the enemy says %q", line)
	}
	return pid, memory, end
}

// again has this program do nothing but wait.
const again = "SDTRACE_TEST_ENEMY_AGAIN"

// wait says that all is as it is to be, and returns with the end of the input.
func wait(pid int, at uintptr) error {
	fmt.Println(pid, at)
	if _, err := bufio.NewReader(os.Stdin).ReadByte(); err == nil {
		return errors.New("nothing is to be said to an enemy")
	}
	return nil
}

func reserve(size int) (uintptr, error) {
	memory, err := unix.Mmap(-1, 0, size, unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return 0, fmt.Errorf("reserving memory: %w", err)
	}
	return uintptr(unsafe.Pointer(unsafe.SliceData(memory))), nil
}

// describeMemory says that a piece of memory is the arguments or the environment of this process, which everybody may
// (prctl(2), PR_SET_MM_MAP).
func describeMemory(kind string, at, size uint64) error {
	text, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return err
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	field := func(n int) uint64 { // as proc_pid_stat(5) counts them
		value, _ := strconv.ParseUint(fields[n-3], 10, 64)
		return value
	}
	brk, _, _ := unix.Syscall(unix.SYS_BRK, 0, 0, 0)
	layout := struct {
		code, data             [2]uint64
		brkStart, brk, stack   uint64
		arguments, environment [2]uint64
		auxv                   uint64
		auxvSize               uint32
		exe                    int32
	}{
		code: [2]uint64{field(26), field(27)}, data: [2]uint64{field(45), field(46)}, brkStart: field(47), brk: uint64(brk), stack: field(28),
		arguments: [2]uint64{field(48), field(49)}, environment: [2]uint64{field(50), field(51)}, exe: -1,
	}
	if memory := [2]uint64{at, at + size}; kind == EndlessArguments {
		layout.arguments = memory
	} else {
		layout.environment = memory
	}
	return unix.Prctl(unix.PR_SET_MM, unix.PR_SET_MM_MAP, uintptr(unsafe.Pointer(&layout)), unsafe.Sizeof(layout), 0)
}

// registerFaults makes whoever touches a piece of memory wait for somebody who never comes (userfaultfd(2)).
func registerFaults(at uintptr, size int) error {
	fd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC, 0, 0)
	if errno != 0 {
		return errno
	}
	const (
		api      = 0xaa
		doAPI    = 0xc018aa3f // UFFDIO_API
		register = 0xc020aa00 // UFFDIO_REGISTER
		missing  = 1          // UFFDIO_REGISTER_MODE_MISSING
	)
	hello := struct{ api, features, ioctls uint64 }{api: api}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, doAPI, uintptr(unsafe.Pointer(&hello))); errno != 0 {
		return errno
	}
	what := struct{ start, length, mode, ioctls uint64 }{uint64(at), uint64(size), missing, 0}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, register, uintptr(unsafe.Pointer(&what))); errno != 0 {
		return errno
	}
	return nil
}

// playFiles mounts such a file system for this thread alone, and starts a process with NOTIFY_SOCKET in it.
func playFiles(kind, dir string) error {
	fuse, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer fuse.Close()
	at, leads := filepath.Join(dir, "files"), filepath.Join(dir, "link")
	err = errors.Join(
		os.Mkdir(at, 0o755),
		os.Symlink(at, leads),
		unix.Unshare(unix.CLONE_NEWNS),
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount("enemy", at, "fuse", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", fuse.Fd())),
	)
	if err != nil {
		return fmt.Errorf("mounting: %w", err)
	}
	if kind != DeafFiles {
		go takeRequests(fuse)
	}
	if kind != LinkedFiles {
		leads = at
	}
	// This program again, which waits for the end of an input that is not given.
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+leads+"/notify.sock", again+"=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	defer in.Close()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() { _, _ = cmd.Process.Kill(), cmd.Wait() }()
	return wait(cmd.Process.Pid, 0)
}

// takeRequests answers the first request of a file system (fuse(4), FUSE_INIT), and takes all others.
func takeRequests(fuse *os.File) {
	const initialize = 26
	request := make([]byte, 1<<17)
	for {
		n, err := fuse.Read(request)
		if err != nil || n < 16 {
			return
		}
		if binary.NativeEndian.Uint32(request[4:]) != initialize {
			continue
		}
		answer := make([]byte, 16+64)
		binary.NativeEndian.PutUint32(answer, uint32(len(answer)))
		copy(answer[8:16], request[8:16])
		binary.NativeEndian.PutUint32(answer[16:], 7)    // major
		binary.NativeEndian.PutUint32(answer[20:], 31)   // minor
		binary.NativeEndian.PutUint32(answer[36:], 4096) // max_write
		if _, err := fuse.Write(answer); err != nil {
			return
		}
	}
}

// fillDirectory binds sockets each in a directory of its own, reached through a descriptor, by which there is
// another directory then that is full of files.
func fillDirectory(dir string) error {
	const sockets, files = 200, 5000
	big := filepath.Join(dir, "big")
	if err := os.Mkdir(big, 0o755); err != nil {
		return err
	}
	for i := range files {
		if err := os.WriteFile(filepath.Join(big, strconv.Itoa(i)), nil, 0o644); err != nil {
			return err
		}
	}
	full, err := unix.Open(big, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	for i := range sockets {
		own := filepath.Join(dir, "own"+strconv.Itoa(i))
		if err := os.Mkdir(own, 0o755); err != nil {
			return err
		}
		fd, err := unix.Open(own, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return err
		}
		socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
		if err != nil {
			return err
		}
		if err := unix.Bind(socket, &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/notify.sock", fd)}); err != nil {
			return err
		}
		if err := unix.Dup3(full, fd, 0); err != nil {
			return err
		}
	}
	return nil
}
