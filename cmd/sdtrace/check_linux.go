// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/tracer"
)

func newCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Say which backend works on this kernel, and why the others do not",
		Long: `check loads and attaches every backend in turn, just as a capture would, and
prints which of them work here, why the others do not, and what the one that a
capture would choose cannot know.

The exit status is 0 when at least one backend works, else 1.`,
		Example: "  sudo sdtrace check",
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return check(cmd) },
	}
}

func check(cmd *cobra.Command) error {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return fmt.Errorf("asking for the kernel's name: %w", err)
	}
	backends, err := tracer.Check()
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	fmt.Fprintf(out, "kernel      %s %s\n", unix.ByteSliceToString(name.Release[:]), unix.ByteSliceToString(name.Machine[:]))
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	var chosen *tracer.Refusal
	for i, b := range backends {
		state := "works"
		if b.Err != nil {
			state = "does not work: " + b.Reason()
		} else if chosen == nil {
			chosen = &backends[i]
			state = "works, chosen by --backend auto"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\n", b.Backend, b.Hook, state)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if chosen == nil {
		return errors.New("no backend works on this kernel")
	}
	fmt.Fprintf(out, "\nWhat %s (%s) cannot know is absent from the events:\n", chosen.Backend, chosen.Hook)
	for _, limit := range chosen.Limits() {
		fmt.Fprintf(out, "  %s\n", strings.ReplaceAll(limit, "\n", "\n  "))
	}
	return nil
}
