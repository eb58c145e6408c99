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

func lineVerdict(key string, outcome events.Outcome, reason string) events.LineVerdict {
	return events.LineVerdict{Assignment: events.Assignment{Key: key, Value: "1"}, Outcome: outcome, Reason: reason}
}

func TestTheVerdictStandsOnTheLineOfTheEvent(t *testing.T) {
	const who = "16:01:46.123456 nginx[812]             -                      -> /run/systemd/notify   "
	cured := lineVerdict("READY", events.Ignored, "it counts as from 7734, and NotifyAccess=main takes 7650, the main process")
	cured.Cure = "set NotifyAccess=all"
	likely := cured
	likely.Likely, likely.Cure = true, ""
	partly := lineVerdict("FDSTORE", events.Heeded, "not all of 2 file descriptors are stored")
	partly.Cure = "set FileDescriptorStoreMax= higher"
	refuted := lineVerdict("READY", events.Heeded, "the service has started")
	refuted.Confirmed = eventtest.Ptr(false)
	for _, tc := range []struct {
		name, payload string
		verdict       events.Verdict
		want          string
	}{
		{"heeded", "READY=1", events.Verdict{Lines: []events.LineVerdict{lineVerdict("READY", events.Heeded, "the service has started")}}, "       READY=1"},
		{
			"ignored", "READY=1",
			events.Verdict{Lines: []events.LineVerdict{cured}},
			"       READY=1 IGNORED: it counts as from 7734, and NotifyAccess=main takes 7650, the main process; set NotifyAccess=all",
		},
		{
			"heeded in part", "FDSTORE=1",
			events.Verdict{Lines: []events.LineVerdict{partly}},
			"       FDSTORE=1 HEEDED: not all of 2 file descriptors are stored; set FileDescriptorStoreMax= higher",
		},
		{
			"ignored, as it seems", "READY=1",
			events.Verdict{Lines: []events.LineVerdict{likely}},
			"       READY=1 IGNORED (likely): it counts as from 7734, and NotifyAccess=main takes 7650, the main process",
		},
		{
			"in part", "READY=1\nA=1\nB=1",
			events.Verdict{Lines: []events.LineVerdict{
				lineVerdict("READY", events.Heeded, "the service has started"),
				lineVerdict("A", events.NoEffect, "nobody reads it"), lineVerdict("B", events.NoEffect, "nobody reads it"),
			}},
			"       READY=1 A=1 B=1 NO EFFECT A, B: nobody reads it",
		},
		{
			"unknown", "READY=1",
			events.Verdict{Lines: []events.LineVerdict{lineVerdict("READY", events.Unknown, "the state is not known")}},
			"queued READY=1 UNKNOWN: the state is not known",
		},
		{
			"refuted", "READY=1",
			events.Verdict{Lines: []events.LineVerdict{refuted}},
			"       READY=1 CONTRADICTED: READY= should have been heeded, and the unit does not show it",
		},
		{
			"claimed", "READY=1",
			events.Verdict{From: events.Process{PID: 85, Comm: "salt-minion"}, Lines: []events.LineVerdict{lineVerdict("READY", events.Heeded, "")}},
			"       READY=1 as salt-minion[85]",
		},
		{
			"another main process", "MAINPID=79",
			events.Verdict{
				Named: &events.Process{PID: 7606, Comm: "conmon"}, MainBefore: &events.Process{PID: 7600, Comm: "podman"},
				MainAfter: &events.Process{PID: 7606, Comm: "conmon"}, Lines: []events.LineVerdict{lineVerdict("MAINPID", events.Heeded, "")},
			},
			"       MAINPID=79 (7606 conmon) main process: podman[7600] -> conmon[7606]",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := eventtest.Plain(tc.payload)
			e.Result.Delivered = eventtest.Ptr(true)
			if diff := cmp.Diff(who+tc.want+"\n", string(plainText.AppendJudged(nil, e, &tc.verdict))); diff != "" {
				t.Errorf("- want, + got\n%s", diff)
			}
		})
	}
}

func TestOfAServiceManagerThatHasNotAnsweredNothingIsSaidYet(t *testing.T) {
	e := eventtest.Plain("READY=1")
	e.Result.Delivered = eventtest.Ptr(true)
	v := &events.Verdict{Pending: true, Lines: []events.LineVerdict{lineVerdict("READY", events.Unknown, "the service manager has not answered yet")}}
	if line := string(plainText.AppendJudged(nil, e, v)); !strings.HasSuffix(line, " queued READY=1\n") {
		t.Errorf("%q", line)
	}
}

func TestAVerdictThatIsLateHasALineOfItsOwn(t *testing.T) {
	e := eventtest.Plain("READY=1")
	e.Receiver = &events.Receiver{PID: 1, Comm: "systemd", Identity: events.Identity{Unit: "init.scope"}}
	v := &events.Verdict{
		Send: e, Time: e.Time.Add(time.Second), Manager: events.VerdictManager{PID: 1, Version: 252},
		Lines: []events.LineVerdict{lineVerdict("READY", events.Heeded, "the service has started")},
	}
	const want = "16:01:47.123456 systemd[1]             init.scope             <- nginx[812]            heeded after 1s READY=1\n"
	if diff := cmp.Diff(want, string(plainText.AppendVerdict(nil, v))); diff != "" {
		t.Errorf("- want, + got\n%s", diff)
	}
	e.Receiver = nil // it could not be proven
	const nobody = "16:01:47.123456 systemd[1]             -                      <- nginx[812]            heeded after 1s READY=1\n"
	if diff := cmp.Diff(nobody, string(plainText.AppendVerdict(nil, v))); diff != "" {
		t.Errorf("- want, + got\n%s", diff)
	}
	v.Lines[0] = lineVerdict("READY", events.NoEffect, "it is so already")
	if line := string(plainText.AppendVerdict(nil, v)); !strings.HasSuffix(line, "NO EFFECT: it is so already READY=1\n") {
		t.Errorf("%q", line)
	}
	v.Send = nil // it is not in the file
	if line := string(plainText.AppendVerdict(nil, v)); !strings.HasSuffix(line, "NO EFFECT: it is so already\n") {
		t.Errorf("%q", line)
	}
}
