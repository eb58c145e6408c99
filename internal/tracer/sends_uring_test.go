// SPDX-License-Identifier: Apache-2.0

package tracer_test

import (
	"fmt"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Numbers of <linux/io_uring.h>.
const (
	ringSendmsg = 9
	ringWrite   = 23
	ringSend    = 26

	ringAsync = 1 << 4

	ringOffSQ   = 0
	ringOffCQ   = 0x8000000
	ringOffSQEs = 0x10000000

	ringGetEvents = 1
)

// ringParams is struct io_uring_params.
type ringParams struct {
	sqEntries, cqEntries, flags, threadCPU, threadIdle, features, wqFD uint32

	_      [3]uint32
	sq, cq struct {
		head, tail, mask, entries uint32
		// five is flags in sq, overflow in cq; six dropped and cqes; seven
		// array and flags.
		five, six, seven, _ uint32
		_                   uint64
	}
}

// ringSQE is struct io_uring_sqe.
type ringSQE struct {
	opcode, flags uint8
	ioprio        uint16
	fd            int32
	off, addr     uint64
	len, opFlags  uint32
	userData      uint64
	_             [3]uint64
}

// ringCQE is struct io_uring_cqe.
type ringCQE struct {
	userData uint64
	res      int32
	flags    uint32
}

// uring is an io_uring instance that is used for one request at a time.
type uring struct {
	fd             int
	params         ringParams
	sq, cq, sqeMem []byte
}

func newRing() (*uring, error) {
	r := &uring{}
	fd, _, e := unix.Syscall(unix.SYS_IO_URING_SETUP, 4, uintptr(unsafe.Pointer(&r.params)), 0)
	if e != 0 {
		return nil, e
	}
	r.fd = int(fd)
	p := &r.params
	var err error
	for _, m := range []struct {
		mem    *[]byte
		offset int64
		size   uint32
	}{
		{&r.sq, ringOffSQ, p.sq.seven + p.sqEntries*4},
		{&r.cq, ringOffCQ, p.cq.six + p.cqEntries*uint32(unsafe.Sizeof(ringCQE{}))},
		{&r.sqeMem, ringOffSQEs, p.sqEntries * uint32(unsafe.Sizeof(ringSQE{}))},
	} {
		*m.mem, err = unix.Mmap(r.fd, m.offset, int(m.size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
		if err != nil {
			return nil, fmt.Errorf("mapping the ring: %w", err)
		}
	}
	return r, nil
}

// word is one of the ring's shared counters.
func word(mem []byte, offset uint32) *uint32 { return (*uint32)(unsafe.Pointer(&mem[offset])) }

// submit makes one request and waits for its completion. addr has to stay valid
// until then.
func (r *uring) submit(opcode, flags uint8, fd, addr, size uintptr) outcome {
	tail := atomic.LoadUint32(word(r.sq, r.params.sq.tail))
	slot := tail & *word(r.sq, r.params.sq.mask)
	sqe := (*ringSQE)(unsafe.Pointer(&r.sqeMem[uintptr(slot)*unsafe.Sizeof(ringSQE{})]))
	*sqe = ringSQE{opcode: opcode, flags: flags, fd: int32(fd), addr: uint64(addr), len: uint32(size)}
	*word(r.sq, r.params.sq.seven+slot*4) = slot
	atomic.StoreUint32(word(r.sq, r.params.sq.tail), tail+1)

	submit := uintptr(1)
	for {
		n, _, e := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), submit, 1, ringGetEvents, 0, 0)
		if e != 0 && e != unix.EINTR {
			return outcome{Errno: e}
		}
		if e == 0 {
			submit -= min(submit, n)
		}
		head := atomic.LoadUint32(word(r.cq, r.params.cq.head))
		if head == atomic.LoadUint32(word(r.cq, r.params.cq.tail)) {
			continue
		}
		slot := head & *word(r.cq, r.params.cq.mask)
		cqe := *(*ringCQE)(unsafe.Pointer(&r.cq[r.params.cq.six+slot*uint32(unsafe.Sizeof(ringCQE{}))]))
		atomic.StoreUint32(word(r.cq, r.params.cq.head), head+1)
		if cqe.res < 0 {
			return outcome{Errno: syscall.Errno(-cqe.res)}
		}
		return outcome{N: int(cqe.res)}
	}
}
