// SPDX-License-Identifier: Apache-2.0

// Package timespan writes spans of time for people.
package timespan

import (
	"strings"
	"time"
)

// Format is shorter than [time.Duration.String], and can be parsed, too: 2m instead of 2m0s, 1h instead of 1h0m0s.
func Format(d time.Duration) string {
	s := d.String()
	for _, nothing := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(s, nothing) {
			s = s[:len(s)-2]
		}
	}
	return s
}
