// SPDX-License-Identifier: Apache-2.0

package inventory_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/holdertest"
	"github.com/sdtrace/sdtrace/internal/sockdiag"
	"github.com/sdtrace/sdtrace/pkg/inventory"
)

type queueLister = func(context.Context) (map[uint32]sockdiag.Queue, error)

// queueOf takes an inventory and returns a process's socket as a line of text: bytes of
// the next datagram, how many wait, their limit.
func queueOf(t *testing.T, list queueLister, p *holdertest.Process, address string) string {
	t.Helper()
	inv, err := inventory.Taken(t.Context(), inventory.Options{}, list)
	if err != nil {
		t.Fatal(err)
	}
	s, found := heldBy(inv, p)[address]
	if !found {
		t.Fatalf("%s is missing", address)
	}
	text := func(n *uint32) string {
		if n == nil {
			return "unknown"
		}
		return fmt.Sprint(*n)
	}
	return fmt.Sprint(s.NextBytes, " ", text(s.Queued), " ", text(s.MaxQueued))
}

// The limit is set in a network namespace of the process's own, and to another value when
// the socket is there.
func TestTheQueueOfASocketIsKnownWhereItCanBeAskedFor(t *testing.T) {
	holdertest.RequireRoot(t)
	const setLimit = `echo "$1" >/proc/sys/net/unix/max_dgram_qlen; shift; exec "$@"`
	address := filepath.Join(holdertest.Dir(t), "notify.sock")
	p := holdertest.StartBy(t, "", "unshare", "--net", "sh", "-c", setLimit, "sh", "5", os.Args[0], address)
	later := exec.Command("nsenter", fmt.Sprintf("--net=/proc/%d/ns/net", p.PID), "sh", "-c", setLimit, "sh", "77", "true")
	if out, err := later.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	sender, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(sender)
	if got, want := queueOf(t, sockdiag.Queues, p, address), "0 0 5"; got != want {
		t.Errorf("when nothing waits: %s, want %s", got, want)
	}
	// An empty datagram has no length, but it waits.
	for _, payload := range []string{"", "READY=1"} {
		if err := unix.Sendto(sender, []byte(payload), 0, &unix.SockaddrUnix{Name: address}); err != nil {
			t.Fatal(err)
		}
	}
	refused := func(context.Context) (map[uint32]sockdiag.Queue, error) {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		return sockdiag.Queues(ctx)
	}
	for _, test := range []struct {
		name, want string
		list       queueLister
	}{
		{"asked for", "0 2 5", sockdiag.Queues},
		{"asked for in vain", "0 unknown 77", refused},
	} {
		if got := queueOf(t, test.list, p, address); got != test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
}
