// SPDX-License-Identifier: Apache-2.0

package verdict

import "slices"

// same reports whether what is known is this already.
func same[T comparable](known *T, value T) bool { return known != nil && *known == value }

// StatusText is the status of a unit once STATUS= with a value was read: "" for one that is no UTF-8 as
// systemd takes it (systemd: service_notify_message, utf8_is_valid).
func StatusText(value string) string {
	if !isUTF8(value) {
		return ""
	}
	return value
}

func showStatus(s *scene) {
	text := StatusText(s.line.Value)
	s.unit.StatusText = &text
}

var texts = []rule{
	{
		id: "S2", key: "STATUS", source: reads, outcome: Ignored,
		when:   func(s *scene) bool { return !isUTF8(s.line.Value) },
		reason: "it is no UTF-8, and the status before it is gone, too",
		cure:   "send the status in UTF-8",
		then:   showStatus,
	},
	{
		id: "S1", key: "STATUS", source: reads, outcome: NoEffect,
		when:   func(s *scene) bool { return same(s.unit.StatusText, s.line.Value) },
		reason: "that is the status already",
	},
	{
		id: "S0", key: "STATUS", source: reads, outcome: Heeded,
		reason: "it is the status now",
		then:   showStatus,
	},
	{
		id: "N2", key: "NOTIFYACCESS", source: reads, outcome: NoEffect,
		when:   func(s *scene) bool { return !slices.Contains([]string{"none", "main", "exec", "all"}, s.line.Value) },
		reason: "\"$value\" is no NotifyAccess=, and what an earlier NOTIFYACCESS= has changed is undone",
		cure:   "send none, main, exec or all",
		then:   func(s *scene) { s.unit.NotifyAccess = s.unit.ConfiguredAccess },
	},
	{
		id: "N1", key: "NOTIFYACCESS", source: reads, outcome: NoEffect,
		when:   func(s *scene) bool { return s.access(s.line.Value) },
		reason: "that is what NotifyAccess= is already",
	},
	{
		id: "N0", key: "NOTIFYACCESS", source: reads, outcome: Heeded,
		reason: "it counts from the next datagram on, until the service stops",
		then:   func(s *scene) { s.unit.NotifyAccess = s.line.Value },
	},
	{
		id: "D28", key: "ERRNO", source: reads, outcome: NoEffect,
		when:   func(s *scene) bool { _, ok := parseErrno(s.line.Value); return !ok },
		reason: "\"$value\" is neither an errno from 0 to 4095 nor the name of one",
		cure:   "send the number, or the name as in errno(3)",
	},
	{
		id: "S1", key: "ERRNO", source: reads, outcome: NoEffect,
		when:   func(s *scene) bool { n, _ := parseErrno(s.line.Value); return same(s.unit.StatusErrno, n) },
		reason: "that is the errno already",
	},
	{
		id: "S0", key: "ERRNO", source: reads, outcome: Heeded,
		reason: "it is shown with the status",
		then:   func(s *scene) { n, _ := parseErrno(s.line.Value); s.unit.StatusErrno = &n },
	},
	{
		id: "D28", key: "BUSERROR VARLINKERROR", source: reads, outcome: NoEffect,
		when:   func(s *scene) bool { return !isPrintable(s.line.Value) },
		reason: "$key= takes printable ASCII without quotes and backslashes",
		cure:   "send the name of the error alone",
	},
	{
		id: "S1", key: "BUSERROR VARLINKERROR", source: reads, outcome: NoEffect,
		when:   func(s *scene) bool { return same(*s.errorText(), s.line.Value) },
		reason: "that is the error already",
	},
	{
		id: "S0", key: "BUSERROR VARLINKERROR", source: reads, outcome: Heeded,
		reason: "it is shown with the status",
		then:   func(s *scene) { text := s.line.Value; *s.errorText() = &text },
	},
}

// errorText is where the error is that the line says.
func (s *scene) errorText() **string {
	if s.line.Key == "BUSERROR" {
		return &s.unit.StatusBusError
	}
	return &s.unit.StatusVarlinkError
}
