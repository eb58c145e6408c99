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
#include "settings.h"
#include "counters.h"
#include "scratch.h"
#include "task.h"
#include "emit.h"

const volatile bool follow_receipts; /* the programs for it are attached */

/* A datagram in a queue, from before it gets there until somebody has read it. */
struct followed {
	__u64 users; /* 1: in use. More: two came at once, and go elsewhere */
	__u64 skb;   /* 0: it has left its queue */
	__u64 queued_ns;
	__u64 owner; /* skb->sk, in case its end was missed */
	__u64 sender_start_time;
	__u64 exits; /* how many senders had ended when it was queued */
	__u32 sender_pid;
	__u32 len;
};

/*
 * By struct sk_buff, in FOLLOWED_WAYS places each: an entry is taken and given back by a
 * few stores, which takes a tenth of what a hash map does.
 */
#define FOLLOWED_LOG2 14
#define FOLLOWED_WAYS 4

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1 << FOLLOWED_LOG2);
	__type(key, __u32);
	__type(value, struct followed);
} followed SEC(".maps");

static __always_inline __u32 followed_place(__u64 skb)
{
	return (__u32)hash_of(skb, FOLLOWED_LOG2) & ~(FOLLOWED_WAYS - 1);
}

/* Its entry, and in *at which one that is. */
static __always_inline struct followed *followed_find(__u64 skb, __u32 *at)
{
	struct followed *f;
	__u32 i;

	*at = followed_place(skb);
#pragma unroll
	for (i = 0; i < FOLLOWED_WAYS; i++, (*at)++) {
		f = bpf_map_lookup_elem(&followed, at);
		if (f && f->skb == skb)
			return f;
	}
	return NULL;
}

/* An entry for it. Whoever adds the first one to the users of a free one has it. */
static __always_inline struct followed *followed_take(__u64 skb)
{
	__u32 at = followed_place(skb), i;
	struct followed *f;

#pragma unroll
	for (i = 0; i < FOLLOWED_WAYS; i++, at++) {
		f = bpf_map_lookup_elem(&followed, &at);
		if (!f)
			continue;
		if (f->skb == skb)
			return f; /* the kernel skipped a program for the end of that one */
		if (f->users)
			continue;
		__sync_fetch_and_add(&f->users, 1);
		if (*(volatile __u64 *)&f->users == 1)
			return f;
		__sync_fetch_and_add(&f->users, -1);
	}
	return NULL;
}

static __always_inline void followed_give_back(struct followed *f)
{
	*(volatile __u64 *)&f->skb = 0;
	__sync_fetch_and_add(&f->users, -1);
}

/*
 * How many datagrams in queues are followed: most of those that are read and most dropped
 * packets of a host are none of ours, and this is cheaper to ask.
 */
__u64 queued_count;

/* How many of `senders` have ended: most have not, which is cheaper to ask. */
__u64 senders_exited;

/* The pipes that barriers wait for, by struct file. */
struct waiting_pipe {
	__u64 skb;
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

/* The sender that was noted last on a CPU, which mostly is the next one, too. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct process);
} last_sender SEC(".maps");

static __always_inline void note_sender(const struct process *sender)
{
	struct process *last;
	__u32 at = 0;
	__u64 zero = 0;

	last = bpf_map_lookup_elem(&last_sender, &at);
	if (!last ||
	    (last->pid == sender->pid && last->start_time == sender->start_time))
		return;
	*last = *sender;
	/* An LRU map prepares an entry before it looks. */
	if (!bpf_map_lookup_elem(&senders, sender))
		bpf_map_update_elem(&senders, sender, &zero, BPF_NOEXIST);
}

/* Begins to follow the datagram of a slot, which is about to be queued. */
static __always_inline void follow(struct scratch *s, struct sk_buff *skb)
{
	struct process sender = {
		.start_time = s->event.start_time,
		.pid = s->event.pid,
	};
	__u64 key = *(volatile __u64 *)&s->send.skb;
	struct followed *f = followed_take(key);

	if (!f || f->skb)
		count(COUNT_RECEIPT_LOST);
	if (!f)
		return;
	if (!f->skb)
		__sync_fetch_and_add(&queued_count, 1);
	note_sender(&sender);
	f->exits = senders_exited;
	f->queued_ns = s->send.queued_ns;
	f->owner = (__u64)READ(skb, sk);
	f->sender_start_time = sender.start_time;
	f->sender_pid = sender.pid;
	f->len = s->event.size;
	f->skb = key;
	s->send.followed = 1;
}

/* Ends following, and says whether the datagram was there until now. */
static __always_inline bool unfollow(__u64 skb)
{
	struct followed *f;
	__u32 at;

	f = followed_find(skb, &at);
	if (!f)
		return false;
	followed_give_back(f);
	__sync_fetch_and_add(&queued_count, -1);
	return true;
}

static __always_inline void send_receipt(struct receipt *r)
{
	if (bpf_ringbuf_output(&ring, r, sizeof(*r), wakeup_flags(ring_fill())))
		count(COUNT_RECEIPT_LOST);
}

static __always_inline void receipt_init(struct receipt *r, __u32 type, __u64 skb,
					 __u64 queued_ns)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct task_struct *leader = READ(task, group_leader);
	__u64 id = bpf_get_current_pid_tgid();

	r->type = type;
	r->result = 0;
	r->skb = skb;
	r->queued_ns = queued_ns;
	r->time_ns = 0;
	r->sender_exited_ns = 0;
	r->cgroup_id = bpf_get_current_cgroup_id();
	r->start_time = READ(leader, start_boottime);
	r->pid = id >> 32;
	r->tid = id;
	r->msg_flags = 0;
	r->unused = 0;
	read_comm(r->comm, leader);
}

static __always_inline __u64 sender_exited(const struct followed *f)
{
	struct process sender = {
		.start_time = f->sender_start_time,
		.pid = f->sender_pid,
	};
	__u64 *at;

	if (f->exits == senders_exited)
		return 0;
	at = bpf_map_lookup_elem(&senders, &sender);
	return at ? *at : 0;
}

/*
 * A datagram that is not reported: if it was read already, that is not either. A function
 * of its own for the stack of what calls it.
 */
static __noinline int forget(const struct send *send)
{
	struct receipt r;

	if (!send->followed || unfollow(send->skb))
		return 0;
	receipt_init(&r, RECORD_FORGOTTEN, send->skb, send->queued_ns);
	r.time_ns = bpf_ktime_get_boot_ns();
	send_receipt(&r);
	return 0;
}

/*
 * The entry of a datagram that leaves its queue, NULL if there is none. It is in use still,
 * and found by its number *at alone.
 */
static __always_inline struct followed *leave_queue(struct sk_buff *skb, __u64 key,
						    __u32 *at)
{
	struct followed *f = followed_find(key, at);

	if (!f)
		return NULL;
	f->skb = 0;
	__sync_fetch_and_add(&queued_count, -1);
	if (f->owner == (__u64)READ(skb, sk) && f->len == READ(skb, len))
		return f;
	/* Another datagram at the address of one whose end was missed. */
	count(COUNT_RECEIPT_LOST);
	followed_give_back(f);
	return NULL;
}

/* From now on, the end of the datagram's only pipe is waited for. */
static __always_inline void await_pipe(const struct scratch *s)
{
	__u64 file = s->anc.first;
	struct waiting_pipe w = {
		.skb = s->send.skb,
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
	receipt_init(&r, RECORD_CLOSED, w->skb, w->queued_ns);
	r.time_ns = bpf_ktime_get_boot_ns();
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
	__u64 *exited;

	if (READ(task, signal, live.counter))
		return;
	p = current_process();
	exited = bpf_map_lookup_elem(&senders, &p);
	if (!exited)
		return;
	*exited = bpf_ktime_get_boot_ns();
	__sync_fetch_and_add(&senders_exited, 1);
}

#endif
