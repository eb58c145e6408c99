/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Puts the record together and hands it to user space.
 */
#ifndef __EMIT_H__
#define __EMIT_H__

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "event.h"
#include "settings.h"
#include "counters.h"
#include "scratch.h"
#include "cgroup.h"
#include "task.h"
#include "notify.h"
#include "ancillary.h"
#include "share.h"

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 << 20);
} ring SEC(".maps");

/* Appends bytes the slot itself holds. */
static __always_inline __u64 append(struct event *e, __u64 end, const void *from,
				    __u64 len)
{
	if (!len)
		return end;
	BOUND(end, DATA_MASK);
	BOUND(len, 255);
	bpf_probe_read_kernel(&e->data[end], len, from);
	return end + len;
}

/* Set by the reader before it sleeps for long, because nothing happens. */
__u32 reader_sleeps;

/*
 * A wake-up costs the sender an interrupt. So there is one if the reader sleeps for long,
 * and while the buffer's fill passes wakeup_bytes; otherwise the reader looks by itself
 * many times a second. The window is wider than one record because concurrent
 * producers do not see each other's records and could step over the threshold.
 */
#define WAKEUP_WINDOW 8192

static __always_inline __u64 ring_fill(void)
{
	return bpf_ringbuf_query(&ring, BPF_RB_AVAIL_DATA);
}

static __always_inline __u64 round(void)
{
	return bpf_ringbuf_query(&ring, BPF_RB_CONS_POS) / round_bytes;
}

static __always_inline __u64 wakeup_flags(__u64 fill)
{
	if (reader_sleeps || fill - wakeup_bytes < WAKEUP_WINDOW)
		return BPF_RB_FORCE_WAKEUP;
	return BPF_RB_NO_WAKEUP;
}

static __always_inline void event_init(struct event *e)
{
	e->type = RECORD_SEND;
	e->skb = 0;
	e->time_ns = bpf_ktime_get_boot_ns();
	e->latency_ns = 0;
	e->flags = 0;
	e->size = 0;
	e->payload_len = 0;
	e->cgroup_len = 0;
}

/*
 * Fills in what is known of sender, receiver and ancillary data. end is that of data, where
 * payload and bound address stand; the new one is returned. There is left to be added
 * the address.
 */
static __always_inline __u64 describe(struct scratch *s, __u32 slot, __u64 end)
{
	struct event *e = &s->event;

	describe_task(e);
	e->socket_inode = s->send.dst.inode;
	e->socket_type = s->send.dst.type;
	e->receiver_cgroup_id = s->send.dst.cgroup_id;
	e->receiver_netns = s->send.dst.netns;
	e->receiver_uid = s->send.dst.uid;
	if (s->send.dst.resolved)
		e->flags |= EVENT_RECEIVER;
	e->flags |= s->anc.flags;
	if (s->anc.flags) {
		e->claimed_pid = s->anc.pid;
		e->claimed_ns_pid = s->anc.ns_pid;
		e->claimed_uid = s->anc.uid;
		e->claimed_gid = s->anc.gid;
	}
	e->fd_count = s->anc.fd_count;
	end = append_cgroup(slot, end);
	return append(e, end, s->anc.fds, e->fd_count);
}

/*
 * Adds the address, and sends the slot's event; says whether there was room for it. Whoever
 * calls this counts it as captured.
 */
static __always_inline bool output(struct scratch *s, __u64 end)
{
	struct event *e = &s->event;
	__u64 size, fill;

	/* Without a branch: the verifier would walk through the rest for each. */
	e->flags |= s->send.unsure | s->glob.unsure;
	e->address_len = s->send.dst.address_len;
	end = append(e, end, s->send.dst.address, e->address_len);
	size = __builtin_offsetof(struct event, data) + end;
	BOUND(size, DATA_MASK);
	fill = ring_fill();
	if ((fill < crowded_bytes || s->send.own ||
	     is_within_share(size, round())) &&
	    !bpf_ringbuf_output(&ring, e, size, wakeup_flags(fill)))
		return true;
	count(COUNT_RING_FULL);
	count_lost_by();
	return false;
}

/*
 * With filter_failed: the threads whose claim of credentials was refused last, or whose send
 * a signal ended, which the kernel then makes once more.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64); /* pid_tgid */
	__type(value, __u8);
} made_again SEC(".maps");

#define ERESTARTSYS 512 /* the least of the numbers that no program sees */

/*
 * A datagram that has arrived passes where the same thread's send before was refused for its
 * claim of credentials, or interrupted: it is made again, and user space shows neither.
 */
static __always_inline bool has_failed(const struct scratch *s)
{
	__u64 id = bpf_get_current_pid_tgid();
	__u8 yes = 1;

	if (!(s->event.flags & EVENT_NOT_DELIVERED))
		return !bpf_map_delete_elem(&made_again, &id);
	if (s->anc.flags & EVENT_CLAIMED || s->event.result <= -ERESTARTSYS)
		bpf_map_update_elem(&made_again, &id, &yes, BPF_ANY);
	return true;
}

/* Sends the event of a datagram that counts, if no filter is against it; says if it did. */
static __always_inline bool output_if_passes(struct scratch *s, __u32 slot,
					     __u64 end)
{
	if (((filter_key && !has_wanted_key(slot)) ||
	     (filter_failed && !has_failed(s))) &&
	    !s->send.own) {
		count(COUNT_FILTERED);
		return false;
	}
	return output(s, end);
}

/* The same for one of which all stands in the slot. */
static __always_inline void emit_if_passes(struct scratch *s, __u32 slot)
{
	struct event *e = &s->event;
	__u64 end;

	e->bound_len = s->send.dst.bound_len;
	end = describe(s, slot,
		       append(e, e->payload_len, s->send.dst.bound, e->bound_len));
	if (output_if_passes(s, slot, end) && !s->send.own)
		count(COUNT_CAPTURED);
}

/* Sends the event of a call that failed before a send, an EVENT_CONNECT or EVENT_SOCKET. */
static __always_inline void emit_call(struct scratch *s, __u32 slot, __u32 call,
				      long ret)
{
	struct event *e = &s->event;

	if (!task_passes(slot))
		return;
	event_init(e);
	ancillary_init(&s->anc);
	e->result = ret;
	e->flags |= call | EVENT_NOT_DELIVERED;
	emit_if_passes(s, slot);
}

/*
 * Sends the event of a connect(2) that failed, if the address in the slot is that of a notify
 * socket. No datagram is counted otherwise: there is none.
 */
static __always_inline void emit_connect(struct scratch *s, __u32 slot, long ret)
{
	s->glob.unsure = 0;
	s->send.unsure = 0;
	if (destination_interest(slot) == INTEREST_YES || s->send.own)
		emit_call(s, slot, EVENT_CONNECT, ret);
}

/* Counts a datagram that does not count, by what is known of its destination. */
static __always_inline void count_unwanted_to(const struct destination *dst)
{
	if (dst->unreadable)
		count(COUNT_UNREADABLE);
	else
		count_unwanted();
}

#endif
