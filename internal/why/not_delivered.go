// SPDX-License-Identifier: Apache-2.0

//go:build linux

package why

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/sdtrace/sdtrace/internal/access"
	"github.com/sdtrace/sdtrace/pkg/events"
)

// notDelivered is seen by a send, or a connect, that has failed, and nothing since that went the same way and did not.
func notDelivered(c *Case) *Finding {
	s := lastFailed(c)
	if s == nil {
		return nil
	}
	e := s.Event
	what := "send " + quoted(s.Text())
	switch e.Call {
	case events.CallConnect:
		what = "connect to it"
	case events.CallSocket:
		what = "make a socket"
	}
	address := string(cmp.Or(e.Socket.Address, e.Socket.Bound))
	said := fmt.Sprintf("%s (uid %d) could not %s: %s", s.Who(), e.Sender.UID, what, e.Result.Errno)
	if address != "" {
		said += " at the notify socket " + events.Escape(address)
	}
	if times := failures(c, s); times > 1 {
		said += fmt.Sprintf(" (%d times)", times)
	}
	f := &Finding{Certainty: Certain, Because: said}
	p := c.process(e.Sender.PID)
	if p == nil {
		p = c.Main()
	}
	reason, change := errnoMeans(c, e, p, address)
	trouble := e.Trouble
	if hidden, cure := hiddenByNetwork(c, p, address); hidden != "" && e.Result.Errno == "ECONNREFUSED" {
		reason, change, trouble = hidden, cure, "" // which says less
	}
	switch {
	case e.Result.Errno == "" && e.Result.Delivered != nil:
		f.Because = fmt.Sprintf("%s of %s was dropped by a socket filter of the receiver", quoted(s.Text()), s.Who())
		f.Change = "find out who has attached it (SO_ATTACH_FILTER)"
	case trouble != "" && (p == nil || p.PID != e.Sender.PID):
		f.Because += ": " + trouble
		f.Change = cmp.Or(change, "see errors of sendmsg(2) and unix(7)")
	case reason == "":
		f.Change = "see errors of sendmsg(2) and unix(7)"
	default:
		f.Because += ": " + reason
		f.Change = change
	}
	return f
}

// process is one of the unit's, nil if it is not there.
func (c *Case) process(pid uint32) *Process {
	i := slices.IndexFunc(c.Processes, func(p Process) bool { return p.PID == pid })
	if i < 0 {
		return nil
	}
	return &c.Processes[i]
}

// lastFailed is the latest failure that matters still.
func lastFailed(c *Case) *Said {
	if c.Phase() == Running && c.Watchdog() == 0 && c.Notifies() {
		return nil // it got there in the end
	}
	awaits, _, _ := strings.Cut(cmp.Or(c.Awaits(), "READY"), "=")
	var last *Said
	for i := range slices.Backward(c.Said) {
		s := &c.Said[i]
		e := s.Event
		switch _, awaited := s.Value(awaits); {
		case !e.Result.Failed() && string(e.Payload) == "BARRIER=1", e.Result.Errno == "EAGAIN":
		case !e.Result.Failed():
			return last
		case isOutside(c, s):
		case awaited:
			return s // what came after it, as ERRNO= of systemd-notify does, is less to the point
		case last == nil:
			last = s
		}
	}
	return last
}

// isOutside reports whether a failure is about another socket than the unit's.
func isOutside(c *Case, s *Said) bool {
	to := cmp.Or(s.Event.Socket.Address, s.Event.Socket.Bound)
	if s.Event.Call == events.CallSocket || to == "" || strings.HasSuffix(string(to), "notify") {
		return false
	}
	return !slices.ContainsFunc(c.Processes, func(p Process) bool {
		return p.Executed != nil && p.Executed.NotifySocket != nil && *p.Executed.NotifySocket == string(to)
	})
}

// failures is how many messages have failed as one has.
func failures(c *Case, as *Said) (n int) {
	for i := range c.Said {
		e := c.Said[i].Event
		if e.Result.Errno == as.Event.Result.Errno && e.Call == as.Event.Call && e.Sender.PID == as.Event.Sender.PID {
			n++
		}
	}
	return n
}

// errnoMeans says why a send has failed, and what to change; "" if that is not known. p is the sender or, when that is
// over, the main process; nil for none.
func errnoMeans(c *Case, e *events.Event, p *Process, address string) (reason, change string) {
	switch e.Result.Errno {
	case "ENOENT", "ENOTDIR":
		return absent(c, e, p, address)
	case "EACCES", "EPERM":
		return forbidden(c, e, p, address)
	case "ECONNREFUSED":
		return "nobody reads there: who had made the socket has closed it, or it is a file of another kind",
			"let what reads there live as long as the service, or send to the NOTIFY_SOCKET that the service was started with"
	case "EPROTOTYPE":
		return "it is a socket of another type than a datagram socket", "make it SOCK_DGRAM"
	case "ENOTCONN", "EDESTADDRREQ":
		return "the socket is not connected, and no address was given: the program does not use NOTIFY_SOCKET",
			"let the program send to the address in NOTIFY_SOCKET, as sd_notify(3) does"
	case "EMSGSIZE":
		return "it is larger than the socket's buffer", "send less at once: the service manager takes 4096 bytes"
	case "ENAMETOOLONG", "EINVAL":
		return "the address is none", "pass NOTIFY_SOCKET on as it is"
	case "EAFNOSUPPORT":
		return "the unit's processes may not make AF_UNIX sockets", "add AF_UNIX to RestrictAddressFamilies="
	case "ENOBUFS", "ENOMEM":
		return "memory for it was short", "see the limits of the control group"
	case "ETOOMANYREFS":
		return "too many file descriptors are under way", "pass fewer file descriptors, or raise RLIMIT_NOFILE"
	}
	return "", ""
}

// hiddenByNetwork says that an abstract socket is out of reach because a process is in another network namespace than
// the service manager (unix(7)); "" where that is not so.
func hiddenByNetwork(c *Case, p *Process, address string) (reason, change string) {
	if p == nil || !strings.HasPrefix(address, "@") || p.NetNS == 0 || c.Manager.NetNS == 0 || p.NetNS == c.Manager.NetNS {
		return "", ""
	}
	return fmt.Sprintf("nobody reads from %s in its network namespace, which is not the service manager's: an abstract "+
			"socket is there in its own network namespace alone", events.Escape(address)),
		"use a socket with a path, or let the service stay in the network namespace (PrivateNetwork=)"
}

// absent says why there is no such file for a process.
func absent(c *Case, e *events.Event, p *Process, address string) (reason, change string) {
	if root, ok := rootIn(e.Trouble); ok {
		return e.Trouble, bindThere(root + address)
	}
	_, socket := notifySocketOf(c)
	if socket != "" && socket != address {
		return fmt.Sprintf("there is no such file; NOTIFY_SOCKET is %s", events.Escape(socket)), "send to the address in NOTIFY_SOCKET"
	}
	switch {
	case p != nil && p.Root != "":
		return chrooted(p, address)
	case c.Manager.MntNS != 0 && e.Sender.MntNS != 0 && uint64(e.Sender.MntNS) != c.Manager.MntNS:
		return "there is no such file in its mount namespace, which is not the service manager's (RootDirectory=, " +
				"TemporaryFileSystem=, a container)",
			"bind the socket there: BindReadOnlyPaths=" + address + ", or a volume of the container"
	}
	if c.Manager.MntNS != 0 && uint64(e.Sender.MntNS) == c.Manager.MntNS && events.Address(address) == c.Manager.NotifySocket {
		// The service manager has it there, in the same mount namespace.
		return fmt.Sprintf("there is no such file below its root directory, which it has changed (chroot): the service "+
				"manager, in the same mount namespace, has %s", address),
			bindThere("ROOT" + address)
	}
	return "there is no such file for it: its root directory was another one (chroot), or nothing has made the file " +
		"yet", bindThere("ROOT" + address)
}

// rootIn finds the root directory in what was seen of a sender.
func rootIn(trouble string) (root string, ok bool) {
	_, root, ok = strings.Cut(trouble, " below its root directory ")
	return root, ok
}

// chrooted says that a process has a root directory of its own in which the socket is not.
func chrooted(p *Process, address string) (reason, change string) {
	return fmt.Sprintf("its root directory is %s (chroot), and there is no %s in it",
		events.Escape(p.Root), address), bindThere(p.Root + address)
}

// bindThere is what to do for a socket that is not below a root directory.
func bindThere(where string) string {
	return "bind the socket there (mount --bind /run/systemd/notify " + events.Escape(where) + ", or BindReadOnlyPaths=), or let the " +
		"program notify before it calls chroot"
}

// notifySocketOf is the process that has NOTIFY_SOCKET, and its value.
func notifySocketOf(c *Case) (p *Process, socket string) {
	for i := range c.Processes {
		if e := c.Processes[i].Executed; e != nil && e.NotifySocket != nil {
			return &c.Processes[i], *e.NotifySocket
		}
	}
	return nil, ""
}

// forbidden says what does not let a process send.
func forbidden(c *Case, e *events.Event, p *Process, address string) (reason, change string) {
	switch {
	case p != nil && p.Leads.State == access.Forbidden && p.Leads.Denied != nil:
		return denial(p)
	case e.Result.Errno == "EPERM":
		return "a security module or a filter of system calls (SystemCallFilter=, seccomp) refuses it", "allow it there: see the journal of the kernel"
	case p != nil && confined(p.Label):
		return fmt.Sprintf("permissions let it, so it is its security module's doing: it is confined as %s", events.Escape(p.Label)),
			"allow it to send to the socket in the policy (AppArmor: " + address + " w,; SELinux: see ausearch -m avc)"
	case p != nil && p.Leads.State == access.OK:
		return "permissions let it now, so it is likely a security module's doing, or Landlock's", "see the journal of the kernel for denials"
	}
	return "it may not search a directory on the way, or not write to the socket", "let its user pass: the directories need " +
		"x for it, the socket w (see namei -l " + address + ")"
}

// confined reports whether a security label restricts a process (AppArmor, SELinux).
func confined(label string) bool {
	return label != "" && label != "unconfined" && !strings.Contains(label, "unconfined_t") && !strings.HasPrefix(label, "kernel")
}

// denial says which permission is missing.
func denial(p *Process) (reason, change string) {
	d := p.Leads.Denied
	change = fmt.Sprintf("let uid %d pass: chmod o+x %s, or a group that it is in", p.UID, d.Path)
	if d.IsSocket {
		change = fmt.Sprintf("let uid %d write to %s", p.UID, d.Path)
	}
	return fmt.Sprintf("uid %d %s", p.UID, d), change
}

// quoted is a message as a part of a sentence.
func quoted(text string) string {
	if text == "" {
		return "a message"
	}
	const most = 60
	text = strings.TrimRight(text, "\n")
	if len(text) > most {
		text = text[:most] + "…"
	}
	return events.Escape(strings.ReplaceAll(text, "\n", " "))
}
