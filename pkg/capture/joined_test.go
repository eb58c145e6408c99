// SPDX-License-Identifier: Apache-2.0

package capture_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sdtrace/sdtrace/pkg/capture"
	"github.com/sdtrace/sdtrace/pkg/events"
)

func TestAnEventIsHeldUntilItsVerdictIsThere(t *testing.T) {
	awaited := func(seq uint64) events.Record {
		r := said(seq, "READY=1")
		r.Event.Awaited = true
		return r
	}
	verdict := func(seq uint64, unit string) events.Record {
		return events.Record{Verdict: &events.Verdict{Seq: seq, Unit: unit}}
	}
	for _, tc := range []struct {
		name    string
		records []events.Record
		want    []string
	}{
		{"no verdict is awaited", []events.Record{said(1, "A=1"), said(2, "B=1")}, []string{"1", "2"}},
		{"in order", []events.Record{awaited(1), said(2, "B=1"), verdict(1, "a")}, []string{"1 a", "2"}},
		{
			"the second verdict is there first",
			[]events.Record{awaited(1), awaited(2), verdict(2, "b"), said(3, "C=1"), verdict(1, "a")},
			[]string{"1 a", "2 b", "3"},
		},
		{"another verdict later", []events.Record{awaited(1), verdict(1, "a"), verdict(1, "b")}, []string{"1 a", "verdict on 1 b"}},
		{"the end comes first", []events.Record{awaited(1), said(2, "B=1")}, []string{"1", "2"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got []string
			flushed := 0
			sink := capture.Joined(func(r *events.Record, v *events.Verdict) error {
				var line string
				if r.Event != nil {
					line = fmt.Sprint(r.Event.Seq)
				} else {
					line = fmt.Sprintf("verdict on %d %s", r.Verdict.Seq, r.Verdict.Unit)
				}
				if v != nil {
					line += " " + v.Unit
				}
				got = append(got, line)
				return nil
			}, func() error { flushed++; return nil })
			for _, r := range tc.records {
				if err := sink.Write(&r); err != nil {
					t.Fatal(err)
				}
			}
			if err := sink.Close(); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" || flushed != 1 {
				t.Errorf("flushed %d times (-want +got):\n%s", flushed, diff)
			}
		})
	}
}

func TestAJoinedSinkEndsTheCopyWhenItHasEnough(t *testing.T) {
	r := said(1, "READY=1")
	r.Event.Awaited = true
	source := &script{records: []events.Record{r, said(2, "B=1"), {Verdict: &events.Verdict{Seq: 1}}, said(3, "C=1")}}
	var got []uint64
	sink := capture.Joined(func(r *events.Record, _ *events.Verdict) error {
		got = append(got, r.Event.Seq)
		return capture.ErrStop
	}, nil)
	if err := capture.New(source, nil).Copy(sink); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]uint64{1}, got); diff != "" {
		t.Error(diff)
	}
}
