// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// bpftraceScript prints of each sendto(2) what a person would want to see of it: less than
// sdtrace does, and of everybody.
const bpftraceScript = `
BEGIN { printf("ready\n"); }
tracepoint:syscalls:sys_enter_sendto { @text[tid] = str(args->buff, args->len); }
tracepoint:syscalls:sys_exit_sendto {
	printf("%lld %d %lld %s %s %d\n", nsecs, pid, cgroup, comm, @text[tid], args->ret);
	delete(@text[tid]);
}
`

// startBpftrace returns when its programs are attached; stop ends it.
func startBpftrace(b *bench) (stop func(), err error) {
	output, err := os.CreateTemp(b.dir, "bpftrace")
	if err != nil {
		return nil, err
	}
	defer output.Close()
	// In a mount namespace of its own, as tracefs is not mounted everywhere.
	cmd := exec.Command("unshare", "--mount", "sh", "-c", `mount -t debugfs none /sys/kernel/debug; mount -t tracefs none /sys/kernel/debug/tracing
		exec bpftrace -B line -e "$1"`, "sh", bpftraceScript)
	cmd.Env = append(os.Environ(), "BPFTRACE_STRLEN=64")
	cmd.Stdout = output
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting bpftrace: %w", err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	stop = func() {
		_ = cmd.Process.Signal(os.Interrupt)
		<-ended
	}
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	limit := time.After(attachLimit)
	for {
		text, err := os.ReadFile(output.Name())
		if err != nil {
			stop()
			return nil, err
		}
		if strings.Contains(string(text), "ready") {
			return stop, nil
		}
		select {
		case <-look.C:
		case <-ended:
			return nil, errors.New("bpftrace ended before it was attached")
		case <-limit:
			stop()
			return nil, fmt.Errorf("bpftrace was not attached within %s", attachLimit)
		case <-b.ctx.Done():
			stop()
			return nil, b.ctx.Err()
		}
	}
}
