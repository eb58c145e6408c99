// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"encoding/binary"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// SendWaits are where a thread is in the kernel whose datagram has no room: in the receiver's queue, or in its own
// socket's buffer, which what is not read takes up, too (socket(7), SO_SNDBUF).
var SendWaits = []string{"unix_wait_for_peer", "sock_alloc_send_pskb"}

// ThreadsIn returns the threads of the process that wait in one of some functions of the kernel
// (proc_pid_wchan(5), proc_pid_stack(5)), none if that may not be known.
func (p Process) ThreadsIn(functions ...string) (tids []int) {
	dir, err := p.Open("task", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil
	}
	defer unix.Close(dir)
	EachEntry(dir, func(name string) bool {
		if tid, err := strconv.Atoi(name); err == nil && slices.Contains(functions, p.waitsIn("task/"+name)) {
			tids = append(tids, tid)
		}
		return true
	})
	return tids
}

// WaitsOf is how often a thread has begun to wait: one that goes on waiting for the same has the same number.
func (p Process) WaitsOf(tid int) (uint64, error) {
	content, err := p.Read("task/" + strconv.Itoa(tid) + "/status")
	if err != nil {
		return 0, err
	}
	status, err := ParseStatus(content)
	return status.Waits, err
}

// waitsIn is the function of the kernel in which a thread waits, "" if it runs, or that may not be known.
func (p Process) waitsIn(thread string) string {
	const none = "0"
	where, err := p.Read(thread + "/wchan")
	if err != nil || string(where) != none {
		return string(where)
	}
	// Before Linux 5.16 it is never told where the kernel is built without frame pointers.
	stack, err := p.Read(thread + "/stack")
	if err != nil {
		return ""
	}
	// [<0>] unix_wait_for_peer+0xd4/0xe0
	_, first, _ := strings.Cut(string(stack), "] ")
	function, _, _ := strings.Cut(first, "+")
	return function
}

// Destination is where a thread sends to by the system call in which it waits (proc_pid_syscall(5)): the
// sun_path (unix(7)) in the call, or of its socket's peer. It is empty if the thread is in another call, or that
// may not be known. It holds a copy of the thread's socket meanwhile (pidfd_getfd(2)).
func (p Process) Destination(tid int) (sunPath []byte) {
	text, err := p.Read("task/" + strconv.Itoa(tid) + "/syscall")
	if err != nil {
		return nil
	}
	var call [7]uint64 // the number and six arguments
	fields := strings.Fields(string(text))
	if len(fields) < len(call) {
		return nil // it runs
	}
	for i := range call {
		if call[i], err = strconv.ParseUint(fields[i], 0, 64); err != nil {
			return nil
		}
	}
	var name, length uint64
	switch call[0] {
	case unix.SYS_SENDTO:
		name, length = call[5], call[6]
	case unix.SYS_SENDMSG, unix.SYS_SENDMMSG:
		// struct user_msghdr begins with the name, and its length in 32 bits.
		header := p.memory(tid, call[2], 12)
		if len(header) < 12 {
			return nil
		}
		name, length = binary.NativeEndian.Uint64(header), uint64(binary.NativeEndian.Uint32(header[8:]))
	case unix.SYS_WRITE, unix.SYS_WRITEV:
	default:
		return nil
	}
	if name == 0 || length == 0 {
		return p.peer(int(call[1]))
	}
	address := p.memory(tid, name, int(min(length, unix.SizeofSockaddrUnix)))
	const family = 2
	if len(address) <= family {
		return nil
	}
	return address[family:]
}

// memory reads the memory of a thread, nil if that is not possible.
func (p Process) memory(tid int, at uint64, size int) []byte {
	to := make([]byte, size)
	local := []unix.Iovec{{Base: unsafe.SliceData(to), Len: uint64(size)}}
	n, err := unix.ProcessVMReadv(tid, local, []unix.RemoteIovec{{Base: uintptr(at), Len: size}}, 0)
	if err != nil {
		return nil
	}
	return to[:n]
}

// peer is the sun_path of the socket to which a socket of the process is connected, empty if that is not known.
func (p Process) peer(fd int) []byte {
	pidfd, err := unix.PidfdOpen(p.PID, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(pidfd)
	copied, err := unix.PidfdGetfd(pidfd, fd, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(copied)
	peer, err := unix.Getpeername(copied)
	if err != nil {
		return nil
	}
	name, ok := peer.(*unix.SockaddrUnix)
	if !ok {
		return nil
	}
	if abstract, ok := strings.CutPrefix(name.Name, "@"); ok {
		return append([]byte{0}, abstract...)
	}
	return []byte(name.Name)
}
