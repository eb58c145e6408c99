/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * AF_UNIX sockets and their addresses.
 */
#ifndef __UNIX_SOCKET_H__
#define __UNIX_SOCKET_H__

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "read.h"
#include "scratch.h"

#define AF_UNIX 1
#define SOCK_STREAM 1
#define SOCK_DGRAM 2
#define SOCK_SEQPACKET 5
#define TCP_LISTEN 10	  /* the state of a listening socket, of AF_UNIX too */
#define SUN_PATH_OFFSET 2 /* offsetof(struct sockaddr_un, sun_path) */

/* The socket's type if it sends AF_UNIX datagrams, else 0. */
static __always_inline __u8 datagram_type(struct sock *sk)
{
	__u16 type;

	if (READ(sk, __sk_common.skc_family) != AF_UNIX)
		return 0;
	type = READ(sk, sk_type);
	return type == SOCK_DGRAM || type == SOCK_SEQPACKET ? type : 0;
}

/* Which byte of a number is its first that is not 0. */
static __always_inline __u32 first_byte(__u64 number)
{
	__u32 at = 0;

	if (!(number & 0xffffffff)) {
		at += 4;
		number >>= 32;
	}
	if (!(number & 0xffff)) {
		at += 2;
		number >>= 16;
	}
	return number & 0xff ? at : at + 1;
}

#define EACH_BYTE(value) (0x0101010101010101ULL * (value))

/*
 * Where the path ends of which n bytes stand in the slot's address. To look for its NUL
 * eight bytes at a time costs a tenth of reading it anew as a string. A function of its
 * own so that it is verified once, not for each end.
 */
__noinline int path_length(__u32 slot, __u32 n)
{
	struct scratch *s = scratch_get(slot);
	__u64 eight, nuls;
	__u32 i, end;

	if (!s)
		return 0;
	for (i = 0; i <= ADDRESS_MAX; i += 8) {
		if (i >= n)
			break;
		eight = *(const __u64 *)(s->send.dst.address + i);
		/* The lowest bit that is set is that of the first NUL. */
		nuls = (eight - EACH_BYTE(1)) & ~eight & EACH_BYTE(0x80);
		if (nuls) {
			end = i + first_byte(nuls);
			return end < n ? end : n;
		}
	}
	return n;
}

/*
 * Reads the name in a struct sockaddr_un of len bytes into the slot's address and returns
 * its length, 0 for an unnamed address. A path ends at its NUL; an abstract name, whose
 * first byte is NUL, is as long as the address says.
 */
static __always_inline __u16 read_address(__u32 slot, bool user, const void *addr,
					  __s64 len)
{
	struct scratch *s = scratch_get(slot);
	__u64 n = len - SUN_PATH_OFFSET;

	if (!s || len <= SUN_PATH_OFFSET || n > ADDRESS_MAX)
		return 0;
	BOUND(n, 127);
	if (read_from(user, s->send.dst.address, n, addr + SUN_PATH_OFFSET))
		return 0;
	return s->send.dst.address[0] ? path_length(slot, n) : n;
}

/* The name a socket is bound to; 0 when it has none. */
static __always_inline __u16 read_bound(char *name, struct sock *sk)
{
	struct unix_sock *u = (void *)sk;
	struct unix_address *addr = READ(u, addr);
	__u64 n;

	if (!addr)
		return 0;
	n = READ(addr, len) - SUN_PATH_OFFSET;
	if (!n || n > ADDRESS_MAX + 1)
		return 0;
	BOUND(n, 127);
	if (bpf_probe_read_kernel(name, n,
				  (void *)addr + bpf_core_field_offset(addr->name) +
					  SUN_PATH_OFFSET))
		return 0;
	/* unix_mkname_bsd() counts the NUL it puts behind a path. */
	return name[0] ? n - 1 : n;
}

/* The id of the cgroup v2 in which a socket was made, 0 if the kernel does not say. */
static __always_inline __u64 socket_cgroup_id(struct sock *sk)
{
	struct sock_cgroup_data___v514 *old;
	struct sock_cgroup_data *data;
	__u64 val;

	if (!bpf_core_field_exists(sk->sk_cgrp_data))
		return 0;
	data = (void *)sk + bpf_core_field_offset(sk->sk_cgrp_data);
	if (bpf_core_field_exists(data->cgroup))
		return READ(data, cgroup, kn, id);
	old = (void *)data;
	val = READ(old, val);
	if (val & 1) /* is_data */
		return 0;
	return READ((struct cgroup *)(val & ~3ULL), kn, id);
}

/* Notes the receiving socket: whose it is, and whether it filters. */
static __always_inline void resolve_found(struct destination *dst, struct sock *sk)
{
	if (bpf_rdonly_cast) {
		sk = TYPED(sk); /* once for all */
		dst->inode = sk->sk_socket->file->f_inode->i_ino;
		dst->cgroup_id = bpf_core_field_exists(sk->sk_cgrp_data)
					 ? sk->sk_cgrp_data.cgroup->kn->id
					 : 0;
		dst->netns = sk->__sk_common.skc_net.net->ns.inum;
		dst->uid = sk->sk_uid.val;
		dst->unfiltered = !sk->sk_filter;
	} else {
		dst->inode = READ(sk, sk_socket, file, f_inode, i_ino);
		dst->cgroup_id = socket_cgroup_id(sk);
		dst->netns = READ(sk, __sk_common.skc_net.net, ns.inum);
		dst->uid = READ(sk, sk_uid.val);
		dst->unfiltered = !READ(sk, sk_filter);
	}
	dst->resolved = 1;
}

/* The same, and its name. */
static __always_inline void resolve(struct destination *dst, struct sock *sk)
{
	dst->bound_len = read_bound(dst->bound, sk);
	resolve_found(dst, sk);
}

/* The receiver's own name stands for the address as well. */
static __always_inline void address_is_bound(struct destination *dst)
{
	dst->address_len = dst->bound_len;
	__builtin_memcpy(dst->address, dst->bound, sizeof(dst->address));
}

/* A connected socket's destination is its peer, by the name getpeername gives. */
static __always_inline void resolve_peer(struct destination *dst, struct sock *sk)
{
	struct unix_sock *u = (void *)sk;
	struct sock *peer = READ(u, peer);

	dst->connected = 1;
	if (!peer)
		return;
	resolve(dst, peer);
	address_is_bound(dst);
}

static __always_inline void destination_init(struct destination *dst, __u8 type)
{
	dst->inode = 0;
	dst->cgroup_id = 0;
	dst->netns = 0;
	dst->uid = 0;
	dst->address_len = 0;
	dst->bound_len = 0;
	dst->type = type;
	dst->connected = 0;
	dst->resolved = 0;
	dst->unfiltered = 0;
	dst->unreadable = 0;
}

#endif
