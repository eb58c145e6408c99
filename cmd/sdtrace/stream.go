// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/pkg/containers"
	"github.com/sdtrace/sdtrace/pkg/events"
	"github.com/sdtrace/sdtrace/pkg/hops"
	"github.com/sdtrace/sdtrace/pkg/inventory"
	"github.com/sdtrace/sdtrace/pkg/tracer"
)

const (
	// judgeEvery is how often relays are asked what they have withheld.
	judgeEvery = 250 * time.Millisecond
	// readingLag is how long a datagram may be under way to here at most.
	readingLag = 500 * time.Millisecond
)

// stream is a capture on its way to stdout.
type stream struct {
	flags   *captureFlags
	tracer  *tracer.Tracer
	encoder encoder
	holders *inventory.Holders
	// destinations is nil if the backend sees every receiver.
	destinations *inventory.Destinations
	names        *containers.Names
	hops         hops.Tracker
	seesAll      bool // nothing is filtered out
	busy         int  // from this backlog on, in bytes, nothing waits for names

	out         *bufio.Writer
	line        []byte
	shown, lost uint64
	seen        time.Time // the latest that was read
	judgeAt     time.Time // zero: there is nothing to judge
}

// run copies the capture to stdout until something ends it.
func (s *stream) run(cmd *cobra.Command, waitFor []string) error {
	ctx, cancel := context.WithCancel(cmd.Context())
	defer cancel()
	if s.flags.duration > 0 {
		ctx, cancel = context.WithTimeout(ctx, s.flags.duration)
		defer cancel()
	}
	// A reader that is gone ends a quiet capture too, not only the next write.
	if f, ok := cmd.OutOrStdout().(*os.File); ok {
		go func() { waitForHangup(ctx, f); cancel() }()
	}
	stopped := make(chan error, 1)
	go func() {
		err := awaitContainers(ctx, s.tracer, waitFor)
		if err == nil {
			<-ctx.Done()
		}
		stopped <- errors.Join(err, s.tracer.Stop())
	}()

	// What is captured meanwhile waits in the ring buffer.
	select {
	case <-s.holders.Looked():
	case <-time.After(firstLook):
	case <-ctx.Done():
	}
	s.names = containers.Watch()
	defer s.names.Close()
	s.out = bufio.NewWriterSize(cmd.OutOrStdout(), 1<<16)
	err := s.copy()
	cancel()
	if flushed := s.out.Flush(); err == nil {
		err = flushed
	}
	if err == nil {
		err = <-stopped
	}
	if err != nil {
		return err
	}
	return s.summarize(cmd.ErrOrStderr())
}

// copy writes until the capture ends, or enough was shown. What the output does not take
// waits in the ring buffer.
func (s *stream) copy() error {
	for s.flags.count == 0 || s.shown < s.flags.count {
		item, err := s.tracer.Read()
		switch {
		case errors.Is(err, tracer.ErrFlushed):
			return nil
		case errors.Is(err, os.ErrDeadlineExceeded):
		case err != nil:
			return err
		default:
			if err := s.write(item); err != nil {
				return err
			}
			s.tracer.Release(item)
		}
		if err := s.judge(); err != nil {
			return err
		}
		if s.tracer.Buffered() {
			continue
		}
		if err := s.out.Flush(); err != nil {
			return err
		}
	}
	return nil
}

func (s *stream) write(item tracer.Item) error {
	line := s.line[:0]
	switch {
	case item.Event != nil:
		s.shown++
		s.seen = item.Event.Time
		addDestination(item.Event, s.destinations)
		addHolder(item.Event, s.holders)
		s.addName(item.Event.Sender.Container, item.Event.Sender.Cgroup)
		if r := item.Event.Receiver; r != nil {
			s.addName(r.Container, r.Cgroup)
		}
		s.hops.Sent(item.Event)
		line = s.encoder.AppendEvent(line, item.Event)
	case item.Receipt != nil:
		s.seen = item.Receipt.Time
		s.addName(item.Receipt.By.Container, item.Receipt.By.Cgroup)
		s.hops.Read(item.Receipt)
		s.judgeLater()
		if r := item.Receipt; r.Kind == events.ReceiptRead {
			s.holders.Saw(r.Send.Socket.Inode, int(r.By.PID))
		}
		if s.flags.output != "text" || s.flags.reads || !item.Receipt.Ordinary() {
			line = s.encoder.AppendReceipt(line, item.Receipt)
		}
	case item.Lost != nil:
		s.lost += item.Lost.Count()
		s.hops.Lost()
		line = s.encoder.AppendLost(line, item.Lost)
	}
	s.line = line
	_, err := s.out.Write(line)
	return err
}

// judgeLater makes the capture be judged in a while, if that is not to come anyway.
func (s *stream) judgeLater() {
	if s.judgeAt.IsZero() && s.hops.Waiting() {
		s.judgeAt = time.Now().Add(judgeEvery)
		s.tracer.SetDeadline(s.judgeAt)
	}
}

// judge writes what relays have withheld, if it is time.
func (s *stream) judge() error {
	if s.judgeAt.IsZero() {
		return nil
	}
	now := s.seen
	if !s.tracer.Buffered() {
		now = time.Now()
	}
	if now.Before(s.judgeAt) {
		return nil
	}
	s.judgeAt = time.Time{}
	s.tracer.SetDeadline(time.Time{})
	for _, w := range s.hops.Due(now.Add(-readingLag)) {
		// What was passed on may be what was filtered out.
		if !s.seesAll {
			continue
		}
		s.line = s.encoder.AppendWithheld(s.line[:0], w)
		if _, err := s.out.Write(s.line); err != nil {
			return err
		}
	}
	s.judgeLater()
	return nil
}

func (s *stream) summarize(stderr io.Writer) error {
	stats, err := s.tracer.Stats()
	if err != nil {
		return err
	}
	fmt.Fprintf(stderr, "sdtrace: %d events, %d lost", s.shown, s.lost)
	// Only if all that was captured was shown, and all that became of it.
	if n := s.tracer.Unread(); n > 0 && s.flags.count == 0 && stats.Receipts == 0 {
		fmt.Fprintf(stderr, ", %d not read yet", n)
	}
	fmt.Fprintln(stderr)
	if !s.flags.verbose {
		return nil
	}
	fmt.Fprintf(stderr, "sdtrace: %d AF_UNIX datagrams seen, %d ignored, %d filtered out, %d captured, "+
		"%d lost to a full ring buffer, %d to a full in-flight table, %d program runs skipped, %d at most missing of what became of datagrams\n",
		stats.Seen(), stats.Ignored, stats.Filtered, stats.Captured,
		stats.RingFull, stats.InFlightFull, stats.Missed, stats.Receipts)
	return nil
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
