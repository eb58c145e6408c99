// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sdtrace/sdtrace/internal/glob"
	"github.com/sdtrace/sdtrace/internal/why"
	"github.com/sdtrace/sdtrace/internal/why/look"
	"github.com/sdtrace/sdtrace/pkg/events"
)

type waitFlags struct {
	managerFlags
	unit    string
	timeout time.Duration
	next    bool
}

func newWaitCommand() *cobra.Command {
	var f waitFlags
	cmd := &cobra.Command{
		Use:   "wait [flags] --unit UNIT ASSIGNMENT",
		Short: "Wait until a unit has said something and its service manager has heeded it",
		Long: `wait ends when the unit has said ASSIGNMENT and the service manager has heeded it: a key such as
READY, which is READY=1, or KEY=VALUE, in which * and ? match any. Of a unit that is up
already READY was heeded: that ends at once, but for --next, which waits for the next time.
What is ignored meanwhile is said on stderr with the reason.

The exit status is 0 when it was heeded; 3 when it was not in time, or the unit has failed, with
the reason on stderr; 4 when there is no such unit; 1 for a failure and 2 for a wrong command line.`,
		Example: `  sudo sdtrace wait --unit nginx READY                     until nginx is up
  sudo sdtrace wait --unit nginx --timeout 30s READY       or 30 seconds have passed
  sudo sdtrace wait --unit nginx --next READY              until it is up once more
  sudo sdtrace wait --unit backup 'STATUS=*done*'          until it says that it is done`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usage(cmd, errors.New("wait takes one ASSIGNMENT, such as READY"))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0]) },
	}
	set := cmd.Flags()
	set.SortFlags = false
	set.StringVarP(&f.unit, "unit", "u", "", "the `UNIT`, a service")
	set.DurationVar(&f.timeout, "timeout", 0, "for this `TIME` at most, such as 30s")
	set.BoolVar(&f.next, "next", false, "for the next time, also if it is up")
	f.register(cmd)
	return cmd
}

// assignment is one that is waited for.
type assignment struct{ key, value string }

// parseAssignment reads KEY or KEY=VALUE.
func parseAssignment(text string) (assignment, error) {
	key, value, hasValue := strings.Cut(text, "=")
	switch {
	case key == "" || strings.ContainsAny(key, " \n"):
		return assignment{}, fmt.Errorf("%q is no assignment: want KEY or KEY=VALUE", text)
	case hasValue:
	case key == "READY" || key == "RELOADING" || key == "STOPPING" || key == "WATCHDOG":
		value = "1"
	default:
		value = "*"
	}
	return assignment{key, value}, nil
}

func (a assignment) String() string { return a.key + "=" + a.value }

// matches reports whether an assignment is meant.
func (a assignment) matches(key, value string) bool {
	return key == a.key && glob.Match(a.value, value)
}

// ear is a sink that looks for an assignment of a unit.
type ear struct {
	of      *why.Case
	want    assignment
	heeded  chan struct{}
	refused func(v *events.Verdict, l *events.LineVerdict)
}

func (l *ear) Write(r *events.Record) error {
	v := r.Verdict
	if v == nil || v.Unit != l.of.Unit || v.Manager.PID != uint32(l.of.Manager.PID) {
		return nil
	}
	for i := range v.Lines {
		line := &v.Lines[i]
		if !l.want.matches(line.Key, line.Value) {
			continue
		}
		switch line.Outcome {
		case events.Heeded:
			select {
			case l.heeded <- struct{}{}:
			default:
			}
		case events.Ignored, events.NoEffect:
			l.refused(v, line)
		}
	}
	return nil
}

// Flush and Close do nothing.
func (l *ear) Flush() error { return nil }

// Close does nothing.
func (l *ear) Close() error { return nil }

func (f *waitFlags) run(cmd *cobra.Command, text string) (err error) {
	want, err := parseAssignment(text)
	if err != nil {
		return usage(cmd, err)
	}
	if err := checkService(f.unit); err != nil {
		return usage(cmd, fmt.Errorf("--unit: %w", err))
	}
	if f.timeout < 0 {
		return usage(cmd, errors.New("--timeout is negative"))
	}
	managers, err := f.find(cmd)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(cmd.Context())
	defer stop()
	if f.timeout > 0 {
		defer time.AfterFunc(f.timeout, stop).Stop()
	}
	looker, err := lookerOf(context.WithoutCancel(ctx), managers, serviceName(f.unit))
	if err != nil {
		return (&answers{}).missing(err)
	}
	defer looker.Close()
	after := look.Now()
	now, err := looker.Unit(cmd.Context(), serviceName(f.unit), nil)
	if err != nil {
		return (&answers{}).missing(err)
	}
	heard := &ear{of: now, want: want, heeded: make(chan struct{}, 1), refused: func(v *events.Verdict, l *events.LineVerdict) {
		fmt.Fprintf(cmd.ErrOrStderr(), "sdtrace: %s=%s of %s[%d] was not heeded: %s\n", l.Key, events.Escape(l.Value), events.Escape(v.From.Comm), v.From.PID, events.Escape(l.Reason))
	}}
	b, err := startCapture(context.WithoutCancel(ctx), looker.Root(), heard)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	fmt.Fprintf(cmd.ErrOrStderr(), "sdtrace: waiting for %s of %s, Ctrl-C ends\n", want, now.Unit)
	return f.await(ctx, looker, heard, after, b)
}

// await waits for the assignment, or for the end of what may say it.
func (f *waitFlags) await(ctx context.Context, looker *look.Looker, heard *ear, after time.Duration, b *background) error {
	const every = 100 * time.Millisecond
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		c, err := looker.Unit(context.WithoutCancel(ctx), heard.of.Unit, nil)
		if err != nil {
			return err
		}
		isReady := heard.want == assignment{"READY", "1"} && c.Phase() == why.Running
		switch {
		case isReady && (!f.next || c.Service.Active > after):
			return nil
		case c.Phase() == why.Failed && c.Service.Changed > after:
			return f.notMet(ctx, looker, heard, b, "it has failed")
		}
		select {
		case <-heard.heeded:
			return nil
		case <-ctx.Done():
			return f.notMet(ctx, looker, heard, b, "not in time")
		case err := <-b.ended:
			b.ended <- err
			return err
		case <-tick.C:
		}
	}
}

// notMet says why it was not heeded.
func (f *waitFlags) notMet(ctx context.Context, looker *look.Looker, heard *ear, b *background, how string) error {
	reason := ""
	if c, err := looker.Unit(context.WithoutCancel(ctx), heard.of.Unit, b.told); err == nil {
		if found := why.Explain(c); len(found) > 0 {
			reason = fmt.Sprintf(": %s (%s)", found[0].Because, found[0].Certainty)
		}
	}
	return &exitError{status: exitNotMet, err: fmt.Errorf("%s: %s, %s%s", heard.of.Unit, heard.want, how, events.Escape(reason))}
}
