// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/wire"
	"github.com/sdtrace/sdtrace/pkg/events"
)

// sentBy is a send of a thread of this process, which is not sending now.
func sentBy(tid int, payload, errno string) item {
	b := new(wire.SendBuffer)
	b.Event = events.Event{
		Sender: events.Sender{PID: uint32(os.Getpid()), TID: uint32(tid)}, Payload: []byte(payload),
		Result: events.Result{Errno: errno},
	}
	return item{send: b}
}

func TestASendThatIsNotMadeOnceMoreWasInterrupted(t *testing.T) {
	var r retries
	if shown, _ := r.pass([]item{sentBy(unix.Gettid(), "READY=1", "ERESTARTSYS")}); len(shown) != 0 {
		t.Fatalf("%d are shown at once", len(shown))
	}
	if shown := r.giveUp(false); len(shown) != 0 {
		t.Fatalf("%d are shown before the thread can have sent again", len(shown))
	}
	r.since[0] = r.since[0].Add(-2 * retriedFor)
	shown := r.giveUp(false)
	if len(shown) != 1 || shown[0].send.Event.Result.Errno != "EINTR" {
		t.Errorf("shown: %+v", shown)
	}
}

func TestAnotherMessageOfTheThreadShowsThatTheOneBeforeWasInterrupted(t *testing.T) {
	var r retries
	r.pass([]item{sentBy(7, "READY=1", "ERESTARTSYS")})
	shown, dropped := r.pass([]item{sentBy(7, "STATUS=other", "")})
	if len(shown) != 2 || shown[0].send.Event.Result.Errno != "EINTR" || dropped != 0 {
		t.Errorf("shown: %+v, dropped %d", shown, dropped)
	}
}

func TestARestartedSendIsOneMessageThatTookAllTheTime(t *testing.T) {
	var r retries
	began := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	first, second := sentBy(7, "READY=1", "ERESTARTSYS"), sentBy(7, "READY=1", "")
	first.send.Event.Time, first.send.Event.Result.Latency = began.Add(2*time.Second), 2*time.Second
	second.send.Event.Time, second.send.Event.Result.Latency = began.Add(5*time.Second), time.Second
	r.pass([]item{first})
	shown, dropped := r.pass([]item{second})
	if len(shown) != 1 || dropped != 1 {
		t.Fatalf("shown: %+v, dropped %d", shown, dropped)
	}
	if result := shown[0].send.Event.Result; result.Errno != "" || result.Latency != 5*time.Second {
		t.Errorf("the result is %+v", result)
	}
}
