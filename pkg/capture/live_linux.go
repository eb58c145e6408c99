// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/enrich/destinations"
	"github.com/sdtrace/sdtrace/internal/enrich/holders"
	"github.com/sdtrace/sdtrace/internal/enrich/hops"
	"github.com/sdtrace/sdtrace/internal/enrich/machines"
	"github.com/sdtrace/sdtrace/internal/enrich/names"
	"github.com/sdtrace/sdtrace/internal/enrich/troubles"
	"github.com/sdtrace/sdtrace/internal/enrich/verdicts"
	"github.com/sdtrace/sdtrace/internal/tracer"
	"github.com/sdtrace/sdtrace/pkg/events"
)

// Live is a capture of what is sent on this machine. Stop, Stats, Close, Backend and Hook can be
// called at any time, from any goroutine; Unread not while Next is running.
type Live struct {
	*Capture

	tracer *tracer.Tracer
	cancel context.CancelFunc
	closed sync.Once
	// stopped gets what went wrong beside the stream.
	stopped chan error
	closers []func()
}

// Open begins a live capture. When it returns, every datagram sent from then on that matches is
// captured, or counted as lost; of a container that is named and not there yet, from a fifth of a
// second after it is there. When ctx ends, so does the capture: nothing more is captured,
// what was is still yielded, and then the end. Call Close at the end in any case.
//
// The error tells what a person can do about it: an [*OptionError] when the options are wrong,
// one that wraps [os.ErrPermission] without the right to capture, or why no backend works on this
// kernel. It takes root, or CAP_BPF and CAP_PERFMON, and CAP_SYS_PTRACE to name the executables of
// other users' processes.
func Open(ctx context.Context, options Options) (*Live, error) {
	machines := machines.New()
	match, err := resolve(ctx, options.Match, machines)
	if err != nil {
		return nil, err
	}
	// First, so that it knows by the time something is captured.
	h := holders.Watch()
	t, err := tracer.Open(tracer.Options{
		Backend: options.Backend, Filter: match.filter, Accept: match.accept(), All: options.All,
		RingSize: options.RingSize, Latency: options.Latency, Denied: options.Denied,
	})
	if err != nil {
		h.Close()
		var wrong *tracer.OptionError
		if errors.As(err, &wrong) {
			return nil, &OptionError{wrong.Option, err}
		}
		return nil, err
	}
	clock := options.Clock
	if clock == nil {
		clock = wallClock{}
	}
	ctx, cancel := context.WithCancel(ctx)
	l := &Live{tracer: t, cancel: cancel, stopped: make(chan error, 1)}
	n := names.Watch()
	l.closers = append(l.closers, h.Close, n.Close)
	source := &ring{tracer: t, ctx: ctx, looked: h.Looked(), busy: busyAt(options.RingSize)}
	// First, because the sender may be about to end.
	stages := []Stage{Do(new(troubles.Stage).Do)}
	if !t.Knows().Receivers {
		d := destinations.Watch()
		l.closers = append(l.closers, d.Close)
		stages = append(stages, Do(d.Do))
	}
	stages = append(stages,
		Do(h.Do),
		Do(machines.Do),
		Do((&names.Stage{Names: n, Busy: source.isBusy}).Do),
		&hops.Stage{SeesAll: match.seesAll(), Now: clock.Now},
	)
	if !options.NoVerdicts {
		v := verdicts.New(verdicts.Options{Receipts: t.Knows().Receipts, Wanted: match.wanted()})
		l.closers = append(l.closers, v.Close)
		stages = append(stages, v)
	}
	l.Capture = New(source, clock, append(stages, options.Stages...)...)
	l.missing = append(tracer.Unprivileged(), match.missing...)
	for _, r := range t.Refused() {
		if errors.Is(r.Err, tracer.ErrBlind) {
			l.missing = append(l.missing, fmt.Sprintf("%s (%s) is not used: %s", r.Backend, r.Hook, r.Reason()))
		}
	}
	if err := t.Untried(); err != nil {
		l.missing = append(l.missing, fmt.Sprintf("the programs were not tried, so that one which sees nothing would not be noticed: %v", err))
	}
	l.has = func(what Capability) bool {
		knows := t.Knows()
		return what == Receipts && knows.Receipts || what == Receivers && knows.Receivers || what == Delivery && knows.Delivery
	}
	go func() {
		err := match.awaitContainers(ctx, t)
		if err == nil {
			<-ctx.Done()
		}
		l.stopped <- errors.Join(err, t.Stop())
	}()
	return l, nil
}

// busyAt is from which backlog on, in bytes, nothing waits for names.
func busyAt(ringSize uint32) int {
	if ringSize == 0 {
		ringSize = tracer.DefaultRingSize
	}
	return int(ringSize / 4)
}

// Backend is the backend in use: "fentry" or "tracepoint".
func (l *Live) Backend() string { return l.tracer.Backend() }

// Hook names the kernel functions or the tracepoint that the backend is attached to.
func (l *Live) Hook() string { return l.tracer.Hook() }

// Stop ends the capture as the end of the context does. It returns when nothing more is captured,
// with the error of what ended the capture, if it was one. It can be called at any time.
func (l *Live) Stop() error {
	l.cancel()
	err := <-l.stopped
	l.stopped <- nil
	return err
}

// Stats reads the counters of the capture. The error says which could not be read.
func (l *Live) Stats() (Stats, error) {
	s, err := l.tracer.Stats()
	return Stats{
		Ignored: s.Ignored, Filtered: s.Filtered, Captured: s.Captured,
		RingFull: s.RingFull, Missed: s.Missed, Receipts: s.Receipts, Unknown: Unknown(s.Unknown),
	}, err
}

// Unread is how many of the datagrams that were yielded are in their receiver's queue still, as
// far as is known: see [Receipts].
func (l *Live) Unread() int { return l.tracer.Unread() }

// Close ends the capture and releases what it holds. A Next under way is at its end. The error is
// that of detaching from the kernel.
func (l *Live) Close() (err error) {
	l.closed.Do(func() {
		err = errors.Join(l.Stop(), l.tracer.Close())
		for _, closer := range l.closers {
			closer()
		}
	})
	return err
}

// firstLook is how long the first events may wait for the holders of their sockets.
const firstLook = 500 * time.Millisecond

// ring is the source of a live capture.
type ring struct {
	tracer *tracer.Tracer
	ctx    context.Context
	looked <-chan struct{} // nil when it was waited for
	item   tracer.Item
	busy   int
	ended  bool
}

func (r *ring) Next(until time.Time) (events.Record, error) {
	r.tracer.Release(r.item)
	r.item = tracer.Item{}
	if r.ended {
		return events.Record{}, io.EOF
	}
	if r.looked != nil {
		r.awaitFirstLook()
	}
	r.tracer.SetDeadline(until)
	item, err := r.tracer.ReadOrIdle()
	if errors.Is(err, tracer.ErrFlushed) || errors.Is(err, os.ErrClosed) {
		r.ended = true
		return events.Record{}, io.EOF
	}
	if errors.Is(err, tracer.ErrIdle) {
		return events.Record{}, os.ErrDeadlineExceeded
	}
	if err != nil {
		return events.Record{}, err
	}
	r.item = item
	return item.Record, nil
}

// awaitFirstLook waits until the processes have been looked at once. What is captured meanwhile
// waits in the ring buffer.
func (r *ring) awaitFirstLook() {
	timer := time.NewTimer(firstLook)
	defer timer.Stop()
	select {
	case <-r.looked:
	case <-timer.C:
	case <-r.ctx.Done():
	}
	r.looked = nil
}

func (r *ring) Ready() bool  { return r.tracer.Buffered() }
func (r *ring) isBusy() bool { return r.tracer.Backlog() >= r.busy }
func (r *ring) Close() error { return r.tracer.Close() }

// notRunning tells that a process does not exist.
func notRunning(pid uint32) (text string, missing bool) {
	if unix.Kill(int(pid), 0) != unix.ESRCH {
		return "", false
	}
	return fmt.Sprintf("process %d does not exist", pid), true
}
