// SPDX-License-Identifier: Apache-2.0

// Command demo shows a live capture beside real senders of notifications and
// checks that each of their datagrams showed up. "make demo" runs it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// limit ends a demo in which something hangs.
const limit = 85 * time.Second

func main() {
	if role := os.Getenv(roleEnv); role != "" {
		if err := play(role); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", role, err)
			os.Exit(1)
		}
		return
	}
	sdtrace := flag.String("sdtrace", "bin/sdtrace", "`path` of the sdtrace to show")
	flag.Parse()
	if err := run(*sdtrace); err != nil {
		fmt.Fprintf(os.Stderr, "demo: %v\n", err)
		os.Exit(1)
	}
}

func run(sdtrace string) error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), limit, fmt.Errorf("not done after %v", limit))
	defer cancel()
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()

	dir, err := os.MkdirTemp("", "demo")
	if err != nil {
		return fmt.Errorf("making a working directory: %w", err)
	}
	defer os.RemoveAll(dir)

	manager, err := listen(filepath.Join(dir, "manager", "notify.sock"))
	if err != nil {
		return err
	}
	defer manager.Close()
	go manager.discard()

	senders, err := prepareSenders(ctx, dir)
	if err != nil {
		return err
	}

	// One capture is for checking. It starts first, so that the READY=1 it sends
	// is not part of what the other shows.
	record := filepath.Join(dir, "events.jsonl")
	recorder, err := startRecorder(ctx, sdtrace, dir, record)
	if err != nil {
		return err
	}
	defer recorder.kill()
	fmt.Printf("# %s\n", sdtrace)
	shown, err := startCapture(ctx, sdtrace, dir, "shown", os.Stdout)
	if err != nil {
		return err
	}
	defer shown.kill()

	failed := map[string]error{}
	for _, s := range senders {
		if err := s.run(ctx, manager.path); err != nil {
			failed[s.name] = err
		}
	}
	if err := errors.Join(shown.interrupt(), recorder.interrupt()); err != nil {
		return err
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	seen, err := readRecord(record)
	if err != nil {
		return err
	}
	return judge(senders, failed, seen)
}

// judge prints a line for each sender and names the failed ones in its error.
func judge(senders []sender, failed map[string]error, seen []event) error {
	fmt.Println()
	var missing []string
	for _, s := range senders {
		if err := failed[s.name]; err != nil {
			fmt.Printf("%-22s failed: %v\n", s.name, err)
			missing = append(missing, s.name)
			continue
		}
		var lacking []string
		for _, want := range s.want {
			if !want.in(seen) {
				lacking = append(lacking, want.String())
			}
		}
		if len(lacking) > 0 {
			fmt.Printf("%-22s MISSING: %s\n", s.name, strings.Join(lacking, "; "))
			missing = append(missing, s.name)
			continue
		}
		fmt.Printf("%-22s captured, %d of %d datagrams\n", s.name, len(s.want), len(s.want))
	}
	if len(missing) > 0 {
		return fmt.Errorf("not captured: %s", strings.Join(missing, ", "))
	}
	return nil
}

// capture is a running sdtrace.
type capture struct {
	cmd  *exec.Cmd
	done chan error
}

func startRecorder(ctx context.Context, sdtrace, dir, record string) (*capture, error) {
	file, err := os.Create(record)
	if err != nil {
		return nil, fmt.Errorf("making the record: %w", err)
	}
	defer file.Close()
	return startCapture(ctx, sdtrace, dir, "recorder", file, "-o", "json")
}

// startCapture returns when sdtrace says, by READY=1, that it is attached.
func startCapture(ctx context.Context, sdtrace, dir, name string, stdout *os.File, args ...string) (*capture, error) {
	ready, err := listen(filepath.Join(dir, name, "notify.sock"))
	if err != nil {
		return nil, err
	}
	defer ready.Close()
	cmd := exec.CommandContext(ctx, sdtrace, args...)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+ready.path)
	cmd.Stdout = stdout
	// What the recorder says on stderr, the other says too.
	var complaint strings.Builder
	if stdout == os.Stdout {
		cmd.Stderr = os.Stderr
	} else {
		cmd.Stderr = &complaint
	}
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 5 * time.Second
	// An interrupt from the terminal is for the demo, which passes it on.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting sdtrace: %w", err)
	}
	c := &capture{cmd: cmd, done: make(chan error, 1)}
	go func() { c.done <- cmd.Wait() }()

	attached := make(chan error, 1)
	go func() { attached <- ready.waitFor("READY=1") }()
	select {
	case err := <-attached:
		if err != nil {
			c.kill()
			return nil, fmt.Errorf("waiting for sdtrace to attach: %w", err)
		}
		return c, nil
	case err := <-c.done:
		c.done <- err
		if err == nil {
			err = errors.New("exit status 0")
		}
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("sdtrace ended before it was attached: %w: %s", err, strings.TrimSpace(complaint.String()))
	}
}

// interrupt ends the capture as ^C does, and waits for what was buffered.
func (c *capture) interrupt() error {
	if err := c.cmd.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("interrupting sdtrace: %w", err)
	}
	err := <-c.done
	c.done <- err
	if err != nil {
		return fmt.Errorf("sdtrace did not end well: %w", err)
	}
	return nil
}

func (c *capture) kill() {
	_ = c.cmd.Process.Kill()
	c.done <- <-c.done
}
