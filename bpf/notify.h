/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which datagrams count: by the name of the socket they go to, or by the key of
 * their first assignment.
 */
#ifndef __NOTIFY_H__
#define __NOTIFY_H__

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
	char tail[16];

	if (len < n)
		return false;
	if (bpf_probe_read_kernel(tail, n, name + (len - n)))
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
 * Whether an assignment to a wanted key stands anywhere in the message, split as
 * systemd does: at \n and \r, a backslash taking the next byte as it is.
 * Without branches on what it reads, so that the verifier sees one path.
 */
static __always_inline bool has_wanted_key(const __u8 *payload, __u32 len)
{
	const __u64 basis = 0xcbf29ce484222325ULL, prime = 0x100000001b3ULL;
	__u64 hash = basis, in_key = 1, escaped = 0;
	__u32 i;

	for (i = 0; i < PAYLOAD_MAX; i++) {
		__u64 c, separator, equals, backslash, mask;

		if (i >= len)
			break;
		c = payload[i];
#define IS(x) (((c ^ (x)) - 1) >> 63)
		backslash = IS('\\') & ~escaped & 1;
		separator = (IS('\n') | IS('\r')) & ~escaped & 1;
		equals = IS('=') & in_key;
#undef IS
		if (equals && bpf_map_lookup_elem(&wanted_keys, &hash))
			return true;
		mask = -(in_key & ~backslash & ~separator & ~equals & 1);
		hash = (((hash ^ c) * prime) & mask) | (hash & ~mask);
		mask = -separator;
		hash = (basis & mask) | (hash & ~mask);
		in_key = ((in_key & ~equals) | separator) & 1;
		escaped = backslash;
	}
	return false;
}

#endif
