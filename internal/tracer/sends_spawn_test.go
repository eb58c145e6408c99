// SPDX-License-Identifier: Apache-2.0

package tracer_test

import (
	"fmt"
	"path/filepath"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// spawn says what children an agent makes. Each sends one datagram and exits
// at once.
type spawn struct {
	Count int
	// First is the number in the first child's payload, "X_ID=1000007": the
	// following ones count up.
	First int
	// UIDs and Comms are dealt out to the children in turn.
	UIDs  []int
	Comms []string
	// Cgroup is the directory of a cgroup that each child enters.
	Cgroup string
}

// spawnID is the payload of a spawned child.
func spawnID(n int) string { return fmt.Sprintf("X_ID=%07d", 1000000+n) }

// child is one process to make, laid out so that the new process needs neither
// memory nor the Go runtime.
type child struct {
	cgroupFD      int
	uid           uintptr
	comm          [16]byte
	name          unix.RawSockaddrUnix
	nameLen       uintptr
	payload       [16]byte
	payloadLen    uintptr
	cgroupPayload [1]byte
}

// fork makes the child, which runs to its end inside. Everything in here is a
// raw system call and no function that could grow the stack, for the one
// thread that is left in the child is not known to a scheduler. exec would do
// as well, at ten times the cost. The exit status counts the step that failed.
//
//go:nosplit
//go:norace
func fork(c *child) (pid uintptr, errno syscall.Errno) {
	pid, _, errno = syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 || pid != 0 {
		return pid, errno
	}
	status := uintptr(1)
	if c.cgroupFD >= 0 {
		_, _, errno = syscall.RawSyscall(unix.SYS_WRITE, uintptr(c.cgroupFD), uintptr(unsafe.Pointer(&c.cgroupPayload)), 1)
	}
	if errno == 0 {
		status = 2
		_, _, errno = syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_NAME, uintptr(unsafe.Pointer(&c.comm)), 0, 0, 0, 0)
	}
	if errno == 0 {
		status = 3
		_, _, errno = syscall.RawSyscall(unix.SYS_SETRESUID, c.uid, c.uid, c.uid)
	}
	var fd uintptr
	if errno == 0 {
		status = 4
		fd, _, errno = syscall.RawSyscall(unix.SYS_SOCKET, unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	}
	if errno == 0 {
		status = 5
		_, _, errno = syscall.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(&c.payload)), c.payloadLen, 0,
			uintptr(unsafe.Pointer(&c.name)), c.nameLen)
	}
	if errno == 0 {
		status = 0
	}
	for {
		_, _, _ = syscall.RawSyscall(unix.SYS_EXIT_GROUP, status, 0, 0)
	}
}

// spawn makes the children, several at a time, and waits for their end.
func (w *worker) spawn(s step) outcome {
	const atOnce = 32
	o := outcome{}
	cgroupFD := -1
	if s.Spawn.Cgroup != "" {
		fd, err := unix.Open(filepath.Join(s.Spawn.Cgroup, "cgroup.procs"), unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return result(0, err)
		}
		defer func() { _ = unix.Close(fd) }()
		cgroupFD = fd
	}
	name, nameLen := sockaddr(s.Addr)
	reaped := 0
	reap := func(until int) {
		for ; reaped < until; reaped++ {
			var status unix.WaitStatus
			if _, err := unix.Wait4(o.PIDs[reaped], &status, 0, nil); err != nil {
				fail(fmt.Errorf("waiting for a child: %w", err))
			}
			if status.ExitStatus() != 0 {
				fail(fmt.Errorf("child failed at step %d", status.ExitStatus()))
			}
		}
	}
	for i := range s.Spawn.Count {
		c := &child{cgroupFD: cgroupFD, name: *name, nameLen: nameLen, cgroupPayload: [1]byte{'0'}}
		c.uid = uintptr(s.Spawn.UIDs[i%len(s.Spawn.UIDs)])
		copy(c.comm[:15], s.Spawn.Comms[i%len(s.Spawn.Comms)])
		c.payloadLen = uintptr(copy(c.payload[:], spawnID(s.Spawn.First+i)))
		pid, errno := fork(c)
		if errno != 0 {
			return outcome{Errno: errno}
		}
		o.PIDs = append(o.PIDs, int(pid))
		if len(o.PIDs)-reaped >= atOnce {
			reap(len(o.PIDs))
		}
	}
	reap(len(o.PIDs))
	o.N = len(o.PIDs)
	return o
}

// flood sends the same datagram N times and counts the calls that worked.
func (w *worker) flood(s step) outcome {
	name, nameLen := sockaddr(s.Addr)
	payload := s.Parts[0]
	o := outcome{}
	for range s.N {
		_, _, errno := syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(w.socks[s.Sock]), uintptr(unsafe.Pointer(&payload[0])), uintptr(len(payload)),
			unix.MSG_DONTWAIT, uintptr(unsafe.Pointer(name)), nameLen)
		if errno == 0 {
			o.N++
		}
	}
	return o
}

// blockThreads makes N threads that each send once, and says which they are.
// They are about to enter the system call when this returns.
func (w *worker) blockThreads(s step) outcome {
	w.threads = make(chan outcome, s.N)
	w.blocked = s.N
	tids := make(chan int)
	fd := uintptr(w.socks[s.Sock])
	for range s.N {
		go func() {
			// Never unlocked: the thread ends with the goroutine.
			runtime.LockOSThread()
			name, nameLen := sockaddr(s.Addr)
			payload := s.Parts[0]
			tids <- unix.Gettid()
			w.threads <- raw(unix.Syscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(&payload[0])), uintptr(len(payload)), 0,
				uintptr(unsafe.Pointer(name)), nameLen))
		}()
	}
	o := outcome{}
	for range s.N {
		o.PIDs = append(o.PIDs, <-tids)
	}
	return o
}

// joinThreads waits for the threads of blockThreads and counts the sends that
// worked.
func (w *worker) joinThreads() outcome {
	o := outcome{}
	for range w.blocked {
		if r := <-w.threads; r.Errno != 0 {
			o.Errno = r.Errno
		} else {
			o.N++
		}
	}
	return o
}

// sendAtOnce makes len(Msgs) threads that send N datagrams each, all at once, and waits for them. Each says in its
// datagrams who it is, and which of them it is, and sends to the address of its message.
func sendAtOnce(s step) outcome {
	begin, ends := make(chan struct{}), make(chan outcome, len(s.Msgs))
	for _, m := range s.Msgs {
		go func() {
			// Never unlocked: the thread ends with the goroutine.
			runtime.LockOSThread()
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				ends <- result(0, err)
				return
			}
			defer func() { _ = unix.Close(fd) }()
			name, nameLen := sockaddr(m.Addr)
			o := outcome{}
			<-begin
			for i := range s.N {
				payload := []byte(fmt.Sprintf("STATUS=%d %d", unix.Gettid(), i))
				_, _, errno := unix.Syscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&payload[0])), uintptr(len(payload)), 0,
					uintptr(unsafe.Pointer(name)), nameLen)
				if errno == 0 {
					o.N++
				}
			}
			ends <- o
		}()
	}
	close(begin)
	o := outcome{}
	for range s.Msgs {
		r := <-ends
		o.N += r.N
		if r.Errno != 0 {
			o.Errno = r.Errno
		}
	}
	return o
}
