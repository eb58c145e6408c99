/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The system call a task is in, with its arguments, from the registers it
 * entered the kernel with.
 */
#ifndef __SYSCALL_H__
#define __SYSCALL_H__

#define PF_KTHREAD 0x00200000
#define PF_IO_WORKER 0x00000010

#if defined(__TARGET_ARCH_x86)
#define NR_WRITE 1
#define NR_WRITEV 20
#define NR_SENDTO 44
#define NR_SENDMSG 46
#define NR_SENDMMSG 307
#define NR_PWRITEV2 328
#define TS_COMPAT 0x2
#elif defined(__TARGET_ARCH_arm64)
#define NR_WRITE 64
#define NR_WRITEV 66
#define NR_SENDTO 206
#define NR_SENDMSG 211
#define NR_SENDMMSG 269
#define NR_PWRITEV2 287
#define TIF_32BIT 22
#endif

struct syscall {
	long nr; /* -1: not one whose arguments tell what is sent */
	__u64 fd;
	__u64 arg1;
	__u64 arg2;
	__u64 arg4;
	__u64 arg5;
};

static __always_inline long syscall_number(struct pt_regs *regs)
{
#if defined(__TARGET_ARCH_x86)
	return BPF_CORE_READ(regs, orig_ax);
#else
	return BPF_CORE_READ(regs, syscallno);
#endif
}

static __always_inline __u64 sixth_argument(struct pt_regs *regs)
{
#if defined(__TARGET_ARCH_x86)
	return BPF_CORE_READ(regs, r9);
#else
	return BPF_CORE_READ((struct user_pt_regs *)regs, regs[5]);
#endif
}

/* A 32-bit program on a 64-bit kernel numbers and lays things out its own way. */
static __always_inline bool is_compat(struct task_struct *task)
{
#if defined(__TARGET_ARCH_x86)
	return BPF_CORE_READ(task, thread_info.status) & TS_COMPAT;
#else
	return BPF_CORE_READ(task, thread_info.flags) & (1UL << TIF_32BIT);
#endif
}

static __always_inline struct syscall read_syscall(struct pt_regs *regs)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct syscall call = {.nr = -1};

	/* Neither has entered the kernel by a system call of its own. */
	if (BPF_CORE_READ(task, flags) & (PF_KTHREAD | PF_IO_WORKER))
		return call;
	if (is_compat(task))
		return call;
	call.nr = syscall_number(regs);
	call.fd = PT_REGS_PARM1_CORE_SYSCALL(regs);
	call.arg1 = PT_REGS_PARM2_CORE_SYSCALL(regs);
	call.arg2 = PT_REGS_PARM3_CORE_SYSCALL(regs);
	call.arg4 = PT_REGS_PARM5_CORE_SYSCALL(regs);
	call.arg5 = sixth_argument(regs);
	return call;
}

#endif
