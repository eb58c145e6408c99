// SPDX-License-Identifier: Apache-2.0

//go:build linux

package boot_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sdtrace/sdtrace/pkg/events"
)

// someUnits is in the form of showUnits. docker comes after containerd directly, and
// after the bus because of a target in between.
const someUnits = `Type=notify
Id=docker.service
After=containerd.service basic.target
ActiveState=active

Type=notify-reload
Id=logind.service
After=basic.target
ActiveState=active

Id=basic.target
After=dbus.service
ActiveState=active

Type=notify
Id=containerd.service
After=
ActiveState=active

Type=notify
Id=dbus.service
After=oneshot.service
ActiveState=active

Type=oneshot
Id=oneshot.service
ActiveState=active

Type=notify
Id=broken.service
ActiveState=failed
`

func TestUnitsAreRanked(t *testing.T) {
	u := parseUnits(t, someUnits)
	names := u.notifying()
	if diff := cmp.Diff([]string{"containerd.service", "dbus.service", "docker.service", "logind.service"}, names); diff != "" {
		t.Fatalf("services (-want +got):\n%s", diff)
	}
	want := [][]string{{"containerd.service", "dbus.service"}, {"docker.service", "logind.service"}}
	if diff := cmp.Diff(want, u.ranks(names)); diff != "" {
		t.Errorf("ranks (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"containerd.service", "dbus.service"}, u.after("docker.service", names)); diff != "" {
		t.Errorf("docker is after (-want +got):\n%s", diff)
	}
}

// Two boots in which the same is said in another order, and more often.
var boots = [2][]string{
	{"journal READY=1", "journal FDSTORE=1", "user X_ACTIVE=a", "bus READY=1", "user X_ACTIVE=b", "user READY=1"},
	{"bus READY=1", "journal READY=1", "user X_ACTIVE=b", "journal FDSTORE=1", "journal FDSTORE=1", "user X_ACTIVE=a", "user STATUS=User job a/start running (1s / 1min 30s)...", "user READY=1"},
}

func TestBootsThatDifferOnlyInTheirTurnsAreTheSame(t *testing.T) {
	const want = `bus.service
    0.000  bus[2] -> /run/systemd/notify systemd[1] READY=1
journal.service
    0.000  journal[2] -> /run/systemd/notify systemd[1] READY=1
    0.000  journal[2] -> /run/systemd/notify systemd[1] FDSTORE=1
user.service
    0.000  user[2] -> /run/systemd/notify systemd[1] X_ACTIVE=a
    0.000  user[2] -> /run/systemd/notify systemd[1] X_ACTIVE=b
    0.000  user[2] -> /run/systemd/notify systemd[1] READY=1
`
	for _, boot := range boots {
		if diff := cmp.Diff(want, timeline(said(boot), time.Time{})); diff != "" {
			t.Errorf("timeline (-want +got):\n%s", diff)
		}
	}
	other := append([]string{"user READY=1"}, boots[0]...)
	if timeline(said(other), time.Time{}) == want {
		t.Error("a unit that says the same in another order is not seen")
	}
}

// said makes datagrams of "WHO KEY=VALUE".
func said(lines []string) (sends []*events.Event) {
	for _, line := range lines {
		who, what, _ := strings.Cut(line, " ")
		sends = append(sends, &events.Event{
			Sender:   events.Sender{PID: 2, Comm: who, Identity: events.Identity{Unit: who + ".service"}},
			Receiver: &events.Receiver{PID: 1, Comm: "systemd"},
			Socket:   events.Socket{Address: systemSocket},
			Payload:  []byte(what),
		})
	}
	return sends
}
