// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"regexp"
	"strings"

	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"
)

// preempts reports whether the kernel may take the processor from a thread that is in the middle of a system call: with
// CONFIG_PREEMPT, its lazy kind (Linux 6.13) or PREEMPT_RT. Where it cannot be told, it may.
func preempts() bool {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return true
	}
	version, release := unix.ByteSliceToString(name.Version[:]), unix.ByteSliceToString(name.Release[:])
	switch {
	case !strings.Contains(version, "PREEMPT"):
		return false
	case !strings.Contains(version, "PREEMPT_DYNAMIC"):
		return true // it is not to be chosen at boot
	}
	if mode, err := os.ReadFile("/sys/kernel/debug/sched/preempt"); err == nil {
		if _, now, found := bytes.Cut(mode, []byte("(")); found {
			now, _, _ = bytes.Cut(now, []byte(")"))
			return isPreempting(string(now))
		}
	}
	if line, err := os.ReadFile("/proc/cmdline"); err == nil {
		if mode := preemptArgument(string(line)); mode != "" {
			return isPreempting(mode)
		}
	}
	config, err := kernelConfig(release)
	return err != nil || !regexp.MustCompile(`(?m)^CONFIG_PREEMPT_(NONE|VOLUNTARY)=y$`).Match(config)
}

// mayStay reports whether the kernel takes programs that forbid preemption while they call functions of their own (kernel:
// check_func_call).
func mayStay() bool {
	const since = 6<<16 | 15<<8
	version, err := features.LinuxVersionCode()
	return err == nil && version >= since
}

// isPreempting reads a name of a mode (Documentation/admin-guide/kernel-parameters.txt, preempt=).
func isPreempting(mode string) bool { return mode != "none" && mode != "voluntary" }

// preemptArgument is the value of the last preempt= in a kernel's command line, "" for none.
func preemptArgument(line string) (mode string) {
	for word := range strings.FieldsSeq(line) {
		if value, ok := strings.CutPrefix(word, "preempt="); ok {
			mode = value
		}
	}
	return mode
}

// kernelConfig is with what the running kernel was built.
func kernelConfig(release string) ([]byte, error) {
	if f, err := os.Open("/proc/config.gz"); err == nil {
		defer f.Close()
		text, err := gzip.NewReader(f)
		if err != nil {
			return nil, err
		}
		return io.ReadAll(text)
	}
	return os.ReadFile("/boot/config-" + release)
}
