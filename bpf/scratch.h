/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Per-CPU memory for what does not fit on the 512-byte stack. Each program has a
 * slot of its own: the kernel never runs the same program twice on a CPU at a
 * time, but may preempt one program by another.
 */
#ifndef __SCRATCH_H__
#define __SCRATCH_H__

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "event.h"

enum scratch_slot {
	SLOT_QUEUED,
	SLOT_EXIT,
	SLOT_GONE,
	SLOT_CONNECT,
	SLOT_CONNECT_DENIED,
	SLOT_SOCKET_DENIED,
	SLOT_SEND_DENIED,
	SLOTS,
};

/* Where a datagram goes, in terms of both ends. */
struct destination {
	__u64 inode;	 /* of the receiving socket, 0: unknown */
	__u64 cgroup_id; /* the one it was made in, 0: unknown */
	__u32 netns;
	__u32 uid; /* who made it */
	__u16 address_len;
	__u16 bound_len;
	__u8 type;	   /* SOCK_DGRAM or SOCK_SEQPACKET */
	__u8 connected;	   /* the sender gave no address */
	__u8 resolved;	   /* the receiving socket was seen */
	__u8 unfiltered;   /* ... and it has no socket filter */
	__u8 unreadable;   /* the sender gave an address that cannot be read */
	char address[128]; /* as written, or the peer's name */
	char bound[128];   /* as the receiver bound it */
};

/* A send, and the datagram that it is of. */
struct send {
	__u64 queued_ns; /* when it was about to be queued */
	__u64 skb;
	__u8 followed; /* receipts come of it */
	__u8 own;      /* it is sdtrace's, on trial */
	__u32 unsure;  /* EVENT_UNSURE_*: what user space has to look at again */
	struct destination dst;
};

/* What came along as ancillary data. */
struct ancillary {
	__u32 flags; /* EVENT_CLAIMED* */
	__u32 pid;
	__u32 ns_pid;
	__u32 uid;
	__u32 gid;
	__u32 fd_count;
	__u64 first; /* the struct file of the first one, 0: unknown */
	__u8 fds[256];
};

struct glob {
	__u32 pattern;
	__u32 pi;
	__u32 ti;
	__u32 star_pi;
	__u32 star_ti;
	__u32 groups;
	__u32 unsure; /* EVENT_UNSURE_NAMES: some match ran out of steps */
	__u32 text_len;
	char text[256];
};

/* Where the search for a key stands in the payload. */
struct key_search {
	__u64 hash;
	__u32 in_key;
	__u32 escaped;
};

struct scratch {
	__u64 batch_sock; /* the struct sock that a batch is sent by */
	__u64 walk; /* the struct kernfs_node a walk has come to, 0: its end */
	struct glob glob;
	struct key_search key_search;
	struct user_msghdr_abi msg;
	struct send send;
	struct ancillary anc;
	struct event event;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__type(value, struct scratch);
} scratches SEC(".maps");

static __always_inline struct scratch *scratch_get(__u32 slot)
{
	return bpf_map_lookup_elem(&scratches, &slot);
}

/*
 * Bounds a size or an offset right before its use: clang otherwise proves the
 * bound itself and drops the check the verifier needs.
 */
#define BOUND(var, mask) asm volatile("%0 &= %1" : "+r"(var) : "i"(mask))

/* Whose memory a pointer from a system call points to. */
enum memory {
	MEMORY_KERNEL,
	MEMORY_USER,
};

static __always_inline long read_from(bool user, void *to, __u32 size,
				      const void *from)
{
	return user ? bpf_probe_read_user(to, size, from)
		    : bpf_probe_read_kernel(to, size, from);
}

#endif
