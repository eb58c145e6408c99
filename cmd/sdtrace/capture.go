// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/sdtrace/sdtrace/pkg/capture"
)

// defaultRingSize is what a live capture takes when it is not told otherwise.
const defaultRingSize = 8 << 20

// captureFlags is what a capture is asked for on the command line.
type captureFlags struct {
	filters  filterFlags
	read     string
	backend  string
	all      bool
	output   string
	color    string
	clock    string
	pings    bool
	reads    bool
	count    uint64
	duration time.Duration
	ringSize size
	latency  bool
	denied   bool
	unjudged bool
	verbose  bool
}

func newRootCommand() *cobra.Command {
	var flags captureFlags
	cmd := &cobra.Command{
		Use:   "sdtrace [flags]",
		Short: "Show every sd_notify datagram on this host, live",
		Long: `sdtrace shows every datagram that any process in any namespace sends to a
systemd notify socket: who sent it, from which unit or container, to which
socket, what it said, whether it arrived, whether anybody has read it, and what the
service manager made of it: IGNORED, NO EFFECT and why, or nothing when it is heeded.

A datagram counts when the name of the socket it goes to is that of a notify
socket (/run/systemd/notify, …/notify.sock, what NOTIFY_SOCKET holds in some
process's environment) or when its first assignment is one of the protocol's or
private (X_…).
Filters are combined with AND, repeated ones with OR, and work in the kernel.
With -r they work on what a file holds; it takes no privilege, and none of the
flags about a live capture (--all, --no-verdict, --backend, --duration, --ring-size,
--latency, --denied).

Ctrl-C, SIGTERM, -n, --duration and the end of all processes of --pid end a capture
with exit status 0, once all that was captured has been written. A second Ctrl-C or
SIGTERM does not wait for that. A failure is 1, a wrong command line 2; 3 is for -n
with --duration when fewer datagrams came in that time.`,
		Example: `  sudo sdtrace                               everything
  sudo sdtrace --unit nginx                  one service, also when it starts later
  sudo sdtrace --container 3f2a91c0          one container, by id or name
  sudo sdtrace --failed                      only what did not arrive
  sudo sdtrace --ignored                     what systemd ignored, or had no effect, too
  sudo sdtrace --key READY -n 1              wait for the next READY=
  sudo sdtrace -u web --key READY -n 1 --duration 30s || echo not in time
  sudo sdtrace --unit box:nginx              nginx of the machine box, which has a systemd of its own
  sudo sdtrace -o json | jq .sender.unit     JSON Lines, for programs
  sudo sdtrace -o json >capture.jsonl        keep a capture
  sdtrace -r capture.jsonl --failed          and look at it later, anywhere`,
		Version:       version(),
		Args:          noArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return flags.run(cmd)
		},
	}
	cmd.SetFlagErrorFunc(flagError)
	cmd.SuggestionsMinimumDistance = suggestedWithin
	cmd.SetVersionTemplate("sdtrace {{.Version}}\n")
	flags.register(cmd)
	cmd.AddCommand(subcommands()...)
	refuseUnknown(cmd)
	return cmd
}

// refuseUnknown has the commands that cobra adds refuse what they do not know.
func refuseUnknown(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		switch cmd.Name() {
		case "help":
			cmd.Run = nil
			cmd.RunE = func(cmd *cobra.Command, args []string) error {
				about, rest, err := root.Find(args)
				if err != nil || len(rest) > 0 {
					return usage(cmd, fmt.Errorf("unknown command %q", strings.Join(args, " ")))
				}
				return about.Help()
			}
		case "completion":
			cmd.Args = noArgs
			cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
		}
	}
}

func (f *captureFlags) register(cmd *cobra.Command) {
	set := cmd.Flags()
	set.SortFlags = false
	f.filters.register(set)
	set.StringVarP(&f.read, "read", "r", "", "show what `FILE` holds, written by -o json, plain or zstd; - is stdin")
	set.BoolVar(&f.all, "all", false, "every AF_UNIX datagram, not only to notify sockets")
	set.StringVarP(&f.output, "output", "o", "text", "output format: text or json (JSON Lines)")
	set.StringVar(&f.color, "color", "auto", "colour the text: auto, always or never")
	set.StringVar(&f.clock, "time", "local", "times of the text: local, utc, rfc3339 or delta (since the line before)")
	set.BoolVar(&f.pings, "pings", false, "on a terminal: also what a unit says again and again on lines of its own, such as pings")
	set.BoolVar(&f.reads, "reads", false, "text: also when a datagram was read and nothing was odd about it (fentry)")
	set.Uint64VarP(&f.count, "count", "n", 0, "end after `COUNT` datagrams; 0 is any number")
	set.DurationVar(&f.duration, "duration", 0, "end after this `TIME`, such as 30s or 5m")
	set.BoolVar(&f.unjudged, "no-verdict", false, "ask no service manager what it makes of the messages")
	set.StringVar(&f.backend, "backend", "auto", "how to capture: auto, fentry or tracepoint (see sdtrace check)")
	f.ringSize = defaultRingSize
	set.Var(&f.ringSize, "ring-size", "`SIZE` of the ring buffer in bytes, K or M, a power of two")
	set.BoolVar(&f.latency, "latency", false, "how long each send took, not only those that waited (fentry)")
	set.BoolVar(&f.denied, "denied", false, "also sends that a security module refuses beforehand (fentry)")
	// Scripts may give what had a meaning up to the release before.
	_ = set.Uint32("in-flight", 0, "")
	_ = set.MarkHidden("in-flight")
	set.BoolVarP(&f.verbose, "verbose", "v", false, "more about the capture on stderr; on a terminal, whole messages and where they go")
}

func (f *captureFlags) run(cmd *cobra.Command) error {
	sink, err := f.newOutput(cmd.OutOrStdout())
	if err != nil {
		return usage(cmd, err)
	}
	if f.duration < 0 {
		return usage(cmd, errors.New("--duration is negative"))
	}
	if f.backend == "" {
		return usage(cmd, errors.New(`--backend: unknown backend "": want auto, fentry or tracepoint`))
	}
	if f.unjudged && f.filters.ignored {
		return usage(cmd, errors.New("--ignored takes verdicts: it does not go with --no-verdict"))
	}
	// A second signal does not wait for what takes the output, which may never take the rest.
	context.AfterFunc(cmd.Context(), func() { signal.Reset(os.Interrupt, syscall.SIGTERM) })
	ctx, cancel := context.WithCancel(cmd.Context())
	defer cancel()
	endWithReader(ctx, cancel, cmd.OutOrStdout())
	if cmd.Flags().Changed("read") {
		return f.replay(ctx, cmd, sink)
	}
	return f.capture(ctx, cmd, sink)
}

// liveOnly are the flags that say how to capture, and mean nothing for a file.
var liveOnly = []string{"all", "no-verdict", "backend", "duration", "ring-size", "latency", "denied"}

// replay shows what a file holds.
func (f *captureFlags) replay(ctx context.Context, cmd *cobra.Command, sink *output) error {
	for _, name := range liveOnly {
		if cmd.Flags().Changed(name) {
			return usage(cmd, fmt.Errorf("--%s is about a live capture: it does not go with -r", name))
		}
	}
	match, err := f.filters.resolve(cmd, nil)
	if err != nil {
		return err
	}
	c, err := capture.OpenFile(ctx, f.read, match)
	if err != nil {
		return usageOf(cmd, err)
	}
	defer func() { _ = c.Close() }()
	if err := c.Copy(sink); err != nil {
		return err
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "sdtrace: %d events, %d lost\n", sink.events, sink.lost)
	return nil
}

// usageOf tells options that are wrong from what failed.
func usageOf(cmd *cobra.Command, err error) error {
	var option *capture.OptionError
	if !errors.As(err, &option) {
		return err
	}
	if flag := flagOf[option.Option]; flag != "" {
		err = fmt.Errorf("--%s: %w", flag, err)
	}
	return usage(cmd, err)
}

// flagOf are the flags for the options of a capture.
var flagOf = map[string]string{
	"Backend": "backend", "Cgroups": "cgroup", "Comms": "comm", "Containers": "container", "Keys": "key", "NetNS": "netns", "PIDs": "pid",
	"RingSize": "ring-size", "Sockets": "socket", "UIDs": "uid", "Units": "unit", "WithoutKeys": "key",
}
