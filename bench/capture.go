// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// capture is sdtrace under way, writing JSON to a file.
type capture struct {
	cmd     *exec.Cmd
	file    *os.File
	stderr  bytes.Buffer
	started time.Duration // from its exec until it said that it is attached

	ending   chan struct{}
	emptying sync.WaitGroup
}

// attachLimit is far more than it takes.
const attachLimit = time.Minute

// startCapture returns when sdtrace has said READY=1, which it does when it is attached.
func startCapture(b *bench, args ...string) (*capture, error) {
	dir, err := os.MkdirTemp(b.dir, "c")
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "ready")
	ready, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	defer ready.Close()
	c := &capture{ending: make(chan struct{})}
	// Append mode, so that it can be made empty while it is written.
	if c.file, err = os.OpenFile(filepath.Join(dir, "events.jsonl"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600); err != nil {
		return nil, err
	}
	c.cmd = exec.Command(b.sdtrace, append([]string{"-o", "json"}, args...)...)
	c.cmd.Stdout, c.cmd.Stderr = c.file, &c.stderr
	c.cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+path)
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	began := time.Now()
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting sdtrace: %w", err)
	}
	_ = ready.SetReadDeadline(began.Add(attachLimit))
	text := make([]byte, 64)
	if _, err := ready.Read(text); err != nil {
		_ = c.cmd.Process.Kill()
		_ = c.cmd.Wait()
		return nil, fmt.Errorf("sdtrace did not get ready: %w: %s", err, strings.TrimSpace(c.stderr.String()))
	}
	c.started = time.Since(began)
	c.emptying.Go(c.emptyNowAndThen)
	return c, nil
}

// stop ends it, and fails unless it has captured as many datagrams as were sent.
func (c *capture) stop(sent int) error {
	lost, err := c.end(sent)
	if err == nil && lost != 0 {
		err = fmt.Errorf("%d of %d datagrams were lost", lost, sent)
	}
	return err
}

// end ends it, and fails unless each datagram that was sent is captured or counted as lost.
func (c *capture) end(sent int) (lost int, err error) {
	close(c.ending)
	c.emptying.Wait()
	defer os.Remove(c.file.Name())
	defer c.file.Close()
	_ = c.cmd.Process.Signal(os.Interrupt)
	if err := c.cmd.Wait(); err != nil {
		return 0, fmt.Errorf("sdtrace: %w: %s", err, strings.TrimSpace(c.stderr.String()))
	}
	events, lost, err := parseSummary(c.stderr.String())
	if err == nil && events+lost != sent {
		err = fmt.Errorf("%d datagrams were sent, %d captured and %d lost", sent, events, lost)
	}
	return lost, err
}

// parseSummary reads the last line of what sdtrace says on stderr.
func parseSummary(stderr string) (events, lost int, err error) {
	lines := strings.Split(strings.TrimSpace(stderr), "\n")
	_, err = fmt.Sscanf(lines[len(lines)-1], "sdtrace: %d events, %d lost", &events, &lost)
	if err != nil {
		err = fmt.Errorf("sdtrace ended without a summary: %q", lines[len(lines)-1])
	}
	return events, lost, err
}

// cpu is the processor time that it has used so far, that of threads which have ended included.
func (c *capture) cpu() (time.Duration, error) {
	// As clock_getcpuclockid(3) makes it; 2 is CPUCLOCK_SCHED.
	clock := int32(^c.cmd.Process.Pid<<3 | 2)
	var used unix.Timespec
	if err := unix.ClockGettime(clock, &used); err != nil {
		return 0, fmt.Errorf("reading the processor time of sdtrace: %w", err)
	}
	return time.Duration(used.Nano()), nil
}

// peak is the most memory it has had, in MiB (VmHWM, proc_pid_status(5)).
func (c *capture) peak() (float64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	_, after, _ := strings.Cut(string(status), "VmHWM:")
	var kib float64
	if _, err := fmt.Sscan(after, &kib); err != nil {
		return 0, fmt.Errorf("reading VmHWM: %w", err)
	}
	return kib / 1024, nil
}

// emptyNowAndThen keeps the file small while it is written.
func (c *capture) emptyNowAndThen() {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-c.ending:
			return
		case <-tick.C:
			_ = c.file.Truncate(0)
		}
	}
}
