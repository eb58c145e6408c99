//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only
/*
 * The receive queues of AF_UNIX datagram sockets.
 *
 *   iter/task_file    passes all files of all tasks and writes a struct queue for each
 *                     of them that is such a socket, again for each that has it open
 *
 * It attaches to nothing: it runs while user space reads. It works without
 * trampolines: for users not allowed to attach them, and on architectures without them.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#define SOCKFS_MAGIC 0x534f434b /* uapi/linux/magic.h */
#define AF_UNIX 1
#define SOCK_DGRAM 2

char LICENSE[] SEC("license") = "GPL";

/* What user space reads. */
struct queue {
	__u64 inode;
	__u32 datagrams;
	__u32 limit;
};

/* Makes the compiler tell bpf2go about the type. */
const struct queue *unused __attribute__((unused));

/* The socket behind a file, NULL if that is none of AF_UNIX datagrams. */
static __always_inline struct sock *datagram_socket(struct file *file)
{
	struct socket *socket;
	struct sock *sk;

	/* A socket's name in the file system, opened as O_PATH, is a file of another. */
	if (BPF_CORE_READ(file, f_inode, i_sb, s_magic) != SOCKFS_MAGIC)
		return NULL;
	socket = BPF_CORE_READ(file, private_data);
	sk = BPF_CORE_READ(socket, sk);
	if (!sk || BPF_CORE_READ(sk, __sk_common.skc_family) != AF_UNIX ||
	    BPF_CORE_READ(sk, sk_type) != SOCK_DGRAM)
		return NULL;
	return sk;
}

SEC("iter/task_file")
int list_queues(struct bpf_iter__task_file *ctx)
{
	struct file *file = ctx->file;
	struct queue queue;
	struct sock *sk;

	/* The kernel says by NULL that there are no more. */
	if (!file)
		return 0;
	sk = datagram_socket(file);
	if (!sk)
		return 0;
	queue.inode = BPF_CORE_READ(file, f_inode, i_ino);
	queue.datagrams = BPF_CORE_READ(sk, sk_receive_queue.qlen);
	queue.limit = BPF_CORE_READ(sk, sk_max_ack_backlog);
	/* Where there is no room left, the kernel comes back to this file. */
	bpf_seq_write(ctx->meta->seq, &queue, sizeof(queue));
	return 0;
}
