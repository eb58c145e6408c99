// SPDX-License-Identifier: Apache-2.0

package verdict

// takesMain are the states in which MAINPID= counts.
func (s *scene) takesMain() bool {
	if s.in("start", "start-post", "running", "reload") {
		return true
	}
	return s.version >= 253 && s.in("reload-signal", "reload-notify", "reload-post", "refresh-extensions", "refresh-credentials",
		"stop", "stop-sigterm")
}

func (s *scene) newMain() Process {
	return known(s, s.datagram.Main, "the process that "+s.line.Key+"= names")
}

// mainKeys are the assignments that name a main process.
const mainKeys = "MAINPID MAINPIDFD"

var mainPIDs = []rule{
	{
		id: "D28", key: "MAINPIDFD", source: parses, outcome: NoEffect,
		when:   func(s *scene) bool { return known(s, s.datagram.FDs, "how many file descriptors came with it") != 1 },
		reason: "MAINPIDFD=1 takes one file descriptor, a pidfd",
		cure:   "send the pidfd along, and no other file descriptor",
	},
	{
		id: "D28", key: "MAINPID", source: parses, outcome: Ignored, since: 257,
		when:   func(s *scene) bool { return s.datagram.has("MAINPIDFD=1") },
		reason: "MAINPIDFD=1 in the same datagram takes its place",
	},
	{
		id: "D28", key: "MAINPIDFDID", source: parses, outcome: NoEffect,
		when: func(s *scene) bool {
			_, named := s.datagram.Text.Lookup("MAINPID")
			return !named || s.datagram.has("MAINPIDFD=1")
		},
		reason: "MAINPIDFDID= says something about MAINPID= alone",
	},
	{
		id: "D28", key: "MAINPIDFDID", source: parses, outcome: NoEffect,
		when:   func(s *scene) bool { _, ok := parseNumber(s.line.Value); return !ok },
		reason: "\"$value\" is no number",
		cure:   "send the inode number of the pidfd",
	},
	{id: "D21", key: "MAINPIDFDID", source: parses, outcome: Heeded, reason: "MAINPID= is held against it"},
	{
		id: "D15", key: "MAINPID", source: parses, outcome: NoEffect,
		when:   func(s *scene) bool { _, ok := parsePID(s.line.Value); return !ok },
		reason: "\"$value\" is no process id",
		cure:   "send the process id as the service manager sees it, in decimal",
	},
	{
		id: "D21", key: mainKeys, source: reads, outcome: NoEffect,
		when:   func(s *scene) bool { return !s.takesMain() },
		reason: "the main process can be changed while the service starts, runs or reloads, and it is in state $state",
	},
	{
		id: "D16", key: "MAINPID", source: suits, outcome: Ignored,
		when: func(s *scene) bool {
			pid, _ := parsePID(s.line.Value)
			return pid == 1 || s.manager.PID != 0 && s.datagram.Main != nil && s.datagram.Main.PID == s.manager.PID
		},
		reason: "that is the service manager itself",
		cure:   "send the process id as the service manager sees it, not as the sender does in a pid namespace of its own",
	},
	{
		id: "D15", key: mainKeys, source: parses, outcome: Ignored, since: 253,
		when:   func(s *scene) bool { return s.newMain().PID == 0 },
		reason: "there is no such process where the service manager is",
		cure:   "send the process id as the service manager sees it, not as the sender does in a pid namespace of its own",
	},
	{
		id: "D21a", key: mainKeys, source: reads, outcome: NoEffect,
		when: func(s *scene) bool {
			return s.newMain().PID != 0 && s.newMain().PID == known(s, s.unit.MainPID, "the main process of "+s.unit.Name)
		},
		reason: "that is the main process already",
	},
	{
		id: "D17", key: mainKeys, source: suits, outcome: Ignored,
		when: func(s *scene) bool {
			return s.newMain().PID != 0 && s.newMain().PID == known(s, s.unit.ControlPID, "the control process of "+s.unit.Name)
		},
		reason: "that is the control process, which cannot be the main process, too",
	},
	{
		id: "D18", key: "MAINPID", source: suits, outcome: Ignored, before: 253,
		when:   func(s *scene) bool { return s.newMain().PID == 0 },
		reason: "there is no such process where the service manager is",
		cure:   "send the process id as the service manager sees it, not as the sender does in a pid namespace of its own",
	},
	{
		id: "D18", key: mainKeys, source: suits, outcome: Ignored,
		when:   func(s *scene) bool { return s.newMain().Zombie },
		reason: "that process is over",
		cure:   "send MAINPID= of a process that runs",
	},
	{
		id: "D15a", key: "MAINPID", source: parses, outcome: Ignored, since: 257,
		when: func(s *scene) bool {
			value, ok := s.datagram.Text.Lookup("MAINPIDFDID")
			if !ok {
				return false
			}
			id, ok := parseNumber(value)
			return !ok || s.need(s.newMain().FDID != 0, "the pidfd's inode number of the new main process") && id != s.newMain().FDID
		},
		reason: "MAINPIDFDID= is that of another process",
	},
	{
		// The file is read when ExecReload= or ExecStartPost= has ended (systemd: service_sigchld_event).
		id: "D21p", key: mainKeys, source: "service_load_pid_file", outcome: Heeded, then: setMain,
		when: func(s *scene) bool {
			return s.newMain().Unit == s.unit.Name && s.unit.PIDFileNames != nil && *s.unit.PIDFileNames != s.newMain().PID
		},
		reason: "it is the main process now, but $pidfile names $named: " +
			"if it does when ExecReload= ends, that is the main process again",
		cure: "write the process id into the file of PIDFile= before sending MAINPID=, or do without PIDFile=",
	},
	{
		id: "D21", key: mainKeys, source: suits, outcome: Heeded, then: setMain,
		when:   func(s *scene) bool { return s.newMain().Unit == s.unit.Name },
		reason: "it is the main process now",
	},
	{
		id: "D20", key: mainKeys, source: reads, outcome: Heeded, then: setMain,
		when: func(s *scene) bool {
			return known(s, s.datagram.UID, "the user id that the sender claims") == 0
		},
		reason: "it is the main process now, although it does not belong to the service: root may say so",
	},
	{
		id: "D19", key: mainKeys, source: reads, outcome: Ignored,
		reason: "the process does not belong to the service, and the sender is not root",
		cure:   "name a process in the control group of the service",
	},
}

func setMain(s *scene) {
	pid := s.datagram.Main.PID
	s.unit.MainPID = &pid
}
