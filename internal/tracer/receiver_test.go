// SPDX-License-Identifier: Apache-2.0

package tracer_test

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/identity"
	"github.com/sdtrace/sdtrace/pkg/events"
)

func TestTheReceiverIsWhoMadeTheSocket(t *testing.T) {
	eachBackend(t, func(t *testing.T, backend string) {
		dir := filepath.Join(root, "owned-"+backend)
		if err := os.Mkdir(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, "notify.sock")
		in, elsewhere := v2(t).makeCgroup(t, "receivers.slice/manager.service"), v2(t).makeCgroup(t, "receivers.slice/elsewhere.service")
		manager := startAgent(t, agentSpec{
			comm: "sdt-manager", uid: 4242, gid: 4243, attr: syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET},
		})
		join(t, in.dir, manager.pid)
		manager.must(t,
			step{Op: "socket", Sock: "own", Type: unix.SOCK_DGRAM},
			step{Op: "bind", Sock: "own", Addr: pathAddr(path)})
		// What the socket says does not follow its maker.
		join(t, elsewhere.dir, manager.pid)

		sender := startAgent(t, agentSpec{comm: "sdt-sender"})
		c := named(t, backend)
		sender.must(t,
			step{Op: "socket", Sock: "s", Type: unix.SOCK_DGRAM},
			step{Op: "sendto", Sock: "s", Addr: pathAddr(path), Parts: parts("READY=1")},
			step{Op: "connect", Sock: "s", Addr: pathAddr(path)},
			step{Op: "send", Sock: "s", Parts: parts("STATUS=connected")})
		sender.do(t, step{Op: "sendto", Sock: "s", Addr: pathAddr(dir + "/gone/notify.sock"), Parts: parts("READY=1")})

		id := identity.Parse(in.path)
		uid := uint32(4242)
		want := &events.Receiver{
			UID: &uid, NetNS: procLink(t, fmt.Sprintf("/proc/%d/ns/net", manager.pid)),
			CgroupID: in.id(t), Identity: id,
		}
		unconnected := want
		if !c.Knows().Receivers {
			unconnected = nil
		}
		var got []*events.Receiver
		for _, e := range from(c.collect(t), sender) {
			got = append(got, e.Receiver)
		}
		if diff := cmp.Diff([]*events.Receiver{unconnected, want, nil}, got); diff != "" {
			t.Errorf("(-want +captured):\n%s", diff)
		}
	})
}

// Abstract addresses are looked up where the socket was made, not where its user is.
func TestTheNamespaceOfTheSendersSocketIsItsOwn(t *testing.T) {
	dir := filepath.Join(root, "moved")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	addr := pathAddr(filepath.Join(dir, "notify.sock"))
	manager := startAgent(t, agentSpec{comm: "sdt-manager"})
	manager.must(t,
		step{Op: "socket", Sock: "own", Type: unix.SOCK_DGRAM},
		step{Op: "bind", Sock: "own", Addr: addr})
	sender := startAgent(t, agentSpec{comm: "sdt-sender"})
	before := procLink(t, fmt.Sprintf("/proc/%d/task/%d/ns/net", sender.pid, sender.tid(t)))
	c := named(t, "tracepoint")
	sender.must(t,
		step{Op: "socket", Sock: "s", Type: unix.SOCK_DGRAM},
		step{Op: "unshare network"})
	// To nobody: who receives says more.
	sender.do(t, step{Op: "sendto", Sock: "s", Addr: pathAddr(dir + "/nobody/notify.sock"), Parts: parts("READY=1")})
	after := procLink(t, fmt.Sprintf("/proc/%d/task/%d/ns/net", sender.pid, sender.tid(t)))
	got := from(c.collect(t), sender)
	if len(got) != 1 || got[0].Sender.NetNS != after || got[0].Socket.SenderNetNS != before || before == after {
		t.Errorf("captured %+v, want a sender in network namespace %d with a socket of %d", got, after, before)
	}
}

func TestTheReceiversCgroupIsAbsentWhenItIsGone(t *testing.T) {
	eachBackend(t, func(t *testing.T, backend string) {
		dir := filepath.Join(root, "gone-"+backend)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		addr := pathAddr(filepath.Join(dir, "notify.sock"))
		in := v2(t).makeCgroup(t, "receivers-gone.slice/manager.service")
		manager := startAgent(t, agentSpec{comm: "sdt-manager"})
		join(t, in.dir, manager.pid)
		manager.must(t,
			step{Op: "socket", Sock: "own", Type: unix.SOCK_DGRAM},
			step{Op: "bind", Sock: "own", Addr: addr})
		id := in.id(t)
		join(t, v2(t).dir, manager.pid)
		if err := os.Remove(in.dir); err != nil {
			t.Fatal(err)
		}
		sender := startAgent(t, agentSpec{comm: "sdt-sender"})
		c := named(t, backend)
		sender.must(t,
			step{Op: "socket", Sock: "s", Type: unix.SOCK_DGRAM},
			step{Op: "connect", Sock: "s", Addr: addr},
			step{Op: "send", Sock: "s", Parts: parts("READY=1")})
		got := from(c.collect(t), sender)
		if len(got) != 1 || got[0].Receiver == nil || got[0].Receiver.CgroupID != id || got[0].Receiver.Cgroup != "" || got[0].Receiver.Unit != "" {
			t.Errorf("captured %v, want a receiver in cgroup %d that is gone", got, id)
		}
	})
}
