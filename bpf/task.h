/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Who is sending: the current task, and whether the filters let it pass.
 */
#ifndef __TASK_H__
#define __TASK_H__

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "read.h"
#include "event.h"
#include "settings.h"
#include "scratch.h"
#include "cgroup.h"

static __always_inline void namespace_ids(struct event *e, struct task_struct *task)
{
	struct nsproxy *ns = READ(task, nsproxy);

	e->mntns = READ(ns, mnt_ns, ns.inum);
	e->netns = READ(ns, net_ns, ns.inum);
	e->cgroupns = READ(ns, cgroup_ns, ns.inum);
	e->userns = READ(task, cred, user_ns, ns.inum);
}

/* The process id in its own pid namespace, and that namespace. */
static __always_inline void own_pid(struct event *e, struct task_struct *leader)
{
	struct pid *pid = READ(leader, thread_pid);
	__u32 level = READ(pid, level);
	struct upid id = {};

	if (!level) {
		e->ns_pid = READ(pid, numbers[0].nr);
		e->pidns = READ(pid, numbers[0].ns, ns.inum);
		return;
	}
	bpf_probe_read_kernel(&id, sizeof(id),
			      (void *)pid + bpf_core_field_offset(pid->numbers) +
				      level * sizeof(id));
	e->ns_pid = id.nr;
	e->pidns = READ(id.ns, ns.inum);
}

static __always_inline bool in_initial_pidns(struct task_struct *task)
{
	return READ(task, thread_pid, level) == 0;
}

static __always_inline bool in_initial_userns(struct task_struct *task)
{
	return !READ(task, cred, user_ns, parent);
}

/* A process's name, of which the kernel pads the rest with NULs. */
static __always_inline void read_comm(char *to, struct task_struct *leader)
{
	const char *comm = (void *)leader + bpf_core_field_offset(leader->comm);

	if (bpf_rdonly_cast) {
		*(__u64 *)to = load64(comm);
		*(__u64 *)(to + 8) = load64(comm + 8);
	} else {
		bpf_probe_read_kernel(to, 16, comm);
	}
	to[15] = 0;
}

/* By loads alone, which a task of a known type allows. */
static __always_inline void describe_typed(struct event *e,
					   struct task_struct *task)
{
	struct task_struct *leader = task->group_leader;
	const struct cred *cred = task->cred;
	struct nsproxy *ns = task->nsproxy;
	struct pid *pid = leader->thread_pid;

	e->tid = task->pid;
	e->pid = task->tgid;
	e->ppid = task->real_parent->tgid;
	e->uid = cred->uid.val;
	e->gid = cred->gid.val;
	e->userns = cred->user_ns->ns.inum;
	e->start_time = leader->start_boottime;
	e->execs = leader->self_exec_id;
	e->cgroup_id = task->cgroups->dfl_cgrp->kn->id;
	e->mntns = ns->mnt_ns->ns.inum;
	e->netns = ns->net_ns->ns.inum;
	e->cgroupns = ns->cgroup_ns->ns.inum;
	/* The leader's: an io_uring worker is called iou-wrk-PID. */
	read_comm(e->comm, leader);
	if (pid->level) {
		own_pid(e, leader);
		return;
	}
	e->ns_pid = pid->numbers[0].nr;
	e->pidns = pid->numbers[0].ns->ns.inum;
}

static __always_inline void describe_task(struct event *e)
{
	struct task_struct *task, *leader;
	__u64 id, ids;

	if (bpf_core_enum_value_exists(enum bpf_func_id,
				       BPF_FUNC_get_current_task_btf)) {
		describe_typed(e, (void *)bpf_get_current_task_btf());
		return;
	}
	task = (void *)bpf_get_current_task();
	leader = READ(task, group_leader);
	id = bpf_get_current_pid_tgid();
	ids = bpf_get_current_uid_gid();
	e->pid = id >> 32;
	e->tid = id;
	e->ppid = READ(task, real_parent, tgid);
	e->uid = ids;
	e->gid = ids >> 32;
	e->start_time = READ(leader, start_boottime);
	e->execs = READ(leader, self_exec_id);
	e->cgroup_id = bpf_get_current_cgroup_id();
	read_comm(e->comm, leader);
	own_pid(e, leader);
	namespace_ids(e, task);
}

/* Whether a call of the current task's is sdtrace's own, which is not looked at. */
static __always_inline bool is_own(struct scratch *s)
{
	s->send.own = bpf_get_current_pid_tgid() >> 32 == self_tgid;
	return s->send.own && !trial;
}

static __always_inline bool comm_passes(struct task_struct *task)
{
	struct comm comm = {};

	BPF_CORE_READ_STR_INTO(&comm.name, task, group_leader, comm);
	return bpf_map_lookup_elem(&comms, &comm);
}

static __always_inline bool task_passes(__u32 slot)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct scratch *s;
	__u32 pid, uid, netns;
	__u64 *started;

	if (!filter_task)
		return true;
	s = scratch_get(slot);
	if (!s || s->send.own)
		return true;
	/* Each is asked for where it is needed only: a uid is mapped for the asking. */
	if (filter_pid) {
		pid = bpf_get_current_pid_tgid() >> 32;
		started = bpf_map_lookup_elem(&pids, &pid);
		if (!started ||
		    READ(task, group_leader, start_boottime) / TICK_NS != *started)
			return false;
	}
	if (filter_uid) {
		uid = bpf_get_current_uid_gid();
		if (!bpf_map_lookup_elem(&uids, &uid))
			return false;
	}
	if (filter_netns) {
		netns = READ(task, nsproxy, net_ns, ns.inum);
		if (!bpf_map_lookup_elem(&netnses, &netns))
			return false;
	}
	if (filter_comm && !comm_passes(task))
		return false;
	if (target_hierarchies_count && !cgroup_passes(slot))
		return false;
	if (component_groups && !components_pass(slot))
		return false;
	return true;
}

#endif
