/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The kernel skips a program's run while another run of it on the same CPU was
 * preempted halfway. Kernels that preempt themselves (PREEMPT_LAZY, the default since
 * 6.13, or preempt=full) would so lose datagrams: a run that may not be preempted is
 * as good as done. bpf_preempt_disable() came with 6.10, and may be held across
 * calls of global functions since 6.15: user space sets hold_cpu where that works.
 */
#ifndef __PREEMPTION_H__
#define __PREEMPTION_H__

const volatile bool hold_cpu;

extern void bpf_preempt_disable(void) __weak __ksym;
extern void bpf_preempt_enable(void) __weak __ksym;

/* Evaluates run, a call, without being preempted. */
#define UNPREEMPTED(run)                       \
	do {                                   \
		if (hold_cpu)                  \
			bpf_preempt_disable(); \
		run;                           \
		if (hold_cpu)                  \
			bpf_preempt_enable();  \
	} while (0)

#endif
