// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"testing"
	"time"
)

// A busy machine lets something else run between two readings of two clocks: what is read then is not of one moment.
func TestTwoClocksAreReadAtOneMoment(t *testing.T) {
	const ahead = time.Hour
	var now time.Duration
	read := 0
	// Something else runs for a second after one of the clocks was read, in the first two of three readings.
	gap := func() {
		if read++; read == 3 || read == 6 {
			now += time.Second
		}
		now += time.Microsecond
	}
	one := func() time.Duration { gap(); return now + ahead }
	other := func() time.Duration { gap(); return now }
	if a, b := sameMoment(one, other); (a - b - ahead).Abs() > time.Microsecond {
		t.Errorf("the clocks are %s apart, not %s", a-b, ahead)
	}
}

func TestTheClocksAreThose(t *testing.T) {
	before := time.Now() //nolint:forbidigo // it is what is tested
	wall, boot := WallAndBootTime()
	if wall.Before(before.Round(0)) || boot <= 0 || boot > BootTime() {
		t.Errorf("%s, %s", wall, boot)
	}
	if wall, monotonic := WallAndMonotonic(); wall.Before(before.Round(0)) || monotonic <= 0 || monotonic > Monotonic() {
		t.Errorf("%s, %s", wall, monotonic)
	}
}
