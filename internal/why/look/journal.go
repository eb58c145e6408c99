// SPDX-License-Identifier: Apache-2.0

//go:build linux

package look

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/proc"
	"github.com/sdtrace/sdtrace/internal/why"
)

// journal is what journalctl(1) tells of a unit.
type journal struct {
	done    chan struct{}
	entries []entry
}

// entry is one of the journal's (systemd.journal-fields(7)).
type entry struct {
	Time      string `json:"__REALTIME_TIMESTAMP"`
	MessageID string `json:"MESSAGE_ID"`
	Message   any    `json:"MESSAGE"` // a list of bytes if it is no UTF-8
}

func (e *entry) at() time.Time {
	usec, err := strconv.ParseInt(e.Time, 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.UnixMicro(usec)
}

// journalLines is how many entries are read, the latest ones.
const journalLines = "400"

// readJournal begins to read what the service manager has written about a unit. Without a journal there is nothing.
func (l *Looker) readJournal(ctx context.Context, unit string) *journal {
	j := &journal{done: make(chan struct{})}
	if !l.hasJournal() {
		close(j.done)
		return j
	}
	args := []string{"--quiet", "--no-pager", "--output=json", "--output-fields=MESSAGE,MESSAGE_ID", "--lines=" + journalLines}
	if own, err := os.Readlink("/proc/self/ns/mnt"); err != nil || own != fmt.Sprintf("mnt:[%d]", l.facts.MntNS) {
		args = append(args, fmt.Sprintf("--root=/proc/%d/root", l.manager.PID))
	}
	if l.manager.IsUser() {
		args = append(args, "USER_UNIT="+unit)
	} else {
		args = append(args, "_PID=1", "UNIT="+unit, "+", "_PID=1", "CODE_FUNC=manager_dispatch_notify_fd")
	}
	cmd := exec.CommandContext(ctx, "journalctl", args...)
	var out bytes.Buffer
	cmd.Stdout = &out
	cmd.WaitDelay = time.Second / 10
	go func() {
		defer close(j.done)
		if cmd.Run() != nil {
			return // there is no journal, or none that may be read in time
		}
		for line := range bytes.Lines(out.Bytes()) {
			var e entry
			if json.Unmarshal(line, &e) == nil {
				j.entries = append(j.entries, e)
			}
		}
	}()
	return j
}

// hasJournal reports whether there is a journal where the service manager is (systemd-journald.service(8)).
func (l *Looker) hasJournal() bool {
	p, err := proc.Open(l.manager.PID)
	if err != nil {
		return false
	}
	defer p.Close()
	return slices.ContainsFunc([]string{"/run/log/journal", "/var/log/journal"}, func(dir string) bool {
		fd, _, err := p.OpenPath(dir)
		if err == nil {
			unix.Close(fd)
		}
		return err == nil
	})
}

// What the service manager writes when a unit begins to start, and when it is up (sd-messages.h).
const (
	startingID = "7d4958e842da4a758f6c1cdc7b36dcc5"
	startedID  = "39f53479d3a045ac8e11786248231fbf"
)

// unknown is what is written of a message whose sender's unit could not be told.
var unknown = regexp.MustCompile(`Cannot find unit for notify message of PID (\d+)`)

// pidOf is the process that such an entry is about, "" for another entry.
func pidOf(e *entry) string {
	text, _ := e.Message.(string)
	if groups := unknown.FindStringSubmatch(text); groups != nil {
		return groups[1]
	}
	return ""
}

// put adds to a case what the journal tells.
func (j *journal) put(c *why.Case) {
	var starting time.Time
	for i := range j.entries {
		e := &j.entries[i]
		at := e.at()
		if n := pidOf(e); n != "" && !slices.ContainsFunc(c.Said, func(s why.Said) bool { return fmt.Sprint(s.Event.Sender.NSPID) == n }) {
			continue // of another unit, as far as is known
		}
		switch e.MessageID {
		case startingID:
			starting = at
		case startedID:
			if !starting.IsZero() {
				c.Starts = append(c.Starts, at.Sub(starting))
			}
			starting = time.Time{}
		}
		text, ok := e.Message.(string)
		if ok && c.Service != nil && c.Began() != 0 && !at.Before(c.Wall(c.Began()).Add(-time.Second/10)) {
			c.Journal = append(c.Journal, why.Line{At: at, Text: strings.TrimSpace(text)})
		}
	}
}
