/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which datagrams count: by the name of the socket they go to, or by the key of
 * their first assignment.
 */
#ifndef __NOTIFY_H__
#define __NOTIFY_H__

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "event.h"
#include "settings.h"
#include "counters.h"
#include "scratch.h"
#include "glob.h"
#include "unix_socket.h"

/* FNV-1a, 64 bits: how wanted_keys names a key. */
#define FNV_BASIS 0xcbf29ce484222325ULL
#define FNV_PRIME 0x100000001b3ULL

enum interest {
	INTEREST_NO,	/* never, whatever it says */
	INTEREST_MAYBE, /* if it reads like a notification */
	INTEREST_YES,
};

/* The last 16 bytes of a name as two numbers, which is the cheapest to compare. */
struct tail {
	__u64 last;
	__u64 before;
};

/*
 * Reads the tail of a name that stands in a struct destination, and so has something
 * before it: of a name that is shorter, the rest of the tail means nothing.
 */
static __always_inline struct tail tail_of(const char *name, __u32 len)
{
	const char *end = name;
	struct tail t;
	__u64 n = len;

	BOUND(n, 127);
	end += n;
	t.last = *(const __u64 *)(end - 8);
	t.before = *(const __u64 *)(end - 16);
	return t;
}

/* The n bytes at text, 8 at most, as the last ones of a number; all are constants. */
static __always_inline __u64 number_of(const char *text, __u32 n)
{
	__u64 number = 0;
	__u32 i;

#pragma unroll
	for (i = 0; i < 8; i++)
		if (i < n)
			number |= (__u64)(__u8)text[i] << 8 * (8 - n + i);
	return number;
}

static __always_inline bool ends_with(const struct tail *t, __u32 len,
				      const char *end, __u32 n)
{
	__u32 before = n > 8 ? n - 8 : 0, last = n - before;

	if (len < n || t->last >> 8 * (8 - last) !=
			       number_of(end + before, last) >> 8 * (8 - last))
		return false;
	return !before || t->before >> 8 * (8 - before) ==
				  number_of(end, before) >> 8 * (8 - before);
}

/* literal has 16 bytes at most. */
#define ENDS_WITH(tail, len, literal) \
	ends_with(tail, len, literal, sizeof(literal) - 1)

/* The same for how a name begins, in steps of 4 bytes. */
static __always_inline bool in_journal_directory(const char *name, __u32 len)
{
	const char *want = "/run/systemd/journal";
	__u32 i;

	if (len < 20) /* what follows is left from a longer name */
		return false;
#pragma unroll
	for (i = 0; i < 20; i += 4)
		if (*(const __u32 *)(name + i) !=
		    (__u32)(number_of(want + i, 4) >> 32))
			return false;
	return true;
}

/*
 * The journal speaks KEY=value too: what lies in /run/systemd/journal, in
 * /run/systemd/journal.NAMESPACE, and /dev/log; also seen through another root.
 */
static __always_inline bool is_journal(const char *name, const struct tail *t,
				       __u32 len)
{
	return ENDS_WITH(t, len, "/journal/socket") ||
	       ENDS_WITH(t, len, "/journal/stdout") ||
	       ENDS_WITH(t, len, "/journal/syslog") ||
	       ENDS_WITH(t, len, "/journal/dev-log") ||
	       ENDS_WITH(t, len, "/dev/log") || in_journal_directory(name, len);
}

static __always_inline bool has_notify_name(const struct tail *t, __u32 len)
{
	return ENDS_WITH(t, len, "/systemd/notify") ||
	       ENDS_WITH(t, len, "/run/host/notify") ||
	       ENDS_WITH(t, len, "/notify.sock") ||
	       ENDS_WITH(t, len, "/notify/notify");
}

/*
 * Most names are nobody's NOTIFY_SOCKET, which the bit that a name has here tells for
 * a tenth of what the map costs. last are the name's last 8 bytes.
 */
static __always_inline bool name_bit(__u64 last)
{
	__u64 bit = hash_of(last >> 8, NAME_BITS_LOG2);

	return notify_socket_bits[bit / 64] >> bit % 64 & 1;
}

static __always_inline bool perhaps_in_environment(const struct tail *t, __u32 len)
{
	/* Of a shorter one the tail is not all its own. */
	return len < 8 || name_bit(t->last);
}

static __always_inline bool in_some_environment(const char *name,
						const struct tail *t, __u32 len,
						bool is_bound)
{
	struct address address = {};
	__u64 n = len;
	__u8 *bound;

	if (!perhaps_in_environment(t, len))
		return false;
	BOUND(n, 127);
	if (n > ADDRESS_MAX)
		return false;
	bpf_probe_read_kernel(address.path, n, name);
	bound = bpf_map_lookup_elem(&notify_sockets, &address);
	if (bound && is_bound)
		*bound = 1;
	return bound;
}

/* is_bound says that it is the name of a socket that was found. */
static __always_inline enum interest name_interest(__u32 slot, const char *name,
						   __u32 len, bool is_bound)
{
	struct scratch *s;
	struct tail tail;

	if (socket_patterns_count) {
		s = scratch_get(slot);
		if (!s || !len)
			return INTEREST_MAYBE;
		bpf_probe_read_kernel(s->glob.text, 128, name);
		s->glob.text_len = len;
		if (glob_match(slot, 0, socket_patterns_count))
			return INTEREST_YES;
		return INTEREST_MAYBE;
	}
	if (capture_all)
		return INTEREST_YES;
	if (!len)
		return INTEREST_MAYBE;
	tail = tail_of(name, len);
	if (is_journal(name, &tail, len))
		return INTEREST_NO;
	if (has_notify_name(&tail, len) ||
	    in_some_environment(name, &tail, len, is_bound))
		return INTEREST_YES;
	return INTEREST_MAYBE;
}

/*
 * What the names alone say, the sender's and the receiver's. Whether it is the journal's, the
 * receiver's own one decides where it is known: anybody can make a link to it.
 */
__noinline int destination_interest(__u32 slot)
{
	struct scratch *s = scratch_get(slot);
	int by_address, by_bound = INTEREST_MAYBE;

	if (!s)
		return INTEREST_NO;
	if (s->send.dst.bound_len) {
		by_bound = name_interest(slot, s->send.dst.bound,
					 s->send.dst.bound_len, true);
		if (by_bound == INTEREST_NO || s->send.dst.connected)
			return by_bound;
	}
	by_address = name_interest(slot, s->send.dst.address,
				   s->send.dst.address_len, false);
	if (by_address == INTEREST_NO && s->send.dst.bound_len)
		return by_bound;
	return by_address == INTEREST_NO || by_address > by_bound ? by_address
								  : by_bound;
}

/* How much of a payload tells whether its first assignment's key is the protocol's. */
#define BEGINNING_MAX 32

#define SEPARATORS_MAX 8 /* empty lines that are looked behind */

/*
 * EVENT_UNSURE_KEY if a payload begins with as many separators: then user space looks for
 * its first line. Eight bytes at a time, as a loop is walked through by the verifier.
 */
static __always_inline __u32 unsure_key(const __u8 *payload, __u32 len)
{
	/* 0 where there is '\n', 7 where there is '\r' */
	__u64 odd = *(const __u64 *)payload ^ EACH_BYTE('\n');

	if (len < SEPARATORS_MAX || odd & EACH_BYTE(0xf8) ||
	    (odd ^ odd >> 1) & EACH_BYTE(3))
		return 0;
	return EVENT_UNSURE_KEY;
}

/* Whether the first assignment's key belongs to the protocol, or may do so. */
static __always_inline bool is_notification(const __u8 *payload, __u32 len)
{
	struct key key = {};
	__u32 start, i;
	bool ended = false;

	if (unsure_key(payload, len))
		return true;
	/* systemd skips empty lines. */
	for (start = 0; start < SEPARATORS_MAX; start++)
		if (payload[start] != '\n' && payload[start] != '\r')
			break;
	/* All keys begin with a capital letter: most others are told by this alone. */
	if (start >= len || payload[start] < 'A' || payload[start] > 'Z')
		return false;
	bpf_probe_read_kernel(key.name, sizeof(key.name), payload + start);
	if (len - start > 2 && key.name[0] == 'X' && key.name[1] == '_')
		return true;
#pragma unroll
	for (i = 0; i < KEY_MAX; i++) {
		if (i < len - start && key.name[i] == '=')
			ended = true;
		if (ended)
			key.name[i] = 0;
	}
	return ended && bpf_map_lookup_elem(&protocol_keys, &key);
}

/* The same, unless --socket says that names alone count. */
static __always_inline bool reads_like_notification(const __u8 *payload, __u32 len)
{
	return !socket_patterns_count && is_notification(payload, len);
}

/*
 * The same for the slot's event. A function of its own is verified once, and its result
 * is any number to what calls it: what follows there is not walked through for each way to
 * come to the result.
 */
__noinline int event_reads_like_notification(__u32 slot)
{
	struct scratch *s = scratch_get(slot);

	if (!s)
		return 0;
	s->send.unsure |= unsure_key(s->event.data, s->event.payload_len);
	return reads_like_notification(s->event.data, s->event.payload_len);
}

static __always_inline void count_unwanted(void)
{
	count(socket_patterns_count ? COUNT_FILTERED : COUNT_IGNORED);
}

/*
 * Takes one byte of the slot's payload; returns whether it ends a wanted key. Split
 * as systemd does: at \n and \r, a backslash being dropped and taking the next byte
 * as it is. A function of its own so that it is verified once, not for each byte.
 */
__noinline int key_step(__u32 slot, __u32 at)
{
	struct scratch *s = scratch_get(slot);
	struct key_search *search;
	__u8 c;

	if (!s)
		return 0;
	search = &s->key_search;
	c = s->event.data[at & (PAYLOAD_MAX - 1)];
	if (c == '\\' && !search->escaped) {
		search->escaped = 1;
		return 0;
	}
	if ((c == '\n' || c == '\r') && !search->escaped) {
		search->hash = FNV_BASIS;
		search->in_key = 1;
		return 0;
	}
	search->escaped = 0;
	if (!search->in_key)
		return 0;
	if (c == '=') {
		search->in_key = 0;
		return !!bpf_map_lookup_elem(&wanted_keys, &search->hash);
	}
	search->hash = (search->hash ^ c) * FNV_PRIME;
	return 0;
}

#define KEY_STEPS 64

/* As many bytes of the payload from at on. Rounds of rounds: see GLOB_ROUNDS. */
__noinline int key_steps(__u32 slot, __u32 at)
{
	struct scratch *s = scratch_get(slot);
	__u32 i;

	if (!s)
		return 0;
	for (i = 0; i < KEY_STEPS; i++) {
		if (at + i >= s->event.payload_len)
			return 0;
		if (key_step(slot, at + i))
			return 1;
	}
	return 0;
}

/* Whether an assignment to a wanted key stands anywhere in the payload. */
__noinline int has_wanted_key(__u32 slot)
{
	struct scratch *s = scratch_get(slot);
	__u32 i;

	if (!s)
		return 0;
	s->key_search.hash = FNV_BASIS;
	s->key_search.in_key = 1;
	s->key_search.escaped = 0;
	for (i = 0; i < PAYLOAD_MAX; i += KEY_STEPS) {
		if (i >= s->event.payload_len)
			return 0;
		if (key_steps(slot, i))
			return 1;
	}
	return 0;
}

#endif
