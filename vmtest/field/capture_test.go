// SPDX-License-Identifier: Apache-2.0

package field_test

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/pkg/events"
	"github.com/sdtrace/sdtrace/vmtest/pid1"
)

// recording is what a capture says of relays, beside what it hands to the stages.
type recording struct {
	// follows is set when the capture tells what a relay keeps to itself: with fentry.
	follows  bool
	mu       sync.Mutex
	withheld map[uint64][]string // by seq of what was said to the relay
	read     map[uint64]bool     // what somebody has read, by seq
	more     chan struct{}       // closed when there is more
}

// awaitWithheld waits until the capture says of what web has said in these lines that want was
// not passed on, because it was withheld or because nobody has read it, and returns what it
// says. It takes its time to be sure.
func (r *recording) awaitWithheld(ctx context.Context, lines []line, want []string) (got []string) {
	for {
		got = nil
		r.mu.Lock()
		more := r.more
		for _, l := range lines {
			switch {
			case l.sent == nil || l.sent.from != "web" || l.sent.errno != "":
			case !r.read[l.sent.seq]:
				got = append(got, split(l.sent.say)...)
			default:
				for _, a := range r.withheld[l.sent.seq] {
					got = append(got, asSaid(l.sent.say, a))
				}
			}
		}
		r.mu.Unlock()
		if slices.Equal(got, want) {
			return got
		}
		select {
		case <-more:
		case <-ctx.Done():
			return got
		}
	}
}

// startCapture runs sdtrace for as long as the test does. Each stage gets what is sent
// below its control group.
func startCapture(t *testing.T, sdtrace, backend string, stages []*stage) *recording {
	t.Helper()
	address := filepath.Join(t.TempDir(), "ready")
	ready, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: address})
	if err != nil {
		t.Fatal(err)
	}
	defer ready.Close()
	args := []string{"-o", "json", "--backend", backend}
	of := map[string]*stage{}
	for _, s := range stages {
		if backend != "fentry" { // what was not passed on is told without filters only
			args = append(args, "--cgroup", s.m.Cgroup)
		}
		of[filepath.Base(s.m.Cgroup)] = s
	}
	cmd := exec.Command(sdtrace, args...)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+address)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := &recording{follows: backend == "fentry", withheld: map[uint64][]string{}, read: map[uint64]bool{}, more: make(chan struct{})}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer ready.Close() // nobody will be ready any more
		r.follow(t, bufio.NewScanner(stdout), of)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(unix.SIGINT)
		<-ended
		if err := cmd.Wait(); err != nil {
			t.Errorf("sdtrace %q: %v\n%s", args, err, stderr.String())
		}
	})
	if _, err := ready.Read(make([]byte, 64)); err != nil {
		t.Fatalf("sdtrace is not ready: %v\n%s", err, stderr.String())
	}
	return r
}

// asSaid is an assignment as the timeline has it, where its number was replaced.
func asSaid(say, assignment string) string {
	key, _, _ := strings.Cut(assignment, "=")
	for _, a := range split(say) {
		if strings.HasPrefix(a, key+"=<") {
			return a
		}
	}
	return assignment
}

// note keeps what a record says of what became of a datagram.
func (r *recording) note(record events.Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch w := record.Withheld; {
	case w != nil:
		for _, a := range w.Message {
			r.withheld[w.Seq] = append(r.withheld[w.Seq], a.Key+"="+a.Value)
		}
	case record.Receipt != nil && record.Receipt.Kind == events.ReceiptRead:
		r.read[record.Receipt.Seq] = true
	default:
		return
	}
	close(r.more)
	r.more = make(chan struct{})
}

func (r *recording) follow(t *testing.T, lines *bufio.Scanner, of map[string]*stage) {
	for lines.Scan() {
		record, err := events.Decode(lines.Bytes())
		if err != nil {
			t.Errorf("decoding what sdtrace writes: %v", err)
			return
		}
		r.note(record)
		if l := record.Lost; l != nil {
			t.Errorf("the capture lost %d datagrams: %+v", l.Count(), *l)
		}
		if e := record.Event; e != nil && e.Socket.Address != pid1.NotifySocket {
			name, _, _ := strings.Cut(strings.TrimPrefix(e.Sender.Cgroup, "/"), "/")
			if s := of[name]; s != nil {
				s.captured <- e
			} else if !r.follows {
				t.Errorf("sent from %s, where no stage is: %q", e.Sender.Cgroup, e.Payload)
			}
		}
	}
}
