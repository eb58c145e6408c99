// SPDX-License-Identifier: Apache-2.0

package verdict_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sdtrace/sdtrace/pkg/events"
	"github.com/sdtrace/sdtrace/pkg/verdict"
	"github.com/sdtrace/sdtrace/vmtest/document"
)

// versions are the ones of systemd that the rules are held against: vmtest/verdict.
var versions = []int{247, 252, 257, 262}

func ptr[T any](v T) *T { return &v }

// datagram is one from process 7 of root.
func datagram(payload string) *verdict.Datagram {
	d := &verdict.Datagram{
		Text: new(events.Text), Size: ptr(uint32(len(payload))), PID: 7, UID: ptr(uint32(0)), FDs: ptr(0),
		Read: time.Hour, ControlTruncated: ptr(false), Foreign: ptr(false), Gone: ptr(false),
		Main: &verdict.Process{PID: 8, Unit: "web.service"},
	}
	d.Text.Split([]byte(payload), false)
	return d
}

// unit is one of which everything is known, with process 7 as the main process.
func unit(state string) *verdict.Unit {
	return &verdict.Unit{
		Name: "web.service", Type: "notify", NotifyAccess: "main", MainPID: ptr(uint32(7)), ControlPID: ptr(uint32(0)),
		SubState: state, Stopping: ptr(false), ReloadHandled: ptr(true), ReloadBegan: ptr(time.Minute),
		Deadline: ptr(verdict.Never), WatchdogDeadline: ptr(verdict.Never), Watchdog: ptr(time.Duration(0)), Frozen: ptr(false),
		FDStoreMax: ptr(uint32(0)), FDStored: ptr(uint32(0)), StatusText: ptr(""), StatusErrno: ptr(0),
		StatusBusError: ptr(""), StatusVarlinkError: ptr(""), StartPost: ptr(false),
	}
}

func TestWhatIsNotKnownIsNotGuessed(t *testing.T) {
	for _, tt := range []struct {
		name    string
		payload string
		version int
		forget  func(*verdict.Datagram, *verdict.Unit)
		missing string
	}{
		{"version", "READY=1", 0, nil, "the version of the service manager is not known"},
		{"access", "READY=1", 257, func(_ *verdict.Datagram, u *verdict.Unit) { u.NotifyAccess = "" }, "NotifyAccess= of web.service is not known"},
		{"main process", "READY=1", 257, func(_ *verdict.Datagram, u *verdict.Unit) { u.MainPID = nil }, "the main process of web.service is not known"},
		{"sender", "READY=1", 257, func(d *verdict.Datagram, _ *verdict.Unit) { d.PID = 0 }, "the sender's process id is not known"},
		{"state", "READY=1", 257, func(_ *verdict.Datagram, u *verdict.Unit) { u.SubState = "" }, "the state of web.service is not known"},
		{"type", "READY=1", 257, func(_ *verdict.Datagram, u *verdict.Unit) { u.Type = "" }, "Type= of web.service is not known"},
		{"stopping", "READY=1", 259, func(_ *verdict.Datagram, u *verdict.Unit) { u.Stopping = nil }, "whether web.service has said STOPPING=1 before is not known"},
		{"watchdog", "WATCHDOG=1", 257, func(_ *verdict.Datagram, u *verdict.Unit) { u.Watchdog = nil }, "WatchdogSec= of web.service is not known"},
		{"descriptors", "FDSTORE=1", 257, func(d *verdict.Datagram, _ *verdict.Unit) { d.FDs = nil }, "how many file descriptors came with it is not known"},
		{"new main process", "MAINPID=8", 257, func(d *verdict.Datagram, _ *verdict.Unit) { d.Main = nil }, "the process that MAINPID= names is not known"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, u := datagram(tt.payload), unit("start")
			if tt.forget != nil {
				tt.forget(d, u)
			}
			got, _ := verdict.Judge(d, verdict.Manager{Version: tt.version}, u)
			if len(got) != 1 || got[0].Outcome != verdict.Unknown || got[0].Reason != tt.missing || got[0].Rule != "" {
				t.Errorf("got %+v, want unknown, as %s", got, tt.missing)
			}
		})
	}
	got, _ := verdict.Judge(datagram("READY=1"), verdict.Manager{Version: 257}, nil)
	if len(got) != 1 || got[0].Outcome != verdict.Unknown || got[0].Reason != "the unit that the sender belongs to is not known" {
		t.Errorf("of no unit: %+v", got)
	}
}

// What an assignment may have changed on which there is no verdict is not known afterwards.
func TestWhatMayHaveChangedIsNotKnownAfterwards(t *testing.T) {
	d, u := datagram("MAINPID=8\nSTATUS=x"), unit("running")
	d.Main = nil
	_, after := verdict.Judge(d, verdict.Manager{Version: 257}, u)
	if after.MainPID != nil || after.SubState != "running" || *after.StatusText != "x" {
		t.Errorf("one is unknown: %+v", after)
	}
	u.NotifyAccess = ""
	_, after = verdict.Judge(datagram("READY=1\nNOTIFYACCESS=all"), verdict.Manager{Version: 257}, u)
	if after.SubState != "" || after.NotifyAccess != "" || after.MainPID == nil {
		t.Errorf("all are unknown: %+v", after)
	}
}

// What is not asked for need not be known.
func TestWhatDoesNotMatterNeedNotBeKnown(t *testing.T) {
	u := &verdict.Unit{Name: "web.service", NotifyAccess: "main", MainPID: ptr(uint32(9))}
	got, _ := verdict.Judge(datagram("READY=1\nSTATUS=x"), verdict.Manager{Version: 257}, u)
	for _, v := range got {
		if v.Outcome != verdict.Ignored || v.Rule != "D3" || v.Reason != "it counts as from 7, and NotifyAccess=main takes 9, the main process" {
			t.Errorf("got %+v", v)
		}
	}
}

func TestAnExtensionIsHeededByTheTimeoutThatIsKnown(t *testing.T) {
	u := unit("start")
	u.Deadline, u.WatchdogDeadline = ptr(time.Hour+time.Second), nil
	got, after := verdict.Judge(datagram("EXTEND_TIMEOUT_USEC=5000000"), verdict.Manager{Version: 257}, u)
	if got[0].Outcome != verdict.Heeded || *after.Deadline != time.Hour+5*time.Second || after.WatchdogDeadline != nil {
		t.Errorf("%+v, and then %+v", got[0], after)
	}
}

func TestWhatIsSaidOfANewerSystemdIsLikely(t *testing.T) {
	for version, want := range map[int]bool{verdict.Newest: false, verdict.Newest + 1: true} {
		got, _ := verdict.Judge(datagram("READY=1"), verdict.Manager{Version: version}, unit("start"))
		if got[0].Outcome != verdict.Heeded || got[0].Likely != want {
			t.Errorf("%d: %+v, want likely: %v", version, got[0], want)
		}
	}
}

// Judge must not change what it is given: who keeps it compares the two.
func TestAProcessThatIsOverIsSaidWithoutANumber(t *testing.T) {
	u := unit("start")
	u.MainPID = ptr(verdict.Over)
	verdicts, _ := verdict.Judge(datagram("READY=1"), verdict.Manager{Version: 257, PID: 1}, u)
	const want = "it counts as from 7, and NotifyAccess=main takes the main process, which is over"
	if got := verdicts[0]; got.Outcome != verdict.Ignored || got.Reason != want {
		t.Errorf("%s: %s", got.Outcome, got.Reason)
	}
}

func TestTheUnitBeforeStaysAsItIs(t *testing.T) {
	u := unit("start")
	_, after := verdict.Judge(datagram("READY=1\nSTATUS=up"), verdict.Manager{Version: 257}, u)
	if u.SubState != "start" || *u.StatusText != "" {
		t.Errorf("the unit before is %+v", u)
	}
	if after.SubState != "running" || *after.StatusText != "up" {
		t.Errorf("the unit after is %+v", after)
	}
}

func TestEveryRuleSaysWhyAndWhereItStands(t *testing.T) {
	for _, r := range verdict.Rules() {
		if r.ID == "" || r.Reason == "" || r.Source == "" || strings.HasSuffix(r.Reason, ".") {
			t.Errorf("%+v", r)
		}
		if !slices.ContainsFunc(versions, r.Holds) {
			t.Errorf("%s of %s holds for no version", r.ID, r.Key)
		}
	}
}

func TestTheTableInTheDocumentIsThatOfTheRules(t *testing.T) {
	var b strings.Builder
	b.WriteString("| rule | about | 247 | 252 | 257 | 262 | why, and what to change | in systemd |\n|---|---|---|---|---|---|---|---|\n")
	for _, r := range verdict.Rules() {
		about := strings.ReplaceAll(r.Key, " ", ", ")
		switch {
		case r.Whole:
			about = "the datagram"
		case about == "":
			about = "any line"
		}
		fmt.Fprintf(&b, "| %s | %s |", r.ID, about)
		for _, version := range versions {
			if r.Holds(version) {
				fmt.Fprintf(&b, " %s |", r.Outcome)
			} else {
				b.WriteString(" |")
			}
		}
		why := r.Reason
		if r.Cure != "" {
			why += ". *" + r.Cure + "*"
		}
		fmt.Fprintf(&b, " %s | `%s` |\n", why, r.Source)
	}
	document.Check(t, "../../docs/verdict.md", "rules", b.String())
}

// states are all that a service has been in, in any version.
var states = []string{
	"", "dead", "condition", "start-pre", "start", "start-post", "running", "exited", "reload", "reload-signal", "reload-notify",
	"reload-post", "refresh-extensions", "refresh-credentials", "mounting", "stop", "stop-watchdog", "stop-sigterm",
	"stop-sigkill", "stop-post", "final-watchdog", "final-sigterm", "final-sigkill", "failed", "auto-restart",
	"auto-restart-queued", "cleaning", "what-comes",
}

// FuzzJudge holds that there is a verdict on every line of anything, with a rule or with what is
// missing.
func FuzzJudge(f *testing.F) {
	for _, payload := range []string{
		"READY=1\nSTATUS=x", "MAINPID=8\nMAINPIDFDID=1", "RELOADING=1\nMONOTONIC_USEC=99999999999", "FDSTORE=1\nFDNAME=a",
		"EXTEND_TIMEOUT_USEC=18446744073709551614", "WATCHDOG_USEC=-0\nWATCHDOG=1", "BARRIER=1", "\x00\x00", "a\\",
	} {
		for i := range states {
			f.Add([]byte(payload), uint8(i), uint8(i%len(versions)), uint32(1)<<(i%17))
		}
	}
	f.Fuzz(func(t *testing.T, payload []byte, state, version uint8, forgotten uint32) {
		d, u := datagram(string(payload)), unit(states[int(state)%len(states)])
		for i, forget := range []func(){
			func() { u.Type = "" }, func() { u.NotifyAccess = "" }, func() { u.MainPID = nil }, func() { u.ControlPID = nil },
			func() { u.Stopping = nil }, func() { u.ReloadBegan = nil }, func() { u.Deadline = nil }, func() { u.Watchdog = nil },
			func() { u.FDStoreMax = nil }, func() { d.Main = nil }, func() { d.FDs = nil }, func() { d.Read = 0 },
			func() { u.WatchdogDeadline = nil }, func() { u.Deadline = ptr(time.Minute) },
			func() { u.Type = "notify-reload" }, func() { d.FDs = ptr(1) }, func() { u.FDStoreMax = ptr(uint32(2)) },
		} {
			if forgotten&(1<<i) != 0 {
				forget()
			}
		}
		verdicts, after := verdict.Judge(d, verdict.Manager{Version: versions[int(version)%len(versions)]}, u)
		if want := max(1, len(d.Text.Lines)); len(verdicts) != want {
			t.Fatalf("%d verdicts on %d lines", len(verdicts), want)
		}
		if after == nil {
			t.Fatal("there is no unit afterwards")
		}
		for _, v := range verdicts {
			if v.Reason == "" || (v.Outcome == verdict.Unknown) != (v.Rule == "") || v.Outcome == verdict.Heeded && d.Text.Err != nil {
				t.Errorf("%+v", v)
			}
		}
	})
}
