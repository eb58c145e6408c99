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
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sdtrace/sdtrace/pkg/events"
)

// The exit statuses.
const (
	exitOK      = 0
	exitFailure = 1 // something failed while running
	exitUsage   = 2 // the command line is wrong
	exitNotMet  = 3 // what was waited for did not come in time, or a problem was found
	exitUnknown = 4 // it cannot be told
)

// execCommandName is how sdtrace calls itself to become another program: the names of signals to be ignored, joined by
// commas, the program, and its arguments follow.
const execCommandName = "relay-exec"

// patience is how long what does not answer is waited for after a signal to end.
const patience = 300 * time.Millisecond

func main() {
	if len(os.Args) > 1 && os.Args[1] == execCommandName {
		// It is to become another program, and signals are already for that.
		os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	context.AfterFunc(ctx, func() { time.AfterFunc(patience, giveUp) })
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
		lastSay(stderr, fmt.Sprintf("sdtrace: %s (see %s --help)\n", oneLine(err), usage.command))
		return exitUsage
	case errors.As(err, &exit):
		if exit.err != nil {
			lastSay(stderr, fmt.Sprintf("sdtrace: %s\n", oneLine(exit.err)))
		}
		dieOf(exit.signal)
		return exit.status
	default:
		lastSay(stderr, fmt.Sprintf("sdtrace: %s\n", oneLine(err)))
		return exitFailure
	}
}

// lastWords is how long the end waits for somebody to take what there is to say.
const lastWords = time.Second

// lastSay writes what there is to say at the end, if it is taken: a pipe that nobody reads may be full.
func lastSay(stderr io.Writer, text string) {
	said := make(chan struct{})
	go func() {
		defer close(said)
		_, _ = io.WriteString(stderr, text)
	}()
	select {
	case <-said:
	case <-time.After(lastWords):
	}
}

// oneLine is an error that fits into a line of a terminal: it may hold what anybody has written.
func oneLine(err error) string {
	line := strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; ")
	return strings.ReplaceAll(events.Escape(line), `\\`, `\`) // what is escaped in it is so already
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
	return usage(cmd, fmt.Errorf("unknown command or argument %q%s", args[0], didYouMean(cmd.SuggestionsFor(args[0]), "")))
}

// flagError says which flag may have been meant by one that is unknown.
func flagError(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if err == nil || !errors.As(err, &unknown) || len(unknown.GetSpecifiedName()) == 1 {
		return usage(cmd, err)
	}
	// What is like it is found as for commands.
	flags := &cobra.Command{SuggestionsMinimumDistance: suggestedWithin}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		flags.AddCommand(&cobra.Command{Use: f.Name, Run: func(*cobra.Command, []string) {}})
	})
	return usage(cmd, fmt.Errorf("%w%s", err, didYouMean(flags.SuggestionsFor(unknown.GetSpecifiedName()), "--")))
}

// suggestedWithin is how many letters a name is different that may have been meant.
const suggestedWithin = 2

// didYouMean names what may have been meant, "" for nothing.
func didYouMean(names []string, prefix string) string {
	if len(names) == 0 {
		return ""
	}
	return ", did you mean " + prefix + strings.Join(names, " or "+prefix) + "?"
}
