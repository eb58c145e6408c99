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

// A flavour is one way to get at the datagrams: a set of programs and what they
// are attached to. Whether it works is found out by loading and attaching it.
type flavour struct {
	backend   string
	hook      string // what it is attached to, for people
	load      func() (*ebpf.CollectionSpec, error)
	receipts  bool           // it tells what becomes of a datagram
	variables map[string]any // to set before loading
	programs  []attachment
}

// withReceipts is the hook of the flavour that follows datagrams.
const withReceipts = "unix_dgram_sendmsg, unix_dgram_recvmsg"

// sendPrograms are those of the fentry backend that see a send. The entry comes last,
// so that none is seen by halves.
var sendPrograms = []attachment{
	rawTracepoint("thread_exit", "sched_process_exit"),
	trampoline("send_exit", "fexit/unix_dgram_sendmsg", "socket", "msghdr", ""),
	trampoline(receiverFound, "fentry/security_unix_may_send", "socket", "socket"),
	trampoline(payloadCopied, "fexit/skb_copy_datagram_from_iter", "sk_buff", "", "iov_iter", ""),
	trampoline("send_enter", "fentry/unix_dgram_sendmsg", "socket", "msghdr", "").andCounted(),
}

// The flavours, the preferred first.
var flavours = []flavour{
	{
		backend:   "fentry",
		hook:      withReceipts,
		load:      bpf.LoadFentry,
		receipts:  true,
		variables: map[string]any{"follow_receipts": true},
		// What follows a datagram comes before what begins to.
		programs: append([]attachment{
			trampoline("pipe_released", "fentry/pipe_release", "inode", "file"),
			rawTracepoint("datagram_discarded", "kfree_skb"),
			trampoline(datagramRead, "fexit/unix_dgram_recvmsg", "socket", "msghdr", "", ""),
			trampoline(datagramTaken, "fexit/__skb_try_recv_datagram", "sock", "sk_buff_head", "", "", "", ""),
		}, sendPrograms...),
	},
	{
		backend:  "fentry",
		hook:     "unix_dgram_sendmsg",
		load:     bpf.LoadFentry,
		programs: sendPrograms,
	},
	{
		backend: "tracepoint",
		hook:    "sock_send_length",
		load:    bpf.LoadTracepoint,
		programs: []attachment{
			rawTracepoint("thread_exit", "sched_process_exit"),
			rawTracepoint("send_length", "sock_send_length").andCounted(),
		},
	},
	{
		backend:  "tracepoint",
		hook:     "sys_exit",
		load:     bpf.LoadTracepoint,
		programs: []attachment{rawTracepoint("syscall_exit", "sys_exit").andCounted()},
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
	attach  func(*ebpf.Program) (link.Link, error)
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

func (a attachment) andCounted() attachment {
	a.counted = true
	return a
}

// Programs of the fentry backend that are asked about by name.
const (
	payloadCopied = "payload_copied"
	receiverFound = "receiver_found"
	datagramTaken = "datagram_taken"
	datagramRead  = "datagram_read"
)

// flavoursOf returns the flavours to try for a value of --backend.
func flavoursOf(backend string) ([]flavour, error) {
	if backend == "" || backend == "auto" {
		return flavours, nil
	}
	var found []flavour
	for _, f := range flavours {
		if f.backend == backend || f.backend+"/"+f.hook == backend {
			found = append(found, f)
		}
	}
	if found == nil {
		return nil, badOption("unknown backend %q: want auto, fentry or tracepoint", backend)
	}
	return found, nil
}

// possible looks for the tracepoints and functions before anything is loaded: that a kernel
// has no such thing costs a look into its BTF, but seconds to find out by the verifier on a
// slow machine. That a function takes something else than it did when the programs were
// written would not be found out at all: they would read one struct for another. What is
// there is still found to work by attaching alone.
func (f flavour) possible(types *btf.Cache) error {
	kernel, err := types.Kernel()
	if err != nil {
		return fmt.Errorf("reading the kernel's BTF: %w", err)
	}
	for _, p := range f.programs {
		if p.tracepoint == "" {
			if err := p.fits(kernel); err != nil {
				return fmt.Errorf("attaching %s: %w", p.hook, err)
			}
			continue
		}
		if _, err := kernel.AnyTypesByName("btf_trace_" + p.tracepoint); errors.Is(err, btf.ErrNotFound) {
			return fmt.Errorf("attaching %s: %w", p.hook, fs.ErrNotExist)
		}
	}
	return nil
}

// spec loads the flavour's object, without the programs of other flavours in it.
func (f flavour) spec() (*ebpf.CollectionSpec, error) {
	spec, err := f.load()
	if err != nil {
		return nil, fmt.Errorf("reading the embedded programs: %w", err)
	}
	for name := range spec.Programs {
		if !slices.ContainsFunc(f.programs, func(a attachment) bool { return a.name == name }) {
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
