/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Counters that only ever grow: user space prints differences, so that no
 * increment is lost between reading and resetting. Each datagram adds to one of them, but
 * for COUNT_UNRETURNED, which goes up and down, and for those that raw_tp/sys_exit cannot
 * tell the receiver of: what they may have been is COUNT_UNKNOWN_*.
 */
#ifndef __COUNTERS_H__
#define __COUNTERS_H__

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

enum counter {
	COUNT_IGNORED,		/* not to a notify socket */
	COUNT_FILTERED,		/* rejected by a filter */
	COUNT_CAPTURED,		/* in the ring buffer */
	COUNT_RING_FULL,	/* lost: no room in the ring buffer */
	COUNT_RUN_SKIPPED,	/* lost: the kernel skipped a run for it */
	COUNT_UNREADABLE,	/* lost: to an address that cannot be read */
	COUNT_RECEIPT_LOST,	/* receipts: no room to follow or to tell */
	COUNT_UNRETURNED,	/* queued, but its send was not seen to return */
	COUNT_UNKNOWN_IO_URING, /* requests of io_uring, of any kind */
	COUNT_UNKNOWN_SPLICE,	/* calls that moved bytes to a datagram socket */
	COUNT_UNKNOWN_COMPAT,	/* of 32-bit programs to a datagram socket */
	COUNTERS,
};

/* Makes the compiler tell bpf2go about the type. */
const enum counter *counter_type __attribute__((unused));

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

static __always_inline void count_more(__u32 what, __u64 more)
{
	__u64 *n = bpf_map_lookup_elem(&counters, &what);

	/* Atomic: a preempting task may count on the same CPU. */
	if (n)
		__sync_fetch_and_add(n, more);
}

static __always_inline void count(__u32 what)
{
	count_more(what, 1);
}

#endif
