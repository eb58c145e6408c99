/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The payload out of the sender's memory, where the kernel's own copy of it is
 * not at hand.
 */
#ifndef __PAYLOAD_H__
#define __PAYLOAD_H__

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "read.h"
#include "event.h"
#include "scratch.h"

#define SEGMENTS_MAX 64

/*
 * Appends one segment to the slot's payload, as much of it as fits; returns whether
 * it could be read. A function of its own so that it is verified once.
 */
__noinline int gather_segment(__u32 slot, __u32 memory, __u64 at)
{
	struct scratch *s = scratch_get(slot);
	struct iovec_abi segment;
	__u64 end, len;

	if (!s ||
	    read_from(memory == MEMORY_USER, &segment, sizeof(segment), (void *)at))
		return 0;
	end = s->event.payload_len;
	len = segment.iov_len;
	if (end >= PAYLOAD_MAX)
		return 1;
	if (len > PAYLOAD_MAX - end)
		len = PAYLOAD_MAX - end;
	s->event.payload_len = end + len;
	BOUND(end, PAYLOAD_MAX - 1);
	BOUND(len, DATA_MASK);
	if (len > PAYLOAD_MAX)
		return 0;
	return !bpf_probe_read_user(&s->event.data[end], len, segment.iov_base);
}

/*
 * Gathers up to PAYLOAD_MAX bytes from n segments. The payload stays unknown when
 * any of it cannot be read, and when it has more segments than are looked at.
 */
__noinline int gather(__u32 slot, __u32 memory, __u64 segments, __u64 n)
{
	struct scratch *s = scratch_get(slot);
	__u32 i;

	if (!s)
		return 0;
	for (i = 0; i < SEGMENTS_MAX; i++)
		if (i >= n ||
		    !gather_segment(slot, memory,
				    segments + i * sizeof(struct iovec_abi)))
			break;
	if (i >= n || s->event.payload_len == PAYLOAD_MAX)
		s->event.flags |= EVENT_PAYLOAD;
	else
		s->event.payload_len = 0;
	return 0;
}

/* One buffer of user memory. */
static __always_inline void read_buffer(struct event *e, const void *base,
					__u64 len)
{
	if (len > PAYLOAD_MAX)
		len = PAYLOAD_MAX;
	BOUND(len, DATA_MASK);
	if (len > PAYLOAD_MAX || bpf_probe_read_user(e->data, len, base))
		return;
	e->payload_len = len;
	e->flags |= EVENT_PAYLOAD;
}

/* ITER_UBUF came with 6.0, and the enum's values moved more than once. */
static __always_inline bool is_iter(struct iov_iter *iter, bool ubuf)
{
	struct iov_iter___v513 *old = (void *)iter;
	__u32 type;

	if (bpf_core_field_exists(old->type))
		type = READ(old, type) & ~1U; /* without the direction */
	else
		type = READ(iter, iter_type);
	if (!ubuf)
		return type == bpf_core_enum_value(enum iter_type, ITER_IOVEC);
	return bpf_core_enum_value_exists(enum iter_type, ITER_UBUF) &&
	       type == bpf_core_enum_value(enum iter_type, ITER_UBUF);
}

static __always_inline const void *segments_of(struct iov_iter *iter)
{
	struct iov_iter___v63 *old = (void *)iter;

	if (bpf_core_field_exists(iter->__iov))
		return READ_NUMBER(iter, __iov);
	return READ_NUMBER(old, iov);
}

/*
 * How many segments before at have size bytes, at most SEGMENTS_MAX; 0 when none have. A
 * function of its own so that it is verified once.
 */
__noinline int segments_before(__u64 at, __u64 size)
{
	struct iovec_abi segment;
	__u64 total = 0;
	__u32 i;

	for (i = 1; i <= SEGMENTS_MAX; i++) {
		if (bpf_probe_read_kernel(&segment, sizeof(segment),
					  (void *)at - i * sizeof(segment)))
			return 0;
		total += segment.iov_len;
		if (total >= size)
			return total == size ? i : 0;
	}
	return 0;
}

/*
 * What the sender gave, if all or nothing of it was consumed: the iterator moves on as the
 * kernel copies.
 */
static __always_inline void read_msg_iter(__u32 slot, struct event *e,
					  struct msghdr *msg, __u64 size)
{
	struct iov_iter *iter = &msg->msg_iter;
	__u64 left = READ(iter, count), segments;
	bool consumed = !left && size;
	int n;

	if (left != size && !consumed)
		return;
	if (is_iter(iter, true)) {
		read_buffer(e,
			    READ_NUMBER(iter, ubuf) +
				    (consumed ? READ(iter, iov_offset) - size : 0),
			    size);
		return;
	}
	if (!is_iter(iter, false))
		return;
	segments = (__u64)segments_of(iter);
	n = consumed ? segments_before(segments, size) : READ(iter, nr_segs);
	if (n > 0 || !size)
		gather(slot, MEMORY_KERNEL,
		       consumed ? segments - n * sizeof(struct iovec_abi)
				: segments,
		       n);
}

#endif
