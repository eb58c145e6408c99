// SPDX-License-Identifier: Apache-2.0

package timespan_test

import (
	"testing"
	"time"

	"github.com/sdtrace/sdtrace/internal/timespan"
)

func TestASpanIsWrittenWithoutWhatThereIsNothingOf(t *testing.T) {
	for want, d := range map[string]time.Duration{
		"0s": 0, "10s": 10 * time.Second, "1m": time.Minute, "10m": 10 * time.Minute,
		"1h": time.Hour, "1h0m1s": time.Hour + time.Second,
		"1h10m": 70 * time.Minute, "20h": 20 * time.Hour, "1.5s": 1500 * time.Millisecond, "-2m": -2 * time.Minute,
	} {
		if got := timespan.Format(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
		if back, err := time.ParseDuration(want); err != nil || back != d {
			t.Errorf("%q is read as %v, %v", want, back, err)
		}
	}
}
