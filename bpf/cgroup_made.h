/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A control group that is asked for by its path, and is made again, is another one to the
 * kernel: its id takes the place of the one before, ahead of the first process in it.
 */
#ifndef __CGROUP_MADE_H__
#define __CGROUP_MADE_H__

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "read.h"
#include "settings.h"

SEC("raw_tp/cgroup_mkdir")
int cgroup_made(struct bpf_raw_tracepoint_args *ctx)
{
	struct cgroup *cgroup = (void *)ctx->args[0];
	struct cgroup_target target = {};
	struct cgroup_path path = {};
	__u8 yes = 1;
	__u64 *id;

	if (READ(cgroup, root, hierarchy_id))
		return 0;
	if (bpf_probe_read_kernel_str(path.text, sizeof(path.text),
				      (void *)ctx->args[1]) <= 0)
		return 0;
	id = bpf_map_lookup_elem(&cgroup_paths, &path);
	if (!id)
		return 0;
	target.id = *id;
	bpf_map_delete_elem(&cgroup_targets, &target);
	target.id = READ(cgroup, kn, id);
	*id = target.id;
	bpf_map_update_elem(&cgroup_targets, &target, &yes, BPF_ANY);
	return 0;
}

#endif
