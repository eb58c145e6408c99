// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/proc"
)

// Refusal says why one backend does not work here.
type Refusal struct {
	// Backend is "fentry" or "tracepoint"; Hook names what it would be attached to.
	Backend, Hook string
	// Err is nil for a backend that works.
	Err error

	plan attachPlan
}

// Limits says, a line each, what the backend cannot know. A line can be of several parts.
func (r Refusal) Limits() []string { return r.plan.limits }

// Reason puts the refusal into a line for a person.
func (r Refusal) Reason() string {
	var verifier *ebpf.VerifierError
	switch {
	case r.Err == nil:
		return ""
	case errors.As(r.Err, &verifier) && lacksHelper(verifier):
		return "this kernel lacks a BPF helper function it needs"
	case errors.As(r.Err, &verifier):
		return fmt.Sprintf("the kernel's verifier refuses a program: %v (please report this; -v shows its log)", verifier.Unwrap())
	case errors.Is(r.Err, unix.EPERM) && r.Backend == "fentry":
		return "the kernel refuses BPF trampolines (EPERM): it is hardened or lacks ftrace"
	case errors.Is(r.Err, unix.EPERM):
		return "the kernel refuses the program (EPERM)"
	case errors.Is(r.Err, fs.ErrNotExist):
		return "this kernel lacks what it attaches to: " + lastPart(r.Err)
	case errors.Is(r.Err, ebpf.ErrNotSupported) && r.Backend == "fentry":
		return "this kernel cannot attach trampolines to kernel functions (on arm64 that takes Linux 6.4): " + lastPart(r.Err)
	case errors.Is(r.Err, ebpf.ErrNotSupported):
		return "this kernel lacks what it needs: " + lastPart(r.Err)
	}
	return lastPart(r.Err)
}

// lacksHelper tells from the end of the verifier's log that it met a helper that it
// does not know: "invalid func unknown#158".
func lacksHelper(err *ebpf.VerifierError) bool {
	return slices.ContainsFunc(err.Log[max(0, len(err.Log)-3):], func(line string) bool {
		return strings.HasPrefix(line, "invalid func ") || strings.HasPrefix(line, "unknown func ")
	})
}

func lastPart(err error) string {
	return strings.ReplaceAll(err.Error(), "\n", "; ")
}

// UnavailableError is the error of [Open] when no backend works.
type UnavailableError struct {
	Refusals []Refusal
}

// Error says in one line why each backend was refused.
func (u *UnavailableError) Error() string {
	var reasons []string
	for _, r := range u.Refusals {
		reasons = append(reasons, fmt.Sprintf("%s (%s): %s", r.Backend, r.Hook, r.Reason()))
	}
	return "no backend works on this kernel: " + strings.Join(reasons, "; ")
}

// Unwrap gives access to the single causes.
func (u *UnavailableError) Unwrap() []error {
	var errs []error
	for _, r := range u.Refusals {
		errs = append(errs, r.Err)
	}
	return errs
}

// Check loads and attaches every backend in turn and says which of them work. The error
// is one that stands in the way of all: no privilege, no BTF, lockdown.
func Check() ([]Refusal, error) {
	settings, err := newSettings(Options{})
	if err != nil {
		return nil, err
	}
	if err := preflight(); err != nil {
		return nil, err
	}
	allowMemory()
	var all []Refusal
	for _, plan := range plans {
		r := Refusal{Backend: plan.backend, Hook: plan.hook, plan: plan}
		t, err := open(plan, settings, nil)
		if err == nil {
			err = t.Close()
		}
		r.Err = err
		all = append(all, r)
	}
	return all, nil
}

// preflight finds what would make every backend fail with an error that tells a
// person less.
func preflight() error {
	if !proc.IsHost() {
		return errors.New("this is a pid namespace of its own, in which the numbers of the host's processes are others': " +
			"run sdtrace in the host's (docker run --pid=host, hostPID: true, nsenter -t 1 -p)")
	}
	if missing := missingCapabilities(); len(missing) > 0 {
		are := "is"
		if len(missing) > 1 {
			are = "are"
		}
		return fmt.Errorf("%w: %s %s missing: run as root, or give the process %s",
			os.ErrPermission, strings.Join(missing, " and "), are, neededCapabilities)
	}
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil {
		return errors.New("this kernel has no type information (/sys/kernel/btf/vmlinux is missing): " +
			"use one built with CONFIG_DEBUG_INFO_BTF=y, or mount sysfs")
	}
	if mode, err := os.ReadFile("/sys/kernel/security/lockdown"); err == nil &&
		strings.Contains(string(mode), "[confidentiality]") {
		return errors.New("the kernel is locked down (confidentiality mode), which forbids reading kernel memory: " +
			"boot with lockdown=integrity or none")
	}
	return nil
}

const neededCapabilities = "CAP_BPF, CAP_PERFMON and CAP_SYS_PTRACE"

// missingCapabilities names the capabilities (capabilities(7)) the process lacks to
// load and attach: CAP_SYS_ADMIN includes both.
func missingCapabilities() (missing []string) {
	has := effective()
	if has(unix.CAP_SYS_ADMIN) {
		return nil
	}
	if !has(unix.CAP_BPF) {
		missing = append(missing, "CAP_BPF")
	}
	if !has(unix.CAP_PERFMON) {
		missing = append(missing, "CAP_PERFMON")
	}
	return missing
}

// effective says which capabilities the process has in effect: all of them if that cannot be told.
func effective() (has func(capability int) bool) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return func(int) bool { return true }
	}
	return func(capability int) bool { return data[capability/32].Effective&(1<<(capability%32)) != 0 }
}

// Unprivileged says what a capture that works cannot know because the process may not do what root may, a line
// each.
func Unprivileged() (lines []string) {
	if !effective()(unix.CAP_SYS_PTRACE) {
		lines = append(lines, "without CAP_SYS_PTRACE, of processes of other users neither the executable is known nor NOTIFY_SOCKET: "+
			"a notify socket with another name than the usual ones is not known for one")
	}
	if unix.Geteuid() != 0 {
		lines = append(lines, "not root: service managers of other users cannot be asked, and what they make of a message is not known")
	}
	return lines
}

// allowMemory lifts the limit on locked memory that kernels before 5.11 charge maps
// to. Failing is fine: a newer kernel does not need it, and on an older one the maps
// say that they do not fit.
func allowMemory() { _ = rlimit.RemoveMemlock() }
