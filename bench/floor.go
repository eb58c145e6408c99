// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
)

// attachNothing attaches a program that does nothing where the tracepoint backend has its own:
// no capture there can cost less.
func attachNothing() (detach func(), err error) {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "nothing", Type: ebpf.RawTracepoint, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		return nil, fmt.Errorf("loading a program that does nothing: %w", err)
	}
	attached, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: "sock_send_length", Program: program})
	if err != nil {
		_ = program.Close()
		return nil, fmt.Errorf("attaching it: %w", err)
	}
	return func() {
		_ = attached.Close()
		_ = program.Close()
	}, nil
}

func measureFloor(b *bench) ([]row, error) {
	s, err := startSender(b.dir, 0)
	if err != nil {
		return nil, err
	}
	defer s.stop()
	added, err := b.difference(b.pairs(),
		func() (float64, error) { return s.do(opOther, batch) },
		func() (float64, error) {
			detach, err := attachNothing()
			if err != nil {
				return 0, err
			}
			defer detach()
			return s.do(opOther, batch)
		})
	return []row{{"... added by a program there that does nothing", added.text("ns"), ""}}, err
}
