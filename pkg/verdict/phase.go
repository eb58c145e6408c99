// SPDX-License-Identifier: Apache-2.0

package verdict

// The states in which a service starts, as far as READY=1 cannot count yet, and those in which it
// stops or does not run.
var (
	beforeStart = []string{"condition", "start-pre"}
	ends        = []string{
		"stop", "stop-watchdog", "stop-sigterm", "stop-sigkill", "stop-post", "final-watchdog", "final-sigterm", "final-sigkill",
	}
	over = []string{
		"dead", "failed", "exited", "auto-restart", "auto-restart-queued", "dead-before-auto-restart", "failed-before-auto-restart",
		"dead-resources-pinned", "cleaning",
	}
)

var stopping = []rule{
	{
		id: "D7a", key: "READY RELOADING STOPPING", before: 253, source: enters, outcome: Ignored, when: outdone,
		reason: "$phase=1 comes later in the same datagram, and the last one counts",
		cure:   "send them in datagrams of their own",
	},
	{
		id: "D7a", key: "READY RELOADING STOPPING", since: 253, source: enters, outcome: Ignored, when: outdone,
		reason: "$phase=1 in the same datagram takes its place",
		cure:   "send them in datagrams of their own",
	},
	{
		id: "D14", key: "STOPPING", source: "service_enter_stop_by_notify", outcome: Heeded,
		when: func(s *scene) bool {
			return s.in("running") || s.version >= 253 && s.in("reload-signal", "reload-notify", "refresh-extensions", "refresh-credentials")
		},
		reason: "the service is stopping now, and has to end within TimeoutStopSec=",
		then:   func(s *scene) { s.note(true); s.enter("stop-sigterm") },
	},
	{
		id: "D14a", key: "STOPPING", source: enters, outcome: NoEffect,
		when:   func(s *scene) bool { return s.in(ends...) },
		reason: "the service is stopping already",
		then:   func(s *scene) { s.note(true) },
	},
	{
		id: "D14b", key: "STOPPING", source: enters, outcome: NoEffect,
		reason: "the service is in state $state, and not running",
		then:   func(s *scene) { s.note(true) },
	},
}

// outdone reports whether another assignment of the datagram takes the line's place.
func outdone(s *scene) bool { return s.line.Key != s.phase() && !s.reloadsAtOnce() }

// reloadsAtOnce reports whether the datagram says that the unit has reloaded: RELOADING=1 and READY=1.
func (s *scene) reloadsAtOnce() bool {
	return s.version >= 253 && s.phase() == "READY" && s.line.Key == "RELOADING"
}

// note notes whether the unit has said that it stops.
func (s *scene) note(stopping bool) { s.unit.Stopping = &stopping }

func (s *scene) kind() string {
	s.need(s.unit.Type != "", "Type= of "+s.unit.Name)
	return s.unit.Type
}

// isStopping reports whether the unit has said STOPPING=1, after which it cannot be ready again.
func (s *scene) isStopping() bool {
	return known(s, s.unit.Stopping, "whether "+s.unit.Name+" has said STOPPING=1 before")
}

// couldBeReady reports whether READY=1 would change the state.
func (s *scene) couldBeReady() bool {
	return s.in("start") && takesReady(s.kind()) || s.in("reload-notify", "reload-signal") ||
		s.version < 253 && s.in("reload")
}

var ready = []rule{
	{
		id: "D7", key: "READY", since: 259, source: enters, outcome: Ignored,
		when:   func(s *scene) bool { return s.couldBeReady() && s.isStopping() },
		reason: "the service has said STOPPING=1 and has to stop",
		cure:   "send STOPPING=1 only at the end",
	},
	{
		id: "D8", key: "READY", since: 262, source: reads, outcome: Ignored,
		when: func(s *scene) bool {
			return s.kind() == "notify-reload" && s.in("start") && !known(s, s.unit.ReloadHandled, "whether the main process handles ReloadSignal=")
		},
		reason: "the main process neither handles nor blocks ReloadSignal=, and so the start fails",
		cure:   "install the handler before READY=1, or set Type=notify",
		then:   func(s *scene) { s.enter("") },
	},
	{
		id: "D4", key: "READY", source: "service_enter_start_post", outcome: Heeded,
		when:   func(s *scene) bool { return s.in("start") && takesReady(s.kind()) },
		reason: "the service has started",
		then:   started,
	},
	{
		id: "D5a", key: "READY", source: reads, outcome: Heeded,
		when:   func(s *scene) bool { return s.in("reload-notify") },
		reason: "the reload is over",
		then:   reloaded,
	},
	{
		id: "D5a", key: "READY", before: 253, source: reads, outcome: Heeded,
		when: func(s *scene) bool {
			return s.in("reload") && known(s, s.unit.ControlPID, "the control process of "+s.unit.Name) == 0
		},
		reason: "the reload is over",
		then:   reloaded,
	},
	{
		id: "D5b", key: "READY", source: reads, outcome: NoEffect,
		when:   func(s *scene) bool { return s.in("reload", "reload-post", "refresh-extensions", "refresh-credentials") },
		reason: "the reload is over when ExecReload= is",
	},
	{
		id: "D12", key: "READY", source: enters, outcome: Heeded,
		when: func(s *scene) bool {
			return s.in("reload-signal") && s.datagram.has("RELOADING=1") && s.isReloadAnswer()
		},
		reason: "the reload is over",
		then:   reloaded,
	},
	{
		id: "D11", key: "READY", source: enters, outcome: NoEffect,
		when:   func(s *scene) bool { return s.in("reload-signal") },
		reason: "the reload that was asked for has not begun: RELOADING=1 with MONOTONIC_USEC= of this reload has to come first",
		cure:   "send RELOADING=1 and MONOTONIC_USEC= in one datagram when the reload begins",
	},
	{
		id: "D5", key: "READY", source: enters, outcome: NoEffect,
		when:   func(s *scene) bool { return !takesReady(s.kind()) },
		reason: "Type=$type does not wait for READY=1",
		cure:   "set Type=notify, if the start is to wait for it",
	},
	{
		id: "D6", key: "READY", source: enters, outcome: NoEffect,
		when:   func(s *scene) bool { return s.in(beforeStart...) },
		reason: "ExecCondition= or ExecStartPre= still runs, and READY=1 is not remembered",
		cure:   "send READY=1 from ExecStart=",
	},
	{
		id: "D5c", key: "READY", source: enters, outcome: NoEffect,
		when:   func(s *scene) bool { return s.in(ends...) },
		reason: "the service is stopping",
	},
	{
		id: "D5c", key: "READY", source: enters, outcome: NoEffect,
		when:   func(s *scene) bool { return s.in(over...) },
		reason: "the service is in state $state, and not starting",
	},
	{
		id: "D5d", key: "READY", source: enters, outcome: NoEffect,
		reason: "the service has started already",
	},
}

// started is what READY=1 makes of a unit that starts.
func started(s *scene) {
	switch post := s.unit.StartPost; {
	case post == nil:
		s.enter("")
	case *post:
		s.enter("start-post")
	default:
		s.enter("running")
	}
	s.ping()
	s.note(false)
}

func reloaded(s *scene) {
	s.enter("running")
	s.note(false)
}

// ping starts the watchdog's interval anew.
func (s *scene) ping() {
	s.unit.WatchdogDeadline = nil
	if interval := s.unit.Watchdog; interval != nil && s.datagram.Read != 0 {
		at := Never
		if *interval != 0 {
			at = s.datagram.Read + *interval
		}
		s.unit.WatchdogDeadline = &at
	}
}

var reloading = []rule{
	{
		id: "D7", key: "RELOADING", since: 259, source: enters, outcome: Ignored,
		when:   func(s *scene) bool { return s.in("running", "reload-signal") && s.isStopping() },
		reason: "the service has said STOPPING=1 and has to stop",
		cure:   "send STOPPING=1 only at the end",
	},
	{
		id: "D12a", key: "RELOADING", since: 253, source: enters, outcome: Heeded,
		when:   func(s *scene) bool { return s.reloadsAtOnce() && s.in("running") },
		reason: "with READY=1 it means a reload that is over: units to which it is propagated are told",
	},
	{
		id: "D12", key: "RELOADING", since: 253, source: enters, outcome: Heeded,
		when:   func(s *scene) bool { return s.in("reload-signal") && s.isReloadAnswer() },
		reason: "the reload that was asked for has begun",
		then: func(s *scene) {
			if !s.reloadsAtOnce() {
				s.unit.SubState = "reload-notify" // with the same timeout
			}
		},
	},
	{
		id: "D11", key: "RELOADING", since: 253, source: enters, outcome: NoEffect,
		when: func(s *scene) bool {
			_, timed := s.datagram.Text.Lookup("MONOTONIC_USEC")
			return !timed && s.in("reload-signal")
		},
		reason: "the service manager has asked for a reload, and waits for RELOADING=1 with MONOTONIC_USEC= in the same datagram",
		cure:   "send MONOTONIC_USEC= with the time by CLOCK_MONOTONIC in the same datagram",
	},
	{
		id: "D11", key: "RELOADING", since: 253, source: enters, outcome: NoEffect,
		when:   func(s *scene) bool { return s.in("reload-signal") },
		reason: tooEarly,
		cure:   "take the time when the reload begins, by CLOCK_MONOTONIC",
	},
	{
		id: "D13", key: "RELOADING", source: "service_enter_reload_by_notify", outcome: Heeded,
		when:   func(s *scene) bool { return s.in("running") },
		reason: "the service is reloading, until READY=1",
		then: func(s *scene) {
			if s.version < 253 {
				s.enter("reload")
			} else {
				s.enter("reload-notify")
			}
		},
	},
	{
		id: "D13a", key: "RELOADING", source: enters, outcome: NoEffect,
		when:   func(s *scene) bool { return s.in("reload", "reload-notify", "reload-post") },
		reason: "the service is reloading already",
	},
	{
		id: "D13b", key: "RELOADING", source: enters, outcome: NoEffect,
		reason: "the service is in state $state, and not running",
	},
	{
		id: "D28", key: "MONOTONIC_USEC", source: enters, outcome: NoEffect,
		when:   func(s *scene) bool { _, ok := parseNumber(s.line.Value); return !ok },
		reason: "\"$value\" is no number",
		cure:   "send the time by CLOCK_MONOTONIC in microseconds, in decimal",
	},
	{
		id: "D11", key: "MONOTONIC_USEC", source: enters, outcome: NoEffect,
		when:   func(s *scene) bool { return !s.datagram.has("RELOADING=1") },
		reason: "it says when the RELOADING=1 of the same datagram was, and there is none",
		cure:   "send it in one datagram with RELOADING=1",
	},
	{
		id: "D11", key: "MONOTONIC_USEC", source: enters, outcome: NoEffect,
		when:   func(s *scene) bool { return !s.in("reload-signal") },
		reason: "the service manager has not asked for a reload",
	},
	{
		id: "D11", key: "MONOTONIC_USEC", source: enters, outcome: NoEffect,
		when:   func(s *scene) bool { return !s.isReloadAnswer() },
		reason: tooEarly,
		cure:   "take the time when the reload begins, by CLOCK_MONOTONIC",
	},
	{id: "D12", key: "MONOTONIC_USEC", source: enters, outcome: Heeded, reason: "the reload began after it was asked for"},
}

// tooEarly is why a time is none of the reload that was asked for.
const tooEarly = "the service manager has asked for a reload, and MONOTONIC_USEC= is no time after that"
