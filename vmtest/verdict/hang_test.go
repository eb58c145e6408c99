// SPDX-License-Identifier: Apache-2.0

package verdict_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/await"
	"github.com/sdtrace/sdtrace/pkg/capture"
	"github.com/sdtrace/sdtrace/pkg/events"
	"github.com/sdtrace/sdtrace/vmtest/pid1"
)

func TestASendThatHangsIsToldOfWhileItHangs(t *testing.T) {
	eachManager(t, func(t *testing.T, like *pid1.Systemd) {
		if like.Name != "bookworm" {
			t.Skip("not declared: a systemd that is stopped is like any other")
		}
		m, err := like.Another()
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := m.Stop(); err != nil {
				t.Error(err)
			}
		}()
		if err := m.AwaitReady(); err != nil {
			t.Fatal(err)
		}
		u := define(t, m, "hangs", service("Type=notify", "NotifyAccess=all")...)
		running(t, u)
		c, err := capture.Open(t.Context(), capture.Options{Match: capture.Match{Cgroups: []string{m.Cgroup}}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := m.Signal(unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = m.Signal(unix.SIGCONT) }()
		main := u.agent(t, "main")
		main.do(t, order{Hang: true})
		ctx := await.Context(t)
		for r, err := range c.All() {
			if err != nil || ctx.Err() != nil {
				t.Fatalf("%v, %v", err, ctx.Err())
			}
			if r.Hang == nil {
				continue
			}
			h := r.Hang
			if int(h.Sender.PID) != main.host || h.Sender.TID == 0 || h.Sender.Unit != "hangs.service" || h.Address != "/run/systemd/notify" ||
				int(h.Receiver.PID) != m.PID() || h.State != "T" || !h.Time.After(h.Since) {
				t.Errorf("told: %+v", h)
			}
			if h.Queued == nil || h.MaxQueued == nil || *h.Queued != *h.MaxQueued+1 {
				t.Errorf("queue: %+v", h)
			}
			break
		}
		if err := m.Signal(unix.SIGCONT); err != nil {
			t.Fatal(err)
		}
		for r, err := range c.All() {
			if err != nil || ctx.Err() != nil {
				t.Fatalf("%v, %v", err, ctx.Err())
			}
			if e := r.Event; e != nil && string(e.Payload) == "STATUS=through" && e.Result.Errno == "" {
				return
			}
			if r.Verdict != nil && r.Verdict.Any(events.Ignored) {
				t.Errorf("ignored: %+v", r.Verdict)
			}
		}
	})
}
