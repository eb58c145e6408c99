//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only
/*
 * The tracepoint backend, for kernels that refuse trampolines. Since Linux 6.3
 *
 *   tp_btf/sk_data_ready     a datagram is in its receiver's queue: here the receiver is
 *                            named, and the datagram is at hand
 *   tp_btf/sock_send_length  the send has ended: here is told what has failed, and the
 *                            record is made. It fires for each message of a batch
 *
 * Between the two a thread does not sleep. Where the kernel preempts it all the same, or
 * somebody has read the datagram already, the send is looked at by the arguments of its
 * system call. So it is before 6.3:
 *
 *   raw_tp/sys_exit          fires for every system call
 *
 * What is known by its system call alone shows without its payload if it was sent by other
 * ways than a system call of the send or write family (io_uring, splice, sendfile), and
 * only where the socket is connected.
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
#include "glob.h"
#include "cgroup.h"
#include "task.h"
#include "unix_socket.h"
#include "notify.h"
#include "ancillary.h"
#include "payload.h"
#include "queued.h"
#include "syscall.h"
#include "exec.h"
#include "cgroup_made.h"
#include "emit.h"

char LICENSE[] SEC("license") = "GPL";

#define EFAULT 14

/* One message of a struct mmsghdr vector, by the task that sends it. */
struct batch {
	__u64 messages; /* the vector, in user memory */
	__u32 next;
	__s32 last; /* what the message before returned */
	bool untold;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, __u64);
	__type(value, struct batch);
} batches SEC(".maps");

/* Since a batch found no room, its messages cannot be told apart. */
bool batches_untold;

/* What is known of a datagram that was queued. */
enum arrival_state {
	ARRIVED,      /* receiver and datagram stand in SLOT_QUEUED */
	ARRIVED_DULL, /* of no interest, unless the address says so */
	ARRIVED_NO,   /* of no interest */
};

/* The datagram that was queued last on this CPU, until its send ends. */
struct arrival {
	__u64 task; /* the struct task_struct, 0: there is none */
	__u64 from; /* the struct sock that it was sent by; 0: it was read already */
	__u32 size;
	__u32 state;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct arrival);
} arrivals SEC(".maps");

/* The bytes in n segments of user memory, -1 when that cannot be told. */
__noinline int total_size(__u64 segments, __u64 n)
{
	struct iovec_abi segment;
	__u32 total = 0;
	__u32 i;

	for (i = 0; i < SEGMENTS_MAX; i++) {
		if (i >= n)
			return total;
		if (bpf_probe_read_user(&segment, sizeof(segment),
					(void *)segments + i * sizeof(segment)))
			return -1;
		total += segment.iov_len;
	}
	return i < n ? -1 : total;
}

static __always_inline void use_size(struct event *e, __u64 size)
{
	e->size = size;
	e->flags |= EVENT_SIZE;
}

/* No address was given: it goes to the peer, or arrived there. */
static __always_inline void use_peer(struct destination *dst, struct sock *sk)
{
	if (!dst->resolved) {
		resolve_peer(dst, sk);
		return;
	}
	dst->connected = 1;
	address_is_bound(dst);
}

static __always_inline void use_address(__u32 slot, struct destination *dst,
					struct sock *sk, const void *address,
					__s64 len)
{
	if (!address || len <= 0) {
		use_peer(dst, sk);
		return;
	}
	/* For whoever looks the address up: it may not be the sender's own. */
	if (!dst->resolved)
		dst->netns = READ(sk, __sk_common.skc_net.net, ns.inum);
	dst->address_len = read_address(slot, true, address, len);
	/* Nothing can be sent to a longer one. */
	if (!dst->address_len && len > SUN_PATH_OFFSET &&
	    len <= SUN_PATH_OFFSET + ADDRESS_MAX)
		dst->unreadable = 1;
}

static __always_inline void use_segments(__u32 slot, struct scratch *s,
					 const void *segments, __u64 n)
{
	int size = total_size((__u64)segments, n);

	if (size >= 0)
		use_size(&s->event, size);
	gather(slot, MEMORY_USER, (__u64)segments, n);
}

static __always_inline bool sends_message(const struct syscall *call)
{
	return call->nr == NR_SENDMSG || call->nr == NR_SENDMMSG;
}

static __always_inline bool sends_buffer(const struct syscall *call)
{
	return call->nr == NR_SENDTO || call->nr == NR_WRITE;
}

static __always_inline bool sends_segments(const struct syscall *call)
{
	return call->nr == NR_WRITEV || call->nr == NR_PWRITEV2;
}

/* Where it goes; and what a struct msghdr says, if there is one. */
static __always_inline void find_destination(__u32 slot, struct scratch *s,
					     struct sock *sk, struct syscall *call)
{
	struct destination *dst = &s->send.dst;
	struct user_msghdr_abi *msg = &s->msg;

	if (call->nr == NR_SENDTO) {
		use_address(slot, dst, sk, (void *)call->arg4, (__s32)call->arg5);
	} else if (!sends_message(call)) {
		use_peer(dst, sk);
	} else if (bpf_probe_read_user(msg, sizeof(*msg), (void *)call->arg1)) {
		dst->unreadable = 1;
		call->nr = -1;
	} else {
		use_address(slot, dst, sk, (void *)msg->msg_name, msg->msg_namelen);
	}
	/* A connected SOCK_SEQPACKET takes no other address. */
	if (dst->type == SOCK_SEQPACKET && !dst->connected)
		use_peer(dst, sk);
}

/*
 * The payload's beginning, without its end, if it lies in one piece. Says whether it
 * does.
 */
static __always_inline bool read_beginning(struct scratch *s,
					   const struct syscall *call)
{
	const struct user_msghdr_abi *msg = &s->msg;
	struct iovec_abi first = {(void *)call->arg1, call->arg2};
	const void *segments =
		sends_message(call) ? (void *)msg->msg_iov : (void *)call->arg1;
	__u64 n = sends_message(call) ? msg->msg_iovlen : call->arg2;

	if (!sends_buffer(call)) {
		if ((!sends_message(call) && !sends_segments(call)) || !n)
			return false;
		if (bpf_probe_read_user(&first, sizeof(first), segments))
			return false;
		if (n != 1 && first.iov_len < BEGINNING_MAX)
			return false;
	}
	if (first.iov_len > BEGINNING_MAX)
		first.iov_len = BEGINNING_MAX;
	read_buffer(&s->event, first.iov_base, first.iov_len);
	return true;
}

static __always_inline void read_payload(__u32 slot, struct scratch *s,
					 const struct syscall *call)
{
	s->event.payload_len = 0;
	s->event.flags &= ~EVENT_PAYLOAD;
	if (sends_message(call)) {
		use_segments(slot, s, (void *)s->msg.msg_iov, s->msg.msg_iovlen);
	} else if (sends_segments(call)) {
		use_segments(slot, s, (void *)call->arg1, call->arg2);
	} else if (sends_buffer(call)) {
		use_size(&s->event, call->arg2);
		read_buffer(&s->event, (void *)call->arg1, call->arg2);
	}
}

/*
 * A socket filter of the receiver's may have dropped the datagram without a
 * trace, unless there is none, or it was seen to arrive.
 */
static __always_inline void describe_result(struct event *e,
					    const struct destination *dst,
					    bool arrived, long ret)
{
	e->result = ret;
	if (ret < 0) {
		e->flags |= EVENT_NOT_DELIVERED;
		return;
	}
	use_size(e, ret);
	if (!ret) { /* of nothing, all is known */
		e->payload_len = 0;
		e->flags |= EVENT_PAYLOAD;
	}
	if (arrived || (dst->resolved && dst->unfiltered))
		e->flags |= EVENT_DELIVERED;
}

/*
 * Whether the datagram counts, by where it goes and, if that does not tell, how it begins:
 * most of those that do not count are not looked at any further.
 */
static __always_inline bool counts(__u32 slot, struct scratch *s,
				   const struct syscall *call, bool has_payload)
{
	int interest = destination_interest(slot);

	if (s->send.own)
		return true;
	if (interest != INTEREST_MAYBE)
		return interest == INTEREST_YES;
	if (socket_patterns_count)
		return false;
	if (!has_payload && !read_beginning(s, call))
		read_payload(slot, s, call);
	return event_reads_like_notification(slot);
}

/* What came with a datagram is known; whether it was claimed, its sender's message says. */
static __always_inline void check_claim(struct scratch *s,
					const struct syscall *call)
{
	const struct user_msghdr_abi *msg = &s->msg;

	if (!(s->anc.flags & EVENT_CLAIMED))
		return;
	if (sends_message(call) && msg->msg_controllen)
		s->anc.ns_pid = claimed_in(MEMORY_USER, (__u64)msg->msg_control,
					   msg->msg_controllen);
	if (!is_claimed(s->anc.pid, s->anc.ns_pid))
		s->anc.flags &= ~(EVENT_CLAIMED | EVENT_CLAIMED_IDS);
}

/*
 * What a system call sent, with which result. arrived says that its receiver stands in the
 * slot, has_payload that the datagram does.
 */
static __always_inline void capture(__u32 slot, struct scratch *s, struct sock *sk,
				    __u8 type, struct syscall *call, long ret,
				    bool arrived, bool has_payload)
{
	if (!arrived)
		destination_init(&s->send.dst, type);
	s->glob.unsure = 0;
	s->send.unsure = 0;
	if (!has_payload) {
		event_init(&s->event);
		ancillary_init(&s->anc);
	}
	find_destination(slot, s, sk, call);
	/* Where it arrived is known, or the kernel could not read it either. */
	if (arrived || ret == -EFAULT)
		s->send.dst.unreadable = 0;
	if (!task_passes(slot)) {
		count(COUNT_FILTERED);
		return;
	}
	if (!counts(slot, s, call, has_payload)) {
		count_unwanted_to(&s->send.dst);
		return;
	}
	if (!has_payload)
		read_payload(slot, s, call);
	if (has_payload)
		check_claim(s, call);
	else if (sends_message(call))
		read_control(slot, MEMORY_USER, s->msg.msg_control,
			     s->msg.msg_controllen);
	describe_result(&s->event, &s->send.dst, arrived, ret);
	emit_if_passes(s, slot);
}

/* The name of the socket that a connection leads to; says whether there is one. */
static __always_inline bool peer_name(struct sock *sk, const char **name,
				      __u64 *len)
{
	struct sock *peer = READ((struct unix_sock *)sk, peer);
	struct unix_address *addr = READ((struct unix_sock *)peer, addr);

	if (!addr)
		return false;
	*len = READ(addr, len) - SUN_PATH_OFFSET;
	*name = (void *)addr + bpf_core_field_offset(addr->name) + SUN_PATH_OFFSET;
	return true;
}

/* Whether no name that counts ends like a name, whose last 9 bytes are read. */
static __always_inline bool ends_like_none(const __u8 *end, bool path)
{
	__u64 last = *(const __u64 *)(end + 1);

	/* The NUL behind a path may be counted, or not; one that is padded is looked at. */
	if (path && !end[8])
		return end[7] && !name_bit(*(const __u64 *)end);
	return !name_bit(last);
}

/* Whether no name that counts ends like an address in user memory; 9 bytes at end are used. */
static __always_inline bool address_is_dull(__u8 *end, const void *address,
					    __s64 size)
{
	__u64 len = size - SUN_PATH_OFFSET;
	const char *name = address + SUN_PATH_OFFSET;

	if (len < 9 || len > ADDRESS_MAX)
		return false;
	if (bpf_probe_read_user(end, 9, name + len - 9))
		return false;
	return ends_like_none(end, true);
}

/*
 * Whether a datagram can be of no interest: its first byte begins no key, and no name that
 * counts ends like that of its socket. What is sent in pieces is looked at.
 */
static __always_inline bool is_dull(struct scratch *s, struct sock *sk,
				    const struct syscall *call)
{
	__u8 *end = (__u8 *)s->glob.text, first = 0;
	__u64 len = (__s64)(__s32)call->arg5 - SUN_PATH_OFFSET;
	const char *name;

	if (!by_name || !sends_buffer(call) ||
	    (call->arg2 && bpf_probe_read_user(&first, 1, (void *)call->arg1)))
		return false;
	if ((first >= 'A' && first <= 'Z') || first == '\n' || first == '\r')
		return false;
	if (call->nr != NR_SENDTO || !call->arg4) {
		if (!peer_name(sk, &name, &len))
			return true;
		if (len < 9 || len > ADDRESS_MAX + 1)
			return false;
		*(__u64 *)end = load64(name + len - 9);
		end[8] = load64(name + len - 8) >> 56;
		return ends_like_none(end, load64(name) & 0xff);
	}
	return address_is_dull(end, (void *)call->arg4, (__s32)call->arg5);
}

/*
 * The same of a datagram that has arrived: neither it nor its receiver's own name is of any
 * interest, so that the address is left.
 */
static __always_inline bool is_dull_by_address(struct scratch *s,
					       const struct syscall *call)
{
	__u8 *end = (__u8 *)s->glob.text;
	struct user_msghdr_abi *msg = &s->msg;

	if (call->nr == NR_SENDTO)
		return !call->arg4 || (__s32)call->arg5 <= 0 ||
		       address_is_dull(end, (void *)call->arg4, (__s32)call->arg5);
	if (call->nr == NR_SENDMMSG)
		return false;
	if (call->nr != NR_SENDMSG)
		return true;
	return bpf_probe_read_user(msg, sizeof(*msg), (void *)call->arg1) ||
	       !msg->msg_name || msg->msg_namelen <= 0 ||
	       address_is_dull(end, (void *)msg->msg_name, msg->msg_namelen);
}

/*
 * The datagram that the current thread has just put into a queue, if nobody has read it yet.
 * Another one may be behind it already, as when two threads send at once: it was allocated
 * by another CPU then.
 */
static __always_inline struct sk_buff *just_queued(struct sock *to)
{
	struct sk_buff_head *list = &to->sk_receive_queue;
	struct sk_buff *last = READ(list, prev), *before;
	__u32 cpu = bpf_get_smp_processor_id();

	if ((void *)last == (void *)list)
		return NULL;
	if (!bpf_core_field_exists(last->alloc_cpu) || READ(last, alloc_cpu) == cpu)
		return last;
	before = READ(last, prev);
	if ((void *)before != (void *)list && READ(before, alloc_cpu) == cpu)
		return before;
	return last;
}

/*
 * Whether a datagram may be of interest, by itself and by the name of its receiver. It is NULL
 * when it was read already.
 */
static __always_inline enum arrival_state glance_at_arrival(struct sock *to,
							    struct sk_buff *skb)
{
	__u64 bound_end;
	__u32 bound_len;
	struct name n;

	if (!skb)
		return ARRIVED;
	read_name(&n, to);
	switch (glance_at(&n, TYPED(skb), &bound_len, &bound_end)) {
	case GLANCE_NO:
		return ARRIVED_NO;
	case GLANCE_DULL:
		return ARRIVED_DULL;
	default:
		return ARRIVED;
	}
}

/*
 * Nothing keeps a datagram that is read on another CPU meanwhile from being freed, and its
 * memory from being another's: what was found in it holds if it is still in the queue then.
 */
static __always_inline void arrives(struct arrival *a, struct scratch *s,
				    struct sock *to, __u16 type)
{
	struct sk_buff *skb = just_queued(to);
	__u64 from;

	a->from = 0;
	a->state = s->send.own ? ARRIVED : glance_at_arrival(to, skb);
	if (a->state != ARRIVED) {
		if (just_queued(to) == skb)
			return;
		a->state = ARRIVED;
		skb = NULL;
	}
	destination_init(&s->send.dst, type);
	resolve(&s->send.dst, to);
	event_init(&s->event);
	if (!skb)
		return;
	use_skb(s, TYPED(skb));
	from = (__u64)TYPED(skb)->sk;
	if (just_queued(to) != skb)
		return;
	*(volatile __u64 *)&a->from = from;
	a->size = s->event.size;
}

SEC("tp_btf/sk_data_ready")
int BPF_PROG(data_ready, struct sock *to)
{
	struct arrival *a;
	struct scratch *s;
	__u32 zero = 0;
	__u16 type;

	if (to->__sk_common.skc_family != AF_UNIX)
		return 0;
	type = to->sk_type;
	/* A connection of SOCK_SEQPACKET makes the listening socket ready. */
	if ((type != SOCK_DGRAM && type != SOCK_SEQPACKET) ||
	    to->__sk_common.skc_state == TCP_LISTEN)
		return 0;
	s = scratch_get(SLOT_QUEUED);
	a = bpf_map_lookup_elem(&arrivals, &zero);
	if (!s || !a || is_own(s))
		return 0;
	stay_on_cpu();
	a->task = 0;
	arrives(a, s, to, type);
	a->task = bpf_get_current_task();
	may_leave_cpu();
	return 0;
}

/*
 * Whether a message may be the one that was sent, as far as its size tells and, if the
 * datagram is in the slot, how it begins.
 */
static __always_inline bool may_be_sent(struct scratch *s, __u64 message,
					__u32 size, bool has_payload)
{
	struct user_msghdr_abi *msg = &s->msg;
	struct iovec_abi first;
	__u64 begin = 0;

	if (bpf_probe_read_user(msg, sizeof(*msg), (void *)message) ||
	    total_size(msg->msg_iov, msg->msg_iovlen) != size)
		return false;
	if (!msg->msg_iovlen || !has_payload)
		return true;
	if (bpf_probe_read_user(&first, sizeof(first), (void *)msg->msg_iov))
		return false;
	if (first.iov_len < sizeof(begin))
		return true;
	return !bpf_probe_read_user(&begin, sizeof(begin), first.iov_base) &&
	       begin == *(const __u64 *)s->event.data;
}

/*
 * Which message of the vector this is: the tracepoint fires for each, in order, and the
 * kernel has written the length of the one before into msg_len by then. A call that ended
 * early without the tracepoint leaves an entry behind, by which the first message of another
 * call with the same vector looks like one later on. When a message may be either, it and
 * those after it are not told apart, until the thread sends another vector.
 */
static __always_inline void pick_message(struct scratch *s, struct syscall *call,
					 long ret, bool has_payload)
{
	__u64 id = bpf_get_current_pid_tgid();
	struct batch *known = bpf_map_lookup_elem(&batches, &id);
	struct batch batch = {.messages = call->arg1};
	struct mmsghdr_abi *messages = (void *)call->arg1;
	__u32 sent = 0;

	if (known && known->messages == batch.messages &&
	    (known->untold ||
	     (known->next < call->arg2 &&
	      !bpf_probe_read_user(&sent, sizeof(sent),
				   &messages[known->next - 1].msg_len) &&
	      sent == known->last)))
		batch = *known;
	else if (batches_untold)
		batch.untold = true;
	if (!batch.untold && ret >= 0 && batch.next &&
	    may_be_sent(s, batch.messages, ret, has_payload)) {
		if (may_be_sent(s, (__u64)&messages[batch.next].msg_hdr, ret,
				has_payload))
			batch.untold = true;
		else
			batch.next = 0;
	}
	call->arg1 = (__u64)&messages[batch.next].msg_hdr;
	if (batch.untold ||
	    (ret >= 0 && !may_be_sent(s, call->arg1, ret, has_payload)))
		call->nr = -1;
	batch.next++;
	batch.last = ret;
	if (!batch.untold && (ret < 0 || batch.next >= call->arg2))
		bpf_map_delete_elem(&batches, &id);
	else if (bpf_map_update_elem(&batches, &id, &batch, BPF_ANY))
		batches_untold = true;
}

static __always_inline void send_ends(struct sock *sk, __u16 type, int ret)
{
	__u32 zero = 0, slot = SLOT_EXIT;
	struct arrival *a = bpf_map_lookup_elem(&arrivals, &zero);
	bool arrived = a && a->task == bpf_get_current_task() && ret >= 0;
	bool has_payload = false;
	struct syscall call;
	struct scratch *s;

	if (a)
		a->task = 0;
	if (arrived && a->state == ARRIVED_NO) {
		count_unwanted();
		return;
	}
	s = scratch_get(SLOT_EXIT);
	if (!s)
		return;
	call = read_syscall((void *)bpf_task_pt_regs(bpf_get_current_task_btf()));
	if (arrived && a->state == ARRIVED) {
		slot = SLOT_QUEUED;
		has_payload = a->from == (__u64)sk && a->size == ret;
	} else if (arrived ? is_dull_by_address(s, &call) : is_dull(s, sk, &call)) {
		count(COUNT_IGNORED);
		return;
	} else {
		arrived = false;
	}
	s = scratch_get(slot);
	if (!s)
		return;
	if (call.nr == NR_SENDMMSG)
		pick_message(s, &call, ret, has_payload);
	capture(slot, s, sk, type, &call, ret, arrived, has_payload);
}

SEC("tp_btf/sock_send_length")
int BPF_PROG(send_length, struct sock *sk, int ret)
{
	struct scratch *s;
	__u16 type;

	if (sk->__sk_common.skc_family != AF_UNIX)
		return 0;
	type = sk->sk_type;
	s = scratch_get(SLOT_EXIT);
	if ((type != SOCK_DGRAM && type != SOCK_SEQPACKET) || !s || is_own(s))
		return 0;
	stay_on_cpu();
	send_ends(sk, type, ret);
	may_leave_cpu();
	return 0;
}

SEC("raw_tp/sched_process_exit")
int thread_exit(void *ctx)
{
	__u64 id = bpf_get_current_pid_tgid();

	bpf_map_delete_elem(&batches, &id);
	return 0;
}

/* The struct sock of one of the current task's descriptors. */
static __always_inline struct sock *sock_of(__u32 fd)
{
	struct file *file = file_of(fd);
	struct socket *sock;

	if (!file || (READ(file, f_inode, i_mode) & S_IFMT) != S_IFSOCK)
		return NULL;
	sock = READ(file, private_data);
	return READ(sock, sk);
}

/*
 * A function of its own, so that the loop over a batch is cheap to verify. It finds the
 * socket in the slot: a typed pointer cannot be passed as a number.
 */
__noinline int capture_message(__u64 messages, __u32 i)
{
	struct mmsghdr_abi *message = &((struct mmsghdr_abi *)messages)[i];
	struct syscall call = {
		.nr = NR_SENDMSG,
		.arg1 = (__u64)&message->msg_hdr,
	};
	struct scratch *s = scratch_get(SLOT_EXIT);
	__u32 sent;

	struct sock *sk;

	if (!s || bpf_probe_read_user(&sent, sizeof(sent), &message->msg_len))
		return 0;
	sk = (void *)s->batch_sock;
	capture(SLOT_EXIT, s, sk, datagram_type(sk), &call, sent, false, false);
	return 0;
}

#define BATCH_MAX 1024 /* UIO_MAXIOV: the kernel takes no more */

static __always_inline void capture_batch(struct sock *sk,
					  const struct syscall *call, long ret)
{
	struct scratch *s = scratch_get(SLOT_EXIT);
	__u32 i;

	if (!s)
		return;
	s->batch_sock = (__u64)sk;
	for (i = 0; i < BATCH_MAX; i++) {
		if (i >= ret)
			return;
		capture_message(call->arg1, i);
	}
}

static __always_inline bool sends(long nr)
{
	return nr == NR_SENDTO || nr == NR_SENDMSG || nr == NR_SENDMMSG ||
	       nr == NR_WRITE || nr == NR_WRITEV || nr == NR_PWRITEV2;
}

/*
 * A call that may have sent datagrams, which its arguments do not tell. It is counted only
 * if it went to a datagram socket; of io_uring not even that can be told.
 */
static __always_inline void count_unknown(struct pt_regs *regs, long nr, long ret)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	__u32 what = COUNT_UNKNOWN_SPLICE;
	struct syscall call;
	struct scratch *s;
	struct sock *sk;
	int fd = -1;

	if (nr == NR_IO_URING_ENTER) {
		what = COUNT_UNKNOWN_IO_URING;
	} else if (is_compat(task)) {
		what = COUNT_UNKNOWN_COMPAT;
		fd = compat_fd(regs, nr);
	} else if (ret > 0 && (nr == NR_SPLICE || nr == NR_SENDFILE)) {
		read_arguments(&call, regs);
		fd = nr == NR_SPLICE ? call.arg2 : call.fd;
	} else {
		return;
	}
	s = scratch_get(SLOT_EXIT);
	if (!s || is_own(s))
		return;
	if (what == COUNT_UNKNOWN_IO_URING) {
		count_more(what, ret);
		return;
	}
	sk = fd < 0 ? NULL : sock_of(fd);
	if (sk && datagram_type(sk))
		count(what);
}

/* Whether count_unknown may have something to count; most calls are none of these. */
static __always_inline bool may_be_unknown(long nr)
{
	return nr == NR_SPLICE || nr == NR_SENDFILE || nr == NR_IO_URING_ENTER ||
	       compat_sends(nr);
}

/* A connect(2) that failed. */
static __always_inline void connect_failed(struct sock *sk, __u8 type,
					   const struct syscall *call, long ret)
{
	struct scratch *s = scratch_get(SLOT_EXIT);

	if (!s)
		return;
	destination_init(&s->send.dst, type);
	s->send.dst.netns = READ(sk, __sk_common.skc_net.net, ns.inum);
	s->send.dst.address_len = read_address(SLOT_EXIT, true, (void *)call->arg1,
					       (__s32)call->arg2);
	emit_connect(s, SLOT_EXIT, ret);
}

SEC("raw_tp/sys_exit")
int syscall_exit(struct bpf_raw_tracepoint_args *ctx)
{
	struct pt_regs *regs = (void *)ctx->args[0];
	long ret = ctx->args[1];
	struct scratch *s;
	struct syscall call;
	struct sock *sk;
	__u8 type;

	long nr = syscall_number(regs);

	if (!sends(nr) && (nr != NR_CONNECT || ret >= 0)) {
		if (ret >= 0 && may_be_unknown(nr))
			count_unknown(regs, nr, ret);
		return 0;
	}
	s = scratch_get(SLOT_EXIT);
	if (!s || is_own(s))
		return 0;
	call = read_syscall(regs);
	if (call.nr < 0)
		return 0;
	sk = sock_of(call.fd);
	type = sk ? datagram_type(sk) : 0;
	if (!type)
		return 0;
	if (call.nr == NR_CONNECT) {
		connect_failed(sk, type, &call, ret);
		return 0;
	}
	if (call.nr == NR_SENDMMSG && ret > 0) {
		capture_batch(sk, &call, ret);
		return 0;
	}
	capture(SLOT_EXIT, s, sk, type, &call, ret, false, false);
	return 0;
}
