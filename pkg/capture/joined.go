// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"errors"
	"slices"

	"github.com/sdtrace/sdtrace/pkg/events"
)

// Joined returns a sink that holds back an event until the first verdict on it is there, a quarter of
// a second at most, and what comes behind it meanwhile. write is called in order with each event and
// that verdict, nil without one, and with each other record; [ErrStop] ends the copy. flush may be nil.
func Joined(write func(r *events.Record, v *events.Verdict) error, flush func() error) Sink {
	return &joined{write: write, flush: flush}
}

type joined struct {
	write func(*events.Record, *events.Verdict) error
	flush func() error
	held  []heldRecord
}

// heldRecord is one that waits for its verdict, or for those before it.
type heldRecord struct {
	record  events.Record
	waits   bool
	verdict *events.Verdict
}

func (j *joined) Write(r *events.Record) error {
	if r.Verdict != nil {
		i := slices.IndexFunc(j.held, func(h heldRecord) bool { return h.waits && h.record.Event.Seq == r.Verdict.Seq })
		if i >= 0 {
			j.held[i].waits, j.held[i].verdict = false, r.Clone().Verdict
			return j.release()
		}
	}
	waits := r.Event != nil && r.Event.Awaited
	if len(j.held) == 0 && !waits {
		return j.write(r, nil)
	}
	j.held = append(j.held, heldRecord{record: r.Clone(), waits: waits})
	return nil
}

// release writes what does not wait any more.
func (j *joined) release() error {
	for len(j.held) > 0 && !j.held[0].waits {
		h := j.held[0]
		j.held = j.held[1:]
		if err := j.write(&h.record, h.verdict); err != nil {
			j.held = nil // nothing more is wanted
			return err
		}
	}
	return nil
}

func (j *joined) Flush() error {
	if j.flush == nil {
		return nil
	}
	return j.flush()
}

// Close writes what is held still: no verdict comes any more.
func (j *joined) Close() error {
	for i := range j.held {
		j.held[i].waits = false
	}
	if err := j.release(); err != nil && !errors.Is(err, ErrStop) {
		return err
	}
	return j.Flush()
}
