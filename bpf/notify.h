/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which datagrams count: by the name of the socket they go to, or by the key of
 * their first assignment.
 */
#ifndef __NOTIFY_H__
#define __NOTIFY_H__

/* FNV-1a, 64 bits: how wanted_keys names a key. */
#define FNV_BASIS 0xcbf29ce484222325ULL
#define FNV_PRIME 0x100000001b3ULL

enum interest {
	INTEREST_NO,	/* never, whatever it says */
	INTEREST_MAYBE, /* if it reads like a notification */
	INTEREST_YES,
};

/* n is a constant. There is no memcmp to call, and clang does not expand it. */
static __always_inline bool same_bytes(const char *a, const char *b, __u32 n)
{
	__u32 i;
	char differs = 0;

#pragma unroll
	for (i = 0; i < n; i++)
		differs |= a[i] ^ b[i];
	return !differs;
}

static __always_inline bool ends_with(const char *name, __u32 len, const char *end,
				      __u32 n)
{
	__u64 at = len - n;
	char tail[16];

	if (len < n)
		return false;
	BOUND(at, 127);
	if (bpf_probe_read_kernel(tail, n, name + at))
		return false;
	return same_bytes(tail, end, n);
}

#define ENDS_WITH(name, len, literal) \
	ends_with(name, len, literal, sizeof(literal) - 1)

#define STARTS_WITH(name, literal) same_bytes(name, literal, sizeof(literal) - 1)

/*
 * The journal speaks KEY=value too: what lies in /run/systemd/journal, in
 * /run/systemd/journal.NAMESPACE, and /dev/log; also seen through another root.
 */
static __always_inline bool is_journal(const char *name, __u32 len)
{
	return STARTS_WITH(name, "/run/systemd/journal") ||
	       ENDS_WITH(name, len, "/journal/socket") ||
	       ENDS_WITH(name, len, "/journal/stdout") ||
	       ENDS_WITH(name, len, "/journal/syslog") ||
	       ENDS_WITH(name, len, "/journal/dev-log") ||
	       ENDS_WITH(name, len, "/dev/log");
}

static __always_inline bool has_notify_name(const char *name, __u32 len)
{
	return ENDS_WITH(name, len, "/systemd/notify") ||
	       ENDS_WITH(name, len, "/run/host/notify") ||
	       ENDS_WITH(name, len, "/notify.sock") ||
	       ENDS_WITH(name, len, "/notify/notify");
}

static __always_inline bool in_some_environment(const char *name, __u32 len)
{
	struct address address = {};
	__u64 n = len;

	BOUND(n, 127);
	if (n > ADDRESS_MAX)
		return false;
	bpf_probe_read_kernel(address.path, n, name);
	return bpf_map_lookup_elem(&notify_sockets, &address);
}

static __always_inline enum interest name_interest(__u32 slot, const char *name,
						   __u32 len)
{
	struct scratch *s;

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
	if (is_journal(name, len))
		return INTEREST_NO;
	if (has_notify_name(name, len) || in_some_environment(name, len))
		return INTEREST_YES;
	return INTEREST_MAYBE;
}

/* What the names alone say, the sender's and the receiver's. */
__noinline int destination_interest(__u32 slot)
{
	struct scratch *s = scratch_get(slot);
	int by_address, by_bound;

	if (!s)
		return INTEREST_NO;
	by_address =
		name_interest(slot, s->send.dst.address, s->send.dst.address_len);
	if (by_address == INTEREST_NO || !s->send.dst.bound_len ||
	    s->send.dst.connected)
		return by_address;
	by_bound = name_interest(slot, s->send.dst.bound, s->send.dst.bound_len);
	if (by_bound == INTEREST_NO)
		return INTEREST_NO;
	return by_address > by_bound ? by_address : by_bound;
}

/* Whether the first assignment's key belongs to the protocol. */
static __always_inline bool is_notification(const __u8 *payload, __u32 len)
{
	struct key key = {};
	__u32 start, i;
	bool ended = false;

	/* systemd skips empty lines. */
	for (start = 0; start < 8; start++)
		if (payload[start] != '\n' && payload[start] != '\r')
			break;
	if (start >= len)
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
	for (i = 0; i < PAYLOAD_MAX; i++) {
		if (i >= s->event.payload_len)
			return 0;
		if (key_step(slot, i))
			return 1;
	}
	return 0;
}

#endif
