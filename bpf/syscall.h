/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The system call a task is in, with its arguments, from the registers it
 * entered the kernel with.
 */
#ifndef __SYSCALL_H__
#define __SYSCALL_H__

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "read.h"

#define PF_KTHREAD 0x00200000
#define PF_IO_WORKER 0x00000010

#if defined(__TARGET_ARCH_x86)
#define NR_WRITE 1
#define NR_WRITEV 20
#define NR_CONNECT 42
#define NR_SENDTO 44
#define NR_SENDMSG 46
#define NR_SENDMMSG 307
#define NR_PWRITEV2 328
#define NR_SENDFILE 40
#define NR_SPLICE 275
#define NR_IO_URING_ENTER 426
#define COMPAT_WRITE 4
#define COMPAT_WRITEV 146
#define COMPAT_SENDMMSG 345
#define COMPAT_SENDTO 369
#define COMPAT_SENDMSG 370
#define COMPAT_SOCKETCALL 102
#define TS_COMPAT 0x2
#elif defined(__TARGET_ARCH_arm64)
#define NR_WRITE 64
#define NR_WRITEV 66
#define NR_CONNECT 203
#define NR_SENDTO 206
#define NR_SENDMSG 211
#define NR_SENDMMSG 269
#define NR_PWRITEV2 287
#define NR_SENDFILE 71
#define NR_SPLICE 76
#define NR_IO_URING_ENTER 426
#define COMPAT_WRITE 4
#define COMPAT_WRITEV 146
#define COMPAT_SEND 289
#define COMPAT_SENDTO 290
#define COMPAT_SENDMSG 296
#define COMPAT_SENDMMSG 374
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
	return READ(regs, orig_ax);
#else
	return READ(regs, syscallno);
#endif
}

static __always_inline void read_arguments(struct syscall *call,
					   struct pt_regs *regs)
{
#if defined(__TARGET_ARCH_x86)
	call->fd = READ(regs, di);
	call->arg1 = READ(regs, si);
	call->arg2 = READ(regs, dx);
	call->arg4 = READ(regs, r8);
	call->arg5 = READ(regs, r9);
#else
	struct user_pt_regs *user = (void *)regs;

	call->fd = READ(regs, orig_x0);
	call->arg1 = READ(user, regs[1]);
	call->arg2 = READ(user, regs[2]);
	call->arg4 = READ(user, regs[4]);
	call->arg5 = READ(user, regs[5]);
#endif
}

/* A 32-bit program on a 64-bit kernel numbers and lays things out its own way. */
static __always_inline bool is_compat(struct task_struct *task)
{
#if defined(__TARGET_ARCH_x86)
	return READ(task, thread_info.status) & TS_COMPAT;
#else
	return READ(task, thread_info.flags) & (1UL << TIF_32BIT);
#endif
}

#if defined(__TARGET_ARCH_x86)
/* Which calls of socketcall(2) send, by bits of their numbers (kernel: linux/net.h). */
#define SOCKETCALL_SENDS (1 << 9 | 1 << 11 | 1 << 16 | 1 << 20)

/* The socket of socketcall(2), by which old 32-bit programs send, -1 if this is no send. */
static __always_inline int socketcall_fd(struct pt_regs *regs)
{
	__u32 number = READ(regs, bx), args = READ(regs, cx), fd;

	if (number > 31 || !(SOCKETCALL_SENDS >> number & 1) ||
	    bpf_probe_read_user(&fd, sizeof(fd), (void *)(__u64)args))
		return -1;
	return fd;
}
#endif

/* Whether a 32-bit program's call with this number may write or send to a socket. */
static __always_inline bool compat_sends(long nr)
{
	switch (nr) {
	case COMPAT_WRITE:
	case COMPAT_WRITEV:
	case COMPAT_SENDMMSG:
	case COMPAT_SENDTO:
	case COMPAT_SENDMSG:
#if defined(__TARGET_ARCH_x86)
	case COMPAT_SOCKETCALL:
#else
	case COMPAT_SEND:
#endif
		return true;
	}
	return false;
}

/* The descriptor that such a call writes or sends to, -1 of another call. */
static __always_inline int compat_fd(struct pt_regs *regs, long nr)
{
	if (!compat_sends(nr))
		return -1;
#if defined(__TARGET_ARCH_x86)
	if (nr == COMPAT_SOCKETCALL)
		return socketcall_fd(regs);
	return READ(regs, bx);
#else
	return READ(regs, orig_x0);
#endif
}

static __always_inline struct syscall read_syscall(struct pt_regs *regs)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct syscall call = {.nr = -1};

	/* Neither has entered the kernel by a system call of its own. */
	if (READ(task, flags) & (PF_KTHREAD | PF_IO_WORKER))
		return call;
	if (is_compat(task))
		return call;
	call.nr = syscall_number(regs);
	read_arguments(&call, regs);
	return call;
}

#endif
