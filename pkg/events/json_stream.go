// SPDX-License-Identifier: Apache-2.0

package events

import "time"

// JSONStream writes what [JSONEncoder] does, for a stream of records: it remembers how the last senders and receivers were
// written, which is a third of a datagram's line and mostly the same as before. The zero value is ready. It must not be
// used concurrently.
type JSONStream struct {
	senders   [rememberedMax]remembered[Sender]
	receivers [rememberedMax]remembered[destination]
	// second is the last one, and written how it was.
	second  int64
	written []byte
}

// rememberedMax is how many of each are remembered: as many as send in turn on a busy host, and not so many that they
// take much memory.
const rememberedMax = 64

// remembered is what was written for a value.
type remembered[T comparable] struct {
	value T
	// container is that of the value, as it was: its name can be filled in later.
	container    Container
	hasContainer bool
	text         []byte
}

// destination is what is written of a socket and its receiver, but for the container.
type destination struct {
	socket      Socket
	receiver    Receiver
	hasReceiver bool
	uid         uint32
	hasUID      bool
}

// AppendRecord appends what r holds to b as one line, its '\n' included.
func (j *JSONStream) AppendRecord(b []byte, r *Record) []byte {
	if r.Event != nil {
		return j.AppendEvent(b, r.Event)
	}
	return JSONEncoder{}.AppendRecord(b, r)
}

// AppendEvent appends e to b as one line, its '\n' included.
func (j *JSONStream) AppendEvent(b []byte, e *Event) []byte { return appendEvent(b, e, j) }

func (j *JSONStream) appendTime(b []byte, t time.Time) []byte {
	if second := t.Unix(); j.written == nil || second != j.second {
		j.second, j.written = second, t.UTC().AppendFormat(append(j.written[:0], `,"time":"`...), time.RFC3339)
	}
	return appendFraction(append(b, j.written...), t)
}

func (j *JSONStream) appendSender(b []byte, s *Sender) []byte {
	m := &j.senders[s.TID%rememberedMax]
	key := *s
	key.Container = nil
	if !m.holds(&key, s.Container) {
		m.text = appendSender(m.text[:0], s)
		m.keep(key, s.Container)
	}
	return append(b, m.text...)
}

func (j *JSONStream) appendDestination(b []byte, e *Event) []byte {
	key := destination{socket: e.Socket}
	var container *Container
	if r := e.Receiver; r != nil {
		key.receiver, key.hasReceiver, container = *r, true, r.Container
		key.receiver.UID, key.receiver.Container = nil, nil
		if r.UID != nil {
			key.uid, key.hasUID = *r.UID, true
		}
	}
	m := &j.receivers[e.Socket.Inode%rememberedMax]
	if !m.holds(&key, container) {
		m.text = appendDestination(m.text[:0], e)
		m.keep(key, container)
	}
	return append(b, m.text...)
}

func (m *remembered[T]) holds(value *T, container *Container) bool {
	return len(m.text) > 0 && m.hasContainer == (container != nil) && m.value == *value &&
		(container == nil || m.container == *container)
}

func (m *remembered[T]) keep(value T, container *Container) {
	m.value, m.hasContainer = value, container != nil
	if container != nil {
		m.container = *container
	}
}
