// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Command init is the program inside a test machine. Started as process 1 by
// the kernel it sets up a minimal system, starts itself again to run the tests,
// reaps what they leave behind and powers the machine off. Started in any other
// way, with the path of a job file, it only runs the tests. What it prints is
// described at vmtest.Mark.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/vmtest"
)

func main() {
	if os.Getpid() == 1 {
		if err := initialise(); err != nil {
			fmt.Fprintln(os.Stderr, "init:", err)
		}
		// Bytes still in the serial port's buffer are lost at power-off.
		_ = unix.IoctlSetInt(1, unix.TCSBRK, 1)
		_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
		return
	}
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: init JOBFILE")
		os.Exit(2)
	}
	failed, err := runJob(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "init:", err)
	}
	if failed || err != nil {
		os.Exit(1)
	}
}

func initialise() error {
	for _, m := range []struct{ kind, dir, data string }{
		{"proc", "/proc", ""},
		{"sysfs", "/sys", ""},
		{"devtmpfs", "/dev", ""},
		{"devpts", "/dev/pts", ""},
		{"tmpfs", "/dev/shm", ""},
		{"tmpfs", "/tmp", "mode=1777"},
		{"tmpfs", "/run", "mode=755"},
		{"cgroup2", "/sys/fs/cgroup", ""},
		{"bpf", "/sys/fs/bpf", ""},
		{"debugfs", "/sys/kernel/debug", ""},
		{"tracefs", "/sys/kernel/tracing", ""},
		{"securityfs", "/sys/kernel/security", ""},
	} {
		if err := os.MkdirAll(m.dir, 0o755); err != nil {
			return fmt.Errorf("making a mount point: %w", err)
		}
		if err := unix.Mount(m.kind, m.dir, m.kind, 0, m.data); err != nil {
			return fmt.Errorf("mounting %s on %s: %w", m.kind, m.dir, err)
		}
	}
	for link, target := range map[string]string{
		"/dev/fd": "/proc/self/fd", "/dev/stdin": "fd/0", "/dev/stdout": "fd/1", "/dev/stderr": "fd/2",
	} {
		if err := os.Symlink(target, link); err != nil {
			return err
		}
	}
	if err := unix.Sethostname([]byte("vmtest")); err != nil {
		return fmt.Errorf("setting the host name: %w", err)
	}
	if err := loopbackUp(); err != nil {
		return err
	}

	// Tests leave orphans behind, which become children of process 1. Running
	// the tests in a process of its own keeps reaping those apart from waiting
	// for the tests.
	self, err := os.StartProcess("/init", []string{"/init", vmtest.JobFile}, &os.ProcAttr{
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
	})
	if err != nil {
		return fmt.Errorf("starting the tests: %w", err)
	}
	for {
		pid, err := unix.Wait4(-1, nil, 0, nil)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("waiting for the tests: %w", err)
		}
		if pid == self.Pid {
			return nil
		}
	}
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening a socket: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
		return fmt.Errorf("bringing lo up: %w", err)
	}
	return nil
}

// report writes whole lines, so that those of a test and those of the kernel
// do not cut into one another.
type report struct {
	mu sync.Mutex
	w  io.Writer
}

func (r *report) line(line []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, _ = r.w.Write(append(slices.Clip(line), '\n'))
}

func (r *report) mark(words ...string) {
	r.line([]byte(vmtest.Mark + strings.Join(words, " ")))
}

func runJob(file string) (failed bool, err error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return false, fmt.Errorf("reading the job: %w", err)
	}
	var job vmtest.Job
	if err := json.Unmarshal(data, &job); err != nil {
		return false, fmt.Errorf("decoding the job: %w", err)
	}
	out := &report{w: os.Stdout}
	if job.Output != "" {
		f, err := os.OpenFile(job.Output, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
		if err != nil {
			return false, fmt.Errorf("opening the report: %w", err)
		}
		defer func() { _ = f.Close() }()
		out.w = f
	}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return false, fmt.Errorf("asking for the kernel's release: %w", err)
	}
	out.mark(vmtest.MarkKernel, unix.ByteSliceToString(name.Release[:]))

	log, err := openKernelLog(out)
	if err != nil {
		return false, err
	}
	go log.follow()
	for _, t := range job.Tests {
		out.mark(vmtest.MarkStart, t.Package)
		began := time.Now()
		status := runTest(t, job.Env, out)
		took := strconv.FormatFloat(time.Since(began).Seconds(), 'f', 1, 64)
		out.mark(vmtest.MarkExit, t.Package, strconv.Itoa(status), took)
		failed = failed || status != 0
	}
	// A message that does not end its line stays open, and out of sight, until
	// the next one.
	if err := os.WriteFile("/dev/kmsg", []byte("<6>vmtest: end\n"), 0); err != nil {
		return failed, fmt.Errorf("writing to the kernel's log: %w", err)
	}
	if err := log.copy(); err != nil {
		return failed, err
	}
	out.mark(vmtest.MarkEnd)
	return failed, nil
}

func runTest(t vmtest.Test, env []string, out *report) (status int) {
	lines := &lineWriter{out: out}
	defer lines.flush()
	cmd := exec.Command(t.Binary, t.Args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = t.Dir, env, lines, lines
	// As go test does: a process that a test leaves behind with the test's
	// output still open is an error, and does not hold up the rest.
	cmd.WaitDelay = 10 * time.Second
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		if s := exit.Sys().(syscall.WaitStatus); s.Signaled() {
			return 128 + int(s.Signal())
		}
		return exit.ExitCode()
	default:
		lines.flush()
		out.line([]byte("init: running " + t.Binary + ": " + err.Error()))
		return 127
	}
}

// lineWriter passes what is written to it on to a report, a line at a time.
type lineWriter struct {
	out     *report
	partial []byte
}

func (l *lineWriter) Write(p []byte) (int, error) {
	l.partial = append(l.partial, p...)
	for {
		end := bytes.IndexByte(l.partial, '\n')
		if end < 0 {
			return len(p), nil
		}
		l.out.line(l.partial[:end])
		l.partial = l.partial[end+1:]
	}
}

func (l *lineWriter) flush() {
	if len(l.partial) > 0 {
		l.out.line(l.partial)
		l.partial = nil
	}
}

// kernelLog copies what the kernel says from its opening on, at level warning
// (4) or worse, into the report.
type kernelLog struct {
	mu  sync.Mutex
	fd  int
	out *report
}

func openKernelLog(out *report) (*kernelLog, error) {
	fd, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening the kernel's log: %w", err)
	}
	if _, err := unix.Seek(fd, 0, io.SeekEnd); err != nil {
		return nil, fmt.Errorf("seeking the kernel's log: %w", err)
	}
	return &kernelLog{fd: fd, out: out}, nil
}

// follow copies from time to time, so that a machine that dies has told why.
func (k *kernelLog) follow() {
	for range time.Tick(500 * time.Millisecond) {
		// An error shows again in the last copy.
		_ = k.copy()
	}
}

// copy returns when everything said so far is in the report.
func (k *kernelLog) copy() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	record := make([]byte, 8192)
	for {
		n, err := unix.Read(k.fd, record)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EPIPE):
			k.out.mark(vmtest.MarkKmsg, "4", "vmtest: some of the kernel's messages were overwritten before they were read")
			continue
		case err != nil:
			return fmt.Errorf("reading the kernel's log: %w", err)
		}
		// "priority,sequence,microseconds,flags;text\n key=value…"
		head, text, _ := strings.Cut(string(record[:n]), ";")
		text, _, _ = strings.Cut(text, "\n")
		number, _, _ := strings.Cut(head, ",")
		if priority, err := strconv.Atoi(number); err == nil && priority&7 <= 4 {
			k.out.mark(vmtest.MarkKmsg, strconv.Itoa(priority&7), text)
		}
	}
}
