// SPDX-License-Identifier: Apache-2.0

package relay_test

import (
	"fmt"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/await"
	"github.com/sdtrace/sdtrace/pkg/relay"
	"github.com/sdtrace/sdtrace/vmtest"
)

// The host drops by itself what has lost its other end: it counts no more.
func TestWhatTheHostHasDroppedDoesNotCount(t *testing.T) {
	r := newRig(t, withRule("FDSTORE allow max-fds=2"))
	a := startAgent(t)
	for i := range 5 {
		text := fmt.Sprintf("FDSTORE=1\nFDNAME=dead%d", i)
		a.send(r.socket, text, "pipe")
		r.host.expect(text).closeFDs()
	}
	// With FDPOLL=0 it keeps them.
	for i := range 2 {
		text := fmt.Sprintf("FDSTORE=1\nFDPOLL=0\nFDNAME=kept%d", i)
		a.send(r.socket, text, "pipe")
		r.host.expect(text).closeFDs()
	}
	a.send(r.socket, "FDSTORE=1", "pipe")
	r.awaitDecision(relay.KeyFDStore, relay.Denied, relay.ReasonQuota)
}

// What the host has already it does not store again.
func TestWhatIsStoredTwiceCountsOnce(t *testing.T) {
	r := newRig(t, withRule("FDSTORE allow max-fds=1"))
	fd, err := unix.MemfdCreate("twice", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(s)
	for _, text := range []string{"FDSTORE=1\nFDNAME=a", "FDSTORE=1\nFDNAME=a", "FDSTORE=1\nFDNAME=a"} {
		if err := unix.Sendmsg(s, []byte(text), unix.UnixRights(fd, fd), &unix.SockaddrUnix{Name: r.socket}, 0); err != nil {
			t.Fatal(err)
		}
		r.host.expect(text).closeFDs()
	}
	startAgent(t).send(r.socket, "FDSTORE=1\nFDNAME=c", "memfd")
	r.awaitDecision(relay.KeyFDStore, relay.Denied, relay.ReasonQuota)
}

// Of names there are only so many where their number is not limited.
func TestNamesOfTheStoreAreBounded(t *testing.T) {
	vmtest.Natively(t, "no kernel is asked")
	r := newRig(t, withRule("FDSTORE allow"))
	a := startAgent(t)
	for i := range 1024 {
		text := fmt.Sprintf("FDSTORE=1\nFDNAME=%d", i)
		a.send(r.socket, text, "memfd")
		r.host.expect(text).closeFDs()
	}
	a.send(r.socket, "FDSTORE=1\nFDNAME=more", "memfd")
	r.awaitDecision(relay.KeyFDStore, relay.Denied, relay.ReasonQuota)
	a.send(r.socket, "FDSTORE=1\nFDNAME=7", "memfd")
	r.host.expect("FDSTORE=1\nFDNAME=7").closeFDs()
}

// Each name says something of its own: a later one makes no other superfluous, however full the queue is.
func TestAFullQueueKeepsWhatIsSaidOfEachName(t *testing.T) {
	vmtest.Natively(t, "no kernel is asked")
	r := newRig(t, withRule("FDSTORE allow"), withRule("FDSTOREREMOVE allow"), withRule("X_* allow"))
	a := startAgent(t)
	var want []string
	for i := range 5 {
		store := fmt.Sprintf("FDSTORE=1\nFDNAME=%d", i)
		a.send(r.socket, store, "memfd")
		r.host.expect(store).closeFDs()
	}
	// From when on the host's own socket takes no more, all waits in the queue.
	await.Until(t, "the host's socket is full", func() bool {
		a.sendWaiting(r.socket, "STATUS=waits")
		r.mu.Lock()
		defer r.mu.Unlock()
		return slices.ContainsFunc(r.decisions, func(d relay.Decision) bool { return d.Key == relay.KeyStatus && d.Verdict == relay.Coalesced })
	})
	for i := range 5 {
		for _, text := range []string{fmt.Sprintf("FDSTOREREMOVE=1\nFDNAME=%d", i), fmt.Sprintf("X_ONCE_%d=1", i)} {
			a.sendWaiting(r.socket, text)
			want = append(want, text)
		}
	}
	for i := range 2000 {
		a.sendWaiting(r.socket, fmt.Sprintf("ERRNO=%d", i))
	}
	a.sendWaiting(r.socket, "STOPPING=1")
	r.awaitDecision(relay.KeyErrno, relay.Coalesced, relay.ReasonNone)
	for {
		m := r.host.next()
		want = slices.DeleteFunc(want, func(text string) bool { return text == m.text })
		if m.text == "STOPPING=1" || m.text == "STATUS=Stopping" {
			break
		}
	}
	if len(want) > 0 {
		t.Errorf("the host did not get %q", want)
	}
}
