// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"

	"github.com/sdtrace/sdtrace/bpf"
)

// attachPlan is one way to get at the datagrams: a set of programs and what they
// are attached to. Whether it works is found out by loading and attaching it.
type attachPlan struct {
	backend   string
	hook      string // what it is attached to, for people
	load      func() (*ebpf.CollectionSpec, error)
	knows     Knowledge
	limits    []string       // what it cannot know, for people
	variables map[string]any // to set before loading
	programs  []attachment
}

// Knowledge is what a capture can tell beside who sent what where.
type Knowledge struct {
	// Receipts: what becomes of a datagram once it is queued.
	Receipts bool
	// Receivers: the receiving socket, of every datagram that reaches one.
	Receivers bool
	// Delivery: whether a datagram was put into the receiver's queue, and how long the
	// call took.
	Delivery bool
	// Connects: connect(2) that fails.
	Connects bool
}

// sendPrograms are those of the fentry backend that see a send. What sees a datagram in its queue comes last, so that no
// send is seen by only some of the programs.
var sendPrograms = []attachment{
	trampoline("connect_refused", "fexit/unix_dgram_connect", "socket", "", "", ""),
	trampoline("connect_denied", "fexit/security_socket_connect", "socket", "", ""),
	trampoline("socket_denied", "fexit/security_socket_create", "", "", "", ""),
	trampoline("send_denied", "fexit/security_socket_sendmsg", "socket", "msghdr", "").ifDeniedSends(),
	rawTracepoint("thread_exit", "sched_process_exit"),
	rawTracepoint("process_executes", "sched_process_exec").ifByName(),
	rawTracepoint("cgroup_made", "cgroup_mkdir").ifByCgroup(),
	trampoline("receiver_gone", "fentry/unix_dgram_disconnected", "sock", "sock"),
	trampoline("send_waits", "fentry/unix_wait_for_peer", "sock", "").ifByThread(false),
	trampoline("send_exit", "fexit/unix_dgram_sendmsg", "socket", "msghdr", "").ifByThread(false),
	trampoline(sendExitByThread, "fexit/unix_dgram_sendmsg", "socket", "msghdr", "").ifByThread(true),
	trampoline(datagramQueued, "fentry/skb_queue_tail", "sk_buff_head", "sk_buff").ifByThread(false),
	trampoline(datagramQueuedByThread, "fentry/skb_queue_tail", "sk_buff_head", "sk_buff").ifByThread(true),
	trampoline("send_enter", "fentry/unix_dgram_sendmsg", "socket", "msghdr", "").ifByThread(true),
}

// plans are in the order of preference.
var plans = []attachPlan{
	{
		backend:   "fentry",
		hook:      "unix_dgram_sendmsg, unix_dgram_recvmsg",
		load:      bpf.LoadFentry,
		knows:     Knowledge{Receipts: true, Receivers: true, Delivery: true, Connects: true},
		limits:    []string{limitExe, limitLatency, limitDenied, "read, unread, barrier: of datagrams of SOCK_SEQPACKET"},
		variables: map[string]any{"follow_receipts": true},
		// What follows a datagram comes before what begins to.
		programs: append([]attachment{
			trampoline("pipe_released", "fentry/pipe_release", "inode", "file"),
			rawTracepoint("datagram_discarded", "kfree_skb"),
			trampoline(datagramRead, "fexit/unix_dgram_recvmsg", "socket", "msghdr", "", ""),
			trampoline(datagramTaken, "fentry/skb_free_datagram", "sock", "sk_buff"),
		}, sendPrograms...),
	},
	{
		backend:  "fentry",
		hook:     "unix_dgram_sendmsg",
		load:     bpf.LoadFentry,
		knows:    Knowledge{Receivers: true, Delivery: true, Connects: true},
		limits:   []string{limitExe, limitLatency, limitDenied, limitReceipts},
		programs: sendPrograms,
	},
	{
		backend: "tracepoint",
		hook:    "sock_send_length",
		load:    bpf.LoadTracepoint,
		knows:   Knowledge{Receivers: true},
		limits: append(slices.Clone(tracepointLimits), limitPreempted, limitClaims,
			"sends that a security module refuses before the socket sees them, and connects that fail, are not seen at all"),
		programs: []attachment{
			rawTracepoint("thread_exit", "sched_process_exit"),
			rawTracepoint("process_executes", "sched_process_exec").ifByName(),
			rawTracepoint("cgroup_made", "cgroup_mkdir").ifByCgroup(),
			btfTracepoint("data_ready", "sk_data_ready"),
			btfTracepoint("send_length", "sock_send_length").andCounted(),
		},
	},
	{
		backend: "tracepoint",
		hook:    "sys_exit",
		load:    bpf.LoadTracepoint,
		knows:   Knowledge{Connects: true},
		limits: append(slices.Clone(tracepointLimits),
			"result.delivered: when the sender gave an address, or the receiver has a socket filter",
			"socket.bound, socket.inode, receiver: when the sender gave an address, unless it can be proven\nthat the address led to this socket when the send began",
			limitClaims,
			"payload: of memory that cannot be read",
			"sends by io_uring, splice, sendfile and 32-bit programs are not seen; the end of a capture says how many\nrequests and calls there were that may have sent some",
			"the error that ended a sendmmsg after its first message"),
		programs: []attachment{
			rawTracepoint("process_executes", "sched_process_exec").ifByName(),
			rawTracepoint("cgroup_made", "cgroup_mkdir").ifByCgroup(),
			rawTracepoint("syscall_exit", "sys_exit").andCounted(),
		},
	},
}

type attachment struct {
	name       string // of the program
	hook       string // for people
	tracepoint string // the raw tracepoint, empty for a trampoline
	// params are the structs that the parameters of a trampoline's function point to, ""
	// for any other type.
	params  []string
	counted bool // a run that the kernel skips is a datagram lost
	// only says whether it is attached, nil for always.
	only   func(*settings) bool
	attach func(*ebpf.Program) (link.Link, error)
}

func trampoline(name, hook string, params ...string) attachment {
	attach := func(p *ebpf.Program) (link.Link, error) {
		return link.AttachTracing(link.TracingOptions{Program: p})
	}
	return attachment{name: name, hook: hook, params: params, attach: attach}
}

func rawTracepoint(name, tracepoint string) attachment {
	attach := func(p *ebpf.Program) (link.Link, error) {
		return link.AttachRawTracepoint(link.RawTracepointOptions{Name: tracepoint, Program: p})
	}
	return attachment{name: name, hook: "raw_tp/" + tracepoint, tracepoint: tracepoint, attach: attach}
}

// btfTracepoint is a tracepoint whose arguments the program knows the types of.
func btfTracepoint(name, tracepoint string) attachment {
	a := trampoline(name, "tp_btf/"+tracepoint)
	a.tracepoint = tracepoint
	return a
}

func (a attachment) andCounted() attachment {
	a.counted = true
	return a
}

func (a attachment) ifDeniedSends() attachment {
	a.only = func(s *settings) bool { return s.denied }
	return a
}

func (a attachment) ifByName() attachment {
	a.only = func(s *settings) bool { return s.byName }
	return a
}

func (a attachment) ifByCgroup() attachment {
	a.only = func(s *settings) bool { return len(s.cgroupPaths) > 0 }
	return a
}

func (a attachment) ifByThread(is bool) attachment {
	a.only = func(s *settings) bool { return s.byThread == is }
	return a
}

// with is the plan without the programs that the settings leave out.
func (p attachPlan) with(s *settings) attachPlan {
	p.programs = slices.DeleteFunc(slices.Clone(p.programs), func(a attachment) bool { return a.only != nil && !a.only(s) })
	return p
}

// Programs of the fentry backend that are asked about by name.
const (
	datagramQueued         = "datagram_queued"
	datagramQueuedByThread = "datagram_queued_by_thread"
	sendExitByThread       = "send_exit_by_thread"
	datagramTaken          = "datagram_taken"
	datagramRead           = "datagram_read"
)

// plansFor returns the plans to try for a value of --backend.
func plansFor(backend string) ([]attachPlan, error) {
	if backend == "" || backend == "auto" {
		return plans, nil
	}
	var found []attachPlan
	for _, p := range plans {
		if p.backend == backend || p.backend+"/"+p.hook == backend {
			found = append(found, p)
		}
	}
	if found == nil {
		return nil, badOption("Backend", "unknown backend %q: want auto, fentry or tracepoint", backend)
	}
	return found, nil
}

// possible looks for the tracepoints and functions before anything is loaded: that a kernel
// has no such thing costs a look into its BTF, but seconds to find out by the verifier on a
// slow machine. That a function takes something else than it did when the programs were
// written would not be found out at all: they would read one struct for another. What is
// there is still found to work by attaching alone.
func (p attachPlan) possible(types *btf.Cache) error {
	kernel, err := types.Kernel()
	if err != nil {
		return fmt.Errorf("reading the kernel's BTF: %w", err)
	}
	for _, a := range p.programs {
		if a.tracepoint == "" {
			if err := a.fits(kernel); err != nil {
				return fmt.Errorf("attaching %s: %w", a.hook, err)
			}
			continue
		}
		if _, err := kernel.AnyTypesByName("btf_trace_" + a.tracepoint); errors.Is(err, btf.ErrNotFound) {
			return fmt.Errorf("attaching %s: %w", a.hook, fs.ErrNotExist)
		}
	}
	return nil
}

// spec loads the plan's object, without the programs of other plans in it.
func (p attachPlan) spec() (*ebpf.CollectionSpec, error) {
	spec, err := p.load()
	if err != nil {
		return nil, fmt.Errorf("reading the embedded programs: %w", err)
	}
	for name := range spec.Programs {
		if !slices.ContainsFunc(p.programs, func(a attachment) bool { return a.name == name }) {
			delete(spec.Programs, name)
		}
	}
	return spec, nil
}

// fits reports whether the kernel has the function of a trampoline as the program knows it.
func (a attachment) fits(kernel *btf.Spec) error {
	_, name, _ := strings.Cut(a.hook, "/")
	var function *btf.Func
	if err := kernel.TypeByName(name, &function); err != nil {
		return fs.ErrNotExist
	}
	proto, ok := function.Type.(*btf.FuncProto)
	if !ok || len(proto.Params) != len(a.params) {
		return fmt.Errorf("%w: it takes other parameters here", ebpf.ErrNotSupported)
	}
	for i, want := range a.params {
		if want == "" {
			continue
		}
		pointer, ok := btf.UnderlyingType(proto.Params[i].Type).(*btf.Pointer)
		if !ok {
			return fmt.Errorf("%w: its %s is no pointer here", ebpf.ErrNotSupported, proto.Params[i].Name)
		}
		if to, ok := btf.UnderlyingType(pointer.Target).(*btf.Struct); !ok || to.Name != want {
			return fmt.Errorf("%w: its %s is no struct %s here", ebpf.ErrNotSupported, proto.Params[i].Name, want)
		}
	}
	return nil
}
