// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"fmt"
	"slices"
)

// spread is the median of some measurements, and what half of them lie between.
type spread struct{ low, median, high float64 }

func spreadOf(values []float64) spread {
	sorted := slices.Sorted(slices.Values(values))
	at := func(quarters int) float64 {
		if len(sorted) == 0 {
			return 0
		}
		return sorted[(len(sorted)-1)*quarters/4]
	}
	return spread{at(1), at(2), at(3)}
}

// text is the median, and the quartiles in brackets.
func (s spread) text(unit string) string {
	digits := 0
	if s.high < 10 {
		digits = 2
	}
	return fmt.Sprintf("%.*f %s (%.*f to %.*f)", digits, s.median, unit, digits, s.low, digits, s.high)
}
