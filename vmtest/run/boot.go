// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/sdtrace/sdtrace/vmtest"
)

// Where a loaded host stops an emulated processor for long, the guest's
// watchdogs would report a kernel bug that is none.
const noWatchdogs = "nowatchdog rcupdate.rcu_cpu_stall_suppress=1"

// QEMU emulates several processors on one thread: on more (QEMU 7.2), a guest that patches its own code, as static keys
// and trampolines do, runs into a breakpoint that is no longer there ("Oops: int3"), and panics. A program that
// does nothing, attached to the functions of a send and detached, again and again beside a flood, brings that about in
// seconds to two minutes; so does sdtrace.
const emulation = "tcg,thread=single"

// Every page walked, every access to user space and every return from the kernel is emulated
// with what a newer processor does about it: tests take a third longer on one. An Intel's
// need to hide the kernel from user space doubles their time. It is virtme-run's, too.
const plainProcessor = "qemu64"

// bootInitramfs is tier 1: the tests and a static init are all the machine has.
func bootInitramfs(ctx context.Context, opts *options, kernel vmtest.Kernel, b *built, dir string) (*os.ProcessState, error) {
	return bootTests(ctx, opts, kernel, b, dir, false)
}

// bootCounting is tier cost: as tier 1, but the machine's time is the number of instructions
// that it has executed, a nanosecond each, and passes at once while it has nothing to do.
func bootCounting(ctx context.Context, opts *options, kernel vmtest.Kernel, b *built, dir string) (*os.ProcessState, error) {
	return bootTests(ctx, opts, kernel, b, dir, true)
}

func bootTests(
	ctx context.Context, opts *options, kernel vmtest.Kernel, b *built, dir string, counting bool,
) (*os.ProcessState, error) {
	env, processors, model := environment(opts, kernel), []string{"-smp", "2"}, plainProcessor
	if counting {
		env, processors = append(env, "SDTRACE_COUNTS_INSTRUCTIONS=1"), []string{"-smp", "1", "-icount", "shift=0,sleep=off"}
		model = "max" // what the budgets were counted on
	}
	initrd := filepath.Join(dir, "initramfs.cpio")
	if err := packInitramfs(initrd, opts, env, b); err != nil {
		return nil, fmt.Errorf("packing the initramfs: %w", err)
	}
	defer func() { _ = os.Remove(initrd) }()

	kvm := os.Getenv("SDTRACE_KVM") == "1" && !counting
	var args []string
	console := "ttyS0"
	qemu := "qemu-system-x86_64"
	switch {
	case kernel.Arch == "arm64":
		qemu, console = "qemu-system-aarch64", "ttyAMA0"
		args = []string{"-M", "virt", "-accel", emulation, "-cpu", "cortex-a72"}
	case kvm:
		args = []string{"-M", "q35", "-accel", "kvm", "-cpu", "host"}
	default:
		args = []string{"-M", "q35", "-accel", emulation, "-cpu", model}
	}
	args = append(args, processors...)
	args = append(args, "-m", "1G", "-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot",
		"-kernel", kernel.Image(opts.cache), "-initrd", initrd,
		"-append", "console="+console+" quiet loglevel=1 panic=-1 "+noWatchdogs)
	cmd := exec.CommandContext(ctx, qemu, args...)
	return runLogged(cmd, opts, filepath.Join(dir, "console.log"))
}

// environment is what tests are told of their machine.
func environment(opts *options, kernel vmtest.Kernel) []string {
	env := kernel.Env()
	if opts.all {
		env = append(env, "SDTRACE_ALL=1")
	}
	return env
}

func packInitramfs(file string, opts *options, env []string, b *built) (err error) {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	archive := vmtest.NewInitramfs(f)
	add := func(name, file string) error {
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		return archive.Add(name, 0o755, data)
	}
	job := vmtest.Job{Env: append(env, "PATH=/bin", "HOME=/root", "TMPDIR=/tmp", "USER=root")}
	for _, t := range b.tests {
		guestDir := filepath.Join("/tests", t.pkg)
		if err := add(filepath.Join(guestDir, "test"), t.binary); err != nil {
			return err
		}
		if data := filepath.Join(t.dir, "testdata"); isDir(data) {
			if err := archive.AddTree(filepath.Join(guestDir, "testdata"), data); err != nil {
				return err
			}
		}
		job.Tests = append(job.Tests, vmtest.Test{
			Package: t.pkg, Binary: filepath.Join(guestDir, "test"), Dir: guestDir, Args: testArgs(opts),
		})
	}
	if err := add("/init", b.init); err != nil {
		return err
	}
	if err := archive.Mkdir("/root"); err != nil {
		return err
	}
	if err := archive.Add(vmtest.JobFile, 0o644, encodeJob(job)); err != nil {
		return err
	}
	return archive.Close()
}

func isDir(dir string) bool {
	info, err := os.Stat(dir)
	return err == nil && info.IsDir()
}

// bootVirtme is tier 2: virtme-ng boots this machine's own file system, which
// the guest sees read-only below overlays. Its core, virtme-run, is started
// directly: vng adds nothing that is needed here but the requests module.
// Modules come from the cache, found by virtme-run beside the kernel image.
func bootVirtme(ctx context.Context, opts *options, kernel vmtest.Kernel, b *built, dir string) (*os.ProcessState, error) {
	job := vmtest.Job{
		Output: filepath.Join(dir, "console.log"),
		// /run is the guest's own tmpfs, and short: 107 bytes are all a socket's
		// path may have.
		Env: append(environment(opts, kernel), "HOME=/root", "USER=root", "LANG=C.UTF-8", "TMPDIR=/run", "SDTRACE_BINARY="+b.sdtrace,
			"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
	}
	for _, t := range b.tests {
		job.Tests = append(job.Tests, vmtest.Test{Package: t.pkg, Binary: t.binary, Dir: t.dir, Args: testArgs(opts)})
	}
	jobFile := filepath.Join(dir, "job.json")
	if err := os.WriteFile(jobFile, encodeJob(job), 0o644); err != nil {
		return nil, fmt.Errorf("writing the job: %w", err)
	}
	virtme := filepath.Join(opts.cache, "virtme-ng", "usr")
	args := []string{
		filepath.Join(virtme, "bin", "virtme-run"), "--kimg", kernel.Image(opts.cache), "--mods", "auto", "--force-9p",
		"--cpus", "2", "--memory", "2G", "--disable-monitor", "--show-boot-console", "--kopt", noWatchdogs,
		"--rwdir", dir + "=" + dir,
		"--script-sh", "mount -t bpf bpf /sys/fs/bpf && exec " + shellQuote(b.init) + " " + shellQuote(jobFile),
	}
	if os.Getenv("SDTRACE_KVM") != "1" {
		args = append(args, "--disable-kvm")
	}
	for _, overlay := range []string{"/etc", "/usr", "/var", "/home", "/root", "/opt", "/srv", "/tmp"} {
		if isDir(overlay) {
			args = append(args, "--overlay-rwdir", overlay)
		}
	}
	if os.Getenv("SDTRACE_KVM") != "1" {
		// The rest of the line is QEMU's.
		args = append(args, "--qemu-opts", "-accel", emulation)
	}
	cmd := exec.CommandContext(ctx, "/usr/bin/python3", args...)
	cmd.Env = append(os.Environ(), "PYTHONPATH="+filepath.Join(virtme, "lib", "python3", "dist-packages"), "PYTHONDONTWRITEBYTECODE=1")
	return runLogged(cmd, opts, filepath.Join(dir, "virtme.log"))
}

func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// runLogged runs cmd with both streams going to a file, and to this program's
// own output when that is asked for. On the end of cmd's context everything
// that cmd started is killed.
func runLogged(cmd *exec.Cmd, opts *options, file string) (state *os.ProcessState, err error) {
	log, err := os.Create(file)
	if err != nil {
		return nil, fmt.Errorf("creating the log: %w", err)
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	// A writer that is not a file makes os/exec use a pipe. QEMU opens its
	// output once for each stream, and in a file those would overwrite one
	// another.
	out := io.MultiWriter(log)
	if opts.verbose {
		out = io.MultiWriter(log, os.Stderr)
	}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil {
		return cmd.ProcessState, fmt.Errorf("running %s: %w", filepath.Base(cmd.Path), err)
	}
	return cmd.ProcessState, nil
}
