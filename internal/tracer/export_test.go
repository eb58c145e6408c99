// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"errors"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// ShareTypes has all captures use the kernel's types decoded once: a third of what opening
// one takes in emulation.
func ShareTypes() {
	types := btf.NewCache()
	newTypes = func() *btf.Cache { return types }
}

// FailTrial lets nothing be sent for a trial, until the returned function is called.
func FailTrial(err error) (restore func()) {
	sendsTrial = func() error { return err }
	return func() { sendsTrial = sendTrial }
}

// Followed reports whether any datagram of a process was followed. The error is the
// kernel's.
func (t *Tracer) Followed(pid uint32) (bool, error) {
	senders := t.collection.Maps["senders"]
	if senders == nil {
		return false, nil // this backend follows none
	}
	var key struct{ StartTime, PID uint64 }
	var exited uint64
	entries := senders.Iterate()
	for entries.Next(&key, &exited) {
		if key.PID == uint64(pid) {
			return true, nil
		}
	}
	return false, entries.Err()
}

// RingBytes is how much of the ring buffer holds what was not read yet.
func (t *Tracer) RingBytes() int { return t.reader.AvailableBytes() }

// Verified is how many instructions the verifier walked through. The error is the kernel's, or
// that it does not tell (bpf_prog_info.verified_insns, Linux 5.16).
func (t *Tracer) Verified() (int, error) {
	total := 0
	for _, program := range t.collection.Programs {
		info, err := program.Info()
		if err != nil {
			return 0, err
		}
		n, ok := info.VerifiedInstructions()
		if !ok {
			return 0, ebpf.ErrNotSupported
		}
		total += int(n)
	}
	return total, nil
}

// ErrNoSuchProgram says that no plan has a program with the options.
var ErrNoSuchProgram = errors.New("no plan has this program")

// OpenElsewhere is Open by the first plan that has a program, which is attached to another function or tracepoint.
func OpenElsewhere(opts Options, program, elsewhere string) (*Tracer, error) {
	settings, err := newSettings(opts)
	if err != nil {
		return nil, err
	}
	for _, plan := range plans {
		plan = plan.with(settings)
		at := slices.IndexFunc(plan.programs, func(a attachment) bool { return a.name == program })
		if at < 0 || plan.backend != opts.Backend {
			continue
		}
		a := &plan.programs[at]
		kind, _, _ := strings.Cut(a.hook, "/")
		if kind == "raw_tp" {
			*a = rawTracepoint(program, elsewhere)
		} else {
			a.hook = kind + "/" + elsewhere
			load := plan.load
			plan.load = func() (*ebpf.CollectionSpec, error) {
				spec, err := load()
				if err == nil {
					spec.Programs[program].AttachTo = elsewhere
				}
				return spec, err
			}
		}
		return open(plan, settings, nil)
	}
	return nil, ErrNoSuchProgram
}
