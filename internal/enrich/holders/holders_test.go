// SPDX-License-Identifier: Apache-2.0

package holders_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/await"
	"github.com/sdtrace/sdtrace/internal/enrich/holders"
	"github.com/sdtrace/sdtrace/internal/holdertest"
	"github.com/sdtrace/sdtrace/internal/proc"
	"github.com/sdtrace/sdtrace/internal/sockdiag"
	"github.com/sdtrace/sdtrace/pkg/events"
)

func TestMain(m *testing.M) {
	holdertest.Main()
	os.Exit(m.Run())
}

// inodeOf is the inode number of the socket that is bound to an address.
func inodeOf(t *testing.T, address string) uint64 {
	t.Helper()
	sockets, err := sockdiag.All(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range sockets {
		if s.Address == events.Address(address) {
			return uint64(s.Inode)
		}
	}
	t.Fatalf("nobody has bound %s", address)
	return 0
}

// awaitHolder asks until the answer is the one that is wanted; pid 0 is none.
func awaitHolder(t *testing.T, h *holders.Holders, inode uint64, pid int) {
	t.Helper()
	await.Until(t, fmt.Sprintf("socket %d is held by process %d", inode, pid), func() bool {
		got, _ := h.Find(inode, "")
		return got.PID == pid
	})
}

func TestTheHolderOfASocketIsFoundAndForgottenWhenItHasGone(t *testing.T) {
	holdertest.RequireRoot(t)
	d := holdertest.Dir(t)
	early := holdertest.Start(t, "", nil, filepath.Join(d, "early"))
	h := holders.Watch()
	defer h.Close()
	awaitHolder(t, h, inodeOf(t, filepath.Join(d, "early")), early.PID)

	late := holdertest.Start(t, "", []string{"--net"}, filepath.Join(d, "late"))
	inode := inodeOf(t, filepath.Join(d, "late"))
	awaitHolder(t, h, inode, late.PID)
	if err := unix.Kill(late.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	awaitHolder(t, h, inode, 0)
	awaitHolder(t, h, inodeOf(t, filepath.Join(d, "early")), early.PID)
}

func TestTheHolderOfANewSocketIsFoundAtOnceInItsCgroup(t *testing.T) {
	holdertest.RequireRoot(t)
	h := holders.Watch()
	defer h.Close()
	<-h.Looked()
	cgroup := holdertest.Cgroup(t, "")
	address := filepath.Join(holdertest.Dir(t), "new")
	p := holdertest.StartInCgroup(t, cgroup, os.Args[0], address)
	inode := inodeOf(t, address)
	if got, found := h.Find(inode, cgroup); !found || got.PID != p.PID {
		t.Errorf("held by %v, want process %d", got, p.PID)
	}
}

func TestAProcessThatReadsASocketIsItsHolderAtOnce(t *testing.T) {
	holdertest.RequireRoot(t)
	h := holders.Watch()
	defer h.Close()
	<-h.Looked()
	address := filepath.Join(holdertest.Dir(t), "read")
	p := holdertest.Start(t, "", nil, address)
	inode := inodeOf(t, address)
	h.Saw(inode, os.Getpid()) // which has not got it
	h.Saw(inode, p.PID)
	if got, found := h.Find(inode, ""); !found || got.PID != p.PID {
		t.Errorf("held by %v, want process %d", got, p.PID)
	}
}

func TestASocketThatNobodyHoldsHasNoHolder(t *testing.T) {
	holdertest.RequireRoot(t)
	h := holders.Watch()
	defer h.Close()
	if p, found := h.Find(1, "/"); found {
		t.Errorf("held by %v", p)
	}
}

// The holder's identity takes the place of the socket's whole, control group included, so that
// the name of its container can be found.
func TestAHolderIsTakenOverWithItsControlGroup(t *testing.T) {
	holdertest.RequireRoot(t)
	h := holders.Watch()
	defer h.Close()
	<-h.Looked()
	address := filepath.Join(holdertest.Dir(t), "held")
	p := holdertest.Start(t, "", nil, address)
	inode := inodeOf(t, address)
	h.Saw(inode, p.PID)
	e := &events.Event{
		Socket:   events.Socket{Inode: inode},
		Receiver: &events.Receiver{CgroupID: 7, Identity: events.Identity{Cgroup: "/made/elsewhere", Unit: "elsewhere.service"}},
	}
	h.Do(&events.Record{Event: e})
	q, err := proc.Open(p.PID)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	want, err := q.Cgroup()
	if err != nil {
		t.Fatal(err)
	}
	if int(e.Receiver.PID) != p.PID || e.Receiver.Cgroup != want || e.Receiver.Unit == "elsewhere.service" {
		t.Errorf("received by %+v, want process %d in %s", e.Receiver, p.PID, want)
	}
}
