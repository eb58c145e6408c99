/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which processes have executed a program: user space looks at their environments for the
 * names of notify sockets.
 */
#ifndef __EXEC_H__
#define __EXEC_H__

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

/* The process ids, as they come. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 64 << 10);
} execs SEC(".maps");

/* There was no room for one: user space looks at all processes again. */
bool execs_lost;

SEC("raw_tp/sched_process_exec")
int process_executes(void *ctx)
{
	__u32 pid = bpf_get_current_pid_tgid() >> 32;

	if (bpf_ringbuf_output(&execs, &pid, sizeof(pid), 0))
		execs_lost = true;
	return 0;
}

#endif
