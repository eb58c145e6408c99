//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only
/*
 * Programs that call what the headers hold with what a test has written into the
 * variables, once for each run. A raw tracepoint's program runs without being attached.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
#include "read.h"
#include "event.h"
#include "settings.h"
#include "scratch.h"
#include "glob.h"
#include "cgroup.h"
#include "unix_socket.h"
#include "notify.h"

char LICENSE[] SEC("license") = "GPL";

__u8 in[PAYLOAD_MAX + 64]; /* beyond the payload: what a key is read from */
__u32 in_len;
__s64 out;
__u8 out_text[CGROUP_MAX + 512];

/* A name as it stands in a struct destination. */
static __always_inline void set_name(char *to)
{
	__u64 n = in_len;

	BOUND(n, 127);
	bpf_probe_read_kernel(to, n, in);
}

/* The groups of the globs in patterns that match, -1 if it is unsure. */
SEC("raw_tp")
int unit_glob(void *ctx)
{
	struct scratch *s = scratch_get(SLOT_EXIT);

	if (!s)
		return 0;
	bpf_probe_read_kernel(s->glob.text, sizeof(s->glob.text), in);
	s->glob.text_len = in_len;
	s->glob.unsure = 0;
	out = glob_match(SLOT_EXIT, socket_patterns_count,
			 component_patterns_count);
	if (s->glob.unsure)
		out = -1;
	return 0;
}

/* enum interest, by an address. */
SEC("raw_tp")
int unit_name(void *ctx)
{
	struct scratch *s = scratch_get(SLOT_EXIT);

	if (!s)
		return 0;
	destination_init(&s->send.dst, SOCK_DGRAM);
	set_name(s->send.dst.address);
	s->send.dst.address_len = in_len;
	out = destination_interest(SLOT_EXIT);
	return 0;
}

/* Whether a payload reads like a notification; and if user space has to look. */
SEC("raw_tp")
int unit_first_key(void *ctx)
{
	out = is_notification(in, in_len) | unsure_key(in, in_len);
	return 0;
}

/* Whether a payload has an assignment to one of wanted_keys. */
SEC("raw_tp")
int unit_wanted_key(void *ctx)
{
	struct scratch *s = scratch_get(SLOT_EXIT);

	if (!s)
		return 0;
	bpf_probe_read_kernel(s->event.data, PAYLOAD_MAX, in);
	s->event.payload_len = in_len;
	out = has_wanted_key(SLOT_EXIT);
	return 0;
}

/* The length of the name in a struct sockaddr_un, and the name. */
SEC("raw_tp")
int unit_address(void *ctx)
{
	struct scratch *s = scratch_get(SLOT_EXIT);
	__s32 len = in_len;

	if (!s)
		return 0;
	out = read_address(SLOT_EXIT, false, in, len);
	bpf_probe_read_kernel(out_text, sizeof(s->send.dst.address),
			      s->send.dst.address);
	return 0;
}

/* The names in the current task's cgroup path, and the length of them. */
SEC("raw_tp")
int unit_cgroup(void *ctx)
{
	struct scratch *s = scratch_get(SLOT_EXIT);

	if (!s)
		return 0;
	s->event.flags = 0;
	s->event.cgroup_len = 0;
	out = append_cgroup(SLOT_EXIT, 0);
	if (s->event.flags & EVENT_CGROUP_PARTIAL)
		out = -1;
	bpf_probe_read_kernel(out_text, sizeof(out_text), s->event.data);
	return 0;
}

/* Whether the current task's cgroup path has a name of each group. */
SEC("raw_tp")
int unit_components(void *ctx)
{
	out = components_pass(SLOT_EXIT);
	return 0;
}
