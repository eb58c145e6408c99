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

	"github.com/sdtrace/sdtrace/internal/await"
	"github.com/sdtrace/sdtrace/internal/enrich/hops"
	"github.com/sdtrace/sdtrace/internal/tracer"
	"github.com/sdtrace/sdtrace/pkg/events"
)

// passage is what became of a container's datagram at a relay.
type passage struct {
	Said, PassedOn string
	Withheld       string
}

// passages are those of what processes called container sent.
func (c capture) passages(t *testing.T) (list []passage) {
	t.Helper()
	items, complete := c.items(t)
	if !complete {
		t.Skip("not declared: this emulated kernel skipped a program while it preempted itself")
	}
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
				p := at(e.HopOf)
				p.PassedOn += separator(p.PassedOn) + strings.TrimSuffix(string(e.Payload), "\n")
			}
		}
	}
	for _, w := range tracker.Due(time.Unix(1<<40, 0)) {
		for _, a := range w.Message {
			at(w.Send).Withheld += a.Key + "=" + a.Value + "\n"
		}
	}
	return list
}

func separator(before string) string {
	if before == "" {
		return ""
	}
	return "|"
}

// conmon passes on for podman; the container is started by it, with a runtime that has no
// part in this.
func TestWhatConmonPassesOnAndWithholdsIsSeen(t *testing.T) {
	withBackend(t, func(t *testing.T, backend string) {
		if backend != "fentry" {
			t.Skip("not declared: this backend sees only sends")
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
		cmd := exec.CommandContext(await.Context(t), "unshare", run...)
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
		if diff := cmp.Diff(want, c.passages(t)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// A relay's datagram is tied to the container's, and what it drops is told of.
func TestWhatRuntimesPassOnAndWithholdIsSeen(t *testing.T) {
	steps := []string{"STATUS=starting", "READY=1\nSTATUS=up\nX_MORE=1"}
	likeRunc := func(runtime string) func(*testing.T) []string {
		return func(t *testing.T) []string {
			state, id := privateDirectory(t), newContainerID(t)[:12]
			t.Cleanup(func() { _ = exec.Command(runtime, "--root", state, "delete", "--force", id).Run() })
			return []string{runtime, "--root", state, "run", "--bundle", relayBundle(t, steps), id}
		}
	}
	onlyReady := []passage{
		{Said: steps[0], Withheld: "STATUS=starting\n"},
		{Said: steps[1], PassedOn: "READY=1", Withheld: "STATUS=up\nX_MORE=1\n"},
	}
	for _, test := range []struct {
		runtime string
		command func(t *testing.T) []string
		want    []passage
	}{
		{"runc", likeRunc("runc"), onlyReady},
		{"crun", likeRunc("crun"), onlyReady},
		{"systemd-nspawn", func(t *testing.T) []string {
			root := filepath.Join(makeBundle(t), "rootfs")
			for _, dir := range []string{"usr/lib", "etc"} {
				if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(filepath.Join(root, "usr/lib/os-release"), []byte("ID=sdtrace\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			return append([]string{
				"systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--notify-ready=yes", "--pipe",
				"--setenv=" + roleEnv + "=relayed", "--directory", root, "/container",
			}, steps...)
		}, []passage{
			// It says of a status whose it is.
			{Said: steps[0], PassedOn: "STATUS=Container running: starting"},
			{Said: steps[1], PassedOn: "READY=1|STATUS=Container running: up", Withheld: "X_MORE=1\n"},
		}},
	} {
		t.Run(test.runtime, func(t *testing.T) {
			withBackend(t, func(t *testing.T, backend string) {
				if backend != "fentry" {
					t.Skip("not declared: this backend sees only sends")
				}
				argv := test.command(t)
				address := filepath.Join(privateDirectory(t), "notify.sock")
				c := open(t, backend, tracer.Filter{})
				l := listen(t, address)
				cmd := exec.CommandContext(await.Context(t), argv[0], argv[1:]...)
				cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "NOTIFY_SOCKET=" + address}
				if output, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("running a container: %v\n%s", err, output)
				}
				if _, err := l.finish(); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(test.want, c.passages(t)); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			})
		})
	}
}
