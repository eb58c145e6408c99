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
	if len(sorted) == 0 {
		return spread{}
	}
	last := len(sorted) - 1
	return spread{sorted[last/4], sorted[last/2], sorted[last-last/4]}
}

// text is the median, and the quartiles in brackets.
func (s spread) text(unit string) string {
	digits := 0
	if max(-s.low, s.high) < 10 {
		digits = 2
	}
	return fmt.Sprintf("%.*f %s (%.*f to %.*f)", digits, s.median, unit, digits, s.low, digits, s.high)
}
