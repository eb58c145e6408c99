// SPDX-License-Identifier: Apache-2.0

package field_test

import (
	"bufio"
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/pkg/events"
	"github.com/sdtrace/sdtrace/vmtest/pid1"
)

// recording is all that a capture has seen, beside what it hands to the stages.
type recording struct {
	backend  string
	mu       sync.Mutex
	withheld map[uint64][]string // what a relay has kept to itself, by seq
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
		args = append(args, "--cgroup", s.m.Cgroup)
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
	r := &recording{backend: backend, withheld: map[uint64][]string{}}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer ready.Close() // nobody will be ready any more
		r.read(t, bufio.NewScanner(stdout), of)
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

func (r *recording) read(t *testing.T, lines *bufio.Scanner, of map[string]*stage) {
	for lines.Scan() {
		record, err := events.Decode(lines.Bytes())
		if err != nil {
			t.Errorf("decoding what sdtrace writes: %v", err)
			return
		}
		if w := record.Withheld; w != nil {
			r.mu.Lock()
			for _, a := range w.Message {
				r.withheld[w.Seq] = append(r.withheld[w.Seq], a.Key+"="+a.Value)
			}
			r.mu.Unlock()
		}
		if l := record.Lost; l != nil {
			t.Errorf("the capture lost %d datagrams: %+v", l.Count(), *l)
		}
		if e := record.Event; e != nil && e.Socket.Address != pid1.NotifySocket {
			name, _, _ := strings.Cut(strings.TrimPrefix(e.Sender.Cgroup, "/"), "/")
			if s := of[name]; s != nil {
				s.captured <- e
			} else {
				t.Errorf("sent from %s, where no stage is: %q", e.Sender.Cgroup, e.Payload)
			}
		}
	}
}
