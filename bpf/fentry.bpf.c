//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only
/*
 * The fentry backend: trampolines on the functions a datagram passes on its way.
 *
 *   fentry/skb_queue_tail        a datagram gets into its receiver's queue: here it is
 *                                decided if it counts, and its record is made
 *   fexit/unix_dgram_sendmsg     the address as the sender wrote it, and what failed
 *   fentry/unix_wait_for_peer    since when a send waits for room in the queue
 *   fentry/unix_dgram_disconnected  where to a connection led whose receiver is gone
 *
 * unix_seqpacket_sendmsg() calls unix_dgram_sendmsg(), so it is covered too. Of a
 * datagram of no interest the first notes but the end of the receiver's name, and the
 * second compares it with the address.
 *
 * Where the kernel preempts itself, another datagram may come between the two. There, and
 * where the time that each send takes is asked for,
 *
 *   fentry/unix_dgram_sendmsg    notes the address beforehand, so that the record is
 *                                complete when the datagram is queued
 *
 * A client that connects first may not get as far as a send:
 *
 *   fexit/unix_dgram_connect       fails to connect
 *   fexit/security_socket_connect  is not allowed to by a security module
 *   fexit/security_socket_create   is not allowed to make a socket
 *   fexit/security_socket_sendmsg  is not allowed to send, if that is asked for
 *
 * And on what becomes of it then:
 *
 *   fentry/skb_free_datagram       somebody has read it
 *   fexit/unix_dgram_recvmsg       knows what the reader is told
 *   raw_tp/kfree_skb               throws away what nobody has read
 *   fentry/pipe_release            ends the pipe of a barrier
 *   raw_tp/sched_process_exit      ends the sender
 *
 * The kernel skips a run of a program while another run of it on the same CPU is
 * preempted halfway. Where it can be told not to preempt (stay.h), that is possible only
 * where a program has not much to do, or not yet. Each program therefore copes with
 * any of the others not having run; what is lost by it is counted.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
#include "read.h"
#include "stay.h"
#include "event.h"
#include "settings.h"
#include "counters.h"
#include "scratch.h"
#include "call.h"
#include "glob.h"
#include "cgroup.h"
#include "task.h"
#include "unix_socket.h"
#include "notify.h"
#include "ancillary.h"
#include "payload.h"
#include "queued.h"
#include "exec.h"
#include "cgroup_made.h"
#include "emit.h"
#include "receipt.h"

char LICENSE[] SEC("license") = "GPL";

#define ECONNREFUSED 111

/* All programs are: what was not queued then was not missed. */
bool attached;

/* How many sends wait for room, and how many threads are reading what is followed. */
__u64 senders_waiting;
__u64 reading;

/* What the kernel skipped a program for, or another thread's, goes. */
static __always_inline void vacate(struct call *c, __u64 task)
{
	struct followed *f;
	__u32 at = c->followed;

	if (!c->task)
		return;
	if (c->state == CALL_READING) {
		f = bpf_map_lookup_elem(&followed, &at);
		if (f)
			followed_give_back(f);
		__sync_fetch_and_add(&reading, -1);
		count(COUNT_RECEIPT_LOST);
	} else if (c->state == CALL_SENDING) {
		if (!by_thread)
			__sync_fetch_and_add(&senders_waiting, -1);
		if (c->task == task)
			count(COUNT_RUN_SKIPPED); /* it was not seen to return */
	}
}

/* Notes a call in a place. msg may be a pointer: it becomes a number in memory alone. */
static __always_inline void note(struct call *c, __u64 task, enum call_state state,
				 __u64 msg)
{
	*(volatile __u64 *)&c->msg = msg;
	c->state = state;
	c->start_ns = bpf_ktime_get_boot_ns();
	c->task = task;
	c->check = task ^ *(volatile __u64 *)&c->msg;
}

/*
 * Whether the address says nothing that the receiver's own name did not. It is none, or
 * abstract, or a path that ends like the receiver's, and nobody's that counts ends so.
 */
static __always_inline bool says_no_more(__u32 bound_len, __u64 bound_end,
					 const char *address, int len)
{
	if (bound_len == BOUND_SAYS_ALL || len <= 0)
		return true;
	if (bound_len > ADDRESS_MAX + 1)
		return false;
	return load64(address + SUN_PATH_OFFSET + bound_len - 8) == bound_end;
}

/* The same, of a message that is known by its address alone, or not known: 0. */
static __always_inline bool message_says_no_more(__u32 bound_len, __u64 bound_end,
						 struct msghdr *msg)
{
	if (!msg)
		return true;
	if (!bpf_rdonly_cast)
		return says_no_more(bound_len, bound_end, READ(msg, msg_name),
				    READ(msg, msg_namelen));
	msg = TYPED(msg); /* once for both */
	return says_no_more(bound_len, bound_end, msg->msg_name, msg->msg_namelen);
}

/* What the receiver's own name says, which it may have none of. */
static __always_inline enum interest
bound_interest(const struct name *n, struct scratch *s, struct sock *to)
{
	__u32 len = is_path(n) ? n->len - 1 : n->len;
	struct tail tail;

	if (!n->len)
		return capture_all ? INTEREST_YES : INTEREST_MAYBE;
	if (by_name && n->len >= 8) {
		tail.last = load64(n->at + len - 8);
		if (!name_bit(tail.last))
			return INTEREST_MAYBE;
		tail.before = load64(n->at + len - 16);
		if (has_notify_name(&tail, len))
			return INTEREST_YES;
	}
	s->send.dst.bound_len = read_bound(s->send.dst.bound, to);
	return destination_interest(SLOT_QUEUED);
}

/* Reads the bound name to where it belongs in the event; returns the new end of data. */
static __always_inline __u64 put_bound(struct event *e, __u64 end,
				       const struct name *n)
{
	__u64 len = is_path(n) ? n->len - 1 : n->len;

	e->bound_len = 0;
	if (!n->len || len > ADDRESS_MAX)
		return end;
	BOUND(end, DATA_MASK);
	BOUND(len, 127);
	if (bpf_probe_read_kernel(&e->data[end], len, n->at))
		return end;
	e->bound_len = len;
	return end + len;
}

#define WORDS_MAX ((ADDRESS_MAX + 7) / 8)

/* Whether the address is the receiver's own name, which stands behind the payload. */
static __always_inline bool is_bound(const struct event *e, const struct call *c,
				     const char *address)
{
	__u64 at = e->payload_len, n = c->bound_len;
	__u32 i;

	address += SUN_PATH_OFFSET;
	if (n < 8 || n > ADDRESS_MAX + 1 || load64(address + n - 8) != c->bound_end)
		return false;
	for (i = 0; i < WORDS_MAX; i++, at += 8) {
		if (8 * i + 8 >= n)
			return true;
		BOUND(at, DATA_MASK);
		if (load64(address + 8 * i) != *(const __u64 *)&e->data[at])
			return false;
	}
	return true;
}

/* The address as the sender wrote it. */
static __always_inline void use_address(struct scratch *s, const struct call *c,
					const char *address, int len)
{
	if (len <= 0 || is_bound(&s->event, c, address))
		s->event.flags |= EVENT_ADDRESS_BOUND;
	else
		s->send.dst.address_len =
			read_address(SLOT_QUEUED, false, address, len);
}

/* A function of its own so that it is verified once. */
__noinline int check_claim(__u64 control, __u64 size)
{
	struct scratch *s = scratch_get(SLOT_QUEUED);
	struct event *e;

	if (!s)
		return 0;
	e = &s->event;
	e->claimed_ns_pid = size ? claimed_in(MEMORY_KERNEL, control, size) : 0;
	if (!is_claimed(e->claimed_pid, e->claimed_ns_pid))
		e->flags &= ~(EVENT_CLAIMED | EVENT_CLAIMED_IDS);
	return 0;
}

/* The record of a datagram that is queued is complete. */
static __always_inline void finish(struct scratch *s, struct call *c, __u64 end)
{
	if (!output_if_passes(s, SLOT_QUEUED, end)) {
		forget(&s->send);
		return;
	}
	if (!s->send.own && by_thread)
		count(COUNT_CAPTURED);
	else if (!s->send.own)
		c->captured++;
	if (s->send.followed && s->anc.fd_count == 1 && s->anc.fds[0] == FD_PIPE)
		await_pipe(s);
}

/* When a send began, or began to wait; 0 if that is not known. */
static __always_inline __u64 started(const struct call *c)
{
	if (by_thread)
		return c->start_ns;
	if (!senders_waiting)
		return 0;
	c = call_of_thread(bpf_get_current_task());
	return c && c->state == CALL_SENDING ? c->start_ns : 0;
}

static __always_inline void describe_latency(struct event *e, __u64 start_ns)
{
	if (!start_ns || start_ns > e->time_ns)
		return;
	e->latency_ns = e->time_ns - start_ns;
	e->flags |= EVENT_LATENCY;
}

/* As much as is known of a datagram that counts. The end of data is returned. */
static __always_inline __u64 describe_queued(struct scratch *s, struct sk_buff *skb,
					     struct sock *to, const struct name *n,
					     __u64 start_ns)
{
	struct event *e = &s->event;
	__u64 end;

	resolve_found(&s->send.dst, to);
	describe_latency(e, start_ns);
	end = describe(s, SLOT_QUEUED, put_bound(e, e->payload_len, n));
	*(volatile __u64 *)&s->send.skb = (__u64)skb;
	s->send.queued_ns = e->time_ns;
	s->send.followed = 0;
	if (follow_receipts && (!filter_failed || s->send.own))
		follow(s, skb);
	e->skb = s->send.followed ? s->send.skb : 0;
	e->flags |= EVENT_DELIVERED;
	e->result = e->size;
	return end;
}

/*
 * A datagram that counts, or may do so, is about to be queued. c is what is noted of its
 * send; the state that it then has is returned.
 */
static __noinline int consider(struct sk_buff *skb, struct call *c, const char *at,
			       __u64 begin, __u64 len)
{
	const struct name name = {.at = at, .begin = begin, .len = len}, *n = &name;
	struct sock *to = (void *)c->to;
	struct msghdr *msg = by_thread ? (void *)c->msg : NULL;
	struct scratch *s = scratch_get(SLOT_QUEUED);
	int interest;
	__u64 end, start_ns;

	if (!s || is_own(s))
		return CALL_DONE;
	s->glob.unsure = 0;
	s->send.unsure = 0;
	destination_init(&s->send.dst, READ(to, sk_type));
	interest = s->send.own ? INTEREST_YES : bound_interest(n, s, to);
	if (interest == INTEREST_NO) {
		count_unwanted();
		return CALL_DONE;
	}
	event_init(&s->event);
	use_skb(s, skb);
	if (interest == INTEREST_MAYBE &&
	    event_reads_like_notification(SLOT_QUEUED))
		interest = INTEREST_YES;
	if (interest != INTEREST_YES) {
		/* The address may say more. */
		if (!by_thread) {
			c->bound_len = n->len ? BOUND_SAYS_LITTLE : BOUND_SAYS_ALL;
			return CALL_QUEUED;
		}
		if (!n->len || !msg || READ(msg, msg_namelen) <= 0) {
			count_unwanted();
			return CALL_DONE;
		}
		s->send.dst.bound_len = read_bound(s->send.dst.bound, to);
		s->send.dst.address_len =
			read_address(SLOT_QUEUED, false, READ(msg, msg_name),
				     READ(msg, msg_namelen));
		if (destination_interest(SLOT_QUEUED) != INTEREST_YES) {
			count_unwanted();
			return CALL_DONE;
		}
	}
	if (!task_passes(SLOT_QUEUED)) {
		count(COUNT_FILTERED);
		return CALL_DONE;
	}
	start_ns = started(c);
	end = describe_queued(s, skb, to, n, start_ns);
	c->bound_len = BOUND_SAYS_LITTLE;
	if (n->len >= 8 && is_path(n)) {
		c->bound_len = n->len;
		c->bound_end = load64(n->at + n->len - 8);
	}
	if (!by_thread) {
		c->end = end;
		c->waited = start_ns != 0;
		return CALL_PENDING;
	}
	s->send.dst.address_len = 0;
	if (msg)
		use_address(s, c, READ(msg, msg_name), READ(msg, msg_namelen));
	if (s->event.flags & EVENT_CLAIMED)
		check_claim(msg ? (__u64)READ_NUMBER(msg, msg_control) : 0,
			    msg ? READ(msg, msg_controllen) : 0);
	finish(s, c, end);
	return CALL_DONE;
}

static __always_inline void queued_by_thread(struct sock *to, struct sk_buff *skb)
{
	__u64 task = bpf_get_current_task(), bound_end = 0;
	struct call *c = call_of_thread(task);
	__u32 bound_len;
	struct name n;

	/*
	 * The kernel skipped send_enter: the place is that of a send before, if there is one.
	 * That this was not skipped, send_exit is to know.
	 */
	if (!c || c->state != CALL_SENDING || !is_whole(c)) {
		c = call_take(task);
		if (!c)
			return;
		if (c->task != task)
			vacate(c, task);
		note(c, task, CALL_SENDING, 0);
		c->start_ns = 0;
	}
	read_name(&n, to);
	switch (glance_at(&n, skb, &bound_len, &bound_end)) {
	case GLANCE_NO:
		count(COUNT_IGNORED);
		break;
	case GLANCE_DULL:
		if (message_says_no_more(bound_len, bound_end, (void *)c->msg)) {
			count(COUNT_IGNORED);
			break;
		}
		/* fall through */
	case GLANCE_LOOK:
		*(volatile __u64 *)&c->to = (__u64)to;
		stay_on_cpu();
		consider(skb, c, n.at, n.begin, n.len);
		may_leave_cpu();
	}
	c->state = CALL_DONE;
	if (preempts)
		count(COUNT_UNRETURNED);
}

/* Whether a thread was noted to wait, which is then no more noted. */
static __always_inline __u64 end_of_wait(__u64 task)
{
	struct call *c = senders_waiting ? call_of_thread(task) : NULL;

	if (!c || c->state != CALL_SENDING)
		return 0;
	call_end(c);
	__sync_fetch_and_add(&senders_waiting, -1);
	return c->start_ns;
}

/*
 * The place is another datagram's now, though its send has not been seen to return. Another
 * program was attached to the function while it waited, and the kernel skips send_exit for
 * it; or it began before the capture; or it was preempted after all, and its send_exit is
 * to know. Of one that has waited, the end of its thread counts if it comes first.
 */
static __noinline int abandon(struct call *c, __u64 task)
{
	struct call *place;

	if (c->state == CALL_PENDING && (!c->waited || end_of_wait(c->task)))
		count(COUNT_RUN_SKIPPED);
	if (c->task == task || c->waited)
		return 0;
	place = call_take(c->task);
	if (!place)
		return 0;
	vacate(place, task);
	note(place, c->task, CALL_DONE, 0);
	return 0;
}

static __always_inline void queued_here(struct sock *to, struct sk_buff *skb)
{
	__u64 task = bpf_get_current_task(), bound_end = 0;
	enum call_state state = CALL_QUEUED;
	__u32 bound_len, zero = 0;
	struct call *c;
	struct name n;

	c = bpf_map_lookup_elem(&call_here, &zero);
	if (!c)
		return;
	if (c->task)
		abandon(c, task);
	*(volatile __u64 *)&c->to = (__u64)to;
	read_name(&n, to);
	switch (glance_at(&n, skb, &bound_len, &bound_end)) {
	case GLANCE_NO:
		c->ignored++;
		state = CALL_DONE;
		break;
	case GLANCE_DULL:
		c->bound_len = bound_len;
		c->bound_end = bound_end;
		break;
	case GLANCE_LOOK:
		state = consider(skb, c, n.at, n.begin, n.len);
	}
	c->task = task;
	c->state = state;
}

static __always_inline bool is_datagram(struct sk_buff *skb)
{
	struct sock *from = skb->sk;

	return from && from->__sk_common.skc_family == AF_UNIX &&
	       from->sk_type != SOCK_STREAM;
}

static __always_inline struct sock *receiver_of(struct sk_buff_head *list)
{
	return (void *)list - bpf_core_field_offset(struct sock, sk_receive_queue);
}

SEC("fentry/skb_queue_tail")
int BPF_PROG(datagram_queued, struct sk_buff_head *list, struct sk_buff *skb)
{
	if (is_datagram(skb))
		queued_here(receiver_of(list), skb);
	return 0;
}

SEC("fentry/skb_queue_tail")
int BPF_PROG(datagram_queued_by_thread, struct sk_buff_head *list,
	     struct sk_buff *skb)
{
	if (is_datagram(skb))
		queued_by_thread(receiver_of(list), skb);
	return 0;
}

/* Where a connection led whose receiver is gone, by scratch_slot SLOT_GONE. */
SEC("fentry/unix_dgram_disconnected")
int BPF_PROG(receiver_gone, struct sock *sk, struct sock *other)
{
	struct scratch *s = scratch_get(SLOT_GONE);

	if (!s)
		return 0;
	destination_init(&s->send.dst, datagram_type(sk));
	s->send.dst.connected = 1;
	resolve(&s->send.dst, other);
	s->send.dst.inode = 0;
	s->send.skb = bpf_get_current_task();
	return 0;
}

/* Into the slot, whose destination dst is. */
static __always_inline void read_destination(__u32 slot, struct destination *dst,
					     struct sock *sk, struct msghdr *msg,
					     int ret)
{
	struct scratch *gone = scratch_get(SLOT_GONE);
	__s64 len = READ(msg, msg_namelen);

	destination_init(dst, datagram_type(sk));
	/* unix_seqpacket_sendmsg() sets msg_namelen to 0. */
	if (len > 0) {
		dst->address_len =
			read_address(slot, false, READ(msg, msg_name), len);
		return;
	}
	resolve_peer(dst, sk);
	if (dst->resolved || ret != -ECONNREFUSED || !gone ||
	    gone->send.skb != bpf_get_current_task())
		return;
	gone->send.skb = 0;
	*dst = gone->send.dst;
	address_is_bound(dst);
}

/* What the sender gave: the segments stand in msg_iter. */
static __always_inline void use_message(struct scratch *s, __u32 slot,
					struct msghdr *msg, __u32 size)
{
	struct event *e = &s->event;

	ancillary_init(&s->anc);
	read_control(slot, MEMORY_KERNEL, (__u64)READ_NUMBER(msg, msg_control),
		     READ(msg, msg_controllen));
	e->size = size;
	e->flags |= EVENT_SIZE;
	read_msg_iter(slot, e, msg, size);
}

/*
 * A send that failed, whose datagram the receiver's socket filter dropped, or of which the
 * address alone says that it counts: to is its receiver then.
 */
static __always_inline void examine_in(__u32 slot, struct socket *sock,
				       struct msghdr *msg, __u64 len, int ret,
				       struct sock *to, __u64 start_ns)
{
	struct scratch *s = scratch_get(slot);
	struct sock *sk = READ(sock, sk);
	struct event *e;
	int interest;

	if (!s || !datagram_type(sk) || is_own(s))
		return;
	e = &s->event;
	s->glob.unsure = 0;
	s->send.unsure = 0;
	read_destination(slot, &s->send.dst, sk, msg, ret);
	if (to)
		resolve(&s->send.dst, to);
	interest = s->send.own ? INTEREST_YES : destination_interest(slot);
	if (interest == INTEREST_NO || (to && interest == INTEREST_MAYBE)) {
		count_unwanted();
		return;
	}
	if (!task_passes(slot)) {
		count(COUNT_FILTERED);
		return;
	}
	event_init(e);
	use_message(s, slot, msg, len);
	if (interest == INTEREST_MAYBE && !event_reads_like_notification(slot)) {
		count_unwanted();
		return;
	}
	describe_latency(e, start_ns);
	e->result = ret;
	e->flags |= to ? EVENT_DELIVERED : EVENT_NOT_DELIVERED;
	emit_if_passes(s, slot);
}

static __noinline int examine(struct socket *sock, struct msghdr *msg, __u64 len,
			      int ret, __u64 start_ns)
{
	examine_in(SLOT_EXIT, sock, msg, len, ret, NULL, start_ns);
	return 0;
}

/* What is queued, and counts by its address alone. */
static __noinline int examine_queued(struct socket *sock, struct msghdr *msg,
				     __u64 len, int ret, struct call *c)
{
	examine_in(SLOT_EXIT, sock, msg, len, ret, (void *)c->to, 0);
	return 0;
}

/* A send that was queued and counts has returned. */
static __noinline int returned(struct call *c, struct msghdr *msg)
{
	struct scratch *s = scratch_get(SLOT_QUEUED);

	if (!s)
		return 0;
	s->send.dst.address_len = 0;
	use_address(s, c, msg->msg_name, msg->msg_namelen);
	if (s->event.flags & EVENT_CLAIMED)
		check_claim((__u64)READ_NUMBER(msg, msg_control),
			    msg->msg_controllen);
	finish(s, c, c->end);
	return 0;
}

/* What was not queued, as far as is known. */
static __noinline int exit_unqueued(struct socket *sock, struct msghdr *msg,
				    __u64 len, int ret)
{
	struct call *c = call_of_thread(bpf_get_current_task());
	__u64 start_ns = 0;

	if (c) {
		start_ns = c->start_ns;
		call_end(c);
	}
	if (ret < 0 || attached)
		examine(sock, msg, len, ret, start_ns);
	return 0;
}

static __always_inline void ignore(struct call *c)
{
	if (socket_patterns_count)
		count(COUNT_FILTERED);
	else
		c->ignored++;
}

static __always_inline bool was_abandoned(__u64 task)
{
	struct call *c = call_of_thread(task);

	if (!c)
		return false;
	call_end(c);
	return true;
}

/* All but what is of no interest. */
static __noinline int exit_of_note(struct socket *sock, struct msghdr *msg,
				   __u64 len, int ret)
{
	__u64 task = bpf_get_current_task(), start_ns = end_of_wait(task);
	struct call *c = call_on_cpu(task);

	if (c)
		call_end(c);
	if (ret < 0 || (!c && attached && !was_abandoned(task)))
		examine(sock, msg, len, ret, start_ns);
	else if (c && c->state == CALL_PENDING)
		returned(c, msg);
	else if (c && c->state == CALL_QUEUED &&
		 says_no_more(c->bound_len, c->bound_end, msg->msg_name,
			      msg->msg_namelen))
		ignore(c);
	else if (c && c->state == CALL_QUEUED)
		examine_queued(sock, msg, len, ret, c);
	return 0;
}

SEC("fexit/unix_dgram_sendmsg")
int BPF_PROG(send_exit, struct socket *sock, struct msghdr *msg, size_t len,
	     int ret)
{
	struct call *c = call_on_cpu(bpf_get_current_task());

	if (!c || ret < 0 || senders_waiting)
		goto of_note;
	if (c->state == CALL_PENDING) {
		call_end(c);
		returned(c, msg);
		return 0;
	}
	if (c->state == CALL_QUEUED &&
	    says_no_more(c->bound_len, c->bound_end, msg->msg_name,
			 msg->msg_namelen)) {
		call_end(c);
		ignore(c);
		return 0;
	}
of_note:
	exit_of_note(sock, msg, len, ret);
	return 0;
}

SEC("fexit/unix_dgram_sendmsg")
int BPF_PROG(send_exit_by_thread, struct socket *sock, struct msghdr *msg,
	     size_t len, int ret)
{
	struct call *c = call_of_thread(bpf_get_current_task());

	if (c && ret >= 0 && c->state == CALL_DONE) {
		call_end(c);
		if (preempts)
			count_more(COUNT_UNRETURNED, -1);
		return 0;
	}
	stay_on_cpu();
	exit_unqueued(sock, msg, len, ret);
	may_leave_cpu();
	return 0;
}

SEC("fentry/unix_dgram_sendmsg")
int BPF_PROG(send_enter, struct socket *sock, struct msghdr *msg)
{
	__u64 task = bpf_get_current_task();
	struct call *c = call_take(task);

	if (!c)
		return 0;
	vacate(c, task);
	note(c, task, CALL_SENDING, (__u64)msg);
	return 0;
}

SEC("fentry/unix_wait_for_peer")
int BPF_PROG(send_waits, struct sock *other)
{
	__u64 task = bpf_get_current_task();
	struct call *c;

	/* Of unix_stream_connect(), a listening socket has no room. */
	if (by_thread || other->__sk_common.skc_state == TCP_LISTEN)
		return 0;
	c = call_take(task);
	if (!c || (c->task == task && c->state == CALL_SENDING))
		return 0; /* it waits once more */
	vacate(c, task);
	note(c, task, CALL_SENDING, 0);
	__sync_fetch_and_add(&senders_waiting, 1);
	return 0;
}

static __always_inline void connect_failed(__u32 slot, struct socket *sock,
					   const void *address, int len, int ret)
{
	struct scratch *s = scratch_get(slot);
	__u8 type = datagram_type(READ(sock, sk));

	if (!s || !type || is_own(s))
		return;
	destination_init(&s->send.dst, type);
	s->send.dst.address_len = read_address(slot, false, address, len);
	emit_connect(s, slot, ret);
}

SEC("fexit/unix_dgram_connect")
int BPF_PROG(connect_refused, struct socket *sock, void *address, int len,
	     int flags, int ret)
{
	if (ret < 0)
		connect_failed(SLOT_CONNECT, sock, address, len, ret);
	return 0;
}

SEC("fexit/security_socket_connect")
int BPF_PROG(connect_denied, struct socket *sock, void *address, int len, int ret)
{
	if (ret < 0)
		connect_failed(SLOT_CONNECT_DENIED, sock, address, len, ret);
	return 0;
}

/* For which socket it would have been, user space can tell by the environment alone. */
SEC("fexit/security_socket_create")
int BPF_PROG(socket_denied, int family, int type, int protocol, int kern, int ret)
{
	struct scratch *s;

	if (ret >= 0 || kern || family != AF_UNIX || (type & 0xf) != SOCK_DGRAM)
		return 0;
	s = scratch_get(SLOT_SOCKET_DENIED);
	if (!s || is_own(s))
		return 0;
	destination_init(&s->send.dst, SOCK_DGRAM);
	s->glob.unsure = 0;
	s->send.unsure = 0;
	emit_call(s, SLOT_SOCKET_DENIED, EVENT_SOCKET, ret);
	return 0;
}

/* A send that is refused before unix_dgram_sendmsg(). */
SEC("fexit/security_socket_sendmsg")
int BPF_PROG(send_denied, struct socket *sock, struct msghdr *msg, int size,
	     int ret)
{
	if (ret < 0)
		examine_in(SLOT_SEND_DENIED, sock, msg, size, ret, NULL, 0);
	return 0;
}

static __always_inline void taken(struct sk_buff *skb, __u64 key)
{
	__u64 task = bpf_get_current_task();
	struct call *c;
	struct followed *f;
	__u32 at;

	f = leave_queue(skb, key, &at);
	if (!f)
		return;
	c = call_take(task);
	if (!c) {
		followed_give_back(f);
		count(COUNT_RECEIPT_LOST);
		return;
	}
	vacate(c, task);
	c->followed = at;
	note(c, task, CALL_READING, key ^ at);
	__sync_fetch_and_add(&reading, 1);
}

/* Where a pointer becomes a number, which the verifier lets it do in memory alone. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} leaving SEC(".maps");

SEC("fentry/skb_free_datagram")
int BPF_PROG(datagram_taken, struct sock *sk, struct sk_buff *skb)
{
	/* One that was only looked at (MSG_PEEK) is in its queue still. */
	__u64 *key;
	__u32 zero = 0;

	if (!queued_count || skb->next)
		return 0;
	key = bpf_map_lookup_elem(&leaving, &zero);
	if (!key)
		return 0;
	stay_on_cpu();
	*(volatile __u64 *)key = (__u64)skb;
	taken(skb, *(volatile __u64 *)key);
	may_leave_cpu();
	return 0;
}

static __always_inline void read_ends(struct msghdr *msg, int ret)
{
	struct followed *f;
	struct receipt r;
	struct call *c;
	__u32 at;

	c = call_of_thread(bpf_get_current_task());
	if (!c || c->state != CALL_READING || !is_whole(c))
		return;
	call_end(c);
	__sync_fetch_and_add(&reading, -1);
	at = c->followed;
	f = bpf_map_lookup_elem(&followed, &at);
	if (!f)
		return;
	receipt_init(&r, RECORD_READ, c->msg ^ at, f->queued_ns);
	r.time_ns = c->start_ns;
	r.result = ret;
	r.msg_flags = READ(msg, msg_flags);
	r.sender_exited_ns = sender_exited(f);
	followed_give_back(f);
	send_receipt(&r);
}

SEC("fexit/unix_dgram_recvmsg")
int BPF_PROG(datagram_read, struct socket *sock, struct msghdr *msg, size_t size,
	     int flags, int ret)
{
	if (!reading)
		return 0;
	stay_on_cpu();
	read_ends(msg, ret);
	may_leave_cpu();
	return 0;
}

/* Nobody is left to read it. */
static __always_inline void discarded(struct sk_buff *skb, __u64 key)
{
	struct followed *f;
	struct receipt r;
	__u32 at;

	f = leave_queue(skb, key, &at);
	if (!f)
		return;
	receipt_init(&r, RECORD_UNREAD, key, f->queued_ns);
	r.time_ns = bpf_ktime_get_boot_ns();
	r.sender_exited_ns = sender_exited(f);
	followed_give_back(f);
	send_receipt(&r);
}

SEC("raw_tp/kfree_skb")
int datagram_discarded(struct bpf_raw_tracepoint_args *ctx)
{
	if (queued_count)
		discarded((void *)ctx->args[0], ctx->args[0]);
	return 0;
}

SEC("fentry/pipe_release")
int BPF_PROG(pipe_released, struct inode *inode, struct file *file)
{
	pipe_ends(file);
	return 0;
}

/* What skipped runs have left behind goes with the thread. */
static __always_inline void thread_left(__u64 task)
{
	struct call *c = call_of_thread(task);

	if (!c)
		return;
	vacate(c, task);
	call_end(c);
}

SEC("raw_tp/sched_process_exit")
int thread_exit(void *ctx)
{
	thread_left(bpf_get_current_task());
	thread_ends();
	return 0;
}
