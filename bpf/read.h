/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Reading the kernel's structures. A pointer whose type the verifier knows is followed
 * by a load, which reads 0 where there is nothing; any other one takes a call of
 * bpf_probe_read_kernel(), which costs ten times as much. bpf_rdonly_cast() makes the
 * one of the other (Linux 6.2); before, there is the call alone.
 */
#ifndef __READ_H__
#define __READ_H__

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

extern void *bpf_rdonly_cast(const void *obj, __u32 btf_id) __ksym __weak;

#define TYPED(p) \
	((typeof(p))bpf_rdonly_cast((p), bpf_core_type_id_kernel(typeof(*(p)))))

/* Like BPF_CORE_READ(): READ(task, nsproxy, mnt_ns, ns.inum). */
#define READ(p, ...)                                                  \
	({                                                            \
		___type((p), ##__VA_ARGS__) __v;                      \
		if (bpf_rdonly_cast)                                  \
			__v = ___arrow(TYPED(p), ##__VA_ARGS__);      \
		else                                                  \
			BPF_CORE_READ_INTO(&__v, (p), ##__VA_ARGS__); \
		__v;                                                  \
	})

/*
 * For a pointer that is handed to a function of its own as a number, which a pointer whose
 * type is known must not be.
 */
#define READ_NUMBER(p, ...) BPF_CORE_READ(p, ##__VA_ARGS__)

/* Not relocated: what it is cast from begins with eight bytes on any kernel. */
struct eight {
	__u64 bytes;
};

/* The eight bytes at any address of the kernel's. */
static __always_inline __u64 load64(const void *at)
{
	const struct eight *e;
	__u64 v = 0;

	if (bpf_rdonly_cast) {
		e = bpf_rdonly_cast(at, bpf_core_type_id_kernel(struct timespec64));
		/* Else clang makes one load of this and the other. */
		asm volatile("%0 = *(u64 *)(%1 + 0)" : "=r"(v) : "r"(e));
		return v;
	}
	bpf_probe_read_kernel(&v, sizeof(v), at);
	return v;
}

/* The first eight bytes of a name as a number: cheaper to compare. */
#define NAME8(a, b, c, d, e, f, g, h)                                         \
	((__u64)(a) | (__u64)(b) << 8 | (__u64)(c) << 16 | (__u64)(d) << 24 | \
	 (__u64)(e) << 32 | (__u64)(f) << 40 | (__u64)(g) << 48 |             \
	 (__u64)(h) << 56)

#endif
