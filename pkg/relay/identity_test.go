// SPDX-License-Identifier: Apache-2.0

package relay_test

import (
	"fmt"
	"os"
	"strconv"
	"testing"

	"github.com/sdtrace/sdtrace/pkg/relay"
	"github.com/sdtrace/sdtrace/vmtest"
)

// Who is gone when the relay looks is known by his control group alone, which says something only if nobody else is in it.
func TestAProcessThatIsGoneIsNotBelievedForAControlGroupThatOthersShare(t *testing.T) {
	for name, shared := range map[string]bool{"shared": true, "the container's alone": false} {
		t.Run(name, func(t *testing.T) {
			a := startAgent(t, ownNamespaces...)
			cgroup := moveToCgroup(t, a.pid)
			if shared {
				enterCgroup(t, cgroup, startAgent(t).pid)
			}
			pause := newPause(t)
			r := newRig(t, withContainer(relay.Container{PID: a.pid}, relay.AccessAll), pause.option)
			a.send(r.socket, "STATUS=container")
			r.host.expect("STATUS=container")
			pause.during(r, func() {
				ghost := startAgent(t)
				enterCgroup(t, cgroup, ghost.pid)
				ghost.send(r.socket, "STATUS=ghost")
				ghost.stop()
			})
			if !shared && vmtest.KernelAtLeast(6, 15) {
				r.host.expect("STATUS=ghost")
				return
			}
			r.awaitDecision(relay.KeyNone, relay.Denied, relay.ReasonUnidentified)
		})
	}
}

// A verdict holds for as long as what it rests on.
func TestAProcessThatChangesItsControlGroupIsLookedAtAnew(t *testing.T) {
	cgroup := makeCgroup(t)
	r := newRig(t, withContainer(relay.Container{Cgroup: cgroup}, relay.AccessAll))
	a := startAgent(t)
	for range 2 {
		enterCgroup(t, "", a.pid)
		a.send(r.socket, "STATUS=outside")
		r.awaitDecision(relay.KeyNone, relay.Denied, relay.ReasonNotMember)
		enterCgroup(t, cgroup, a.pid)
		a.send(r.socket, "STATUS=inside")
		r.host.expect("STATUS=inside")
	}
}

func TestTheClockOfAProcessIsTheOneItHasNow(t *testing.T) {
	if !vmtest.KernelAtLeast(6, 3) {
		t.Skip("not declared: older kernels do not take a program that is executed into another time namespace")
	}
	const ahead = 100_000
	r := newRig(t)
	a := startAgent(t)
	a.send(r.socket, "STATUS=here")
	r.host.expect("STATUS=here")
	before := a.do(order{}).Monotonic
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// Into another time namespace, as the same process.
	inside := a.do(order{Do: "exec", Args: []string{"/usr/bin/unshare", "--time", "--monotonic", fmt.Sprint(ahead), program}}).Monotonic
	if inside < before+ahead*1_000_000 {
		t.Fatalf("it is not in a time namespace: %d µs before, %d inside", before, inside)
	}
	a.send(r.socket, fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", inside))
	r.host.expect(fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", inside-ahead*1_000_000))
}

// The host would watch a thread, and not notice the end of the process.
func TestAPidfdOfAThreadNamesNoMainProcess(t *testing.T) {
	if !vmtest.KernelAtLeast(6, 9) {
		t.Skip("not declared: there are no such pidfds before Linux 6.9")
	}
	r := newRig(t)
	a := startAgent(t)
	a.send(r.socket, "MAINPIDFD=1\nREADY=1", "pidfd of a thread")
	r.awaitDecision(relay.KeyMainPIDFD, relay.Denied, relay.ReasonInvalid)
	r.host.expect("READY=1")
}

// The program that was started is known, however soon it is gone.
func TestTheCommandIsKnownThoughItIsGone(t *testing.T) {
	command := startAgent(t)
	r := newWaitingRig(t, withContainer(relay.Container{Descendants: true}, relay.AccessMain))
	r.relay.SetCommand(command.pid)
	command.send(r.socket, "READY=1")
	command.stop()
	r.run()
	r.host.expect("READY=1")
}

// The kernel lets root in a container without a user namespace send as any process of it, which docs/security.md says.
func TestRootInAContainerCanSpeakAsItsMainProcess(t *testing.T) {
	a := startAgent(t, ownNamespaces...)
	r := newRig(t, withContainer(relay.Container{PID: a.pid}, relay.AccessMain))
	other := runAsAgent(t, command("nsenter", "--target", strconv.Itoa(a.pid), "--pid", "--net", os.Args[0]))
	other.send(r.socket, "STATUS=as itself")
	r.awaitDecision(relay.KeyNone, relay.Denied, relay.ReasonNotMain)
	if o := other.do(order{Do: "send", Socket: r.socket, Payload: []byte("STATUS=as number 1"), PID: 1}); o.Errno != 0 {
		t.Fatal(o.Errno)
	}
	r.host.expect("STATUS=as number 1")
}
