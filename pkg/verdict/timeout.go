// SPDX-License-Identifier: Apache-2.0

package verdict

import "time"

func noNumber(s *scene) bool { _, ok := parseNumber(s.line.Value); return !ok }

// later is when the time that EXTEND_TIMEOUT_USEC= asks for is over.
func (s *scene) later() time.Duration {
	s.need(s.datagram.Read != 0, "when the service manager read it")
	usec, _ := parseNumber(s.line.Value)
	if usec > uint64(Never/time.Microsecond) || s.datagram.Read > Never-time.Duration(usec)*time.Microsecond {
		return Never
	}
	return s.datagram.Read + time.Duration(usec)*time.Microsecond
}

// extends reports whether a deadline is before that.
func (s *scene) extends(deadline *time.Duration, what string) bool {
	at := known(s, deadline, "when "+what+" of "+s.unit.Name+" is over")
	return at != Never && at < s.later()
}

var timeouts = []rule{
	{
		id: "D28", key: "EXTEND_TIMEOUT_USEC", source: reads, outcome: NoEffect, when: noNumber,
		reason: "\"$value\" is no number",
		cure:   "send microseconds, in decimal and without a unit",
	},
	{
		id: "E1", key: "EXTEND_TIMEOUT_USEC", source: extends, outcome: NoEffect,
		when:   func(s *scene) bool { usec, _ := parseNumber(s.line.Value); return !isTime(usec) },
		reason: "neither 0 nor infinity is a time to extend a timeout by",
	},
	{
		id: "E2", key: "EXTEND_TIMEOUT_USEC", source: extends, outcome: NoEffect,
		when: func(s *scene) bool {
			return known(s, s.unit.Deadline, "when the timeout of "+s.unit.Name+" is over") == Never &&
				known(s, s.unit.WatchdogDeadline, "when the watchdog of "+s.unit.Name+" is over") == Never
		},
		reason: "no timeout is running in state $state",
	},
	{
		id: "E3", key: "EXTEND_TIMEOUT_USEC", source: "service_extend_event_source_timeout", outcome: NoEffect,
		when: func(s *scene) bool {
			return !s.extends(s.unit.Deadline, "the timeout") && !s.extends(s.unit.WatchdogDeadline, "the watchdog")
		},
		reason: "the timeout ends later than that already, and is never made shorter",
	},
	{
		id: "E0", key: "EXTEND_TIMEOUT_USEC", source: extends, outcome: Heeded,
		reason: "the timeout ends no sooner than that",
		then: func(s *scene) {
			for _, deadline := range []**time.Duration{&s.unit.Deadline, &s.unit.WatchdogDeadline} {
				if at := s.later(); *deadline != nil && **deadline < at {
					*deadline = &at
				}
			}
		},
	},
	{
		id: "D28", key: "WATCHDOG", source: reads, outcome: NoEffect,
		when:   func(s *scene) bool { return !s.is("1") && !s.is("trigger") },
		reason: "only WATCHDOG=1 and WATCHDOG=trigger mean something",
		cure:   "send WATCHDOG=1",
	},
	{
		id: "D25", key: "WATCHDOG", source: "service_force_watchdog", outcome: Heeded,
		when:   func(s *scene) bool { return s.is("trigger") },
		reason: "the service is ended as if its watchdog had run out",
		then:   func(s *scene) { s.enter("stop-watchdog") },
	},
	{
		id: "D24", key: "WATCHDOG", since: 257, source: watches, outcome: Ignored,
		when:   func(s *scene) bool { return known(s, s.unit.Frozen, "whether "+s.unit.Name+" is frozen") },
		reason: "the service is frozen",
	},
	{
		id: "D23", key: "WATCHDOG", source: watches, outcome: NoEffect,
		when:   func(s *scene) bool { return known(s, s.unit.Watchdog, "WatchdogSec= of "+s.unit.Name) == 0 },
		reason: "the service has no watchdog: WatchdogSec= is not set",
		cure:   "set WatchdogSec=, or do not send WATCHDOG=1",
	},
	{
		id: "D23a", key: "WATCHDOG", source: watches, outcome: Heeded,
		reason: "the watchdog's interval begins anew",
		then:   func(s *scene) { s.ping() },
	},
	{
		id: "D28", key: "WATCHDOG_USEC", source: reads, outcome: NoEffect, when: noNumber,
		reason: "\"$value\" is no number",
		cure:   "send microseconds, in decimal and without a unit",
	},
	{
		id: "W0", key: "WATCHDOG_USEC", source: "service_override_watchdog_timeout", outcome: Heeded,
		reason: "it is the watchdog's interval now, and begins anew",
		then: func(s *scene) {
			usec, _ := parseNumber(s.line.Value)
			interval := time.Duration(0)
			if isTime(usec) && usec < uint64(Never/time.Microsecond) {
				interval = time.Duration(usec) * time.Microsecond
			}
			s.unit.Watchdog = &interval
			s.ping()
		},
	},
	{
		id: "W1", key: "RESTART_RESET", source: reads, outcome: NoEffect,
		when:   func(s *scene) bool { return !s.in("running", "stop") },
		reason: "restarts are counted anew for a service that runs, and it is in state $state",
	},
	{id: "W2", key: "RESTART_RESET", source: reads, outcome: Heeded, reason: "restarts are counted from 0"},
}
