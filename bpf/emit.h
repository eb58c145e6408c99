/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Puts the record together and hands it to user space.
 */
#ifndef __EMIT_H__
#define __EMIT_H__

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 8 << 20);
} ring SEC(".maps");

/* Appends bytes the slot itself holds. */
static __always_inline __u64 append(struct event *e, __u64 end, const void *from,
				    __u64 len)
{
	BOUND(end, DATA_MASK);
	BOUND(len, 255);
	bpf_probe_read_kernel(&e->data[end], len, from);
	return end + len;
}

/*
 * A wake-up costs the sender an interrupt on another CPU, so there is none until
 * the buffer fills up to wakeup_bytes: the reader looks by itself several times a
 * second.
 */
static __always_inline __u64 wakeup_flags(void)
{
	if (bpf_ringbuf_query(&ring, BPF_RB_AVAIL_DATA) >= wakeup_bytes)
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
 * Sends the slot's event, whose payload is already at the start of data; says
 * whether there was room for it.
 */
static __always_inline bool emit(struct scratch *s, __u32 slot)
{
	struct event *e = &s->event;
	__u64 end = e->payload_len, size;

	describe_task(e);
	e->socket_inode = s->send.dst.inode;
	e->socket_type = s->send.dst.type;
	e->receiver_cgroup_id = s->send.dst.cgroup_id;
	e->receiver_netns = s->send.dst.netns;
	e->receiver_uid = s->send.dst.uid;
	if (s->send.dst.resolved)
		e->flags |= EVENT_RECEIVER;
	e->address_len = s->send.dst.address_len;
	e->bound_len = s->send.dst.bound_len;
	e->flags |= s->anc.flags;
	e->claimed_pid = s->anc.pid;
	e->claimed_ns_pid = s->anc.ns_pid;
	e->claimed_uid = s->anc.uid;
	e->claimed_gid = s->anc.gid;
	e->fd_count = s->anc.fd_count;

	end = append(e, end, s->send.dst.address, e->address_len);
	end = append(e, end, s->send.dst.bound, e->bound_len);
	end = append_cgroup(slot, end);
	end = append(e, end, s->anc.fds, e->fd_count);

	size = __builtin_offsetof(struct event, data) + end;
	BOUND(size, DATA_MASK);
	if (bpf_ringbuf_output(&ring, e, size, wakeup_flags())) {
		count(COUNT_RING_FULL);
		return false;
	}
	count(COUNT_CAPTURED);
	return true;
}

/*
 * Decides with all that is known now, then sends; says whether it did. slot is the
 * one s is.
 */
static __always_inline bool emit_if_wanted(struct scratch *s, __u32 slot)
{
	struct event *e = &s->event;
	int interest = destination_interest(slot);

	if (interest == INTEREST_NO ||
	    (interest == INTEREST_MAYBE &&
	     !reads_like_notification(e->data, e->payload_len))) {
		if (s->send.dst.unreadable)
			count(COUNT_UNREADABLE);
		else
			count_unwanted();
		return false;
	}
	if ((filter_failed && !(e->flags & EVENT_NOT_DELIVERED)) ||
	    (filter_key && !has_wanted_key(slot))) {
		count(COUNT_FILTERED);
		return false;
	}
	return emit(s, slot);
}

#endif
