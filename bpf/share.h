/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * When the ring buffer runs short, each unit or user has a share of what is left, so that what
 * is lost is lost by those who send the most. There is a new one for each part of the buffer
 * that is read.
 */
#ifndef __SHARE_H__
#define __SHARE_H__

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "read.h"
#include "settings.h"
#include "cgroup.h"

/*
 * Whose datagram it is: the id of the second control group from the root, such as that of
 * /system.slice/web.service or /user.slice/user-1000.slice; where there is none, of a
 * user.
 */
#define OWNER_IS_USER (1ULL << 63)
#define OWNER_DEPTH 64 /* who is deeper down counts as a user */

struct share {
	__u64 round;
	__u64 bytes; /* taken of it */
	__u64 lost;  /* datagrams without room, ever */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, struct share);
} shares SEC(".maps");

static __always_inline __u64 owner_of_current(void)
{
	struct kernfs_node *kn = node_in((void *)bpf_get_current_task(), 0);
	struct kernfs_node *first = NULL, *second = NULL, *parent;
	__u32 i;

	/* first and second are those below kn on the way. */
	for (i = 0; i < OWNER_DEPTH && kn; i++) {
		parent = parent_of(kn);
		if (!parent && second)
			return READ(second, id);
		second = first;
		first = kn;
		kn = parent;
	}
	return OWNER_IS_USER | (__u32)bpf_get_current_uid_gid();
}

static __always_inline struct share *own_share(void)
{
	__u64 owner = owner_of_current();
	struct share none = {}, *s;

	s = bpf_map_lookup_elem(&shares, &owner);
	if (s)
		return s;
	bpf_map_update_elem(&shares, &owner, &none, BPF_NOEXIST);
	return bpf_map_lookup_elem(&shares, &owner);
}

/* Whether a record of a size is within the share of whoever has sent it. */
__noinline int is_within_share(__u64 size, __u64 round)
{
	struct share *s = own_share();

	if (!s)
		return 1;
	if (s->round != round) {
		s->round = round;
		s->bytes = 0;
	}
	__sync_fetch_and_add(&s->bytes,
			     size); /* which yields nothing before Linux 5.12 */
	return *(volatile __u64 *)&s->bytes <= share_bytes;
}

/* There was no room for a datagram. */
__noinline int count_lost_by(void)
{
	struct share *s = own_share();

	if (s)
		__sync_fetch_and_add(&s->lost, 1);
	return 0;
}

#endif
