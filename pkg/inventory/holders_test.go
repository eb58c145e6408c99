// SPDX-License-Identifier: Apache-2.0

package inventory_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/pkg/inventory"
)

// awaitHolder asks until the answer is the one that is wanted; pid 0 is none.
func awaitHolder(t *testing.T, h *inventory.Holders, inode uint64, pid int) {
	t.Helper()
	const patience = 20 * time.Second
	var got inventory.Process
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if got, _ = h.Find(inode, ""); got.PID == pid {
			return
		}
	}
	t.Fatalf("held by %v, want process %d", got, pid)
}

func TestTheHolderOfASocketIsFoundAndForgottenWhenItHasGone(t *testing.T) {
	requireRoot(t)
	d := dir(t)
	early := start(t, "", nil, filepath.Join(d, "early"))
	find := func(p *process, address string) uint64 {
		s, found := heldBy(take(t, inventory.Options{All: true}), p)[address]
		if !found {
			t.Fatalf("%s is missing", address)
		}
		return uint64(s.Inode)
	}
	h := inventory.WatchHolders()
	defer h.Close()
	awaitHolder(t, h, find(early, filepath.Join(d, "early")), early.pid)

	late := start(t, "", []string{"--net"}, filepath.Join(d, "late"))
	inode := find(late, filepath.Join(d, "late"))
	awaitHolder(t, h, inode, late.pid)
	if err := unix.Kill(late.pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	awaitHolder(t, h, inode, 0)
	awaitHolder(t, h, find(early, filepath.Join(d, "early")), early.pid)
}

func TestTheHolderOfANewSocketIsFoundAtOnceInItsCgroup(t *testing.T) {
	requireRoot(t)
	h := inventory.WatchHolders()
	defer h.Close()
	<-h.Looked()
	mount := "/sys/fs/cgroup/unified"
	if _, err := os.Stat(mount); err != nil {
		mount = "/sys/fs/cgroup"
	}
	cgroup := fmt.Sprintf("/sdtrace-inventory-%d", os.Getpid())
	if err := os.Mkdir(mount+cgroup, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(mount + cgroup) })
	address := filepath.Join(dir(t), "new")
	// The shell is in the cgroup before it becomes the process.
	p := startBy(t, "", "sh", "-c", `echo $$ >"$1/cgroup.procs" && exec "$2" "$3"`, "sh", mount+cgroup, os.Args[0], address)
	s := heldBy(take(t, inventory.Options{All: true}), p)[address]
	if got, found := h.Find(uint64(s.Inode), cgroup); !found || got.PID != p.pid {
		t.Errorf("held by %v, want process %d", got, p.pid)
	}
}

func TestAProcessThatReadsASocketIsItsHolderAtOnce(t *testing.T) {
	requireRoot(t)
	h := inventory.WatchHolders()
	defer h.Close()
	<-h.Looked()
	address := filepath.Join(dir(t), "read")
	p := start(t, "", nil, address)
	inode := uint64(heldBy(take(t, inventory.Options{All: true}), p)[address].Inode)
	h.Saw(inode, os.Getpid()) // which has not got it
	h.Saw(inode, p.pid)
	if got, found := h.Find(inode, ""); !found || got.PID != p.pid {
		t.Errorf("held by %v, want process %d", got, p.pid)
	}
}

func TestASocketThatNobodyHoldsHasNoHolder(t *testing.T) {
	requireRoot(t)
	h := inventory.WatchHolders()
	defer h.Close()
	if p, found := h.Find(1, "/"); found {
		t.Errorf("held by %v", p)
	}
}
