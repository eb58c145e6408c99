// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/pkg/events"
	"github.com/sdtrace/sdtrace/pkg/inventory"
	"github.com/sdtrace/sdtrace/pkg/tracer"
)

// firstLook is how long the first events may wait for the holders of their sockets.
const firstLook = 500 * time.Millisecond

// captureFlags is what a capture is asked for on the command line.
type captureFlags struct {
	filters  filterFlags
	backend  string
	all      bool
	output   string
	color    string
	reads    bool
	count    uint64
	duration time.Duration
	ringSize uint32
	inFlight uint32
	verbose  bool
}

func newRootCommand() *cobra.Command {
	var flags captureFlags
	cmd := &cobra.Command{
		Use:   "sdtrace [flags]",
		Short: "Show every sd_notify datagram on this host, live",
		Long: `sdtrace shows every datagram that any process in any namespace sends to a
systemd notify socket: who sent it, from which unit or container, to which
socket, what it said, whether it arrived and whether anybody has read it.

A datagram counts when the name of the socket it goes to is that of a notify
socket (/run/systemd/notify, …/notify.sock, what NOTIFY_SOCKET holds in some
process's environment) or when its first assignment is one of the protocol's.
Filters are combined with AND, repeated ones with OR, and work in the kernel.

Ctrl-C, SIGTERM, -n and --duration end a capture with exit status 0, once all that
was captured has been written. A second Ctrl-C or SIGTERM does not wait for that.
A failure is 1, a wrong command line 2.`,
		Example: `  sudo sdtrace                               everything
  sudo sdtrace --unit nginx                  one service, also when it starts later
  sudo sdtrace --container 3f2a91c0          one container, by id or name
  sudo sdtrace --failed                      only what did not arrive
  sudo sdtrace --key READY -n 1              wait for the next READY=
  sudo sdtrace --cgroup /system.slice -o json | jq .sender.unit`,
		Version:       version(),
		Args:          noArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return flags.run(cmd)
		},
	}
	cmd.SetFlagErrorFunc(usage)
	cmd.SetVersionTemplate("sdtrace {{.Version}}\n")
	flags.register(cmd)
	cmd.AddCommand(newSocketsCommand(), newCheckCommand(), newRelayCommand(), newExecCommand())
	return cmd
}

func (f *captureFlags) register(cmd *cobra.Command) {
	set := cmd.Flags()
	set.SortFlags = false
	f.filters.register(set)
	set.BoolVar(&f.all, "all", false, "every AF_UNIX datagram, not only to notify sockets")
	set.StringVarP(&f.output, "output", "o", "text", "output format: text or json (JSON Lines)")
	set.StringVar(&f.color, "color", "auto", "colour the text: auto, always or never")
	set.BoolVar(&f.reads, "reads", false, "text: also when a datagram was read and nothing was odd about it (fentry)")
	set.Uint64VarP(&f.count, "count", "n", 0, "end after `COUNT` datagrams")
	set.DurationVar(&f.duration, "duration", 0, "end after this `TIME`, such as 30s or 5m")
	set.StringVar(&f.backend, "backend", "auto", "how to capture: auto, fentry or tracepoint (see sdtrace check)")
	set.Uint32Var(&f.ringSize, "ring-size", tracer.DefaultRingSize, "size of the ring buffer in `BYTES`, a power of two")
	set.Uint32Var(&f.inFlight, "in-flight", tracer.DefaultInFlight, "how many sends can be under way at a time (fentry)")
	set.BoolVarP(&f.verbose, "verbose", "v", false, "more about the capture on stderr")
}

// encoder writes what a capture yields, one line each.
type encoder interface {
	AppendEvent([]byte, *events.Event) []byte
	AppendReceipt([]byte, *events.Receipt) []byte
	AppendWithheld([]byte, *events.Withheld) []byte
	AppendLost([]byte, *events.Lost) []byte
}

func (f *captureFlags) encoder(stdout io.Writer) (encoder, error) {
	colored := false
	switch f.color {
	case "always":
		colored = true
	case "never":
	case "auto":
		colored = isTerminal(stdout) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	default:
		return nil, fmt.Errorf("unknown --color %q: want auto, always or never", f.color)
	}
	switch f.output {
	case "text":
		return events.TextEncoder{Color: colored}, nil
	case "json":
		return events.JSONEncoder{}, nil
	}
	return nil, fmt.Errorf("unknown output format %q: want text or json", f.output)
}

func (f *captureFlags) run(cmd *cobra.Command) error {
	encoder, err := f.encoder(cmd.OutOrStdout())
	if err != nil {
		return usage(cmd, err)
	}
	if f.duration < 0 {
		return usage(cmd, errors.New("--duration is negative"))
	}
	// What reads the output may never take the rest of it.
	context.AfterFunc(cmd.Context(), func() { signal.Reset(os.Interrupt, syscall.SIGTERM) })
	filters, err := f.filters.resolve(cmd)
	if err != nil {
		return err
	}
	// First, so that it knows by the time something is captured.
	holders := inventory.WatchHolders()
	defer holders.Close()
	t, err := tracer.Open(tracer.Options{
		Backend: f.backend, Filter: filters.filter, All: f.all, RingSize: f.ringSize, InFlight: f.inFlight,
	})
	var option *tracer.OptionError
	if errors.As(err, &option) {
		return usage(cmd, err)
	}
	if err != nil {
		f.explain(cmd.ErrOrStderr(), err)
		return err
	}
	defer func() { _ = t.Close() }()
	destinations := watchDestinations(t.Backend())
	defer destinations.Close()
	for _, note := range filters.notes {
		fmt.Fprintf(cmd.ErrOrStderr(), "sdtrace: %s\n", note)
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "sdtrace: capturing with %s (%s), Ctrl-C ends\n", t.Backend(), t.Hook())
	// Whoever waits for us to be attached is told the way we are about.
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "sdtrace: cannot tell NOTIFY_SOCKET: %s\n", oneLine(err))
	}
	s := &stream{flags: f, tracer: t, encoder: encoder, holders: holders, destinations: destinations, seesAll: filters.seesAll(), busy: int(f.ringSize / 4)}
	return s.run(cmd, filters.containers)
}

// explain prints the verifier's whole log, which only -v asks for.
func (f *captureFlags) explain(stderr io.Writer, err error) {
	var verifier *ebpf.VerifierError
	if f.verbose && errors.As(err, &verifier) {
		fmt.Fprintf(stderr, "%+v\n", verifier)
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
