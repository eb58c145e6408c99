// SPDX-License-Identifier: Apache-2.0

//go:build linux

package why

import "fmt"

// senderGone is seen by messages of processes that were over before the service manager read them.
func senderGone(c *Case) *Finding {
	n := 0
	var last *Said
	surely := false
	for i := range c.Said {
		s := &c.Said[i]
		l := firstRefused(s)
		isRead := l != nil && l.Rule == "D2"
		// Of a unit that is over, all are.
		isLost := s.Gone && s.Verdict == nil && !s.Event.Result.Failed() && s.Event.Claimed == nil && c.isToManager(s.Event) &&
			string(s.Event.Payload) != "BARRIER=1"
		if !isRead && (c.IsOver() || !isLost) {
			continue
		}
		n++
		last = s
		surely = surely || isRead
	}
	if last == nil {
		return nil
	}
	f := &Finding{
		Certainty: likelyUnless(surely),
		Because: fmt.Sprintf("the senders of %s, the latest %s of %s, were over before the service manager read them: "+
			"it cannot tell whose these are, and drops them",
			messages(n), quoted(last.Text()), last.Who()),
		Change: "let the sender wait with sd_notify_barrier(3), as systemd-notify does, or let a process send that stays",
	}
	if n == 1 {
		f.Because = fmt.Sprintf("%s of %s is lost: the sender was over before the service manager read it, which "+
			"cannot tell whose it is then, and drops it",
			quoted(last.Text()), last.Who())
	}
	return f
}

func messages(n int) string {
	if n == 1 {
		return "one message"
	}
	return fmt.Sprintf("%d messages", n)
}
