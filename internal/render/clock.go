// SPDX-License-Identifier: Apache-2.0

package render

import (
	"fmt"
	"strings"
	"time"
)

// Clock writes the times of lines. It is used for one output alone: what [Delta] writes depends on the
// line before.
type Clock struct {
	// Style says what of a time is written.
	Style ClockStyle
	// Zone is the time zone, nil for the local one.
	Zone *time.Location
	// Millis writes milliseconds, not microseconds.
	Millis bool

	before time.Time // that of the line before
}

// ClockStyle says what of a time is written.
type ClockStyle int

// The styles.
const (
	// TimeOfDay is the time of day, as 18:01:46.123456.
	TimeOfDay ClockStyle = iota
	// RFC3339 is date, time and offset, as 2026-11-23T18:01:46.123456+02:00.
	RFC3339
	// Delta is the time since the line before, in seconds, as +0.001250.
	Delta
)

// ClockOf returns the clock with a name: local, utc, rfc3339 or delta. The error says that there is no
// such clock.
func ClockOf(name string) (*Clock, error) {
	switch name {
	case "local":
		return new(Clock), nil
	case "utc":
		return &Clock{Zone: time.UTC}, nil
	case "rfc3339":
		return &Clock{Style: RFC3339}, nil
	case "delta":
		return &Clock{Style: Delta}, nil
	}
	return nil, fmt.Errorf("unknown clock %q: want local, utc, rfc3339 or delta", name)
}

// in is a time in the clock's zone.
func (c *Clock) in(at time.Time) time.Time {
	if c.Zone == nil {
		return at.Local()
	}
	return at.In(c.Zone)
}

func (c *Clock) append(b []byte, at time.Time) []byte {
	fraction := ".000000"
	if c.Millis {
		fraction = ".000"
	}
	switch c.Style {
	case RFC3339:
		return c.in(at).AppendFormat(b, "2006-01-02T15:04:05"+fraction+"Z07:00")
	case Delta:
		var since time.Duration
		if !c.before.IsZero() {
			since = at.Sub(c.before)
		}
		c.before = at
		return fmt.Appendf(b, "%+*.*f", len("+1000")+len(fraction), len(fraction)-1, since.Seconds())
	}
	return c.in(at).AppendFormat(b, "15:04:05"+fraction)
}

// width is how many columns a time takes, unless a delta is very long.
func (c *Clock) width() int {
	return len((&Clock{Style: c.Style, Zone: c.Zone, Millis: c.Millis}).append(nil, time.Time{}))
}

// day is what a header says of a time: the date and the zone.
func (c *Clock) day(at time.Time) string {
	at = c.in(at)
	name, day := at.Format("MST"), at.Format("Monday 2006-01-02, ")
	switch {
	case name == "UTC":
		return day + name
	case strings.ContainsAny(name, "+-"): // the zone has none
		return day + at.Format("UTC-07:00")
	}
	return day + name + at.Format(" (UTC-07:00)")
}
