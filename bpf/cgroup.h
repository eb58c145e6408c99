/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The cgroup of a task: its path, and whether it is below one of the cgroups or
 * has one of the names that are asked for. kernfs_node.id is the inode number
 * user space sees.
 */
#ifndef __CGROUP_H__
#define __CGROUP_H__

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "read.h"
#include "event.h"
#include "settings.h"
#include "scratch.h"
#include "glob.h"

#define CGROUP_DEPTH 32

static __always_inline struct kernfs_node *parent_of(struct kernfs_node *kn)
{
	struct kernfs_node___v615 *new = (void *)kn;

	if (bpf_core_field_exists(new->__parent))
		return READ(new, __parent);
	return READ(kn, parent);
}

/* The task's node in a hierarchy: 0 for cgroup v2, else cgroup_subsys_id + 1. */
static __always_inline struct kernfs_node *node_in(struct task_struct *task,
						   __u32 hierarchy)
{
	struct css_set *cset = READ(task, cgroups);
	struct cgroup_subsys_state **at, *css = NULL;

	if (!hierarchy)
		return READ(cset, dfl_cgrp, kn);
	at = (void *)cset + bpf_core_field_offset(cset->subsys);
	bpf_probe_read_kernel(&css, sizeof(css), at + (hierarchy - 1));
	return READ(css, cgroup, kn);
}

/*
 * The node that says most: the one in cgroup v2 or, where that is the root, the
 * first that is not among the v1 controllers.
 */
static __always_inline struct kernfs_node *telling_node(struct task_struct *task,
							__u8 *hierarchy)
{
	struct kernfs_node *root = node_in(task, 0), *kn;
	__u32 i;

	*hierarchy = 0;
	if (!root || parent_of(root))
		return root;
	for (i = 0; i < CONTROLLERS_MAX; i++) {
		if (i >= v1_controllers_count)
			break;
		kn = node_in(task, v1_controllers[i] + 1);
		if (kn && parent_of(kn)) {
			*hierarchy = v1_controllers[i] + 1;
			return kn;
		}
	}
	return root;
}

/*
 * Appends the names from the leaf to the root, each with its NUL, and returns
 * the new end of data. Nothing is appended when they do not fit.
 */
__noinline int append_cgroup(__u32 slot, __u64 start)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct scratch *s = scratch_get(slot);
	struct kernfs_node *kn, *parent;
	struct event *e;
	__u64 end = start;
	long n;
	int i;

	if (!s)
		return start;
	e = &s->event;
	kn = telling_node(task, &e->cgroup_controller);
	for (i = 0; i < CGROUP_DEPTH; i++) {
		parent = parent_of(kn);
		if (!parent) {
			e->cgroup_len = end - start;
			return end;
		}
		BOUND(end, DATA_MASK);
		n = bpf_probe_read_kernel_str(&e->data[end], 256, READ(kn, name));
		if (n <= 0)
			break;
		end += n;
		if (end - start > CGROUP_MAX)
			break;
		kn = parent;
	}
	e->flags |= EVENT_CGROUP_PARTIAL;
	return start;
}

/*
 * Whoever owns a part of the tree can make it as deep as he likes. So a walk goes up in
 * rounds, each a function that is verified once; where it has come to stands in the slot.
 */
#define WALK_STEPS 32 /* a round */
#define WALK_ROUNDS 64

static __always_inline void walk_from(struct scratch *s, struct kernfs_node *kn)
{
	*(volatile __u64 *)&s->walk = (__u64)kn;
}

/* Whether the walk has not come to its end. */
static __always_inline bool walk_goes_on(const struct scratch *s)
{
	return *(const volatile __u64 *)&s->walk;
}

__noinline int walk_to_target(__u32 slot, __u32 hierarchy)
{
	struct cgroup_target target = {.hierarchy = hierarchy};
	struct scratch *s = scratch_get(slot);
	struct kernfs_node *kn;
	int i;

	if (!s)
		return 0;
	kn = (void *)s->walk;
	for (i = 0; i < WALK_STEPS && kn; i++) {
		target.id = READ(kn, id);
		if (bpf_map_lookup_elem(&cgroup_targets, &target))
			return 1;
		kn = parent_of(kn);
	}
	walk_from(s, kn);
	return 0;
}

/* Of a control group that is too deep to walk up from, it is not known, and it passes. */
static __always_inline bool below_target(struct scratch *s, __u32 slot,
					 struct task_struct *task, __u32 hierarchy)
{
	__u32 i;

	walk_from(s, node_in(task, hierarchy));
	for (i = 0; i < WALK_ROUNDS && walk_goes_on(s); i++)
		if (walk_to_target(slot, hierarchy))
			return true;
	return walk_goes_on(s);
}

__noinline int cgroup_passes(__u32 slot)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct scratch *s = scratch_get(slot);
	__u32 i;

	if (!s)
		return 0;
	for (i = 0; i < CONTROLLERS_MAX; i++) {
		if (i >= target_hierarchies_count)
			break;
		if (below_target(s, slot, task, target_hierarchies[i]))
			return 1;
	}
	return 0;
}

/* Returns the groups of patterns that match the names of a round. */
__noinline int walk_components(__u32 slot)
{
	struct scratch *s = scratch_get(slot);
	struct kernfs_node *kn;
	__u32 groups = 0;
	long n;
	int i;

	if (!s)
		return 0;
	kn = (void *)s->walk;
	for (i = 0; i < WALK_STEPS && kn; i++) {
		n = bpf_probe_read_kernel_str(s->glob.text, sizeof(s->glob.text),
					      READ(kn, name));
		if (n > 0) {
			s->glob.text_len = n - 1;
			groups |= glob_match(slot, socket_patterns_count,
					     component_patterns_count);
		}
		kn = parent_of(kn);
		if ((groups & component_groups) == component_groups)
			break;
	}
	walk_from(s, kn);
	return groups;
}

__noinline int components_pass(__u32 slot)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct scratch *s = scratch_get(slot);
	__u32 groups = 0, i;
	__u8 hierarchy;

	if (!s)
		return 0;
	walk_from(s, telling_node(task, &hierarchy));
	for (i = 0; i < WALK_ROUNDS && walk_goes_on(s); i++) {
		groups |= walk_components(slot);
		if ((groups & component_groups) == component_groups)
			return 1;
	}
	if (!walk_goes_on(s))
		return 0;
	s->glob.unsure |= EVENT_UNSURE_NAMES;
	return 1;
}

#endif
