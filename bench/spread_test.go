// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import "testing"

func TestHalfOfTheMeasurementsLieWithinTheSpread(t *testing.T) {
	for _, tt := range []struct {
		values []float64
		want   spread
	}{
		{nil, spread{}},
		{[]float64{7}, spread{7, 7, 7}},
		{[]float64{5, 9, 1}, spread{1, 5, 9}},
		{[]float64{5, 1, 4, 2, 3}, spread{2, 3, 4}},
		{[]float64{9, -1, 4, 100, 3, 8, 5, 7, 6}, spread{4, 6, 8}},
	} {
		if got := spreadOf(tt.values); got != tt.want {
			t.Errorf("%v: %v, want %v", tt.values, got, tt.want)
		}
	}
}

func TestTheSummaryOfACaptureIsUnderstood(t *testing.T) {
	events, lost, err := parseSummary("sdtrace: capturing\nsdtrace: 1234 events, 5 lost, 3 not read yet\n")
	if events != 1234 || lost != 5 || err != nil {
		t.Errorf("%d events, %d lost, %v", events, lost, err)
	}
	if _, _, err := parseSummary("sdtrace: it broke\n"); err == nil {
		t.Error("a capture that broke is taken for one that ended well")
	}
}
