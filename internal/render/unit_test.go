// SPDX-License-Identifier: Apache-2.0

package render_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sdtrace/sdtrace/internal/eventtest"
	"github.com/sdtrace/sdtrace/pkg/events"
)

func TestTextOfNewsOfAUnit(t *testing.T) {
	main := &events.Process{PID: 812, Comm: "nginx"}
	for want, u := range map[string]events.Unit{
		"WAITING activating (start) for 2.3s of 1m30s (TimeoutStartSec), for READY=1: nothing was said yet": {
			News: events.UnitWaits, ActiveState: "activating", SubState: "start", Awaits: "READY=1",
			Since: eventtest.Time.Add(-2300 * time.Millisecond), Limit: 90 * time.Second,
		},
		`WAITING activating (start) for 12s, for READY=1: nginx[812] has said STATUS="Still at it" X_A=1`: {
			News: events.UnitWaits, ActiveState: "activating", SubState: "start", Awaits: "READY=1",
			Since: eventtest.Time.Add(-12 * time.Second), Said: "STATUS=Still at it\nX_A=1", Last: main,
		},
		"WAITING activating (start) for 2.0s, for READY=1: nothing was said yet; nginx[812]: there is no /run/systemd/notify below its root directory /etc/unbound": {
			News: events.UnitWaits, ActiveState: "activating", SubState: "start", Awaits: "READY=1", Since: eventtest.Time.Add(-2 * time.Second),
			Trouble: "there is no /run/systemd/notify below its root directory /etc/unbound", Main: main,
		},
		"WAITING reloading (reload-signal) for 2.0s, for RELOADING=1 with MONOTONIC_USEC= in one message: nothing was said yet": {
			News: events.UnitWaits, ActiveState: "reloading", SubState: "reload-signal", Awaits: "RELOADING=1", Since: eventtest.Time.Add(-2 * time.Second),
		},
		"WAITING deactivating (stop-sigterm) for 1m of 2m (TimeoutStopSec), for its processes to end": {
			News: events.UnitWaits, ActiveState: "deactivating", SubState: "stop-sigterm", Since: eventtest.Time.Add(-time.Minute), Limit: 2 * time.Minute,
		},
		"OVERDUE no ping for 3.2s of 4.0s (WatchdogSec), the last was from nginx[812]": {
			News: events.UnitOverdue, Since: eventtest.Time.Add(-3200 * time.Millisecond), Limit: 4 * time.Second, Last: main,
		},
		"OVERDUE no ping for 3.2s of 4.0s (WatchdogSec), and none before as far as is known": {
			News: events.UnitOverdue, Since: eventtest.Time.Add(-3200 * time.Millisecond), Limit: 4 * time.Second,
		},
		"STARTED main process nginx[812], restart 3":                 {News: events.UnitStarted, Main: main, Restarts: eventtest.Ptr(uint32(3))},
		"STARTED main process unknown":                               {News: events.UnitStarted, Restarts: eventtest.Ptr(uint32(0))},
		"FAILED Result=watchdog: no ping came in time (WatchdogSec)": {News: events.UnitFailed, Result: "watchdog"},
		"FAILED Result=new-one":                                      {News: events.UnitFailed, Result: "new-one"},
		"is active (running) for 1h0m5s, Type=notify, main process nginx[812], and nothing was said since the capture began (sdtrace why web)": {
			News: events.UnitIs, ActiveState: "active", SubState: "running", Since: eventtest.Time.Add(-time.Hour - 5*time.Second), Type: "notify", Main: main,
		},
	} {
		u.Time, u.Manager.PID, u.Unit = eventtest.Time, 1, "web.service"
		line := string(plainText.AppendUnit(nil, &u))
		if diff := cmp.Diff("16:01:46.123456 systemd[1]             web.service            "+want+"\n", line); diff != "" {
			t.Errorf("(-want +text):\n%s", diff)
		}
		shown := withoutHeader(string(screenOf(60).AppendJudged(nil, &events.Record{Unit: &u}, nil)))
		if got := strings.Join(strings.Fields(shown), " "); got != "16:01:46.123 web.service systemd[1] "+want {
			t.Errorf("on a terminal: %q, want %q behind the process", got, want)
		}
	}
}

func TestTextOfASendThatHangs(t *testing.T) {
	h := eventtest.Hang()
	h.Sender.Identity = events.Identity{Unit: "web.service"}
	const text = "HANGS for 3.0s, queue 513 of 512, reader systemd[1] is stopped"
	if got, want := string(plainText.AppendHang(nil, h)), "16:01:46.123456 nginx[1]               web.service            -> /run/systemd/notify   "+text+"\n"; got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if got, want := withoutHeader(string(screenOf(100).AppendJudged(nil, &events.Record{Hang: h}, nil))), "16:01:46.123 web.service nginx[1] "+text+"\n"; got != want {
		t.Errorf("on a terminal %q\nwant %q", got, want)
	}
	h.Queued, h.State = nil, "?"
	if got := string(plainText.AppendHang(nil, h)); !strings.HasSuffix(got, " HANGS for 3.0s, reader systemd[1]\n") {
		t.Errorf("without what is unknown: %q", got)
	}
	slow := said("web.service", "READY=1", 0)
	slow.Result.Latency = 3200 * time.Millisecond
	if got := string(plainText.AppendEvent(nil, slow)); !strings.HasSuffix(got, "READY=1 took 3.2s\n") {
		t.Errorf("after it has hung: %q", got)
	}
}

func TestRestartsThatGoOnAreCounted(t *testing.T) {
	s := screenOf(120)
	var b []byte
	for i := range 8 {
		u := &events.Unit{
			News: events.UnitFailed, Result: "watchdog", Time: eventtest.Time.Add(time.Duration(i) * time.Second),
			Manager: events.VerdictManager{PID: 1}, Identity: events.Identity{Unit: "web.service"},
		}
		b = s.AppendJudged(b, &events.Record{Unit: u}, nil)
	}
	shown := string(s.AppendRest(b))
	if n := strings.Count(shown, "\n"); n != 5 || !strings.Contains(shown, "5 × FAILED Result=watchdog: no ping came in time (WatchdogSec) in 5s") {
		t.Errorf("%d lines:\n%s", n, shown)
	}
}

func TestWhatWasCountedOnceIsShownAsItWas(t *testing.T) {
	s := screenOf(120)
	var b []byte
	for i := range 4 {
		for _, unit := range []string{"a.service", "b.service"} {
			u := &events.Unit{
				News: events.UnitFailed, Result: "watchdog", Time: eventtest.Time.Add(time.Duration(i) * time.Second),
				Manager: events.VerdictManager{PID: 1}, Identity: events.Identity{Unit: unit},
			}
			b = s.AppendJudged(b, &events.Record{Unit: u}, nil)
		}
	}
	rest := string(s.AppendRest(nil))
	const want = "16:01:49.123 a.service systemd[1] FAILED Result=watchdog: no ping came in time (WatchdogSec)\n" +
		"16:01:49.123 b.service systemd[1] FAILED Result=watchdog: no ping came in time (WatchdogSec)\n"
	if rest != want {
		t.Errorf("of two units that failed once more, shown:\n%s", rest)
	}
}
