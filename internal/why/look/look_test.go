// SPDX-License-Identifier: Apache-2.0

//go:build linux

package look

import (
	"testing"
	"time"

	"github.com/sdtrace/sdtrace/internal/why"
	"github.com/sdtrace/sdtrace/pkg/events"
)

// One capture knows what became of a datagram, another one, without verdicts, does not.
func TestOfTwoCapturesThatTellOfADatagramTheVerdictIsKept(t *testing.T) {
	at := time.Unix(1, 0)
	sent := func(after time.Duration) *events.Event {
		e := &events.Event{Time: at.Add(after), Payload: []byte("READY=1")}
		e.Sender.TID = 7
		return e
	}
	verdict := new(events.Verdict)
	const once, again = 0, time.Millisecond
	said := merged([]why.Said{
		{Event: sent(once)},
		{Event: sent(once + 2*time.Microsecond), Source: 1, Verdict: verdict},
		{Event: sent(again)},
		{Event: sent(again + 2*time.Microsecond), Source: 1},
		{Event: sent(time.Second)},
	})
	if len(said) != 3 || said[0].Verdict != verdict || said[1].Verdict != nil || said[2].Verdict != nil {
		t.Errorf("%+v", said)
	}
}

func TestASendThatHungIsOverWhenItsThreadHasSentAgain(t *testing.T) {
	at := time.Unix(1, 0)
	hang := &events.Hang{Since: at}
	hang.Sender.TID = 7
	sent := func(tid uint32, after time.Duration) why.Said {
		e := &events.Event{Time: at.Add(after)}
		e.Sender.TID = tid
		return why.Said{Event: e}
	}
	if isOver(hang, []why.Said{sent(7, -time.Second), sent(7, 0), sent(8, time.Second)}) {
		t.Error("it is over")
	}
	if !isOver(hang, []why.Said{sent(7, time.Second)}) {
		t.Error("it is not over")
	}
}

func TestWhatTheServiceManagerHasForkedAloneIsNotTheService(t *testing.T) {
	for _, p := range []struct {
		comm, exe string
		want      bool
	}{
		{"(sh)", "/usr/lib/systemd/systemd-executor", true},
		{"(nginx)", "/usr/lib/systemd/systemd", true},
		{"(sh)", "/usr/bin/dash", false}, // which has named itself so
		{"systemd", "/usr/lib/systemd/systemd", false},
	} {
		if got := isUnexecuted(p.comm, p.exe); got != p.want {
			t.Errorf("%s of %s: %v", p.comm, p.exe, got)
		}
	}
}
