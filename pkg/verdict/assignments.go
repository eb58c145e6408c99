// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"slices"

	"github.com/sdtrace/sdtrace/pkg/events"
)

// The functions of systemd that the rules stand in.
const (
	reads    = "service_notify_message"
	parses   = "service_notify_message_parse_new_pid" // up to 252 a part of reads
	suits    = "service_is_suitable_main_pid"
	enters   = "service_notify_message_process_state" // up to 257 a part of reads
	extends  = "service_extend_timeout"
	watches  = "service_reset_watchdog"
	stores   = "service_add_fd_store"
	protocol = "sd_notify(3)"
)

// order is the one in which a service manager looks at the assignments of a datagram. Those that
// another one of the datagram outdoes come before it, since they meet the unit as it was.
var order = []func(*scene, string) bool{
	anyOf("MAINPIDFD", "MAINPID", "MAINPIDFDID", "MONOTONIC_USEC"),
	func(s *scene, key string) bool { return slices.Contains(phases, key) && key != s.phase() },
	func(s *scene, key string) bool { return slices.Contains(phases, key) && key == s.phase() },
	anyOf("STATUS"), anyOf("NOTIFYACCESS"), anyOf("ERRNO"), anyOf("BUSERROR"), anyOf("VARLINKERROR"),
	anyOf("EXTEND_TIMEOUT_USEC"), anyOf("WATCHDOG"), anyOf("WATCHDOG_USEC"), anyOf("RESTART_RESET"),
	anyOf("FDNAME", "FDPOLL"), anyOf("FDSTOREREMOVE"), anyOf("FDSTORE"),
	func(_ *scene, key string) bool {
		return !slices.Contains(events.Keys(), key) || key == "BARRIER" || key == "EXIT_STATUS"
	},
}

func anyOf(keys ...string) func(*scene, string) bool {
	return func(_ *scene, key string) bool { return slices.Contains(keys, key) }
}

// assignments decide about one line each. The first that holds counts.
var assignments = slices.Concat(spellings, mainPIDs, stopping, ready, reloading, texts, timeouts, store)
