// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/cgroupfs"
	"github.com/sdtrace/sdtrace/internal/history"
	"github.com/sdtrace/sdtrace/internal/osthread"
	"github.com/sdtrace/sdtrace/internal/proc"
	"github.com/sdtrace/sdtrace/pkg/capture"
	"github.com/sdtrace/sdtrace/pkg/events"
)

// subcommands are those beside a capture.
func subcommands() []*cobra.Command {
	return []*cobra.Command{newWhyCommand(), newWaitCommand(), newTestCommand(), newSocketsCommand(), newCheckCommand(), newRelayCommand(), newExecCommand()}
}

// capture shows what is sent on this machine until something ends it.
func (f *captureFlags) capture(ctx context.Context, cmd *cobra.Command, sink *output) error {
	stderr := cmd.ErrOrStderr()
	match, err := f.filters.resolve(cmd, findNetNS)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	processes, err := openProcesses(match.PIDs)
	if err != nil {
		return err
	}
	defer processes.close()
	live, err := capture.Open(ctx, capture.Options{
		Match: match, All: f.all, Backend: f.backend, RingSize: uint32(f.ringSize), Latency: f.latency, Denied: f.denied,
		NoVerdicts: f.unjudged,
	})
	if err != nil {
		f.explain(stderr, err)
		return usageOf(cmd, err)
	}
	defer func() { _ = live.Close() }()
	for _, missing := range live.Missing() {
		fmt.Fprintf(stderr, "sdtrace: %s\n", missing)
	}
	fmt.Fprintf(stderr, "sdtrace: capturing with %s (%s), Ctrl-C ends\n", live.Backend(), live.Hook())
	// Whoever waits for us to be attached is told the way we are about.
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		fmt.Fprintf(stderr, "sdtrace: cannot tell NOTIFY_SOCKET: %s\n", oneLine(err))
	}
	var timeIsOver atomic.Bool
	if f.duration > 0 {
		defer time.AfterFunc(f.duration, func() { timeIsOver.Store(true); cancel() }).Stop()
	}
	// What decoding the kernel's types took is of no use any more.
	debug.FreeOSMemory()
	go processes.awaitEnd(ctx, cancel)
	go sink.writeDue(ctx)
	recorder := f.recorder(cmd, live)
	if stop, err := recorder.Serve(history.Dir); err == nil {
		defer stop()
	} else if f.verbose {
		fmt.Fprintf(stderr, "sdtrace: why will not be told what this capture has seen: %s\n", oneLine(err))
	}
	if err := live.Copy(sink, recorder); err != nil {
		return err
	}
	if err := live.Stop(); err != nil {
		return err
	}
	if err := f.summarize(stderr, live, sink); err != nil {
		return err
	}
	if f.count > sink.events && timeIsOver.Load() {
		return &exitError{status: exitNotMet}
	}
	return nil
}

// recorder keeps what a capture has seen for sdtrace why.
func (f *captureFlags) recorder(cmd *cobra.Command, live *capture.Live) *history.Recorder {
	about := history.About{PID: os.Getpid(), Began: time.Now(), Receipts: live.Has(capture.Receipts)}
	var filters []string
	byGroup := true
	cmd.Flags().Visit(func(flag *pflag.Flag) {
		if !f.filters.isFilter(flag.Name) {
			return
		}
		byGroup = byGroup && flag.Name == "cgroup"
		value, isList := flag.Value.(pflag.SliceValue)
		if !isList {
			filters = append(filters, "--"+flag.Name)
			return
		}
		for _, one := range value.GetSlice() {
			filters = append(filters, "--"+flag.Name+"="+one)
		}
	})
	about.Filters = strings.Join(filters, " ")
	if byGroup {
		for _, cgroup := range f.filters.match.Cgroups {
			about.Cgroups = append(about.Cgroups, strings.TrimPrefix(cgroup, cgroupfs.Mount()))
		}
	}
	return history.NewRecorder(about)
}

// giveUp has nothing waited for any more that does not answer.
func giveUp() { proc.GiveUp() }

// explain prints the verifier's whole log, which only -v asks for.
func (f *captureFlags) explain(stderr io.Writer, err error) {
	var verifier *ebpf.VerifierError
	if f.verbose && errors.As(err, &verifier) {
		fmt.Fprintf(stderr, "%+v\n", verifier)
	}
}

func (f *captureFlags) summarize(stderr io.Writer, live *capture.Live, sink *output) error {
	stats, err := live.Stats()
	if err != nil {
		return err
	}
	fmt.Fprintf(stderr, "sdtrace: %d events, %d lost", sink.events, sink.lost)
	// Only if all that was captured was shown, and all that became of it.
	if n := live.Unread(); n > 0 && f.count == 0 && stats.Receipts == 0 {
		fmt.Fprintf(stderr, ", %d not read yet", n)
	}
	fmt.Fprintln(stderr)
	if of := unknown(stats.Unknown); of != "" {
		fmt.Fprintf(stderr, "sdtrace: this backend does not see what was sent by %s\n", of)
	}
	for _, h := range proc.Hangs() {
		fmt.Fprintf(stderr, "sdtrace: %s\n", events.Escape(h.String()))
	}
	if sink.contradicted > 0 {
		fmt.Fprintf(stderr, "sdtrace: of %d messages the unit shows something else than was to be expected: please report these, "+
			"with the output of -o json and of systemctl --version\n", sink.contradicted)
	}
	if !f.verbose {
		return nil
	}
	fmt.Fprintf(stderr, "sdtrace: %d AF_UNIX datagrams seen, %d ignored, %d filtered out, %d captured, "+
		"%d lost to a full ring buffer, %d program runs skipped, up to %d receipts lost\n",
		stats.Seen(), stats.Ignored, stats.Filtered, stats.Captured,
		stats.RingFull, stats.Missed, stats.Receipts)
	return nil
}

// unknown names what may have sent datagrams, "" if nothing has.
func unknown(u capture.Unknown) string {
	var of []string
	for _, reason := range []struct {
		n    uint64
		what string
	}{
		{u.IOUring, "requests of io_uring"},
		{u.Splice, "calls of splice or sendfile"},
		{u.Compat, "calls of 32-bit programs"},
	} {
		if reason.n > 0 {
			of = append(of, fmt.Sprintf("%s (%d)", reason.what, reason.n))
		}
	}
	return strings.Join(of, ", ")
}

// findNetNS finds the inode number of a network namespace of this machine.
func findNetNS(name string) (uint32, error) {
	open := netns.GetFromName // as ip-netns(8) has it
	if strings.Contains(name, "/") {
		open = netns.GetFromPath
	}
	const want = "a name of ip netns, a path such as /proc/PID/ns/net, or an inode number"
	handle, err := open(name)
	if err != nil {
		return 0, fmt.Errorf("no network namespace %q: want %s", name, want)
	}
	defer func() { _ = handle.Close() }()
	if kind, err := unix.IoctlRetInt(int(handle), unix.NS_GET_NSTYPE); err != nil || kind != unix.CLONE_NEWNET {
		return 0, fmt.Errorf("%q is no network namespace: want %s", name, want)
	}
	var stat unix.Stat_t
	if err := unix.Fstat(int(handle), &stat); err != nil {
		return 0, fmt.Errorf("reading network namespace %q: %w", name, err)
	}
	return uint32(stat.Ino), nil
}

// endWithReader cancels a capture when whoever reads its output has gone: a quiet one too, and not
// only with the next write.
func endWithReader(ctx context.Context, cancel context.CancelFunc, stdout io.Writer) {
	if out, ok := stdout.(*os.File); ok {
		go func() { waitForHangup(ctx, out); cancel() }()
	}
}

// waitForHangup returns when the reader of a pipe has closed it, or when ctx ends.
func waitForHangup(ctx context.Context, f *os.File) {
	ended, end, err := os.Pipe()
	if err != nil {
		<-ctx.Done()
		return
	}
	defer ended.Close()
	context.AfterFunc(ctx, func() { _ = end.Close() })
	poll := []unix.PollFd{{Fd: int32(f.Fd())}, {Fd: int32(ended.Fd())}}
	for {
		_, err := unix.Poll(poll, -1)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || poll[0].Revents&unix.POLLERR == 0 {
			break // ctx has ended, or it is some other file that always has something to say
		}
		return
	}
	<-ctx.Done()
}

// dieOf ends the process by a signal, of those that are ordinary ways to end a
// program: systemd takes it for a success where it would take 143 for a failure. It returns where the signal does not
// end the process: it was ignored from the start (nohup(1)), or the process is number 1 of its pid namespace.
func dieOf(killer syscall.Signal) {
	switch killer {
	case syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL:
		if os.Getpid() == 1 {
			return
		}
		signal.Reset(killer)
		// A signal to the thread itself is delivered before the call returns.
		_ = osthread.Do(func() error { return unix.Tgkill(os.Getpid(), unix.Gettid(), killer) })
	}
}
