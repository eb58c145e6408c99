// SPDX-License-Identifier: Apache-2.0

//go:build linux

package why

import (
	"fmt"
	"regexp"
	"strconv"
)

// complaint is something that a service manager writes to the journal about a message that it does not take.
// Since systemd 256 most are written for debugging only (service_notify_message_authorized).
type complaint struct {
	text *regexp.Regexp
	// because has %s for the process of the first group, if there is one.
	because, change string
	// awaited is set for what keeps the unit from becoming ready, or alive.
	awaited bool
}

// complaints are as of systemd 247 to 262.
var complaints = []complaint{
	{
		regexp.MustCompile(`Got notification message from PID (\d+), but reception only permitted for main PID (?:\d+|which is currently not known)`),
		"a message of %s was ignored: it is not the main process, and NotifyAccess=main takes messages from the main process alone",
		"set NotifyAccess=all, or let the main process send; if it is not to speak for the service, start it without " +
			"NOTIFY_SOCKET", true,
	},
	{
		regexp.MustCompile(`Got notification message from PID (\d+), but reception only permitted for main PID .* and control PID`),
		"a message of %s was ignored: it is neither the main nor the control process, and NotifyAccess=exec takes " +
			"messages from these alone",
		"set NotifyAccess=all, or let the main process send", true,
	},
	{
		regexp.MustCompile(`Got notification message from PID (\d+), but reception is disabled`),
		"a message of %s was ignored: NotifyAccess=none", "set NotifyAccess=main, exec or all", true,
	},
	{
		regexp.MustCompile(`New main PID (\d+) does not exist or is a zombie`),
		"MAINPID= was refused: there is no process %s, or it is over",
		"send MAINPID= of a process that runs, by its number in the pid namespace of the service manager", true,
	},
	{
		regexp.MustCompile(`New main PID (\d+) does not belong to service, (?:refusing|and PID file)`),
		"MAINPID= was refused: %s does not belong to the service, and the sender is not root",
		"name a process in the control group of the service", true,
	},
	{
		regexp.MustCompile(`Cannot store more fds than FileDescriptorStoreMax=(?:\d+)`),
		"file descriptors that were sent with FDSTORE=1 are not stored: FileDescriptorStoreMax= is too low", "set FileDescriptorStoreMax= higher",
		false,
	},
	{
		regexp.MustCompile(`Cannot find unit for notify message of PID (\d+)`),
		"a message of %s was dropped: the sender was over, or in no unit, when the service manager read it",
		"let the sender wait with sd_notify_barrier(3), as systemd-notify does, or let a process send that stays", true,
	},
}

// journalSays is seen by what the service manager has written to the journal.
func journalSays(c *Case) *Finding {
	var found *Finding
	times := 0
	for _, line := range c.Journal {
		for _, of := range complaints {
			groups := of.text.FindStringSubmatch(line.Text)
			if groups == nil {
				continue
			}
			because := of.because
			if len(groups) > 1 {
				because = fmt.Sprintf(because, c.insider(groups[1]))
			}
			if found != nil && found.Because == because {
				times++
				break
			}
			times = 1
			found = &Finding{Certainty: Certain, Because: because, Change: of.change, Note: of.awaited && c.IsWell()}
			break
		}
	}
	if found == nil {
		return nil
	}
	if found.Because += " (by the journal"; times > 1 {
		found.Because += fmt.Sprintf(", %d times", times)
	}
	found.Because += ")"
	return found
}

// insider is what a process is called that has a number in the service manager's pid namespace.
func (c *Case) insider(number string) string {
	pid, err := strconv.ParseUint(number, 10, 32)
	if err != nil {
		return "process " + number
	}
	for i := range c.Processes {
		if p := &c.Processes[i]; p.PIDNS == c.Manager.PIDNS && uint64(p.NSPID) == pid {
			return p.String()
		}
	}
	for i := range c.Said {
		if s := &c.Said[i].Event.Sender; uint64(s.NSPID) == pid && uint64(s.PIDNS) == c.Manager.PIDNS {
			return name(s.Comm, s.PID)
		}
	}
	return "process " + number
}
