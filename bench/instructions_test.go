// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"

	"github.com/sdtrace/sdtrace/bpf/pair"
	"github.com/sdtrace/sdtrace/internal/tracer"
	"github.com/sdtrace/sdtrace/vmtest"
)

func TestMain(m *testing.M) {
	if isSender() {
		os.Exit(beSender())
	}
	os.Exit(m.Run())
}

// budgetKernel is the kernel that the budgets hold for, budgets how many instructions a
// capture may add there to what everythingCounted lists. A tenth more is a regression; a tenth
// less is to be written down here, so that it stays.
const budgetKernel = "6.12-amd64"

var budgets = map[string][]int{
	"fentry/unix_dgram_sendmsg, unix_dgram_recvmsg": {3_700, 8_780, 990, 172, 0, 0, 5_430, 5_430, 5_430},
	"fentry/unix_dgram_sendmsg":                     {2_580, 7_650, 636, 172, 0, 0},
	"fentry/unix_dgram_sendmsg --latency":           {2_785, 7_860, 873, 172, 0, 0},
	"tracepoint/sock_send_length":                   {3_140, 8_210, 1_015, 241, 196, 0, 4_930, 4_930, 4_930},
	"tracepoint/sys_exit":                           {2_640, 8_200, 1_925, 745, 700, 168},
}

// TestInstructionsAddedToASender needs a machine whose clock counts instructions: its figures
// do not depend on what else the host does.
func TestInstructionsAddedToASender(t *testing.T) {
	if vmtest.Native() {
		t.Skip("not declared: needs a machine that counts instructions, as in tier cost of vmtest/run")
	}
	if !countsInstructions() {
		t.Fatal("the clock of this machine does not count instructions")
	}
	m := newCountingMachine(t)
	for _, c := range everythingCounted {
		if c.groups == 0 {
			m.bare[c.op] = m.count(c.op)
			m.report("", c, m.bare[c.op])
		}
	}
	for _, flavour := range countedFlavours {
		if flavour == paired {
			m.pair()
			continue
		}
		m.capture(flavour, 0)
	}
	for _, backend := range []string{"fentry", "tracepoint"} {
		for _, groups := range []int{1, 100, 10_000} {
			m.capture(backend, groups)
		}
	}
	m.checkComplete()
	// What is printed earlier would be counted.
	fmt.Fprint(t.Output(), m.found.String())
}

// countedFor is how many operations a count has, repeats how often it is made.
const (
	countedFor = 1000
	repeats    = 5
)

type countingMachine struct {
	*testing.T
	sender *sender
	groups *groups
	bare   map[string]float64 // by op
	found  strings.Builder
	held   map[string]int // how many counts of a flavour had a budget
}

func newCountingMachine(t *testing.T) *countingMachine {
	m := &countingMachine{T: t, bare: map[string]float64{}, held: map[string]int{}}
	var err error
	if m.groups, err = newGroups(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.groups.close)
	if m.sender, err = startSender(t.TempDir(), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.sender.stop)
	return m
}

// count is how many instructions each operation takes, without what the kernel does now and
// then as far as that can be.
func (m *countingMachine) count(op string) float64 {
	m.Helper()
	var counts []float64
	for range repeats {
		n, err := m.sender.do(op, countedFor)
		if err != nil {
			m.Fatal(err)
		}
		counts = append(counts, n)
	}
	slices.Sort(counts)
	// The clock's interrupts fall on a short operation unevenly.
	if counts[1] > counts[0]*1.02+20 {
		m.Errorf("%s: %.0f instructions: what is counted is something else", op, counts)
	}
	return counts[0]
}

// capture counts what a capture adds that is narrowed down to so many control groups, in the
// last of which the sender is.
func (m *countingMachine) capture(backend string, groups int) {
	m.Helper()
	// Nobody reads the ring buffer while there is counting.
	options := tracer.Options{Backend: backend, RingSize: 64 << 20}
	options.Backend, options.Latency = strings.CutSuffix(options.Backend, withLatency)
	if groups > 0 {
		if err := m.groups.grow(groups, false); err != nil {
			m.Fatal(err)
		}
		options.Filter.Cgroups = m.groups.paths(groups)
		last := filepath.Join(options.Filter.Cgroups[groups-1], "cgroup.procs")
		if err := os.WriteFile(last, []byte(strconv.Itoa(m.sender.cmd.Process.Pid)), 0); err != nil {
			m.Fatal(err)
		}
	}
	c, err := tracer.Open(options)
	if errors.Is(err, os.ErrNotExist) {
		m.Logf("%s: %v", backend, err)
		return
	}
	if err != nil {
		m.Fatal(err)
	}
	defer func() {
		if err := c.Close(); err != nil {
			m.Error(err)
		}
	}()
	for _, what := range everythingCounted {
		if what.groups != groups {
			continue
		}
		before := m.stats(c)
		added := m.count(what.op) - m.bare[what.op]
		m.seen(c, before, what.op)
		flavour := c.Backend() + "/" + c.Hook()
		if options.Latency {
			flavour += withLatency
		}
		m.report(flavour, what, added)
	}
}

// pair counts what the programs of package pair add.
func (m *countingMachine) pair() {
	m.Helper()
	var programs pair.PairObjects
	if err := pair.LoadPairObjects(&programs, nil); err != nil {
		m.Fatal(err)
	}
	defer programs.Close()
	for _, p := range []*ebpf.Program{programs.PairExit, programs.PairEnter} {
		l, err := link.AttachTracing(link.TracingOptions{Program: p})
		if err != nil {
			m.Fatal(err)
		}
		defer l.Close()
	}
	for _, what := range everythingCounted {
		if what.op != opNotify && what.op != opOther || what.groups != 0 {
			continue
		}
		added := m.count(what.op) - m.bare[what.op]
		var captured, ignored uint64
		if err := errors.Join(programs.Captured.Get(&captured), programs.Ignored.Get(&ignored)); err != nil {
			m.Fatal(err)
		}
		if n := map[string]uint64{opNotify: captured, opOther: ignored}[what.op]; n < repeats*countedFor*99/100 {
			m.Errorf("%s: the paired programs have seen %d", what.op, n)
		}
		m.report(paired, what, added)
	}
}

func (m *countingMachine) stats(c *tracer.Tracer) tracer.Stats {
	m.Helper()
	s, err := c.Stats()
	if err != nil {
		m.Fatal(err)
	}
	return s
}

// seen checks that what was counted is what was meant.
func (m *countingMachine) seen(c *tracer.Tracer, before tracer.Stats, op string) {
	m.Helper()
	after := m.stats(c)
	captured, ignored := int(after.Captured-before.Captured), int(after.Ignored-before.Ignored)
	wantCaptured, wantIgnored := 0, 0
	switch op {
	case opNotify, opLong:
		wantCaptured = repeats * countedFor
	case opOther:
		wantIgnored = repeats * countedFor
	}
	// A kernel that preempts itself skips a program now and then.
	few, lost := repeats*countedFor/100, int(after.Lost()-before.Lost())
	if lost > few || captured < wantCaptured-few || captured > wantCaptured || ignored < wantIgnored-few || ignored > wantIgnored {
		m.Errorf("%s: %d captured, %d of no interest, and %d lost", op, captured, ignored, lost)
	}
}

// report notes what was counted for countInstructions, and holds it against its budget.
func (m *countingMachine) report(flavour string, what counted, n float64) {
	m.Helper()
	fmt.Fprintln(&m.found, count{flavour, what.what, fmt.Sprintf("%.0f", n)})
	if flavour == "" || flavour == paired || os.Getenv("SDTRACE_KERNEL") != budgetKernel {
		return
	}
	budget := budgets[flavour]
	if budget == nil {
		m.Errorf("%s has no budget", flavour)
		return
	}
	m.held[flavour]++
	want := float64(budget[slices.Index(everythingCounted, what)])
	// As much as the bare operation differs from one count to another.
	noise := 20 + m.bare[what.op]/100
	if n > want*1.1+noise || n < want*0.9-noise {
		m.Errorf("%s: %s: %.0f instructions added, the budget is %.0f", flavour, what.what, n, want)
	}
}

// checkComplete fails when anything that has a budget was not counted.
func (m *countingMachine) checkComplete() {
	m.Helper()
	if os.Getenv("SDTRACE_KERNEL") != budgetKernel {
		return
	}
	for flavour, budget := range budgets {
		if m.held[flavour] != len(budget) {
			m.Errorf("%s: %d of %d budgets were held against a count", flavour, m.held[flavour], len(budget))
		}
	}
}

func TestCountsAreReadAsTheyWereWritten(t *testing.T) {
	want := []count{{"", "getppid(2)", "356"}, {"fentry/unix_dgram_sendmsg, unix_dgram_recvmsg", "a datagram", "-3"}}
	output := "=== RUN   Test\n    " + want[0].String() + "\n    other\tthings\n    " + want[1].String() + "\n--- PASS\n"
	if diff := cmp.Diff(want, parseCounts(output), cmp.AllowUnexported(count{})); diff != "" {
		t.Error(diff)
	}
}
