// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/wire"
	"github.com/sdtrace/sdtrace/pkg/events"
)

// ErrBlind says that programs are attached which do not see what they are there for: the kernel has the function, but
// another one does its work, as when it was inlined.
var ErrBlind = errors.New("it is attached, but what sdtrace sends itself does not come back")

// trials is how often a trial is made: a kernel that preempts itself may skip a program.
const trials = 5

// What a trial sends: a message that is read and closes a pipe, one that nobody reads, and one that fails.
const (
	trialRead   = "BARRIER=1\nX_SDTRACE=read"
	trialUnread = "STATUS=X_SDTRACE=unread"
	trialFailed = "STATUS=X_SDTRACE=failed"
)

// seen is what came back of a trial.
type seen struct{ queued, latency, failed, connect, read, unread, closed bool }

// Untried says why sdtrace could not send itself what the hooks are tried with, as when it may not make sockets; nil if it
// could. A hook that is on no datagram's way is not noticed then.
func (t *Tracer) Untried() error { return t.untried }

// sendsTrial does what the hooks are to see. All of it is in the ring buffer when it returns.
var sendsTrial = sendTrial

// try sends datagrams to itself through each hook that the plan relies on. The error wraps [ErrBlind] when one of them does
// not come back. What others have sent in the meantime is kept.
func (t *Tracer) try() error {
	var missing []string
	for range trials {
		if err := t.tell("trial", true); err != nil {
			return err
		}
		t.untried = sendsTrial()
		if err := t.tell("trial", false); err != nil {
			return err
		}
		found, err := t.takeTrial()
		if err != nil {
			return err
		}
		missing = t.missing(found)
		if t.untried != nil {
			missing = nil // it is not known
		}
		if len(missing) == 0 {
			return nil
		}
	}
	return fmt.Errorf("%w: %s", ErrBlind, strings.Join(missing, ", "))
}

// missing names what did not come back and has to with this plan.
func (t *Tracer) missing(found seen) (missing []string) {
	knows := t.plan.knows
	for _, part := range []struct {
		what      string
		came, has bool
	}{
		{"a datagram", found.queued, true},
		{"a send that fails", found.failed, true},
		{"a connect that fails", found.connect, knows.Connects},
		{"when a send begins", found.latency, t.byThread && knows.Delivery},
		{"that a datagram is read", found.read, knows.Receipts},
		{"that a datagram is thrown away", found.unread, knows.Receipts},
		{"that a pipe is closed", found.closed, knows.Receipts},
	} {
		if part.has && !part.came {
			missing = append(missing, part.what)
		}
	}
	return missing
}

func sendTrial() (err error) {
	var open []int
	defer func() {
		for _, fd := range open {
			err = errors.Join(err, unix.Close(fd))
		}
	}()
	socket := func() int {
		fd, e := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err = errors.Join(err, e); e == nil {
			open = append(open, fd)
		}
		return fd
	}
	from, connected := socket(), socket()
	to := socket()
	if err != nil {
		return err
	}
	// The kernel finds a name, in this network namespace.
	if err := unix.Bind(to, &unix.SockaddrUnix{}); err != nil {
		return err
	}
	address, err := unix.Getsockname(to)
	if err != nil {
		return err
	}
	if err := unix.Connect(connected, address); err != nil {
		return err
	}
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	open = append(open, pipe[0])
	err = unix.Sendmsg(from, []byte(trialRead), unix.UnixRights(pipe[1]), address, 0)
	if err = errors.Join(err, unix.Close(pipe[1])); err != nil {
		return err
	}
	// Without room for the descriptor, which is closed.
	if _, err := unix.Read(to, make([]byte, 64)); err != nil {
		return err
	}
	if err := unix.Sendto(from, []byte(trialUnread), 0, address); err != nil {
		return err
	}
	open = open[:len(open)-2] // to, and the pipe behind it
	if err := errors.Join(unix.Close(to), unix.Close(pipe[0])); err != nil {
		return err
	}
	if err := unix.Sendto(connected, []byte(trialFailed), 0, nil); !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("a send to nobody: %w", errors.Join(err, os.ErrInvalid))
	}
	if err := unix.Connect(from, address); !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("a connect to nobody: %w", errors.Join(err, os.ErrInvalid))
	}
	return nil
}

// takeTrial takes out of the ring buffer what there is, and returns what of a trial is in it. The rest is to be read
// later.
func (t *Tracer) takeTrial() (found seen, err error) {
	if err := t.reader.Flush(); err != nil {
		return found, err
	}
	sent := make(map[wire.DatagramID]string)
	for {
		if err := t.reader.ReadInto(&t.record); err != nil {
			if errors.Is(err, ErrFlushed) {
				return found, nil
			}
			return found, fmt.Errorf("reading what sdtrace has sent itself: %w", err)
		}
		own, err := t.takeOwn(t.record.RawSample, &found, sent)
		if err == nil && !own {
			err = t.take(t.record.RawSample)
		}
		if err != nil {
			return found, err
		}
	}
}

// takeOwn takes note of a record if it is one of a trial. sent are the datagrams of which more is to come.
func (t *Tracer) takeOwn(record []byte, found *seen, sent map[wire.DatagramID]string) (own bool, err error) {
	kind, err := wire.TypeOf(record)
	if err != nil {
		return false, fmt.Errorf("decoding a record: %w", err)
	}
	if kind != wire.RecordSend {
		var r events.Receipt
		id, err := t.decoder.Receipt(&r, record, t.clock.clock)
		payload, own := sent[id]
		if err != nil || !own {
			return false, err
		}
		found.read = found.read || kind == wire.RecordRead && payload == trialRead
		found.unread = found.unread || kind == wire.RecordUnread && payload == trialUnread
		found.closed = found.closed || kind == wire.RecordClosed && payload == trialRead
		return true, nil
	}
	b := t.newBuffer()
	defer t.Release(Item{buffer: b})
	id, err := t.decoder.Send(b, record, t.clock.clock)
	e := &b.Event
	if err != nil || e.Sender.PID != uint32(os.Getpid()) {
		return false, err
	}
	if id != (wire.DatagramID{}) {
		sent[id] = string(e.Payload)
	}
	addressed := e.Socket.Address != ""
	switch payload := string(e.Payload); {
	case e.Call == events.CallConnect:
		found.connect = addressed
	case payload == trialRead:
		found.queued = addressed && !e.Result.Failed()
		found.latency = e.Result.Latency != 0
	case payload == trialFailed:
		found.failed = e.Result.Errno == "ECONNREFUSED" && (addressed || !t.plan.knows.Delivery)
	}
	return true, nil
}
