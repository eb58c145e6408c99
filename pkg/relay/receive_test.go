// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/pkg/events"
)

// What is wrong with a datagram is seen also where its file descriptors have no room.
func TestWithoutRoomForFileDescriptorsADatagramIsRefusedForTheSame(t *testing.T) {
	var r receiver
	r.init()
	s := &r.slots[0]
	for _, hasRoom := range []bool{true, false} {
		d := s.datagram(&unix.Msghdr{Flags: unix.MSG_CTRUNC}, 7, hasRoom)
		want := ReasonNoCredentials
		if hasRoom {
			want = ReasonControlTruncated
		}
		if d.refused != want || d.noFDs == hasRoom {
			t.Errorf("with room %v it is refused for %q, its file descriptors left: %v", hasRoom, d.refused, d.noFDs)
		}
	}
	if d := s.datagram(&unix.Msghdr{Flags: unix.MSG_CTRUNC}, events.MaxPayload+1, false); d.refused != ReasonTooLong {
		t.Errorf("one that is too long is refused for %q", d.refused)
	}
}

// A process outside our pid namespace has number 0 for us, as has a main process that there is not.
func TestAProcessWithoutANumberIsNotTheMainProcess(t *testing.T) {
	id, err := newIdentity(Container{Cgroup: "/nowhere"}, AccessAll)
	if err != nil {
		t.Fatal(err)
	}
	defer id.close()
	if p := id.identify(0, -1, false); p == nil || p.refused != ReasonUnidentified {
		t.Errorf("it is %+v", p)
	}
}
