/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What becomes of a datagram once it is in the receiver's queue: it is read, or
 * thrown away unread; a pipe passed with it is closed; its sender ends.
 */
#ifndef __RECEIPT_H__
#define __RECEIPT_H__

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "read.h"
#include "event.h"
#include "counters.h"
#include "scratch.h"
#include "emit.h"

#define MSG_PEEK 2

const volatile bool follow_receipts; /* the programs for it are attached */

/* A datagram in a queue, from before it gets there until it leaves it. */
struct followed {
	__u64 start_ns;
	__u64 queued_ns;
	__u64 owner; /* skb->sk, in case its end was missed */
	__u64 sender_start_time;
	__u32 sender_pid;
	__u32 len;
};

/* By struct sk_buff. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, __u64);
	__type(value, struct followed);
} queued SEC(".maps");

/*
 * How many entries queued has: most datagrams and most dropped packets of a host are
 * none of ours, and this is cheaper to ask than the map.
 */
__u64 queued_count;

/* A datagram taken out of its queue by a thread that has yet to return. */
struct taken {
	struct followed followed;
	__u64 skb;
	__u64 time_ns;
};

/* By pid_tgid. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, struct taken);
} reading SEC(".maps");

/* The pipes that barriers wait for, by struct file. */
struct waiting_pipe {
	__u64 skb;
	__u64 start_ns;
	__u64 queued_ns;
	__u64 inode; /* of the pipe, in case the file's end was missed */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, struct waiting_pipe);
} waiting_pipes SEC(".maps");

__u64 waiting_pipes_count;

/* The processes whose datagrams were followed, and when they ended, 0: not yet. */
struct process {
	__u64 start_time;
	__u64 pid;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct process);
	__type(value, __u64);
} senders SEC(".maps");

static __always_inline struct process current_process(void)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct process p = {
		.start_time = READ(task, group_leader, start_boottime),
		.pid = bpf_get_current_pid_tgid() >> 32,
	};

	return p;
}

static __always_inline __u64 pipe_inode(struct file *file)
{
	return READ(file, f_inode, i_ino);
}

/* Begins to follow a datagram that is about to be queued, perhaps not for the first
 * time.
 */
static __always_inline void follow(struct send *send)
{
	struct sk_buff *skb = (void *)send->skb;
	struct process sender = current_process();
	struct followed f = {
		.start_ns = send->start_ns,
		.owner = (__u64)READ(skb, sk),
		.sender_start_time = sender.start_time,
		.sender_pid = sender.pid,
		.len = send->len,
	};
	__u64 zero = 0;

	f.queued_ns = send->queued_ns = bpf_ktime_get_boot_ns();
	if (!send->followed) {
		/* One whose end the kernel skipped a program for had this address. */
		if (!bpf_map_delete_elem(&queued, &send->skb)) {
			__sync_fetch_and_add(&queued_count, -1);
			count(COUNT_RECEIPT_LOST);
		}
		/* An LRU map prepares an entry before it looks. */
		if (!bpf_map_lookup_elem(&senders, &sender))
			bpf_map_update_elem(&senders, &sender, &zero, BPF_NOEXIST);
		__sync_fetch_and_add(&queued_count, 1);
	}
	if (!bpf_map_update_elem(&queued, &send->skb, &f, BPF_ANY)) {
		send->followed = 1;
		return;
	}
	if (!send->followed)
		__sync_fetch_and_add(&queued_count, -1);
	count(COUNT_RECEIPT_LOST);
}

/* Ends following, and says whether the datagram was there until now. */
static __always_inline bool unfollow(__u64 skb)
{
	if (bpf_map_delete_elem(&queued, &skb))
		return false;
	__sync_fetch_and_add(&queued_count, -1);
	return true;
}

static __always_inline void send_receipt(struct receipt *r)
{
	if (bpf_ringbuf_output(&ring, r, sizeof(*r), wakeup_flags()))
		count(COUNT_RECEIPT_LOST);
}

static __always_inline void receipt_init(struct receipt *r, __u32 type, __u64 skb,
					 __u64 start_ns, __u64 queued_ns)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	__u64 id = bpf_get_current_pid_tgid();

	__builtin_memset(r, 0, sizeof(*r));
	r->type = type;
	r->skb = skb;
	r->start_ns = start_ns;
	r->queued_ns = queued_ns;
	r->time_ns = bpf_ktime_get_boot_ns();
	r->pid = id >> 32;
	r->tid = id;
	r->cgroup_id = bpf_get_current_cgroup_id();
	r->start_time = READ(task, group_leader, start_boottime);
	BPF_CORE_READ_STR_INTO(&r->comm, task, group_leader, comm);
}

static __always_inline __u64 sender_exited(const struct followed *f)
{
	struct process sender = {
		.start_time = f->sender_start_time,
		.pid = f->sender_pid,
	};
	__u64 *at = bpf_map_lookup_elem(&senders, &sender);

	return at ? *at : 0;
}

/* A datagram that is not reported: if it was read already, that is not either. */
static __always_inline void forget(const struct send *send)
{
	struct receipt r;

	if (!send->followed || unfollow(send->skb))
		return;
	receipt_init(&r, RECORD_FORGOTTEN, send->skb, send->start_ns, 0);
	send_receipt(&r);
}

/*
 * The entry of a datagram that leaves its queue, if there is one. *f is a copy of it,
 * and the entry is gone.
 */
static __always_inline bool leave_queue(struct sk_buff *skb, struct followed *f)
{
	__u64 key = (__u64)skb;
	struct followed *entry = bpf_map_lookup_elem(&queued, &key);

	if (!entry)
		return false;
	*f = *entry;
	if (!unfollow(key))
		return false;
	/* Another datagram at the address of one whose end was missed. */
	if (f->owner == (__u64)READ(skb, sk) && f->len == READ(skb, len))
		return true;
	count(COUNT_RECEIPT_LOST);
	return false;
}

/* Somebody received skb, and will be told how much of it. */
static __always_inline void take(struct sk_buff *skb)
{
	__u64 id = bpf_get_current_pid_tgid();
	struct taken t = {};

	if (!queued_count || !leave_queue(skb, &t.followed))
		return;
	t.skb = (__u64)skb;
	t.time_ns = bpf_ktime_get_boot_ns();
	/*
	 * The thread was in unix_dgram_recvmsg() already when datagram_read was
	 * attached, which does not see it return then.
	 */
	if (!bpf_map_delete_elem(&reading, &id))
		count(COUNT_RECEIPT_LOST);
	if (bpf_map_update_elem(&reading, &id, &t, BPF_ANY))
		count(COUNT_RECEIPT_LOST);
}

static __always_inline void finish_reading(struct msghdr *msg, int ret)
{
	__u64 id = bpf_get_current_pid_tgid();
	struct taken *t = bpf_map_lookup_elem(&reading, &id);
	struct receipt r;

	if (!t)
		return;
	receipt_init(&r, RECORD_READ, t->skb, t->followed.start_ns,
		     t->followed.queued_ns);
	r.time_ns = t->time_ns;
	r.result = ret;
	r.msg_flags = READ(msg, msg_flags);
	r.sender_exited_ns = sender_exited(&t->followed);
	bpf_map_delete_elem(&reading, &id);
	send_receipt(&r);
}

/* The kernel throws a datagram away: its sender failed, or nobody is left to read. */
static __always_inline void discard(struct sk_buff *skb, const struct send *own)
{
	struct followed f;
	struct receipt r;

	if (!leave_queue(skb, &f) || (own && own->skb == (__u64)skb))
		return;
	receipt_init(&r, RECORD_UNREAD, (__u64)skb, f.start_ns, f.queued_ns);
	r.sender_exited_ns = sender_exited(&f);
	send_receipt(&r);
}

/* From now on, the end of the datagram's only pipe is waited for. */
static __always_inline void await_pipe(const struct scratch *s)
{
	__u64 file = s->anc.first;
	struct waiting_pipe w = {
		.skb = s->send.skb,
		.start_ns = s->send.start_ns,
		.queued_ns = s->send.queued_ns,
		.inode = pipe_inode((void *)file),
	};

	if (!bpf_map_update_elem(&waiting_pipes, &file, &w, BPF_NOEXIST))
		__sync_fetch_and_add(&waiting_pipes_count, 1);
	else if (bpf_map_update_elem(&waiting_pipes, &file, &w, BPF_ANY))
		count(COUNT_RECEIPT_LOST);
}

static __always_inline void pipe_ends(struct file *file)
{
	__u64 key = (__u64)file;
	struct waiting_pipe *w;
	struct receipt r;
	__u64 inode;

	if (!waiting_pipes_count)
		return;
	w = bpf_map_lookup_elem(&waiting_pipes, &key);
	if (!w)
		return;
	receipt_init(&r, RECORD_CLOSED, w->skb, w->start_ns, w->queued_ns);
	inode = w->inode;
	if (bpf_map_delete_elem(&waiting_pipes, &key))
		return;
	__sync_fetch_and_add(&waiting_pipes_count, -1);
	if (inode == pipe_inode(file))
		send_receipt(&r);
}

/* The current thread ends, and perhaps its process with it. */
static __always_inline void thread_ends(void)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct process p;
	__u64 *exited, id = bpf_get_current_pid_tgid();

	if (!bpf_map_delete_elem(&reading, &id))
		count(COUNT_RECEIPT_LOST);
	if (READ(task, signal, live.counter))
		return;
	p = current_process();
	exited = bpf_map_lookup_elem(&senders, &p);
	if (exited)
		*exited = bpf_ktime_get_boot_ns();
}

#endif
