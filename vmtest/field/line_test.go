// SPDX-License-Identifier: Apache-2.0

package field_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/sdtrace/sdtrace/pkg/events"
)

// line is one of a timeline: a datagram, or something that was done or found.
type line struct {
	at   time.Duration // since the scenario began
	text string        // of what is not a datagram
	sent *sent
}

// sent is a datagram. Process numbers in it are replaced by names, which stay the same.
type sent struct {
	seq          uint64
	from, as     string // as: whom the sender claims to be, if another
	to           string // who holds the socket, if known
	address, say string
	fds          []string
	errno        string
	refused      string // why it was not let claim to be as
}

// short is how a scenario writes it down.
func (s *sent) short() string { return s.head("") + s.tail() }

// String is how the guide does: with the address.
func (s *sent) String() string {
	address := s.address
	if s.to != "" {
		address = " " + address
	}
	return s.head(address) + s.tail()
}

func (s *sent) head(address string) string {
	as := ""
	switch {
	case s.refused != "":
		as = " (" + s.refused + " as " + s.as + ")"
	case s.as != "":
		as = " as " + s.as
	}
	to := s.to
	if to == "" && address == "" {
		to = s.address
	}
	return s.from + as + " -> " + to + address + ": "
}

func (s *sent) tail() string {
	text := s.say
	for _, fd := range s.fds {
		text += " +" + fd
	}
	if s.errno != "" {
		text += " FAILED " + s.errno
	}
	return text
}

func (l line) short() string {
	if l.sent != nil {
		return l.sent.short()
	}
	return l.text
}

func (l line) String() string {
	if l.sent != nil {
		return l.sent.String()
	}
	return l.text
}

// The names of service managers that are not PID 1.
const (
	userManager = "systemd --user"
	innerPID1   = "systemd inside" // of a container
)

// manages reports whether a receiver is a service manager, and no relay.
func manages(name string) bool {
	return name == "systemd" || name == userManager || name == innerPID1
}

// ownersOf are the programs that bind an address in these namespaces, which fentry holds true. Of
// an unconnected send by a process that is gone by the time one looks, the other backend knows the
// address alone.
var ownersOf = map[string]string{"/run/systemd/notify": "systemd", "/run/host/notify": "systemd-nspawn"}

// describe makes a datagram of an event. What is not in the event is looked up while the
// sender is still there; what it does not find is left out.
func (s *stage) describe(e *events.Event) *sent {
	s.checkMachine(e)
	d := &sent{
		seq: e.Seq, from: e.Sender.Comm, address: changing.ReplaceAllString(string(e.Socket.Address), "$1<n>"), errno: e.Result.Errno,
		say: s.withoutNumbers(e, string(e.Payload)),
	}
	if r := e.Refused; r != nil {
		d.as, d.refused = s.commOf(e, r.NSPID), r.Errno
	}
	if c := e.Claimed; c != nil && c.NSPID != e.Sender.NSPID && c.PID != e.Sender.PID {
		d.as = s.commOf(e, c.NSPID)
	}
	for _, fd := range e.FDs {
		d.fds = append(d.fds, fd.Type)
	}
	r := e.Receiver
	switch {
	case r != nil && r.Comm != "":
		d.to = r.Comm
	case d.errno != "":
	case s.holders[e.Socket.Inode] != "":
		// sdtrace knows the socket and has not found, or not yet, who holds it.
		d.to = s.holders[e.Socket.Inode]
	case e.Backend == "tracepoint":
		// It has no proof where the address led: the sender is gone already, or was started
		// less than a tenth of a second after the socket was made.
		if d.to = ownersOf[d.address]; d.to == "" && e.Socket.Inode == 0 {
			d.to = s.owners[string(e.Socket.Address)]
		}
	}
	if d.to == "systemd" {
		switch {
		case strings.HasPrefix(d.address, "/run/user/"):
			d.to = userManager
		case r != nil && r.PID != 0 && int(r.PID) != s.m.PID():
			d.to = innerPID1
		}
	}
	if d.from == "systemd" {
		switch {
		case e.Sender.NSPID != 1:
			d.from = userManager
		case int(e.Sender.PID) != s.m.PID():
			d.from = innerPID1
		}
	}
	return d
}

// checkMachine holds that the sender's unit is named by whose it is: that of the stage's systemd,
// or of one that runs in a machine of nspawn's.
func (s *stage) checkMachine(e *events.Event) {
	outer := "/" + filepath.Base(s.m.Cgroup)
	if !strings.HasPrefix(e.Sender.Cgroup, outer+"/") {
		return
	}
	want := filepath.Base(s.m.Cgroup)
	if at, inner, found := strings.Cut(e.Sender.Cgroup, ".service/payload/"); found && inner != "" {
		want = filepath.Base(at)
	}
	if e.Sender.Machine != want && e.Sender.Cgroup != outer {
		s.wrong = append(s.wrong, fmt.Sprintf("%s in %s is of machine %q, want %q", e.Sender.Comm, e.Sender.Cgroup, e.Sender.Machine, want))
	}
}

// changing is what is different in every run in the addresses of conmon and podman.
var changing = regexp.MustCompile(`(/fd/|\.sock)\d+`)

var numbers = regexp.MustCompile(`(^|\n)(X_NSPAWN_LEADER_PID|MAINPID|MONOTONIC_USEC|MAINPIDFDID)=(\d+)`)

// padding makes a datagram long.
var padding = regexp.MustCompile(`x{20,}`)

// withoutNumbers replaces process numbers by what the processes are called, what is
// different in every run by its kind, and padding by its length, and escapes it as one line.
func (s *stage) withoutNumbers(e *events.Event, payload string) string {
	payload = numbers.ReplaceAllStringFunc(payload, func(assignment string) string {
		key, value, _ := strings.Cut(assignment, "=")
		switch strings.TrimPrefix(key, "\n") {
		case "MONOTONIC_USEC":
			return key + "=<clock>"
		case "MAINPIDFDID":
			return key + "=<pidfd>"
		case "X_NSPAWN_LEADER_PID": // is on its way to become another program
			return key + "=<leader>"
		}
		pid, err := strconv.ParseUint(value, 10, 32)
		if err != nil || pid == 0 {
			return assignment
		}
		return key + "=<" + s.commOf(e, uint32(pid)) + ">"
	})
	payload = padding.ReplaceAllStringFunc(payload, func(x string) string { return fmt.Sprintf("<%d times x>", len(x)) })
	quoted := strconv.Quote(payload)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}

// commOf is the name of a process as the sender numbers it, else as PID 1 does.
func (s *stage) commOf(e *events.Event, pid uint32) string {
	for _, proc := range []string{fmt.Sprintf("/proc/%d/root/proc", e.Sender.PID), s.m.Inside("/proc")} {
		if comm, err := os.ReadFile(fmt.Sprintf("%s/%d/comm", proc, pid)); err == nil {
			return strings.TrimSpace(string(comm))
		}
	}
	return "gone"
}

// lost are the assignments that web has said to a relay and that nobody has said to
// systemd afterwards.
func lost(lines []line) (list []string) {
	for i, l := range lines {
		if l.sent == nil || l.sent.from != "web" || manages(l.sent.to) || l.sent.errno != "" {
			continue
		}
		for _, assignment := range split(l.sent.say) {
			if !saidLater(lines[i+1:], assignment) {
				list = append(list, assignment)
			}
		}
	}
	return list
}

// saidLater reports whether somebody says an assignment to systemd, before web says the
// same again. What a relay translates is the same if the key is.
func saidLater(lines []line, assignment string) bool {
	key, value, _ := strings.Cut(assignment, "=")
	for _, l := range lines {
		if l.sent == nil {
			continue
		}
		for _, a := range split(l.sent.say) {
			k, v, _ := strings.Cut(a, "=")
			if k != key {
				continue
			}
			// nspawn says of a status whose it is; a process number has to be translated.
			if v != value && k != "MAINPID" && (k != "STATUS" || !strings.HasSuffix(v, value)) {
				continue
			}
			if l.sent.from == "web" && !manages(l.sent.to) {
				return false
			}
			if manages(l.sent.to) {
				return true
			}
		}
	}
	return false
}

func split(say string) (list []string) {
	for _, a := range strings.Split(say, `\n`) {
		if a != "" {
			list = append(list, a)
		}
	}
	return list
}
