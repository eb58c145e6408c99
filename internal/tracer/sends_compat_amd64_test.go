// SPDX-License-Identifier: Apache-2.0

package tracer_test

import (
	"encoding/binary"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Numbers of 32-bit system calls (kernel: arch/x86/entry/syscalls/syscall_32.tbl).
const (
	compatWrite   = 4
	compatSendto  = 369
	compatSendmsg = 370
)

func init() {
	ways = append(ways, []namedWay{
		{"32-bit write", way{op: "32-bit write", connected: true, kernelSide: true}},
		{"32-bit sendto", way{op: "32-bit sendto", connected: true, unconnected: true, kernelSide: true}},
		{"32-bit sendmsg", way{op: "32-bit sendmsg", split: fiveParts, connected: true, unconnected: true, kernelSide: true}},
	}...)
}

// int80 makes the 32-bit system call whose number and arguments a [7]uint32 holds, the result in place of the number:
//
//	mov r12, rax; push rbp
//	mov eax, [r12]; mov ebx, [r12+4]; mov ecx, [r12+8]; mov edx, [r12+12]; mov esi, [r12+16]; mov edi, [r12+20]; mov ebp, [r12+24]
//	int 0x80
//	mov [r12], eax; pop rbp; ret
//
// Go hands it the pointer in rax, and keeps nothing but r14 and rbp (cmd/compile/abi-internal).
var int80 = []byte{
	0x49, 0x89, 0xc4, 0x55,
	0x41, 0x8b, 0x04, 0x24, 0x41, 0x8b, 0x5c, 0x24, 4, 0x41, 0x8b, 0x4c, 0x24, 8, 0x41, 0x8b, 0x54, 0x24, 12,
	0x41, 0x8b, 0x74, 0x24, 16, 0x41, 0x8b, 0x7c, 0x24, 20, 0x41, 0x8b, 0x6c, 0x24, 24,
	0xcd, 0x80,
	0x41, 0x89, 0x04, 0x24, 0x5d, 0xc3,
}

// compatMemory is below 4 GiB: code first, then what 32-bit system calls are given.
type compatMemory struct {
	call func(*[7]uint32)
	mem  []byte
	used int
}

func newCompatMemory() (*compatMemory, error) {
	mem, err := unix.Mmap(-1, 0, 1<<18, unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_32BIT)
	if err != nil {
		return nil, err
	}
	m := &compatMemory{mem: mem}
	copy(mem, int80)
	// A function value is a pointer to a pointer to code.
	code := new(uintptr)
	*code = uintptr(unsafe.Pointer(&mem[0]))
	value := unsafe.Pointer(code)
	m.call = *(*func(*[7]uint32))(unsafe.Pointer(&value))
	return m, nil
}

// put puts bytes into the memory, and returns their address.
func (m *compatMemory) put(p []byte) uint32 {
	at := m.used
	m.used += copy(m.mem[at:], p)
	m.used = (m.used + 15) &^ 15
	return uint32(uintptr(unsafe.Pointer(&m.mem[at])))
}

func (w *worker) sendCompat(s step) outcome {
	if w.compat == nil {
		m, err := newCompatMemory()
		if err != nil {
			return result(0, err)
		}
		w.compat = m
	}
	m := w.compat
	m.used = 4096
	args := [7]uint32{1: uint32(w.socks[s.Sock])}
	words := func(list ...uint32) (b []byte) {
		for _, word := range list {
			b = binary.LittleEndian.AppendUint32(b, word)
		}
		return b
	}
	var addr []byte
	if s.Addr != nil {
		addr = append(binary.LittleEndian.AppendUint16(nil, unix.AF_UNIX), s.Addr...)
	}
	var segments []uint32 // struct compat_iovec
	for _, p := range s.Parts {
		segments = append(segments, m.put(p), uint32(len(p)))
	}
	switch s.Op {
	case "32-bit write":
		args[0], args[2], args[3] = compatWrite, segments[0], segments[1]
	case "32-bit sendto":
		args[0], args[2], args[3], args[4] = compatSendto, segments[0], segments[1], uint32(s.Flags)
		if addr != nil {
			args[5], args[6] = m.put(addr), uint32(len(addr))
		}
	case "32-bit sendmsg": // struct compat_msghdr
		header := []uint32{0, 0, m.put(words(segments...)), uint32(len(s.Parts)), 0, 0, 0}
		if addr != nil {
			header[0], header[1] = m.put(addr), uint32(len(addr))
		}
		args[0], args[2], args[3] = compatSendmsg, m.put(words(header...)), uint32(s.Flags)
	}
	m.call(&args)
	if n := int32(args[0]); n < 0 {
		return outcome{Errno: syscall.Errno(-n)}
	}
	return outcome{N: int(args[0])}
}
