/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The kernel types the programs read, cut down to the fields they use. Every
 * access is relocated against the running kernel's BTF (CO-RE), so neither
 * order nor offset matters here: only names and types do.
 *
 * A type whose field changed its name between kernels has a flavour for the
 * other name beside it, `___` and what is special about it.
 */
#ifndef __VMLINUX_H__
#define __VMLINUX_H__

typedef signed char __s8;
typedef unsigned char __u8;
typedef short __s16;
typedef unsigned short __u16;
typedef int __s32;
typedef unsigned int __u32;
typedef long long __s64;
typedef unsigned long long __u64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;
typedef __u16 umode_t;
typedef unsigned long size_t;
typedef _Bool bool;

enum { false = 0, true = 1 };

/* uapi/linux/bpf.h */
enum bpf_map_type {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_RINGBUF = 27,
};

enum {
	BPF_ANY = 0,
	BPF_NOEXIST = 1,
	BPF_RB_NO_WAKEUP = 1,
	BPF_RB_FORCE_WAKEUP = 2,
	BPF_RB_AVAIL_DATA = 0,
	BPF_RB_CONS_POS = 2,
};

enum bpf_func_id {
	BPF_FUNC_get_current_task_btf = 158, /* since 5.11 */
};

struct bpf_raw_tracepoint_args {
	__u64 args[0];
};

/* The registers at system call entry. */
#if defined(__TARGET_ARCH_x86)
struct pt_regs {
	unsigned long r10;
	unsigned long r9;
	unsigned long r8;
	unsigned long bx;
	unsigned long cx;
	unsigned long dx;
	unsigned long si;
	unsigned long di;
	unsigned long orig_ax;
} __attribute__((preserve_access_index));
#elif defined(__TARGET_ARCH_arm64)
struct user_pt_regs {
	__u64 regs[31];
	__u64 sp;
	__u64 pc;
	__u64 pstate;
} __attribute__((preserve_access_index));

struct pt_regs {
	struct user_pt_regs user_regs;
	__u64 orig_x0;
	__s32 syscallno;
} __attribute__((preserve_access_index));
#endif

#pragma clang attribute push(__attribute__((preserve_access_index)), \
			     apply_to = record)

struct timespec64 {
	__s64 tv_sec;
	long tv_nsec;
};

/* Files and inodes. */

struct super_block {
	unsigned long s_magic;
};

struct inode {
	umode_t i_mode;
	struct super_block *i_sb;
	unsigned long i_ino;
};

struct qstr {
	const unsigned char *name;
};

struct dentry {
	struct qstr d_name;
};

struct path {
	struct dentry *dentry;
};

struct file {
	struct path f_path;
	struct inode *f_inode;
	void *private_data;
};

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};

struct files_struct {
	struct fdtable *fdt;
};

/* Namespaces and credentials. */

struct ns_common {
	unsigned int inum;
};

struct mnt_namespace {
	struct ns_common ns;
};

struct net {
	struct ns_common ns;
};

struct cgroup_namespace {
	struct ns_common ns;
};

struct pid_namespace {
	struct ns_common ns;
};

struct user_namespace {
	struct ns_common ns;
	struct user_namespace *parent;
};

struct nsproxy {
	struct mnt_namespace *mnt_ns;
	struct net *net_ns;
	struct cgroup_namespace *cgroup_ns;
};

typedef struct {
	__u32 val;
} kuid_t;

typedef struct {
	__u32 val;
} kgid_t;

struct cred {
	kuid_t uid;
	kgid_t gid;
	struct user_namespace *user_ns;
};

struct upid {
	int nr;
	struct pid_namespace *ns;
};

struct pid {
	unsigned int level;
	struct upid numbers[1];
};

/* Control groups. */

struct kernfs_node {
	struct kernfs_node *parent;
	const char *name;
	__u64 id;
};

/* Since 6.15: kernfs_node.parent became __parent. */
struct kernfs_node___v615 {
	struct kernfs_node *__parent;
};

struct cgroup_root {
	int hierarchy_id;
};

struct cgroup {
	struct kernfs_node *kn;
	struct cgroup_root *root;
};

struct cgroup_subsys_state {
	struct cgroup *cgroup;
};

struct css_set {
	struct cgroup_subsys_state *subsys[1];
	struct cgroup *dfl_cgrp;
};

/* Tasks. */

typedef struct {
	int counter;
} atomic_t;

struct signal_struct {
	atomic_t live;
};

struct thread_info {
	unsigned long flags;
	__u32 status;
};

struct task_struct {
	struct thread_info thread_info;
	unsigned int flags;
	int pid;
	int tgid;
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	struct pid *thread_pid;
	__u64 start_boottime;
	__u64 self_exec_id;
	const struct cred *cred;
	char comm[16];
	struct files_struct *files;
	struct nsproxy *nsproxy;
	struct signal_struct *signal;
	struct css_set *cgroups;
};

/* Sockets. */

struct iovec {
	void *iov_base;
	size_t iov_len;
};

struct sockaddr_un {
	__u16 sun_family;
	char sun_path[108];
};

struct iov_iter {
	__u8 iter_type;
	size_t iov_offset;
	const struct iovec *__iov;
	void *ubuf;
	size_t count;
	unsigned long nr_segs;
};

/* Up to 6.3: the segments are named iov. */
struct iov_iter___v63 {
	const struct iovec *iov;
};

/* Up to 5.13: one word for the type and the direction. */
struct iov_iter___v513 {
	unsigned int type;
};

enum iter_type {
	ITER_IOVEC,
	ITER_UBUF,
};

/* Up to 5.13: the values are bits. */
enum iter_type___v513 {
	ITER_IOVEC___v513 = 4,
};

struct msghdr {
	void *msg_name;
	int msg_namelen;
	struct iov_iter msg_iter;
	void *msg_control;
	size_t msg_controllen;
	unsigned int msg_flags;
};

struct sk_filter;

typedef struct {
	struct net *net;
} possible_net_t;

struct sock_common {
	unsigned short skc_family;
	unsigned char skc_state;
	possible_net_t skc_net;
};

struct sock_cgroup_data {
	struct cgroup *cgroup;
};

/* Up to 5.14: a pointer with flags in its lowest bits, or what cgroup v1 put there. */
struct sock_cgroup_data___v514 {
	__u64 val;
};

struct socket;

struct sk_buff;

struct sk_buff_head {
	struct sk_buff *prev;
	__u32 qlen;
};

struct sock {
	struct sock_common __sk_common;
	struct sk_buff_head sk_receive_queue;
	__u32 sk_max_ack_backlog;
	__u16 sk_type;
	struct sk_filter *sk_filter;
	struct socket *sk_socket;
	kuid_t sk_uid;
	struct sock_cgroup_data sk_cgrp_data;
};

struct socket {
	struct file *file;
	struct sock *sk;
};

struct unix_address {
	int len;
	struct sockaddr_un name[1];
};

struct unix_sock {
	struct unix_address *addr;
	struct sock *peer;
};

struct sk_buff_head;

struct sk_buff {
	struct sk_buff *next;
	struct sk_buff *prev;
	struct sock *sk;
	char cb[48];
	__u16 alloc_cpu;
	unsigned int len;
	unsigned int data_len;
	unsigned char *data;
};

struct scm_fp_list {
	short count;
	struct file *fp[1];
};

struct unix_skb_parms {
	struct pid *pid;
	kuid_t uid;
	kgid_t gid;
	struct scm_fp_list *fp;
};

/* Iterators. */

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
};

struct bpf_iter__task_file {
	struct bpf_iter_meta *meta;
	struct file *file;
};

#pragma clang attribute pop

/*
 * What system calls take from user space. Their layout is fixed by the ABI, so
 * they must not be relocated.
 */

struct user_msghdr_abi {
	__u64 msg_name;
	int msg_namelen;
	__u64 msg_iov; /* struct iovec_abi */
	size_t msg_iovlen;
	__u64 msg_control;
	size_t msg_controllen;
	unsigned int msg_flags;
};

struct mmsghdr_abi {
	struct user_msghdr_abi msg_hdr;
	unsigned int msg_len;
};

struct iovec_abi {
	void *iov_base;
	size_t iov_len;
};

struct cmsghdr_abi {
	size_t cmsg_len;
	int cmsg_level;
	int cmsg_type;
};

struct ucred_abi {
	__u32 pid;
	__u32 uid;
	__u32 gid;
};

#endif
