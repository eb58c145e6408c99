/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What user space sets before the programs are loaded: constants the verifier
 * prunes dead code by, and the maps that hold sets.
 */
#ifndef __SETTINGS_H__
#define __SETTINGS_H__

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

#define CONTROLLERS_MAX 8
#define PATTERN_MAX 256
#define PATTERNS_MAX 128
#define KEY_MAX 24

/* sdtrace itself: never captured, unless on trial. */
const volatile __u32 self_tgid;
const volatile bool capture_all;   /* every AF_UNIX datagram */
const volatile bool by_name;	   /* notify sockets are told by their names */
const volatile __u32 wakeup_bytes; /* wake the reader from this fill on */
const volatile __u32
	crowded_bytes; /* from this fill on each sender has a share only */
const volatile __u32 share_bytes; /* which is so much of each round */
const volatile __u32 round_bytes; /* which goes on until so much is read */

/*
 * sdtrace sends itself datagrams, which are captured whatever the filters say: whether they
 * come back shows that all hooks are on the way.
 */
bool trial;

/* Which filters are in force; of those that ask about the task, any. */
const volatile bool filter_task;
const volatile bool filter_pid;
const volatile bool filter_uid;
const volatile bool filter_comm;
const volatile bool filter_netns;
const volatile bool filter_key;
const volatile bool filter_failed;

/*
 * cgroup v1 controllers to look at when cgroup v2 says only "/", as
 * cgroup_subsys_id, and how many.
 */
const volatile __u8 v1_controllers[CONTROLLERS_MAX];
const volatile __u32 v1_controllers_count;

/*
 * The hierarchies cgroup_targets has members of: 0 for cgroup v2, else
 * cgroup_subsys_id + 1; and how many.
 */
const volatile __u8 target_hierarchies[CONTROLLERS_MAX];
const volatile __u32 target_hierarchies_count;

/*
 * Globs in `patterns`: socket_patterns_count for the destination, then those for
 * the names in the cgroup path. A task passes when every group in
 * component_groups has a match.
 */
const volatile __u32 socket_patterns_count;
const volatile __u32 component_patterns_count;
const volatile __u32 component_groups;

/* When each was started, in ticks as /proc/PID/stat has it: its number may be given away. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u64);
} pids SEC(".maps");

#define TICK_NS 10000000 /* NSEC_PER_SEC / USER_HZ */

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u8);
} uids SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u8);
} netnses SEC(".maps");

struct comm {
	char name[16];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct comm);
	__type(value, __u8);
} comms SEC(".maps");

struct cgroup_target {
	__u64 id;	 /* kernfs_node.id, the directory's inode number */
	__u64 hierarchy; /* as in target_hierarchies */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct cgroup_target);
	__type(value, __u8);
} cgroup_targets SEC(".maps");

/* The paths of those in cgroup v2, and their ids: one that is removed can be made again. */
#define CGROUP_PATH_MAX 256

struct cgroup_path {
	char text[CGROUP_PATH_MAX];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct cgroup_path);
	__type(value, __u64);
} cgroup_paths SEC(".maps");

struct pattern {
	__u32 len;
	__u32 group;
	char text[PATTERN_MAX];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PATTERNS_MAX);
	__type(key, __u32);
	__type(value, struct pattern);
} patterns SEC(".maps");

/* The protocol's keys, padded with NUL. */
struct key {
	char name[KEY_MAX];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, struct key);
	__type(value, __u8);
} protocol_keys SEC(".maps");

/* FNV-1a hashes of the keys that --key asks for. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u64);
	__type(value, __u8);
} wanted_keys SEC(".maps");

/*
 * What NOTIFY_SOCKET holds in some process's environment, padded with NUL; and whether a
 * socket with this name was sent to.
 */
struct address {
	char path[112];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct address);
	__type(value, __u8);
} notify_sockets SEC(".maps");

/* What a number is multiplied by so that its highest bits tell it from others. */
#define HASH_FACTOR 0x9e3779b97f4a7c15ULL

/* So many bits that tell a number from others. */
static __always_inline __u64 hash_of(__u64 number, __u32 bits)
{
	return (number * HASH_FACTOR) >> (64 - bits);
}

/*
 * A bit for each name that counts, or is the journal's, and for some others: which one
 * follows from its last seven bytes.
 */
#define NAME_BITS_LOG2 12

__u64 notify_socket_bits[(1 << NAME_BITS_LOG2) / 64];

#endif
