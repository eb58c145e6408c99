//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only
/*
 * How tracers pair the entry of a function with its end: what is known at the entry stands in
 * a hash map by thread until then. Of a datagram to a notify socket it takes the address, the
 * result, and who the sender is, but neither payload nor receiver, for a measurement that
 * stands beside the fentry backend's.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
#include "read.h"

char LICENSE[] SEC("license") = "GPL";

#define NAME_MAX 112

/* A call between its entry and its end. */
struct entered {
	__u64 start_ns;
	__u64 name_len; /* with its NUL */
	char name[NAME_MAX];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, __u64);
	__type(value, struct entered);
} calls SEC(".maps");

struct record {
	__u64 start_ns;
	__u64 end_ns;
	__u64 cgroup_id;
	__u64 id;
	__u64 uid;
	__s32 result;
	__u32 len;
	char comm[16];
	char name[NAME_MAX];
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 64 << 20);
} ring SEC(".maps");

__u64 captured;
__u64 ignored;

SEC("fentry/unix_dgram_sendmsg")
int BPF_PROG(pair_enter, struct socket *sock, struct msghdr *msg)
{
	__u64 id = bpf_get_current_pid_tgid();
	struct entered e = {.start_ns = bpf_ktime_get_boot_ns()};

	long n = 0;

	if (msg->msg_namelen > 2)
		n = bpf_probe_read_kernel_str(e.name, sizeof(e.name),
					      (const char *)msg->msg_name + 2);
	e.name_len = n > 0 ? n : 0;
	bpf_map_update_elem(&calls, &id, &e, BPF_ANY);
	return 0;
}

/* Whether a name ends like a notify socket's: .../notify.sock. */
static __always_inline bool is_notify(const struct entered *e)
{
	__u64 at = e->name_len;

	if (at < 9 || at > NAME_MAX)
		return false;
	/* The NUL counts. */
	return *(const __u64 *)(e->name + at - 9) ==
	       NAME8('i', 'f', 'y', '.', 's', 'o', 'c', 'k');
}

SEC("fexit/unix_dgram_sendmsg")
int BPF_PROG(pair_exit, struct socket *sock, struct msghdr *msg, size_t len,
	     int ret)
{
	__u64 id = bpf_get_current_pid_tgid();
	struct entered *e = bpf_map_lookup_elem(&calls, &id);
	struct record *r;

	if (!e)
		return 0;
	if (!is_notify(e)) {
		bpf_map_delete_elem(&calls, &id);
		__sync_fetch_and_add(&ignored, 1);
		return 0;
	}
	r = bpf_ringbuf_reserve(&ring, sizeof(*r), 0);
	if (!r) {
		bpf_map_delete_elem(&calls, &id);
		return 0;
	}
	r->start_ns = e->start_ns;
	r->end_ns = bpf_ktime_get_boot_ns();
	r->cgroup_id = bpf_get_current_cgroup_id();
	r->id = id;
	r->uid = bpf_get_current_uid_gid();
	r->result = ret;
	r->len = len;
	bpf_get_current_comm(r->comm, sizeof(r->comm));
	__builtin_memcpy(r->name, e->name, sizeof(r->name));
	bpf_map_delete_elem(&calls, &id);
	bpf_ringbuf_submit(r, BPF_RB_NO_WAKEUP);
	__sync_fetch_and_add(&captured, 1);
	return 0;
}
