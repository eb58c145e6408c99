/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What threads are in the middle of, between two hooks: a send that waits, or has been
 * queued but not returned; a receive that has its datagram.
 *
 * Without preemption nothing else runs on a CPU between the two hooks, so that the place
 * is the CPU's own. Where the kernel preempts itself it is the thread's, in a table
 * that nobody can fill: who finds no free place takes another thread's, which then goes
 * without what it had noted. It is told by no place being its own.
 */
#ifndef __CALL_H__
#define __CALL_H__

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "settings.h"
#include "scratch.h"

enum call_state {
	CALL_SENDING, /* it has begun, or waits for room */
	CALL_QUEUED,  /* of no interest, unless the address says so */
	CALL_PENDING, /* queued; the record stands in SLOT_QUEUED */
	CALL_DONE,    /* queued; nothing is left to do */
	CALL_READING, /* the datagram has left its queue */
};

/* A place for a call. */
struct call {
	__u64 task;  /* the struct task_struct, 0: free */
	__u64 check; /* see is_whole() */
	__u64 start_ns; /* when the send began, or to wait; when the datagram was taken */
	__u64 msg; /* struct msghdr, or the struct sk_buff that is read ^ followed */
	__u64 to;  /* the receiving struct sock */
	__u64 bound_end; /* the last 8 bytes of its path, with the NUL */
	__u32 bound_len; /* of the path with the NUL, or one of BOUND_* */
	__u32 state;
	__u32 followed; /* which entry of `followed` is read */
	__u32 end;	/* of what SLOT_QUEUED holds */
	__u32 waited;	/* another place, in `calls`, says so */
	/* Counts, on a CPU: as COUNT_*. */
	__u64 ignored;
	__u64 captured;
};

const volatile bool by_thread; /* send_enter is attached; places are the threads' */

/* Makes the compiler tell bpf2go about the type. */
const struct call *call_type __attribute__((unused));

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct call);
} call_here SEC(".maps");

#define CALLS_LOG2 14
#define CALL_WAYS 4

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1 << CALLS_LOG2);
	__type(key, __u32);
	__type(value, struct call);
} calls SEC(".maps");

static __always_inline __u32 call_place(__u64 task)
{
	return (__u32)hash_of(task, CALLS_LOG2) & ~(CALL_WAYS - 1);
}

/*
 * Whether the place of a thread is all its own: two threads may take it at once, and each
 * write a part.
 */
static __always_inline bool is_whole(const struct call *c)
{
	return c->check == (c->task ^ c->msg);
}

/* A place in the table that is the thread's, NULL if there is none. */
static __always_inline struct call *call_of_thread(__u64 task)
{
	__u32 at = call_place(task), i;
	struct call *c;

#pragma unroll
	for (i = 0; i < CALL_WAYS; i++, at++) {
		c = bpf_map_lookup_elem(&calls, &at);
		if (c && c->task == task)
			return c;
	}
	return NULL;
}

/* A place in the table for the thread: its own, a free one, or else another's. */
static __always_inline struct call *call_take(__u64 task)
{
	__u32 at = call_place(task), i;
	struct call *c;

#pragma unroll
	for (i = 0; i < CALL_WAYS; i++, at++) {
		c = bpf_map_lookup_elem(&calls, &at);
		if (c && (!c->task || c->task == task))
			return c;
	}
	at = call_place(task);
	return bpf_map_lookup_elem(&calls, &at);
}

/* The CPU's place, if it is the thread's, else NULL. */
static __always_inline struct call *call_on_cpu(__u64 task)
{
	__u32 zero = 0;
	struct call *c = bpf_map_lookup_elem(&call_here, &zero);

	return c && c->task == task ? c : NULL;
}

static __always_inline void call_end(struct call *c)
{
	c->task = 0;
}

#endif
