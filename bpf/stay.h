/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Keeping a program on its CPU where the kernel preempts itself. The kernel skips a program
 * for all other threads of a CPU while one is preempted inside it, and another program may
 * run there in the meantime.
 */
#ifndef __STAY_H__
#define __STAY_H__

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

/* The kernel preempts itself. */
const volatile bool preempts;

/*
 * It does, and takes programs that keep their CPU while they call
 * functions of their own (Linux 6.15).
 */
const volatile bool may_stay;

extern void bpf_preempt_disable(void) __ksym __weak;
extern void bpf_preempt_enable(void) __ksym __weak;

/* From here on nothing else runs on the CPU. */
static __always_inline void stay_on_cpu(void)
{
	if (may_stay && bpf_preempt_disable)
		bpf_preempt_disable();
}

/* Before the end of each program that has called stay_on_cpu(). */
static __always_inline void may_leave_cpu(void)
{
	if (may_stay && bpf_preempt_enable)
		bpf_preempt_enable();
}

#endif
