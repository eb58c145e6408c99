// SPDX-License-Identifier: Apache-2.0

package tracer

// Followed reports whether any datagram of a process was followed. The error is the
// kernel's.
func (t *Tracer) Followed(pid uint32) (bool, error) {
	senders := t.collection.Maps["senders"]
	if senders == nil {
		return false, nil // this backend follows none
	}
	var key struct{ StartTime, PID uint64 }
	var exited uint64
	entries := senders.Iterate()
	for entries.Next(&key, &exited) {
		if key.PID == uint64(pid) {
			return true, nil
		}
	}
	return false, entries.Err()
}

// RingBytes is how much of the ring buffer holds what was not read yet.
func (t *Tracer) RingBytes() int { return t.reader.AvailableBytes() }
