// SPDX-License-Identifier: Apache-2.0

package relay_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/await"
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

func TestReusedPIDIsNotTakenForPreviousSender(t *testing.T) {
	cgroup := makeCgroup(t)
	var r *rig
	var pid int
	reuse(t, func() bool {
		member := startAgent(t)
		enterCgroup(t, cgroup, member.pid)
		r, pid = newWaitingRig(t, withContainer(relay.Container{Cgroup: cgroup}, relay.AccessAll)), member.pid
		member.send(r.socket, "STATUS=mine")
		member.stop()
		other, ok := startAgentAs(t, pid)
		if ok {
			other.send(r.socket, "READY=1")
		}
		return ok
	})
	r.run()
	// The one before is known by its control group only by a recent kernel.
	if d := r.awaitDecision(relay.KeyNone, relay.Denied, relay.ReasonNotMember); d.PID != pid {
		t.Errorf("refused of pid %d, want %d", d.PID, pid)
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
	cgroup := makeCgroup(t)
	reuse(t, func() bool {
		member := startAgent(t)
		enterCgroup(t, cgroup, member.pid)
		r := newRig(t, withContainer(relay.Container{Cgroup: cgroup}, relay.AccessAll))
		number := lowestFD(t)
		unix.Close(number)
		member.send(r.socket, "STATUS=mine")
		r.host.expect("STATUS=mine")
		member.stop()
		other, ok := startAgentAs(t, member.pid)
		if !ok {
			return false
		}
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
		return true
	})
}

// What the main process sends at its end is its own, also when it is gone before
// the relay looks.
func TestTheLastWordOfTheMainProcessIsItsOwn(t *testing.T) {
	for _, access := range []relay.Access{relay.AccessMain, relay.AccessAll} {
		for _, numbersOnly := range []bool{false, true} {
			hearLast(t, access, numbersOnly, "STOPPING=1\nSTATUS=Goodbye")
		}
	}
}

func TestAProcessWithTheNumberOfTheMainProcessIsNotTakenForIt(t *testing.T) {
	for _, numbersOnly := range []bool{false, true} {
		reuse(t, func() (ok bool) {
			r, pause, pid := hearLast(t, relay.AccessAll, numbersOnly, "STATUS=last")
			pause.during(r, func() {
				var other *agent
				if other, ok = startAgentAs(t, pid); ok {
					other.send(r.socket, "STATUS=other")
					other.stop()
				}
			})
			if !ok {
				return false
			}
			if d := r.awaitDecision(relay.KeyNone, relay.Denied, relay.ReasonUnidentified); d.PID != pid {
				t.Errorf("refused of pid %d, want %d", d.PID, pid)
			}
			return true
		})
	}
}

// hearLast has the relay of a container hear of the main process, pid, that it is ready,
// and what it has said last when it is gone.
func hearLast(t *testing.T, access relay.Access, numbersOnly bool, last string) (r *rig, p *pause, pid int) {
	t.Helper()
	a := startAgent(t, ownNamespaces...)
	p = newPause(t)
	r = newRig(t, withContainer(relay.Container{PID: a.pid}, access), p.option)
	a.send(r.socket, "READY=1")
	r.host.expect("READY=1")
	p.during(r, func() {
		if numbersOnly {
			r.relay.TellNumbersOnly()
		}
		a.send(r.socket, last)
		a.stop()
	})
	r.host.expect(last)
	return r, p, a.pid
}

// pause holds up a relay, by what is not of its container.
type pause struct {
	stranger      *agent
	begun, resume chan struct{}
}

func newPause(t *testing.T) *pause {
	t.Helper()
	return &pause{stranger: startAgent(t), begun: make(chan struct{}), resume: make(chan struct{})}
}

func (p *pause) option(c *relay.Config) {
	decide := c.OnDecision
	c.OnDecision = func(d relay.Decision) {
		decide(d)
		if d.PID == p.stranger.pid {
			p.begun <- struct{}{}
			<-p.resume
		}
	}
}

// during runs do while the relay is held up.
func (p *pause) during(r *rig, do func()) {
	r.t.Helper()
	p.stranger.send(r.socket, "STATUS=wait")
	<-p.begun
	defer func() { p.resume <- struct{}{} }()
	do()
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

// reuse calls attempt until it has had a process with the number of another.
func reuse(t *testing.T, attempt func() bool) {
	t.Helper()
	await.Until(t, "a process gets the number of another", attempt)
}

// startAgentAs starts an agent that gets the number of a process that is gone. ok is false when
// something else has got it, which may keep it, such as a thread of this process.
func startAgentAs(t *testing.T, pid int) (a *agent, ok bool) {
	t.Helper()
	await.Until(t, "somebody gets the number of another process", func() bool {
		// Others start processes, too, so this may take several attempts.
		if err := os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(strconv.Itoa(pid-1)), 0); err != nil {
			t.Fatal(err)
		}
		if a = startAgent(t); a.pid == pid {
			ok = true
			return true
		}
		a.stop()
		return unix.Kill(pid, 0) == nil
	})
	return a, ok
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
