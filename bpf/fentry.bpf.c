//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only
/*
 * The fentry backend: trampolines on the functions a datagram passes on its way.
 *
 *   fentry/unix_dgram_sendmsg          opens an in-flight entry
 *   fexit/skb_copy_datagram_from_iter  takes the payload from the kernel's copy
 *   fentry/security_unix_may_send      sees the receiving socket
 *   fexit/unix_dgram_sendmsg           knows the result, sends the record
 *
 * unix_seqpacket_sendmsg() calls unix_dgram_sendmsg(), so it is covered too.
 *
 * A client that connects first may not get as far as a send:
 *
 *   fexit/unix_dgram_connect       fails to connect
 *   fexit/security_socket_connect  is not allowed to by a security module
 *   fexit/security_socket_create   is not allowed to make a socket
 *   fexit/security_socket_sendmsg  is not allowed to send, where a module may say so
 *
 * And on what becomes of it then:
 *
 *   fexit/__skb_try_recv_datagram  takes it out of the queue
 *   fexit/unix_dgram_recvmsg       knows what the reader is told
 *   raw_tp/kfree_skb               throws away what nobody has read
 *   fentry/pipe_release            ends the pipe of a barrier
 *   raw_tp/sched_process_exit      ends the sender
 *
 * The kernel skips a run of a program while another run of it on the same CPU is
 * preempted halfway, which happens on kernels that preempt themselves (PREEMPT_LAZY,
 * preempt=full). Each program therefore copes with any of the others not having run;
 * what is lost by it is counted, here or by the kernel.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
#include "read.h"
#include "event.h"
#include "settings.h"
#include "counters.h"
#include "scratch.h"
#include "glob.h"
#include "cgroup.h"
#include "task.h"
#include "unix_socket.h"
#include "notify.h"
#include "ancillary.h"
#include "payload.h"
#include "emit.h"
#include "receipt.h"

char LICENSE[] SEC("license") = "GPL";

/* The sends between entry and exit, by pid_tgid. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, __u64);
	__type(value, struct send);
} in_flight SEC(".maps");

/* What skb_copy_datagram_from_iter() left in the datagram. */
struct copied {
	struct ancillary anc;
	__u32 size;
	__u32 len;
	__u8 payload[PAYLOAD_MAX];
};

/* As far as a short payload goes: a map copies the whole of a value. */
#define SHORT_MAX 512

struct short_copied {
	struct ancillary anc;
	__u32 size;
	__u32 len;
	__u8 payload[SHORT_MAX];
};

/* Where it is. */
enum copy {
	COPY_NONE,
	COPY_SHORT,
	COPY_LONG,
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, struct short_copied);
} short_copies SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, struct copied);
} long_copies SEC(".maps");

/* By scratch_slot, as far as a program copies. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SLOT_EXIT);
	__type(key, __u32);
	__type(value, struct copied);
} copy_scratch SEC(".maps");

/* Sends that found no room in in_flight, of interest or not. */
__u64 in_flight_refused;

/* Into the slot, whose destination dst is. */
static __always_inline void read_destination(__u32 slot, struct destination *dst,
					     struct sock *sk, struct msghdr *msg)
{
	__s64 len = READ(msg, msg_namelen);

	destination_init(dst, datagram_type(sk));
	/* unix_seqpacket_sendmsg() sets msg_namelen to 0. */
	if (len > 0)
		dst->address_len =
			read_address(slot, false, READ(msg, msg_name), len);
	else
		resolve_peer(dst, sk);
}

static __always_inline void enter(struct socket *sock, struct msghdr *msg)
{
	struct scratch *s = scratch_get(SLOT_ENTER);
	__u64 id = bpf_get_current_pid_tgid();

	if (!s || id >> 32 == self_tgid)
		return;
	read_destination(SLOT_ENTER, &s->send.dst, READ(sock, sk), msg);
	s->send.interest = destination_interest(SLOT_ENTER);
	s->glob.unsure = 0; /* send_exit asks for the names of sockets again */
	if (s->send.interest == INTEREST_NO) {
		count(COUNT_IGNORED);
		return;
	}
	if (!task_passes(SLOT_ENTER)) {
		count(COUNT_FILTERED);
		return;
	}
	/* Left by a run of send_exit that the kernel skipped. */
	if (bpf_map_lookup_elem(&in_flight, &id))
		count(COUNT_RUN_SKIPPED);
	s->send.start_ns = bpf_ktime_get_boot_ns();
	s->send.skb = 0;
	s->send.copied = COPY_NONE;
	s->send.undecided = 0;
	s->send.permitted = 0;
	s->send.followed = 0;
	s->send.unsure = s->glob.unsure;
	if (!bpf_map_update_elem(&in_flight, &id, &s->send, BPF_ANY))
		return;
	__sync_fetch_and_add(&in_flight_refused, 1);
	if (s->send.interest == INTEREST_YES)
		count(COUNT_IN_FLIGHT_FULL);
}

SEC("fentry/unix_dgram_sendmsg")
int BPF_PROG(send_enter, struct socket *sock, struct msghdr *msg)
{
	enter(sock, msg);
	return 0;
}

/* Reads up to most bytes of the payload; as many are in the first piece of the datagram. */
static __always_inline void copy_payload(struct copied *c, struct sk_buff *skb,
					 __u32 most)
{
	__u32 len = READ(skb, len);
	__u64 head = len - READ(skb, data_len);

	c->size = len;
	if (head > most)
		head = most;
	c->len = head;
	BOUND(head, DATA_MASK);
	if (head > PAYLOAD_MAX ||
	    bpf_probe_read_kernel(c->payload, head, READ(skb, data)))
		c->len = 0;
}

/* What is in the slot's copy_scratch: see event_reads_like_notification(). */
__noinline int copy_reads_like_notification(__u32 slot)
{
	struct copied *c = bpf_map_lookup_elem(&copy_scratch, &slot);

	return c && reads_like_notification(c->payload, c->len);
}

/* c is the copy_scratch of SLOT_COPY, for use here only. */
static __always_inline bool begins_like_notification(struct copied *c,
						     struct sk_buff *skb)
{
	copy_payload(c, skb, BEGINNING_MAX);
	return copy_reads_like_notification(SLOT_COPY);
}

/*
 * Keeps what the datagram holds until its send ends. Says whether there was room; if
 * not, the send is forgotten.
 */
static __always_inline bool keep_copy(struct send *send, __u32 slot,
				      struct copied *c, struct sk_buff *skb)
{
	__u64 id = bpf_get_current_pid_tgid();
	long refused;

	copy_payload(c, skb, PAYLOAD_MAX);
	ancillary_init(&c->anc);
	read_skb_parms(&c->anc, skb);
	if (c->len <= SHORT_MAX) {
		refused = bpf_map_update_elem(&short_copies, &id, c, BPF_ANY);
		send->copied = COPY_SHORT;
	} else {
		refused = bpf_map_update_elem(&long_copies, &id, c, BPF_ANY);
		send->copied = COPY_LONG;
	}
	if (!refused)
		return true;
	if (send->interest == INTEREST_YES || copy_reads_like_notification(slot))
		count(COUNT_IN_FLIGHT_FULL);
	else
		count_unwanted();
	bpf_map_delete_elem(&in_flight, &id);
	return false;
}

/*
 * A datagram without an entry was ignored or filtered out at entry, or it found
 * no room. In the last case send_enter has counted it if its name was enough to
 * know that it counts; here is what it says.
 */
static __always_inline void count_refused(struct copied *c, struct sk_buff *skb,
					  struct iov_iter *from)
{
	struct msghdr *msg =
		(void *)from - bpf_core_field_offset(struct msghdr, msg_iter);
	struct scratch *s = scratch_get(SLOT_COPY);
	struct sock *sk = READ(skb, sk);

	if (!s || !datagram_type(sk) ||
	    bpf_get_current_pid_tgid() >> 32 == self_tgid)
		return;
	read_destination(SLOT_COPY, &s->send.dst, sk, msg);
	if (destination_interest(SLOT_COPY) != INTEREST_MAYBE)
		return;
	if (begins_like_notification(c, skb) && task_passes(SLOT_COPY))
		count(COUNT_IN_FLIGHT_FULL);
}

static __always_inline void forget_send(__u64 id)
{
	bpf_map_delete_elem(&in_flight, &id);
	bpf_map_delete_elem(&short_copies, &id);
	bpf_map_delete_elem(&long_copies, &id);
}

static __always_inline void copied(struct sk_buff *skb, struct iov_iter *from)
{
	__u64 id = bpf_get_current_pid_tgid();
	struct send *send = bpf_map_lookup_elem(&in_flight, &id);
	__u32 slot = SLOT_COPY;
	struct copied *c;

	if (!send && !in_flight_refused)
		return;
	c = bpf_map_lookup_elem(&copy_scratch, &slot);
	if (!c)
		return;
	if (!send) {
		count_refused(c, skb, from);
		return;
	}
	/*
	 * A datagram is copied once: this entry is of one before whose send_exit the
	 * kernel skipped, and so it did with the send_enter of this one.
	 */
	if (send->skb) {
		count(COUNT_RUN_SKIPPED);
		forget_send(id);
		return;
	}
	send->skb = (__u64)skb;
	send->len = READ(skb, len);
	if (send->interest == INTEREST_YES || begins_like_notification(c, skb)) {
		keep_copy(send, slot, c, skb);
		return;
	}
	/*
	 * The receiver's own name, seen later, may still say that a datagram
	 * with an address counts; a connected one's is known already.
	 */
	if (!send->dst.connected) {
		send->undecided = 1;
		return;
	}
	count_unwanted();
	bpf_map_delete_elem(&in_flight, &id);
}

SEC("fexit/skb_copy_datagram_from_iter")
int BPF_PROG(payload_copied, struct sk_buff *skb, int offset, struct iov_iter *from,
	     int len, int ret)
{
	/* Streams come here too: this is cheaper than to look for their entry. */
	if (!ret && skb->sk->sk_type != SOCK_STREAM)
		copied(skb, from);
	return 0;
}

/* What the receiver's own name says. */
static __always_inline int receiver_interest(struct sock *receiver)
{
	struct scratch *s = scratch_get(SLOT_FOUND);

	if (!s)
		return INTEREST_NO;
	destination_init(&s->send.dst, SOCK_DGRAM);
	s->send.dst.bound_len = read_bound(s->send.dst.bound, receiver);
	return destination_interest(SLOT_FOUND);
}

/*
 * The receiver's own name decides about what neither the address nor the payload did. What
 * does not count is forgotten.
 */
static __always_inline bool decide(struct send *send, struct sock *receiver)
{
	__u64 id = bpf_get_current_pid_tgid();
	__u32 slot = SLOT_FOUND;
	struct copied *c;

	send->undecided = 0;
	c = bpf_map_lookup_elem(&copy_scratch, &slot);
	if (c && receiver_interest(receiver) == INTEREST_YES) {
		send->interest = INTEREST_YES;
		return keep_copy(send, slot, c, (void *)send->skb);
	}
	count_unwanted();
	bpf_map_delete_elem(&in_flight, &id);
	return false;
}

/*
 * Whether a datagram will be shown, by what is known now. All but those with a wanted
 * key among others: to follow what is not shown costs its sender and sdtrace something.
 */
static __always_inline bool worth_following(const struct send *send,
					    struct sock *receiver)
{
	/* Only failures are asked for: of these nothing becomes. */
	return follow_receipts && !filter_failed && send->copied &&
	       receiver_interest(receiver) != INTEREST_NO;
}

/* Runs again when a blocked send is retried: the last time holds. */
static __always_inline void found(struct socket *other)
{
	__u64 id = bpf_get_current_pid_tgid();
	struct send *send = bpf_map_lookup_elem(&in_flight, &id);
	struct sock *receiver;

	if (!send)
		return;
	receiver = READ(other, sk);
	if (send->undecided && !decide(send, receiver))
		return;
	resolve(&send->dst, receiver);
	send->permitted = 1;
	if (worth_following(send, receiver))
		follow(send);
}

SEC("fentry/security_unix_may_send")
int BPF_PROG(receiver_found, struct socket *sock, struct socket *other)
{
	found(other);
	return 0;
}

static __always_inline void use_copy(struct scratch *s, const struct ancillary *anc,
				     __u32 size, const __u8 *payload, __u64 len)
{
	struct event *e = &s->event;

	s->anc = *anc;
	e->size = size;
	e->payload_len = len;
	e->flags |= EVENT_SIZE | EVENT_PAYLOAD;
	BOUND(len, DATA_MASK);
	bpf_probe_read_kernel(e->data, len, payload);
}

/* Takes over what keep_copy() left. Says whether it is there. */
static __always_inline bool take_copy(struct scratch *s, __u64 id)
{
	struct short_copied *brief;
	struct copied *c;

	if (s->send.copied == COPY_SHORT) {
		brief = bpf_map_lookup_elem(&short_copies, &id);
		if (!brief)
			return false;
		use_copy(s, &brief->anc, brief->size, brief->payload, brief->len);
		bpf_map_delete_elem(&short_copies, &id);
		return true;
	}
	c = s->send.copied ? bpf_map_lookup_elem(&long_copies, &id) : NULL;
	if (!c)
		return false;
	use_copy(s, &c->anc, c->size, c->payload, c->len);
	bpf_map_delete_elem(&long_copies, &id);
	return true;
}

/*
 * A send that failed before anything was copied, say for lack of permission:
 * the segments still stand in msg_iter as the sender gave them.
 */
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

static __always_inline void describe_result(struct event *e, struct send *send,
					    int ret)
{
	e->result = ret;
	e->latency_ns = e->time_ns - send->start_ns;
	e->flags |= EVENT_LATENCY;
	/*
	 * A datagram that the receiver's socket filter drops is a success to the
	 * sender, but security_unix_may_send() is not asked about it. It is never
	 * asked about SOCK_SEQPACKET.
	 */
	if (ret < 0)
		e->flags |= EVENT_NOT_DELIVERED;
	else if (send->permitted || (send->dst.type == SOCK_SEQPACKET &&
				     send->dst.resolved && send->dst.unfiltered))
		e->flags |= EVENT_DELIVERED;
	else if (send->dst.type == SOCK_DGRAM)
		e->flags |= EVENT_NOT_DELIVERED;
}

/* Decides with all that is known now, then sends; says whether it did. */
static __always_inline bool emit_if_wanted(struct scratch *s)
{
	int interest;

	s->glob.unsure = 0;
	interest = destination_interest(SLOT_EXIT);
	if (interest == INTEREST_NO ||
	    (interest == INTEREST_MAYBE &&
	     !event_reads_like_notification(SLOT_EXIT))) {
		count_unwanted();
		return false;
	}
	return emit_if_passes(s, SLOT_EXIT);
}

static __always_inline void leave(struct msghdr *msg, size_t len, int ret)
{
	__u64 id = bpf_get_current_pid_tgid();
	struct send *send = bpf_map_lookup_elem(&in_flight, &id);
	struct scratch *s = scratch_get(SLOT_EXIT);

	if (!s || !send)
		return;
	s->send = *send;
	bpf_map_delete_elem(&in_flight, &id);
	/* It never came to its receiver. */
	if (s->send.undecided) {
		count_unwanted();
		return;
	}
	event_init(&s->event);
	describe_result(&s->event, &s->send, ret);
	if (!take_copy(s, id)) {
		use_message(s, SLOT_EXIT, msg, len);
		/* payload_copied was skipped: what it said decides, but is lost. */
		if (ret >= 0 && s->send.interest == INTEREST_MAYBE) {
			count(COUNT_RUN_SKIPPED);
			forget(&s->send);
			return;
		}
	}
	if (ret < 0 && s->send.followed) {
		unfollow(s->send.skb);
		s->send.followed = 0;
	}
	if (s->send.followed)
		s->event.skb = s->send.skb;
	if (!emit_if_wanted(s))
		forget(&s->send);
	else if (s->send.followed && s->anc.fd_count == 1 &&
		 s->anc.fds[0] == FD_PIPE)
		await_pipe(s);
}

SEC("fexit/unix_dgram_sendmsg")
int BPF_PROG(send_exit, struct socket *sock, struct msghdr *msg, size_t len,
	     int ret)
{
	leave(msg, len, ret);
	return 0;
}

static __always_inline void connect_failed(__u32 slot, struct socket *sock,
					   const void *address, int len, int ret)
{
	struct scratch *s = scratch_get(slot);
	__u8 type = datagram_type(READ(sock, sk));

	if (!s || !type || bpf_get_current_pid_tgid() >> 32 == self_tgid)
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

	if (ret >= 0 || kern || family != AF_UNIX || (type & 0xf) != SOCK_DGRAM ||
	    bpf_get_current_pid_tgid() >> 32 == self_tgid)
		return 0;
	s = scratch_get(SLOT_SOCKET_DENIED);
	if (!s)
		return 0;
	destination_init(&s->send.dst, SOCK_DGRAM);
	s->glob.unsure = 0;
	s->send.unsure = 0;
	emit_call(s, SLOT_SOCKET_DENIED, EVENT_SOCKET, ret);
	return 0;
}

/* A send that is refused before unix_dgram_sendmsg(). */
static __always_inline void denied(struct socket *sock, struct msghdr *msg,
				   int size, int ret)
{
	struct scratch *s = scratch_get(SLOT_SEND_DENIED);
	struct sock *sk = READ(sock, sk);
	int interest;

	if (!s || !datagram_type(sk) ||
	    bpf_get_current_pid_tgid() >> 32 == self_tgid)
		return;
	s->glob.unsure = 0;
	s->send.unsure = 0;
	read_destination(SLOT_SEND_DENIED, &s->send.dst, sk, msg);
	if (!task_passes(SLOT_SEND_DENIED)) {
		count(COUNT_FILTERED);
		return;
	}
	event_init(&s->event);
	s->event.result = ret;
	s->event.flags |= EVENT_NOT_DELIVERED;
	use_message(s, SLOT_SEND_DENIED, msg, size);
	interest = destination_interest(SLOT_SEND_DENIED);
	if (interest == INTEREST_NO ||
	    (interest == INTEREST_MAYBE &&
	     !event_reads_like_notification(SLOT_SEND_DENIED))) {
		count_unwanted();
		return;
	}
	emit_if_passes(s, SLOT_SEND_DENIED);
}

SEC("fexit/security_socket_sendmsg")
int BPF_PROG(send_denied, struct socket *sock, struct msghdr *msg, int size,
	     int ret)
{
	if (ret < 0)
		denied(sock, msg, size, ret);
	return 0;
}

SEC("fexit/__skb_try_recv_datagram")
int BPF_PROG(datagram_taken, struct sock *sk, struct sk_buff_head *queue,
	     unsigned int flags, int *off, int *err, struct sk_buff **last,
	     struct sk_buff *skb)
{
	if (skb && !(flags & MSG_PEEK))
		take(skb);
	return 0;
}

SEC("fexit/unix_dgram_recvmsg")
int BPF_PROG(datagram_read, struct socket *sock, struct msghdr *msg, size_t size,
	     int flags, int ret)
{
	finish_reading(msg, ret);
	return 0;
}

SEC("raw_tp/kfree_skb")
int datagram_discarded(struct bpf_raw_tracepoint_args *ctx)
{
	__u64 id = bpf_get_current_pid_tgid();

	if (queued_count)
		discard((void *)ctx->args[0], bpf_map_lookup_elem(&in_flight, &id));
	return 0;
}

SEC("fentry/pipe_release")
int BPF_PROG(pipe_released, struct inode *inode, struct file *file)
{
	pipe_ends(file);
	return 0;
}

/* What a skipped run of send_exit left behind goes with the thread. */
SEC("raw_tp/sched_process_exit")
int thread_exit(void *ctx)
{
	__u64 id = bpf_get_current_pid_tgid();

	if (!bpf_map_delete_elem(&in_flight, &id))
		count(COUNT_RUN_SKIPPED);
	bpf_map_delete_elem(&short_copies, &id);
	bpf_map_delete_elem(&long_copies, &id);
	thread_ends();
	return 0;
}
