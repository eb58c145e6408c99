/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Ancillary data: SCM_RIGHTS and SCM_CREDENTIALS, from the control messages as
 * the sender wrote them or from what the kernel made of them.
 */
#ifndef __ANCILLARY_H__
#define __ANCILLARY_H__

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "read.h"
#include "event.h"
#include "scratch.h"
#include "task.h"

#define SOL_SOCKET 1
#define SCM_RIGHTS 1
#define SCM_CREDENTIALS 2
#define CMSGS_MAX 8
#define CMSG_ALIGN(n) (((n) + 7) & ~7UL)

#define S_IFMT 0170000
#define S_IFSOCK 0140000
#define S_IFLNK 0120000
#define S_IFREG 0100000
#define S_IFBLK 0060000
#define S_IFDIR 0040000
#define S_IFCHR 0020000
#define S_IFIFO 0010000

/* uapi/linux/magic.h */
#define ANON_INODE_FS_MAGIC 0x09041934
#define PID_FS_MAGIC 0x50494446
#define NSFS_MAGIC 0x6e736673
#define TMPFS_MAGIC 0x01021994
#define HUGETLBFS_MAGIC 0x958458f6

/* Names as given to anon_inode_getfile(). */
static __always_inline __u8 anon_inode_kind(__u64 name)
{
	if (name == NAME8('[', 'e', 'v', 'e', 'n', 't', 'f', 'd'))
		return FD_EVENTFD;
	if (name == NAME8('[', 'e', 'v', 'e', 'n', 't', 'p', 'o'))
		return FD_EPOLL;
	if (name == NAME8('[', 't', 'i', 'm', 'e', 'r', 'f', 'd'))
		return FD_TIMERFD;
	if (name == NAME8('[', 's', 'i', 'g', 'n', 'a', 'l', 'f'))
		return FD_SIGNALFD;
	if (name == NAME8('[', 'p', 'i', 'd', 'f', 'd', ']', 0))
		return FD_PIDFD;
	if (name == NAME8('i', 'n', 'o', 't', 'i', 'f', 'y', 0))
		return FD_INOTIFY;
	if (name == NAME8('[', 'f', 'a', 'n', 'o', 't', 'i', 'f'))
		return FD_FANOTIFY;
	if (name == NAME8('[', 'i', 'o', '_', 'u', 'r', 'i', 'n'))
		return FD_IO_URING;
	if (name == NAME8('[', 'u', 's', 'e', 'r', 'f', 'a', 'u'))
		return FD_USERFAULTFD;
	if (name == NAME8('[', 'p', 'e', 'r', 'f', '_', 'e', 'v'))
		return FD_PERF_EVENT;
	if ((name & 0xffffffff) == NAME8('b', 'p', 'f', '-', 0, 0, 0, 0) ||
	    (name & 0xffffffff) == NAME8('b', 'p', 'f', '_', 0, 0, 0, 0))
		return FD_BPF;
	return FD_ANON_INODE;
}

static __always_inline __u8 mode_kind(umode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
		return FD_FILE;
	case S_IFDIR:
		return FD_DIRECTORY;
	case S_IFLNK:
		return FD_SYMLINK;
	case S_IFCHR:
		return FD_CHAR;
	case S_IFBLK:
		return FD_BLOCK;
	case S_IFIFO:
		return FD_PIPE;
	case S_IFSOCK:
		return FD_SOCKET;
	}
	return FD_UNKNOWN;
}

/* The enum fd_kind of a struct file, which is passed as a number because a
 * function of its own takes no pointers on 5.10.
 */
__noinline int file_kind(__u64 at)
{
	struct file *file = (void *)at;
	struct inode *inode = READ(file, f_inode);
	__u64 magic, name = 0;

	if (!inode)
		return FD_UNKNOWN;
	magic = READ(inode, i_sb, s_magic);
	bpf_probe_read_kernel_str(&name, sizeof(name),
				  READ(file, f_path.dentry, d_name.name));
	/* read_kernel_str puts a NUL last: get the eighth byte too. */
	if (name >> 48)
		bpf_probe_read_kernel(&name, sizeof(name),
				      READ(file, f_path.dentry, d_name.name));
	switch (magic) {
	case ANON_INODE_FS_MAGIC:
		return anon_inode_kind(name);
	case PID_FS_MAGIC:
		return FD_PIDFD;
	case NSFS_MAGIC:
		return FD_NAMESPACE;
	case TMPFS_MAGIC:
	case HUGETLBFS_MAGIC:
		if ((name << 16) == NAME8(0, 0, 'm', 'e', 'm', 'f', 'd', ':'))
			return FD_MEMFD;
	}
	return mode_kind(READ(inode, i_mode));
}

/* The struct file behind one of the current task's descriptors. */
static __always_inline struct file *file_of(__u32 fd)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct fdtable *table = READ(task, files, fdt);
	struct file **files = READ(table, fd), *file = NULL;

	if (fd >= READ(table, max_fds))
		return NULL;
	bpf_probe_read_kernel(&file, sizeof(file), files + fd);
	return file;
}

/*
 * One descriptor of an SCM_RIGHTS message, appended to the slot's. A function of its
 * own so that it is verified once, not for each descriptor.
 */
__noinline int read_right(__u32 slot, __u32 memory, __u64 at)
{
	struct scratch *s = scratch_get(slot);
	__u32 fd, n;

	if (!s || read_from(memory == MEMORY_USER, &fd, sizeof(fd), (void *)at))
		return 0;
	n = s->anc.fd_count & 255;
	s->anc.fds[n] = file_kind((__u64)file_of(fd));
	s->anc.fd_count = n + 1;
	return 1;
}

static __always_inline void read_rights(__u32 slot, __u32 memory, __u64 data,
					__u64 n)
{
	__u32 i;

	for (i = 0; i < FDS_MAX; i++)
		if (i >= n || !read_right(slot, memory, data + 4 * i))
			break;
}

/*
 * The ids as the sender wrote them hold in its own namespaces: they are those of
 * the host only when the sender is in the initial ones.
 */
static __always_inline void read_credentials(struct ancillary *anc, bool user,
					     const void *data)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct ucred_abi cred;

	if (read_from(user, &cred, sizeof(cred), data))
		return;
	anc->flags |= EVENT_CLAIMED;
	anc->ns_pid = cred.pid;
	if (in_initial_pidns(task))
		anc->pid = cred.pid;
	if (!in_initial_userns(task))
		return;
	anc->uid = cred.uid;
	anc->gid = cred.gid;
	anc->flags |= EVENT_CLAIMED_IDS;
}

static __always_inline void ancillary_init(struct ancillary *anc)
{
	anc->flags = 0;
	anc->pid = 0;
	anc->ns_pid = 0;
	anc->uid = 0;
	anc->gid = 0;
	anc->fd_count = 0;
	anc->first = 0;
}

/*
 * Reads one control message out of room bytes and returns how far it is to the next
 * one, 0 at the end. A function of its own so that it is verified once.
 */
__noinline int read_message(__u32 slot, __u32 memory, __u64 at, __u64 room)
{
	struct scratch *s = scratch_get(slot);
	const __u64 data = at + sizeof(struct cmsghdr_abi);
	struct cmsghdr_abi cmsg;

	if (!s || room < sizeof(cmsg) ||
	    read_from(memory == MEMORY_USER, &cmsg, sizeof(cmsg), (void *)at))
		return 0;
	if (cmsg.cmsg_len < sizeof(cmsg) || cmsg.cmsg_len > room)
		return 0;
	if (cmsg.cmsg_level == SOL_SOCKET && cmsg.cmsg_type == SCM_RIGHTS)
		read_rights(slot, memory, data, (cmsg.cmsg_len - sizeof(cmsg)) / 4);
	if (cmsg.cmsg_level == SOL_SOCKET && cmsg.cmsg_type == SCM_CREDENTIALS)
		read_credentials(&s->anc, memory == MEMORY_USER, (void *)data);
	return CMSG_ALIGN(cmsg.cmsg_len);
}

/* Walks the control messages the way CMSG_NXTHDR does. */
__noinline int read_control(__u32 slot, __u32 memory, __u64 control, __u64 size)
{
	__u64 end = control + size;
	int i, step;

	for (i = 0; i < CMSGS_MAX && control < end; i++) {
		step = read_message(slot, memory, control, end - control);
		if (step <= 0)
			break;
		control += step;
	}
	return 0;
}

/*
 * The process of the credentials among the first of the control messages, by the number that
 * it has for the sender; 0: there are none.
 */
__noinline int claimed_in(__u32 memory, __u64 control, __u64 size)
{
	const bool user = memory == MEMORY_USER;
	__u64 end = control + size;
	struct cmsghdr_abi cmsg;
	struct ucred_abi cred;
	int i;

	for (i = 0; i < CMSGS_MAX && control < end; i++) {
		if (read_from(user, &cmsg, sizeof(cmsg), (void *)control) ||
		    cmsg.cmsg_len < sizeof(cmsg))
			return 0;
		if (cmsg.cmsg_level == SOL_SOCKET &&
		    cmsg.cmsg_type == SCM_CREDENTIALS)
			return read_from(user, &cred, sizeof(cred),
					 (void *)control + sizeof(cmsg))
				       ? 0
				       : cred.pid;
		control += CMSG_ALIGN(cmsg.cmsg_len);
	}
	return 0;
}

/*
 * Whether the sender has claimed the credentials that came with its datagram, of which ns_pid is
 * what its message says: the kernel adds its own where it has claimed none (SO_PASSCRED).
 * Those of another process are claimed, wherever among the control messages they stand.
 */
static __always_inline bool is_claimed(__u32 pid, __u32 ns_pid)
{
	return ns_pid || pid != bpf_get_current_pid_tgid() >> 32;
}

static __always_inline __u32 read_files(struct scm_fp_list *fp, __u8 *kinds)
{
	__u32 i, count = READ(fp, count);
	struct file *file;

	for (i = 0; i < FDS_MAX; i++) {
		if (i >= count)
			break;
		bpf_probe_read_kernel(&file, sizeof(file),
				      (void *)fp + bpf_core_field_offset(fp->fp) +
					      i * sizeof(file));
		kinds[i] = file_kind((__u64)file);
	}
	return i;
}

/* What the kernel attached to the datagram itself: see is_claimed. */
static __always_inline void read_skb_parms(struct ancillary *anc,
					   struct sk_buff *skb)
{
	struct unix_skb_parms *parms = (void *)skb + bpf_core_field_offset(skb->cb);
	struct scm_fp_list *fp;
	struct pid *pid;

	if (bpf_rdonly_cast) {
		parms = TYPED(parms); /* once for both */
		fp = parms->fp;
		pid = parms->pid;
	} else {
		fp = READ(parms, fp);
		pid = READ(parms, pid);
	}
	if (pid) {
		anc->flags |= EVENT_CLAIMED | EVENT_CLAIMED_IDS;
		anc->pid = READ(pid, numbers[0].nr);
		anc->uid = READ(parms, uid.val);
		anc->gid = READ(parms, gid.val);
	}
	if (fp) {
		anc->fd_count = read_files(fp, anc->fds);
		anc->first = (__u64)READ(fp, fp[0]);
	}
}

#endif
