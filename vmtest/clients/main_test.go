// SPDX-License-Identifier: Apache-2.0

// Package clients_test runs unmodified programs that speak sd_notify against
// real sockets and holds what a capture yields against what the sockets' owner
// received.
package clients_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/sdtrace/sdtrace/internal/tracer"
	"github.com/sdtrace/sdtrace/pkg/events"
	"github.com/sdtrace/sdtrace/vmtest"
)

// base is a directory made for this run. It is short because sun_path holds
// 108 bytes.
var base string

func TestMain(m *testing.M) {
	if role := os.Getenv(roleEnv); role != "" {
		if err := play(role); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", role, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	dir, name := "", "sdt"
	if !vmtest.Native() {
		dir, name = "/dev/shm", "s" // /run, where TMPDIR is, is another one for runtimes
	}
	var err error
	if base, err = os.MkdirTemp(dir, name); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(base)
	return m.Run()
}

// withBackend runs f with the machine's backend: fentry where it attaches, as the other one is what this machine itself
// tries.
func withBackend(t *testing.T, f func(t *testing.T, backend string)) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("not declared: needs root")
	}
	backend, _, _ := strings.Cut(os.Getenv("SDTRACE_BACKENDS"), ",")
	if backend == "" {
		backend = "tracepoint"
	}
	t.Run(backend, func(t *testing.T) { f(t, backend) })
}

type capture struct{ *tracer.Tracer }

func open(t *testing.T, backend string, filter tracer.Filter) capture {
	t.Helper()
	tr, err := tracer.Open(tracer.Options{Backend: backend, Filter: filter, Denied: true})
	if err != nil {
		t.Fatalf("opening the %s backend: %v", backend, err)
	}
	t.Cleanup(func() {
		if err := tr.Close(); err != nil {
			t.Errorf("closing the tracer: %v", err)
		}
	})
	if tr.Backend() != backend {
		t.Fatalf("backend is %q, want %q", tr.Backend(), backend)
	}
	return capture{tr}
}

// drain returns what was captured since the last drain. Sends that have
// returned before it is called are in it.
func (c capture) drain(t *testing.T) (got []*events.Event) {
	t.Helper()
	items, _ := c.items(t)
	for _, item := range items {
		if item.Event != nil {
			got = append(got, item.Event)
		}
	}
	return got
}

// items are what was captured, and what became of it: all of that if complete.
func (c capture) items(t *testing.T) (got []tracer.Item, complete bool) {
	t.Helper()
	complete = true
	if err := c.Flush(); err != nil {
		t.Fatalf("flushing the capture: %v", err)
	}
	missed := false
	for {
		item, err := c.Read()
		if errors.Is(err, tracer.ErrFlushed) {
			break
		}
		if err != nil {
			t.Fatalf("reading the capture: %v", err)
		}
		if l := item.Lost; l != nil && l.Missed == l.Count() && vmtest.MayMiss() {
			missed = missed || l.Missed > 0
			complete = complete && l.Receipts == 0
			continue
		}
		if item.Lost != nil {
			t.Errorf("capture lost %d datagrams: %+v", item.Lost.Count(), *item.Lost)
			continue
		}
		got = append(got, item)
	}
	if missed {
		// Counted, as it has to be; what else there is is not the whole.
		t.Skip("not declared: this emulated kernel skipped a program while it preempted itself")
	}
	return got, complete
}
