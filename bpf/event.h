/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The records that go to user space: one for each datagram, and one for each thing
 * that becomes of it once it is in the receiver's queue. internal/wire decodes them by
 * the types that bpf2go generates from this file.
 */
#ifndef __EVENT_H__
#define __EVENT_H__

#include "vmlinux.h"

#define PAYLOAD_MAX 4096 /* systemd's NOTIFY_BUFFER_MAX */
#define ADDRESS_MAX 108	 /* sun_path */
#define CGROUP_MAX 1024
#define FDS_MAX 253 /* SCM_MAX_FD */

/*
 * Offsets into data[] are masked with DATA_MASK for the verifier; the longest
 * record fills PAYLOAD_MAX + 2 * ADDRESS_MAX + CGROUP_MAX + 255 + FDS_MAX.
 */
#define DATA_MASK 0x1fff
#define DATA_SIZE (DATA_MASK + 1 + 256)

/* What a record is of: its first member. */
enum record_type {
	RECORD_SEND,	  /* struct event, the others struct receipt */
	RECORD_READ,	  /* somebody received the datagram */
	RECORD_UNREAD,	  /* it was thrown away before anybody did */
	RECORD_CLOSED,	  /* the pipe passed with it was closed everywhere */
	RECORD_FORGOTTEN, /* there will be no struct event for it */
};

enum event_flag {
	EVENT_LATENCY = 1 << 0,	       /* latency_ns is known */
	EVENT_SIZE = 1 << 1,	       /* size is known */
	EVENT_PAYLOAD = 1 << 2,	       /* the payload is known */
	EVENT_CLAIMED = 1 << 3,	       /* SCM_CREDENTIALS was attached */
	EVENT_CLAIMED_IDS = 1 << 4,    /* claimed_uid and claimed_gid are known */
	EVENT_DELIVERED = 1 << 5,      /* the receiver's queue has it */
	EVENT_NOT_DELIVERED = 1 << 6,  /* the receiver's queue has it not */
	EVENT_CGROUP_PARTIAL = 1 << 7, /* the path did not fit */
	EVENT_RECEIVER = 1 << 8, /* receiver_netns and receiver_uid are known */
	/* User space looks again: if its names match, and how it begins. */
	EVENT_UNSURE_NAMES = 1 << 9,
	EVENT_UNSURE_KEY = 1 << 10,
	/* The call that failed, if it is not the send: nothing was sent. */
	EVENT_CONNECT = 1 << 11,
	EVENT_SOCKET = 1 << 12,
	EVENT_ADDRESS_BOUND = 1 << 13, /* the address is the bound one */
};

/* What a passed file descriptor refers to; the names are in internal/wire. */
enum fd_kind {
	FD_UNKNOWN,
	FD_FILE,
	FD_DIRECTORY,
	FD_SYMLINK,
	FD_CHAR,
	FD_BLOCK,
	FD_PIPE,
	FD_SOCKET,
	FD_MEMFD,
	FD_PIDFD,
	FD_EVENTFD,
	FD_TIMERFD,
	FD_SIGNALFD,
	FD_EPOLL,
	FD_INOTIFY,
	FD_FANOTIFY,
	FD_IO_URING,
	FD_USERFAULTFD,
	FD_PERF_EVENT,
	FD_BPF,
	FD_NAMESPACE,
	FD_ANON_INODE,
};

/*
 * data[] holds, one after the other and without padding: the payload, the bound
 * address, the cgroup's names from the leaf to the root (each with its NUL), one enum
 * fd_kind a byte, and the address.
 */
struct event {
	__u32 type;	  /* RECORD_SEND */
	__s32 result;	  /* bytes, or a negative errno */
	__u64 time_ns;	  /* CLOCK_BOOTTIME when it was queued, or the call ended */
	__u64 latency_ns; /* what had passed since the call began, or began to wait */
	__u64 cgroup_id;
	__u64 start_time; /* of the thread group leader, CLOCK_BOOTTIME */
	__u64 socket_inode;
	__u64 receiver_cgroup_id; /* of the receiving socket, 0: unknown */
	__u64 skb; /* with time_ns what receipts call it, 0: none come */
	__u32 execs; /* how many programs its process and those before it have executed */
	__u32 size;
	__u32 pid;
	__u32 tid;
	__u32 ppid;
	__u32 ns_pid;
	__u32 uid;
	__u32 gid;
	__u32 mntns;
	__u32 netns;
	__u32 pidns;
	__u32 userns;
	__u32 cgroupns;
	__u32 claimed_pid;
	__u32 claimed_ns_pid;
	__u32 claimed_uid;
	__u32 claimed_gid;
	__u32 receiver_netns; /* without EVENT_RECEIVER: that of the sending socket */
	__u32 receiver_uid;
	__u32 flags;
	__u16 payload_len;
	__u16 address_len;
	__u16 bound_len;
	__u16 cgroup_len;
	__u16 fd_count;
	__u8 socket_type;
	__u8 cgroup_controller; /* 0: cgroup v2, else cgroup_subsys_id + 1 */
	char comm[16];
	__u8 data[DATA_SIZE];
};

/* What became of a delivered datagram. Times are of CLOCK_BOOTTIME. */
struct receipt {
	__u32 type;
	__s32 result; /* bytes the reader was told, or a negative errno */
	__u64 skb;    /* with queued_ns: which datagram */
	__u64 queued_ns; /* when it was put into the queue: time_ns of its struct event */
	__u64 time_ns;		/* when it left it, or the pipe was closed */
	__u64 sender_exited_ns; /* when the sender's process ended, 0: it has not */
	__u64 cgroup_id;	/* of the process that did it */
	__u64 start_time;	/* of its thread group leader */
	__u32 pid;
	__u32 tid;
	__u32 msg_flags; /* as recvmsg(2) returns them */
	__u32 unused;	 /* aligns comm */
	char comm[16];
};

/* Makes the compiler tell bpf2go about the types. */
const struct event *event_type __attribute__((unused));
const struct receipt *receipt_type __attribute__((unused));
const enum record_type *record_type_type __attribute__((unused));
const enum event_flag *event_flag_type __attribute__((unused));
const enum fd_kind *fd_kind_type __attribute__((unused));

#endif
