/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A datagram that is in its receiver's queue, or about to get there: what the receiver's own
 * name and the datagram say.
 */
#ifndef __QUEUED_H__
#define __QUEUED_H__

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "read.h"
#include "event.h"
#include "settings.h"
#include "scratch.h"
#include "unix_socket.h"
#include "notify.h"
#include "ancillary.h"

/* What stands for the length of a receiver's name with which an address is compared. */
#define BOUND_SAYS_ALL 0	     /* no address can say more */
#define BOUND_SAYS_LITTLE 0xffffffff /* any address is looked at */

/* What tells a receiver's own name at a glance. */
struct name {
	const char *at;
	__u64 begin; /* the first 8 bytes */
	__u32 len;   /* with the NUL behind a path; 0: there is none */
};

static __always_inline bool is_path(const struct name *n)
{
	return n->begin & 0xff;
}

static __always_inline void read_name(struct name *n, struct sock *sk)
{
	struct unix_address *addr = READ((struct unix_sock *)sk, addr);
	struct scratch *s;
	__u8 *room;

	n->len = 0;
	if (!addr)
		return;
	n->at = (void *)addr + bpf_core_field_offset(addr->name) + SUN_PATH_OFFSET;
	if (bpf_rdonly_cast) {
		n->len = TYPED(addr)->len;
		n->begin = load64(n->at);
	} else {
		/* One read for both. */
		s = scratch_get(SLOT_QUEUED);
		if (!s || bpf_probe_read_kernel(s->glob.text, 32, addr))
			return;
		room = (__u8 *)s->glob.text;
		n->len = *(__u32 *)(room + bpf_core_field_offset(addr->len));
		n->begin = *(__u64 *)(room + bpf_core_field_offset(addr->name) +
				      SUN_PATH_OFFSET);
	}
	n->len -= SUN_PATH_OFFSET;
	if (n->len > ADDRESS_MAX + 1)
		n->len = 0;
}

/* In /run/systemd/journal, or in that of a namespace of the journal. */
static __always_inline bool is_journals(const struct name *n)
{
	return n->begin == NAME8('/', 'r', 'u', 'n', '/', 's', 'y', 's') &&
	       n->len > 20 &&
	       load64(n->at + 8) == NAME8('t', 'e', 'm', 'd', '/', 'j', 'o', 'u') &&
	       load64(n->at + 12) == NAME8('/', 'j', 'o', 'u', 'r', 'n', 'a', 'l');
}

/* What a program makes of a datagram that is queued. */
enum glance {
	GLANCE_LOOK, /* it has to be looked at */
	GLANCE_DULL, /* of no interest, unless the address says so */
	GLANCE_NO,   /* of no interest */
};

static __always_inline bool begins_a_key(const struct sk_buff *skb)
{
	__u64 first = load64(skb->data) & 0xff;

	/* All keys begin with a capital letter; systemd skips empty lines. */
	return first - 'A' <= 'Z' - 'A' || first == '\n' || first == '\r';
}

/*
 * *n is to be the receiver's name. With GLANCE_DULL, what an address is compared with is in
 * *bound_len and *bound_end.
 */
static __always_inline enum glance glance_at(struct name *n, struct sk_buff *skb,
					     __u32 *bound_len, __u64 *bound_end)
{
	__u64 end;

	*bound_len = BOUND_SAYS_ALL;
	if (!by_name)
		return GLANCE_LOOK;
	if (begins_a_key(skb))
		return is_journals(n) ? GLANCE_NO : GLANCE_LOOK;
	if (!n->len)
		return GLANCE_DULL;
	if (n->len < 8)
		return GLANCE_LOOK;
	end = load64(n->at + n->len - 8);
	if (is_path(n)) {
		*bound_len = n->len;
		*bound_end = end;
		end <<= 8;
	}
	return name_bit(end) ? GLANCE_LOOK : GLANCE_DULL;
}

/* Payload and ancillary data out of the datagram itself. */
static __always_inline void use_skb(struct scratch *s, struct sk_buff *skb)
{
	struct event *e = &s->event;
	__u32 len = skb->len;
	__u64 head = len - skb->data_len;

	e->size = len;
	e->flags |= EVENT_SIZE;
	ancillary_init(&s->anc);
	read_skb_parms(&s->anc, skb);
	if (head > PAYLOAD_MAX)
		head = PAYLOAD_MAX;
	e->payload_len = head;
	BOUND(head, DATA_MASK);
	if (head > PAYLOAD_MAX || bpf_probe_read_kernel(e->data, head, skb->data))
		e->payload_len = 0;
	else
		e->flags |= EVENT_PAYLOAD;
}

#endif
