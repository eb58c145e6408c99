// SPDX-License-Identifier: Apache-2.0

package clients_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sdtrace/sdtrace/pkg/events"
	"github.com/sdtrace/sdtrace/pkg/hops"
	"github.com/sdtrace/sdtrace/pkg/tracer"
)

// passage is what became of a container's datagram at a relay.
type passage struct {
	Said, PassedOn string
	Withheld       string
}

// passages are those of what processes called container sent.
func passages(items []tracer.Item) (list []passage) {
	var tracker hops.Tracker
	bySeq := map[uint64]int{}
	at := func(e *events.Event) *passage {
		i, known := bySeq[e.Seq]
		if !known {
			return new(passage)
		}
		return &list[i]
	}
	for _, item := range items {
		switch e := item.Event; {
		case item.Receipt != nil:
			tracker.Read(item.Receipt)
		case e == nil:
		case e.Sender.Comm == "container":
			bySeq[e.Seq] = len(list)
			list = append(list, passage{Said: string(e.Payload)})
		default:
			if tracker.Sent(e); e.HopOf != nil {
				at(e.HopOf).PassedOn += strings.TrimSuffix(string(e.Payload), "\n")
			}
		}
	}
	for _, w := range tracker.Due(time.Now().Add(hops.Grace)) {
		for _, a := range w.Message {
			at(w.Send).Withheld += a.Key + "=" + a.Value + "\n"
		}
	}
	return list
}

// conmon passes on for podman; the container is started by it, with a runtime that has no
// part in this.
func TestWhatConmonPassesOnAndWithholdsIsSeen(t *testing.T) {
	eachBackend(t, func(t *testing.T, backend string) {
		if backend != "fentry" {
			t.Skip("not declared: this backend sees only sends")
		}
		if _, err := exec.LookPath("podman"); err != nil {
			t.Skip("not declared: no podman in this machine")
		}
		e := startPodman(t)
		address := filepath.Join(privateDirectory(t), "notify.sock")
		c := open(t, backend, tracer.Filter{})
		l := listen(t, address)
		run := []string{
			"--mount", "--propagation", "private", "sh", "-c", likeAService, "sh",
			"podman", "run", "--rm", "--sdnotify", "container", exampleImage,
			"STATUS=starting", "READY=1\nSTATUS=up\nX_MORE=1",
		}
		cmd := exec.CommandContext(deadline(t), "unshare", run...)
		cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + base, "NOTIFY_SOCKET=" + address}, e.env...)
		if output, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("running a container: %v\n%s", err, output)
		}
		if _, err := l.finish(); err != nil {
			t.Fatal(err)
		}
		want := []passage{
			{Said: "STATUS=starting", Withheld: "STATUS=starting\n"},
			{Said: "READY=1\nSTATUS=up\nX_MORE=1", PassedOn: "READY=1", Withheld: "STATUS=up\nX_MORE=1\n"},
		}
		if diff := cmp.Diff(want, passages(c.items(t))); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// A relay's datagram is tied to the container's, and what it drops is told of.
func TestWhatRuntimesPassOnAndWithholdIsSeen(t *testing.T) {
	eachBackend(t, func(t *testing.T, backend string) {
		if backend != "fentry" {
			t.Skip("not declared: this backend sees only sends")
		}
		for _, runtime := range []string{"runc", "crun"} {
			t.Run(runtime, func(t *testing.T) {
				if _, err := exec.LookPath(runtime); err != nil {
					t.Skipf("not declared: no %s in this machine", runtime)
				}
				bundle := relayBundle(t, []string{"STATUS=starting", "READY=1\nSTATUS=up\nX_MORE=1"})
				address := filepath.Join(privateDirectory(t), "notify.sock")
				c := open(t, backend, tracer.Filter{})
				l := listen(t, address)
				state, id := privateDirectory(t), newContainerID(t)[:12]
				cmd := exec.CommandContext(deadline(t), runtime, "--root", state, "run", "--bundle", bundle, id)
				cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "NOTIFY_SOCKET=" + address}
				if output, err := cmd.CombinedOutput(); err != nil {
					_ = exec.Command(runtime, "--root", state, "delete", "--force", id).Run()
					t.Fatalf("running a container: %v\n%s", err, output)
				}
				if _, err := l.finish(); err != nil {
					t.Fatal(err)
				}
				want := []passage{
					{Said: "STATUS=starting", Withheld: "STATUS=starting\n"},
					{Said: "READY=1\nSTATUS=up\nX_MORE=1", PassedOn: "READY=1", Withheld: "STATUS=up\nX_MORE=1\n"},
				}
				if diff := cmp.Diff(want, passages(c.items(t))); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			})
		}
	})
}
