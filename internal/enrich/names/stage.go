// SPDX-License-Identifier: Apache-2.0

package names

import (
	"time"

	"github.com/sdtrace/sdtrace/pkg/events"
)

// eventWait is how long an event may wait for the name of a container that it is the first
// to come from.
const eventWait = 250 * time.Millisecond

// Stage names the containers in the records of a stream.
type Stage struct {
	Names *Names
	// Busy reports whether so much waits to be read that nothing waits for names.
	Busy func() bool
}

// Do says what the containers in a record are called, if that is known by now or in a moment.
func (s *Stage) Do(r *events.Record) {
	switch {
	case r.Event != nil:
		s.complete(&r.Event.Sender.Identity)
		if r.Event.Receiver != nil {
			s.complete(&r.Event.Receiver.Identity)
		}
	case r.Receipt != nil:
		s.complete(&r.Receipt.By.Identity)
	}
}

func (s *Stage) complete(id *events.Identity) {
	if id.Container == nil {
		return
	}
	var name Name
	if key := KeyOf(id); s.Busy() {
		name, _ = s.Names.Name(key)
	} else {
		name, _ = s.Names.NameWithin(key, eventWait)
	}
	name.Complete(id)
}
