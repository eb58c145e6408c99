// SPDX-License-Identifier: Apache-2.0

package sockdiag

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/bpf"
)

// Queue is the receive queue of a datagram socket. Of a datagram socket, sock_diag(7) tells
// only how long the next datagram is.
type Queue struct {
	// Datagrams is how many wait, empty ones among them (struct sock,
	// sk_receive_queue.qlen).
	Datagrams uint32
	// Limit is what net.unix.max_dgram_qlen was in the socket's network namespace when
	// it was made (sk_max_ack_backlog): a sender waits while there are more than that
	// (unix_recvq_full), unless it is the one the socket is connected to.
	Limit uint32
}

// Queues returns the queues of all AF_UNIX datagram sockets of which a process of this pid
// namespace, or of one below, has a file descriptor, by the inode number of the socket
// and whatever its network namespace. Each is as it was at some moment of the call.
// Sockets and processes that come or go meanwhile may be missing, which is no error.
//
// It loads a BPF iterator (iter/task_file, Linux 5.8) and takes it away again. The error
// is the kernel's when it refuses that: for want of CAP_BPF or CAP_PERFMON
// ([os.ErrPermission]), without BTF, in lockdown; or that of ctx.
func Queues(ctx context.Context) (map[uint32]Queue, error) {
	iterator, err := openIterator()
	if err != nil {
		return nil, err
	}
	defer iterator.Close()
	return readQueues(ctx, iterator)
}

func openIterator() (io.ReadCloser, error) {
	spec, err := bpf.LoadQueues()
	if err != nil {
		return nil, fmt.Errorf("reading the embedded program: %w", err)
	}
	// Kernels before 5.11 charge programs to this limit. Where it cannot be lifted, the
	// program may fit nevertheless.
	_ = rlimit.RemoveMemlock()
	program, err := ebpf.NewProgram(spec.Programs[bpf.QueuesProgListQueues])
	if err != nil {
		return nil, fmt.Errorf("loading iter/task_file: %w", err)
	}
	defer program.Close()
	l, err := link.AttachIter(link.IterOptions{Program: program})
	if err != nil {
		return nil, fmt.Errorf("attaching iter/task_file: %w", err)
	}
	defer l.Close()
	iterator, err := l.Open()
	if err != nil {
		return nil, fmt.Errorf("opening iter/task_file: %w", err)
	}
	return iterator, nil
}

// readSize is what the kernel has of room for one read (kernel/bpf/bpf_iter.c).
const readSize = 32 << 10

func readQueues(ctx context.Context, iterator io.Reader) (map[uint32]Queue, error) {
	queues := make(map[uint32]Queue)
	in := bufio.NewReaderSize(&patient{ctx, iterator}, readSize)
	for {
		var q bpf.QueuesQueue
		err := binary.Read(in, binary.NativeEndian, &q)
		if errors.Is(err, io.EOF) {
			return queues, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading iter/task_file: %w", err)
		}
		queues[uint32(q.Inode)] = Queue{Datagrams: q.Datagrams, Limit: q.Limit}
	}
}

// patient reads on when the iterator has passed a million files without one of interest:
// then a read fails with EAGAIN, and the next goes on from there (bpf_seq_read,
// MAX_ITER_OBJECTS).
type patient struct {
	ctx      context.Context
	iterator io.Reader
}

func (p *patient) Read(b []byte) (int, error) {
	for {
		if err := p.ctx.Err(); err != nil {
			return 0, err
		}
		n, err := p.iterator.Read(b)
		if !errors.Is(err, unix.EAGAIN) {
			return n, err
		}
	}
}
