// SPDX-License-Identifier: Apache-2.0

package troubles

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sdtrace/sdtrace/internal/proc"
	"github.com/sdtrace/sdtrace/pkg/events"
)

// failed is a send of this process that has failed.
func failed(t *testing.T, address, errno string) *events.Event {
	t.Helper()
	p, err := proc.Open(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	stat, err := p.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return &events.Event{
		Sender: events.Sender{PID: uint32(os.Getpid()), StartTime: stat.StartTicks * uint64(proc.Tick)},
		Socket: events.Socket{Address: events.Address(address)}, Result: events.Result{Errno: errno},
	}
}

func TestASendThatFailedIsExplainedByALookAtItsSender(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, errno, want string }{
		{"missing", "ENOENT", "there is no " + dir + "/missing"},
		{"file", "ECONNREFUSED", dir + "/file is no socket"},
		{"missing", "EAGAIN", ""},
		{"missing", "", ""},
	} {
		e := failed(t, filepath.Join(dir, c.name), c.errno)
		new(Stage).Do(&events.Record{Event: e})
		if e.Trouble != c.want {
			t.Errorf("%s of %s: %q, want %q", c.errno, c.name, e.Trouble, c.want)
		}
	}
}

func TestAnotherProcessWithTheNumberIsNotTakenForTheSender(t *testing.T) {
	e := failed(t, "/nowhere", "ENOENT")
	e.Sender.StartTime--
	e.Sender.StartTime -= uint64(proc.Tick)
	new(Stage).Do(&events.Record{Event: e})
	if e.Trouble != "" {
		t.Errorf("it is said that %s", e.Trouble)
	}
}

// A file system that does not answer costs a moment, a few times, and then nothing.
func TestLooksThatDoNotEndAreLeftBehind(t *testing.T) {
	s := new(Stage)
	for range stuckMax {
		s.stuck = append(s.stuck, make(chan string, 1))
	}
	e := failed(t, "/nowhere", "ENOENT")
	s.Do(&events.Record{Event: e})
	if e.Trouble != "" {
		t.Errorf("it was looked: %s", e.Trouble)
	}
	s.stuck[0] <- ""
	s.Do(&events.Record{Event: e})
	if !strings.Contains(e.Trouble, "there is no /nowhere") {
		t.Errorf("it was not looked when one had ended: %q", e.Trouble)
	}
	if len(s.stuck) != stuckMax-1 {
		t.Errorf("%d are left behind", len(s.stuck))
	}
}
