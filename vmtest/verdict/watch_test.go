// SPDX-License-Identifier: Apache-2.0

package verdict_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/await"
	"github.com/sdtrace/sdtrace/pkg/capture"
	"github.com/sdtrace/sdtrace/pkg/events"
	"github.com/sdtrace/sdtrace/vmtest/pid1"
)

// awaitNews waits until the capture has told news of a unit that the test wants.
func awaitNews(t *testing.T, m *pid1.Systemd, name string, news events.UnitNews, wanted func(u *events.Unit) bool) (found *events.Unit) {
	t.Helper()
	await.Until(t, fmt.Sprintf("news of %s: %s", name, news), func() bool {
		live.mu.Lock()
		defer live.mu.Unlock()
		i := slices.IndexFunc(live.news, func(u *events.Unit) bool {
			return u.Manager.PID == uint32(m.PID()) && u.Unit == name+".service" && u.News == news && wanted(u)
		})
		if i < 0 {
			return false
		}
		found = live.news[i]
		return true
	})
	if found.Manager.Version != m.Major || !strings.HasSuffix(found.Cgroup, "/system.slice/"+name+".service") && found.Cgroup != "" {
		t.Errorf("it is told of %s by %+v", found.Cgroup, found.Manager)
	}
	return found
}

func whatever(*events.Unit) bool { return true }

func TestAServiceThatSaysNothingIsToldOf(t *testing.T) {
	eachManager(t, func(t *testing.T, m *pid1.Systemd) {
		u := define(t, m, "silent", service("Type=notify", "NotifyAccess=all", "TimeoutStartSec=1h")...)
		starting(t, u)
		got := awaitNews(t, m, "silent", events.UnitWaits, whatever)
		if got.Awaits != "READY=1" || got.ActiveState != "activating" || got.SubState != "start" || got.Type != "notify" ||
			got.Limit != time.Hour || got.Last != nil || got.Since.IsZero() || !got.Time.After(got.Since) {
			t.Errorf("told: %+v", got)
		}
		main := u.agent(t, "main")
		main.do(t, say("STATUS=Still at it"))
		got = awaitNews(t, m, "silent", events.UnitWaits, func(u *events.Unit) bool { return u.Last != nil })
		if got.Said != "STATUS=Still at it" || int(got.Last.PID) != main.host {
			t.Errorf("told: %+v, last %+v", got, got.Last)
		}
		main.conn.Close() // it ends
		if got := awaitNews(t, m, "silent", events.UnitFailed, whatever); got.Result != "protocol" {
			t.Errorf("it failed by %q", got.Result)
		}
	})
}

func TestAPingThatIsOverdueIsToldOfAndWhatComesOfIt(t *testing.T) {
	eachManager(t, func(t *testing.T, m *pid1.Systemd) {
		u := define(t, m, "overdue", service("Type=notify", "NotifyAccess=all", "WatchdogSec=16", "Restart=always", "RestartSec=200ms")...)
		running(t, u)
		main := u.agent(t, "main")
		main.do(t, say("WATCHDOG=1"))
		got := awaitNews(t, m, "overdue", events.UnitOverdue, func(u *events.Unit) bool { return u.Last != nil })
		if got.Limit != 16*time.Second || int(got.Last.PID) != main.host || got.Time.Sub(got.Since) < 12*time.Second {
			t.Errorf("told: %+v", got)
		}
		if got := awaitNews(t, m, "overdue", events.UnitFailed, whatever); got.Result != "watchdog" {
			t.Errorf("it failed by %q", got.Result)
		}
		again := awaitNews(t, m, "overdue", events.UnitStarted, whatever)
		if again.Restarts == nil || *again.Restarts != 1 || again.Main == nil || again.Main.PID == got.Last.PID || again.Main.PID == 0 {
			t.Errorf("started again: %+v, main process %+v", again, again.Main)
		}
	})
}

func TestAReloadThatIsNotAnsweredIsToldOf(t *testing.T) {
	const reloads = 253 // systemd: Type=notify-reload
	eachManager(t, func(t *testing.T, m *pid1.Systemd) {
		if m.Major < reloads {
			t.Skip("not declared: this systemd knows no Type=notify-reload")
		}
		u := define(t, m, "unheard", service("Type=notify-reload", "NotifyAccess=all")...)
		running(t, u)
		reload(t, u)
		got := awaitNews(t, m, "unheard", events.UnitWaits, whatever)
		if got.Awaits != "RELOADING=1" || got.SubState != "reload-signal" {
			t.Errorf("told: %+v", got)
		}
	})
}

func TestAServiceThatDoesNotEndIsToldOf(t *testing.T) {
	eachManager(t, func(t *testing.T, m *pid1.Systemd) {
		u := define(t, m, "stubborn", service("Type=notify", "NotifyAccess=all", "TimeoutStopSec=1h")...)
		running(t, u)
		u.agent(t, "main").do(t, order{Ignore: int(unix.SIGTERM)})
		u.systemctl(t, "stop", "--no-block")
		got := awaitNews(t, m, "stubborn", events.UnitWaits, whatever)
		if got.Awaits != "" || got.ActiveState != "deactivating" || got.Limit != time.Hour {
			t.Errorf("told: %+v", got)
		}
		u.systemctl(t, "kill", "--signal=KILL")
	})
}

func TestOfAUnitThatWasAskedForItIsToldHowItIs(t *testing.T) {
	eachManager(t, func(t *testing.T, m *pid1.Systemd) {
		u := define(t, m, "idle", service("Type=notify", "NotifyAccess=all")...)
		running(t, u)
		c, err := capture.Open(t.Context(), capture.Options{Match: capture.Match{Units: []string{"*:idle"}, Cgroups: []string{m.Cgroup}}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for r, err := range c.All() {
			if err != nil {
				t.Fatal(err)
			}
			if r.Unit == nil {
				continue
			}
			if got := r.Unit; got.News != events.UnitIs || got.Unit != "idle.service" || got.SubState != "running" ||
				got.Main == nil || int(got.Main.PID) != u.agent(t, "main").host {
				t.Errorf("told: %+v, main process %+v", got, got.Main)
			}
			return
		}
	})
}
