// SPDX-License-Identifier: Apache-2.0

// Command sdtrace shows every sd_notify datagram that any process on the host
// sends, live, and relays those of containers to their host: see sdtrace --help.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// The exit statuses.
const (
	exitOK      = 0
	exitFailure = 1 // something failed while running
	exitUsage   = 2 // the command line is wrong
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	// A reader that went away is an error of the write, not the end of us.
	signal.Ignore(syscall.SIGPIPE)
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is the whole command: it returns the exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	cmd := newRootCommand()
	cmd.SetArgs(args)
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	err := cmd.ExecuteContext(ctx)
	var usage *usageError
	var exit *exitError
	switch {
	case err == nil, errors.Is(err, syscall.EPIPE):
		return exitOK
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "sdtrace: %s (see %s --help)\n", oneLine(err), usage.command)
		return exitUsage
	case errors.As(err, &exit):
		if exit.err != nil {
			fmt.Fprintf(stderr, "sdtrace: %s\n", oneLine(exit.err))
		}
		dieOf(exit.signal)
		return exit.status
	default:
		fmt.Fprintf(stderr, "sdtrace: %s\n", oneLine(err))
		return exitFailure
	}
}

func oneLine(err error) string {
	return strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; ")
}

// usageError marks what the user wrote wrong on the command line.
type usageError struct {
	command string
	err     error
}

func (u *usageError) Error() string { return u.err.Error() }
func (u *usageError) Unwrap() error { return u.err }

func usage(cmd *cobra.Command, err error) error {
	if err == nil {
		return nil
	}
	return &usageError{command: cmd.CommandPath(), err: err}
}

// exitError ends sdtrace the way the program that it has started has ended.
type exitError struct {
	status int
	signal syscall.Signal // not 0: to die of it, so that our parent sees what happened
	err    error          // nil: nothing to say about it
}

func (e *exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

// noArgs is cobra.NoArgs with a usage error that is about the word, not about cobra.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return usage(cmd, fmt.Errorf("unknown command or argument %q", args[0]))
}
