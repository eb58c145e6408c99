// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/conformance"
	"github.com/sdtrace/sdtrace/pkg/events"
)

// pingIntervals is for how many intervals of a watchdog pings are watched.
const pingIntervals = 4

type testFlags struct {
	expect           []string
	within, watchdog time.Duration
	reload           string
	access, output   string
}

func newTestCommand() *cobra.Command {
	var f testFlags
	cmd := &cobra.Command{
		Use:   "test [flags] -- COMMAND [ARGUMENT...]",
		Short: "Test whether an application speaks the protocol of sd_notify(3) right",
		Long: `test starts COMMAND with a notify socket of its own, which takes no root and no BPF, and looks
whether it says what is expected, in order and in time; with --watchdog whether its pings come in
time; with --reload whether it reloads as Type=notify-reload asks for; and whether it ends when it
gets SIGTERM. Of every message it tells what each version of systemd from 247 on would have made of
it: of a wrong spelling, a wrong sender, a time that is by the wrong clock. It ends COMMAND in any
case. What COMMAND writes goes to stderr.

The exit status is 0 when all is as expected, 3 when it is not, 1 for a failure, 2 for a wrong
command line, and 127 or 126 when COMMAND is not there or cannot be run.`,
		Example: `  sdtrace test -- ./app                                    READY=1 within 10 seconds, and all said right
  sdtrace test --within 2s --watchdog 1s -- ./app          and pings at least each second
  sdtrace test --reload HUP -- ./app                       and a reload by SIGHUP
  sdtrace test --expect 'STATUS=*' --expect READY=1 -- ./app
  sdtrace test -o tap -- ./app                             for a harness; -o junit as well`,
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) },
	}
	set := cmd.Flags()
	set.SortFlags = false
	set.SetInterspersed(false)
	set.StringArrayVar(&f.expect, "expect", nil, "an `ASSIGNMENT` that has to come, in this order: KEY or "+
		"KEY=VALUE, * and ? match any (default READY=1)")
	set.DurationVar(&f.within, "within", 10*time.Second, "the `TIME` in which they have to come, and a reload and the end as well")
	set.DurationVar(&f.watchdog, "watchdog", 0, "the `TIME` of WatchdogSec=, in which each ping has to come")
	set.StringVar(&f.reload, "reload", "", "the `SIGNAL` that has to lead to a reload, such as HUP")
	set.StringVar(&f.access, "access", "main", "NotifyAccess=: main, exec or all")
	set.StringVarP(&f.output, "output", "o", "text", "output format: text, tap or junit")
	return cmd
}

// options reads the flags. An error is one of usage.
func (f *testFlags) options(args []string) (o conformance.Options, err error) {
	o = conformance.Options{Within: f.within, Watchdog: f.watchdog, Intervals: pingIntervals, Access: f.access, Self: ownPID}
	if len(args) == 0 {
		return o, errors.New("a COMMAND is missing: sdtrace test -- COMMAND")
	}
	if len(f.expect) == 0 {
		f.expect = []string{"READY=1"}
	}
	for _, text := range f.expect {
		a, err := parseAssignment(text)
		if err != nil {
			return o, fmt.Errorf("--expect: %w", err)
		}
		o.Expect = append(o.Expect, events.Assignment{Key: a.key, Value: a.value})
	}
	switch {
	case f.within <= 0:
		return o, errors.New("--within has to be more than nothing")
	case f.watchdog < 0:
		return o, errors.New("--watchdog is negative")
	case f.access != "main" && f.access != "exec" && f.access != "all":
		return o, fmt.Errorf("unknown --access %q: want main, exec or all", f.access)
	case f.output != "text" && f.output != "tap" && f.output != "junit":
		return o, fmt.Errorf("unknown output format %q: want text, tap or junit", f.output)
	}
	if f.reload != "" {
		name := strings.ToUpper(f.reload)
		if !strings.HasPrefix(name, "SIG") {
			name = "SIG" + name
		}
		if o.Reload = unix.SignalNum(name); o.Reload == 0 {
			return o, fmt.Errorf("--reload: there is no signal %q", f.reload)
		}
	}
	return o, nil
}

func (f *testFlags) run(cmd *cobra.Command, args []string) error {
	options, err := f.options(args)
	if err != nil {
		return usage(cmd, err)
	}
	program, err := exec.LookPath(args[0])
	if err != nil {
		return cannotStart(args[0], err)
	}
	// It becomes the command by itself: only so it knows its number before.
	options.Program = "/proc/self/exe"
	options.Args = append([]string{"sdtrace", execCommandName, "", program}, args...)
	options.Env = withoutNotifications(os.Environ())
	report, err := conformance.Run(cmd.Context(), options)
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	switch f.output {
	case "tap":
		err = report.WriteTAP(out)
	case "junit":
		err = report.WriteJUnit(out, args[0])
	default:
		err = report.WriteText(out)
	}
	if err != nil {
		return err
	}
	if !report.OK() {
		return &exitError{status: exitNotMet}
	}
	return nil
}

// withoutNotifications is an environment without what is about sdtrace's own service manager.
func withoutNotifications(environ []string) []string {
	var rest []string
	for _, assignment := range commandEnv(environ) {
		if !strings.HasPrefix(assignment, "WATCHDOG_USEC=") {
			rest = append(rest, assignment)
		}
	}
	return rest
}
