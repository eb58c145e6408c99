// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"slices"
	"strings"

	"github.com/sdtrace/sdtrace/pkg/events"
)

// literals are the only values of the keys that have one.
var literals = map[string]string{
	"BARRIER": "1", "FDPOLL": "0", "FDSTORE": "1", "FDSTOREREMOVE": "1", "MAINPIDFD": "1",
	"READY": "1", "RELOADING": "1", "RESTART_RESET": "1", "STOPPING": "1",
}

// introduced are the versions since when a service manager reads the keys that are newer than 247.
var introduced = map[string]int{
	"BUSERROR": 257, "MAINPIDFD": 257, "MAINPIDFDID": 257, "MONOTONIC_USEC": 253, "NOTIFYACCESS": 254,
	"RESTART_RESET": 258, "VARLINKERROR": 257,
}

// spellings is what is no assignment that a service manager reads.
var spellings = []rule{
	{
		id: "K4", source: protocol, outcome: NoEffect,
		when:   func(s *scene) bool { return strings.HasPrefix(s.line.Key, "X_") },
		reason: "$key is for others than the service manager, which reads no X_",
	},
	{
		id: "K2", source: reads, outcome: NoEffect,
		when:   func(s *scene) bool { return !isKey(s.line.Key) && isKey(meant(s.line.Key)) },
		reason: "\"$key\" is not $meant: a key is in capitals and stands at the beginning of its line",
		cure:   "write the key as in sd_notify(3)",
	},
	{
		id: "K5", source: reads, outcome: NoEffect,
		when:   func(s *scene) bool { return !isKey(s.line.Key) || s.line.Key == "EXIT_STATUS" },
		reason: "a service manager reads no $key",
	},
	{
		id: "K6", source: reads, outcome: NoEffect,
		when:   func(s *scene) bool { return s.version < introduced[s.line.Key] },
		reason: "systemd $version does not read $key, which came with $since",
	},
	{
		id: "K1", source: reads, outcome: NoEffect,
		when:   func(s *scene) bool { value, ok := literals[s.line.Key]; return ok && !s.is(value) },
		reason: "only $key=$literal means $meaning",
		cure:   "write it as in sd_notify(3), without blanks",
	},
	{
		id: "K0", source: "strv_find_startswith", outcome: NoEffect,
		when:   func(s *scene) bool { return s.datagram.Text.Lines[s.index].Equals < 0 },
		reason: "$key without = is no assignment",
		cure:   "write an = and a value behind it",
	},
	{
		id: "K3", source: "strv_find_startswith", outcome: NoEffect,
		when:   func(s *scene) bool { return !s.isFirst(false) && literals[s.line.Key] == "" || !s.isFirst(true) },
		reason: "of several $key= in a datagram the first one counts",
		cure:   "send it once",
	},
}

// meaning is what the keys that have one value mean with it.
var meaning = map[string]string{
	"BARRIER": "a barrier", "FDPOLL": "not to watch what is stored", "FDSTORE": "to store file descriptors",
	"FDSTOREREMOVE": "to remove file descriptors", "MAINPIDFD": "a main process by its pidfd", "READY": "ready",
	"RELOADING": "reloading", "RESTART_RESET": "to count restarts anew", "STOPPING": "stopping",
}

func isKey(key string) bool { return slices.Contains(events.Keys(), key) }

// meant is the key that was probably meant.
func meant(key string) string { return strings.ToUpper(strings.TrimSpace(key)) }
