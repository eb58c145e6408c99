// SPDX-License-Identifier: Apache-2.0

package relay_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/pkg/relay"
)

// What has been sent before the relay reads is received together.

func TestDatagramsReceivedTogetherAreToldApartByTheirSenders(t *testing.T) {
	a := startAgent(t, ownNamespaces...)
	stranger := startAgent(t)
	r := newWaitingRig(t, withContainer(relay.Container{PID: a.pid}, relay.AccessAll))
	a.send(r.socket, "STATUS=1")
	stranger.send(r.socket, "NOTIFYACCESS=all\nREADY=1")
	a.send(r.socket, "STATUS=2")
	a.send(r.socket, "STATUS=3")
	stranger.send(r.socket, "STOPPING=1")
	stranger.send(r.socket, "READY=1")
	a.send(r.socket, "STATUS=4")
	r.run()
	for i := range 4 {
		r.host.expect(fmt.Sprintf("STATUS=%d", i+1))
	}
	for range 3 {
		if d := r.awaitDecision(relay.KeyNone, relay.Denied, relay.ReasonNotMember); d.PID != stranger.pid {
			t.Errorf("refused of pid %d, want %d", d.PID, stranger.pid)
		}
	}
}

func TestAProcessWithTheNumberOfTheSenderBeforeIsNotTakenForIt(t *testing.T) {
	member := startAgent(t)
	cgroup := moveToCgroup(t, member.pid)
	r := newWaitingRig(t, withContainer(relay.Container{Cgroup: cgroup}, relay.AccessAll))
	member.send(r.socket, "STATUS=mine")
	member.stop()
	startAgentAs(t, member.pid).send(r.socket, "READY=1")
	r.run()
	// The one before is known by its control group only by a recent kernel.
	if d := r.awaitDecision(relay.KeyNone, relay.Denied, relay.ReasonNotMember); d.PID != member.pid {
		t.Errorf("refused of pid %d, want %d", d.PID, member.pid)
	}
	for _, c := range r.relay.Counts() {
		if c.Key == relay.KeyReady {
			t.Errorf("READY=1 of another process was %v", c.Verdict)
		}
	}
}

// The same when what the first one has sent was dealt with before, and the kernel's
// pidfd of the second gets the number that the one of the first had.
func TestAProcessWithTheNumberOfAnEarlierSenderIsNotTakenForIt(t *testing.T) {
	member := startAgent(t)
	cgroup := moveToCgroup(t, member.pid)
	r := newRig(t, withContainer(relay.Container{Cgroup: cgroup}, relay.AccessAll))
	number := lowestFD(t)
	unix.Close(number)
	member.send(r.socket, "STATUS=mine")
	r.host.expect("STATUS=mine")
	member.stop()
	other := startAgentAs(t, member.pid)
	for fd := lowestFD(t); ; fd = lowestFD(t) {
		if fd >= number {
			unix.Close(fd)
			break
		}
		t.Cleanup(func() { unix.Close(fd) })
	}
	other.send(r.socket, "READY=1")
	if d := r.awaitDecision(relay.KeyNone, relay.Denied, relay.ReasonNotMember); d.PID != member.pid {
		t.Errorf("refused of pid %d, want %d", d.PID, member.pid)
	}
}

// lowestFD takes the number that the next file descriptor would get.
func lowestFD(t *testing.T) int {
	t.Helper()
	fd, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// startAgentAs starts an agent that gets the number of a process that is gone.
func startAgentAs(t *testing.T, pid int) *agent {
	t.Helper()
	const patience = time.Minute
	for began := time.Now(); time.Since(began) < patience; {
		// Others start processes, too, so this may take several attempts.
		if err := os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(strconv.Itoa(pid-1)), 0); err != nil {
			t.Fatal(err)
		}
		a := startAgent(t)
		if a.pid == pid {
			return a
		}
		a.stop()
	}
	if os.Getenv("SDTRACE_VM") != "" {
		t.Skip("not declared: on this emulated machine the number was not to be had")
	}
	t.Fatalf("no process gets the number %d", pid)
	return nil
}

func TestABatchThatTheHostTakesInPartArrivesWholeAndInOrder(t *testing.T) {
	r := newWaitingRig(t)
	limit := queueLength(t)
	a := startAgent(t)
	text := func(i int) string { return fmt.Sprintf("READY=1\nSTATUS=%d", i) }
	for i := range limit - 3 {
		a.send(r.host.path, text(i))
	}
	for i := range 7 {
		a.send(r.socket, text(limit-3+i))
	}
	r.run()
	for range 7 {
		r.awaitDecision(relay.KeyReady, relay.Forwarded, relay.ReasonNone)
	}
	for i := range limit + 4 {
		r.host.expect(text(i))
	}
}

// queueLength is how many datagrams a socket takes that nobody reads.
func queueLength(t *testing.T) int {
	t.Helper()
	h := newHost(t, filepath.Join(shortDir(t), "q"))
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(s)
	for n := 0; ; n++ {
		if err := unix.Sendto(s, []byte("x"), 0, &unix.SockaddrUnix{Name: h.path}); err != nil {
			return n
		}
	}
}
