// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/sdtrace/sdtrace/vmtest"
	"github.com/sdtrace/sdtrace/vmtest/document"
)

// counted is what is counted in a machine: an operation of a sender, in as many control
// groups to which the capture is narrowed down, 0 for no filter.
type counted struct {
	op     string
	groups int
	what   string
}

var everythingCounted = []counted{
	{opNotify, 0, "a notify datagram of 30 bytes"},
	{opLong, 0, "a notify datagram of 4095 bytes"},
	{opOther, 0, "a datagram of no interest"},
	{opStream, 0, "a write to a stream socket"},
	{opTCP, 0, "a send over TCP"},
	{opGetppid, 0, "getppid(2)"},
	{opNotify, 1, "a notify datagram, one --cgroup"},
	{opNotify, 100, "a notify datagram, 100 --cgroup"},
	{opNotify, 10_000, "a notify datagram, 10000 --cgroup"},
}

// count is one line of what the test in a machine found.
type count struct{ flavour, what, n string }

// countMark begins such a line.
const countMark = "count\t"

func (c count) String() string { return countMark + c.flavour + "\t" + c.what + "\t" + c.n }

// parseCounts finds the counts in the output of a test.
func parseCounts(output string) []count {
	var counts []count
	for line := range strings.Lines(output) {
		fields, marked := strings.CutPrefix(strings.TrimSpace(line), countMark)
		if parts := strings.Split(fields, "\t"); marked && len(parts) == 3 {
			counts = append(counts, count{parts[0], parts[1], parts[2]})
		}
	}
	return counts
}

// countInstructions boots the kernels and writes what a capture adds on each into file.
func countInstructions(ctx context.Context, file string) error {
	dir, err := os.MkdirTemp("", "sdtrace-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	cmd := exec.CommandContext(ctx, "go", "run", "./vmtest/run", "-tier", "cost", "-all", "-run", "^"+countingTest+"$", "-results", dir)
	cmd.Stderr = os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	runErr := cmd.Run()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	table, err := countTable(dir)
	if err != nil {
		return errors.Join(err, runErr)
	}
	text := vmtest.Markdown(table)
	fmt.Print(text)
	if file != "" {
		err = document.Write(file, "vm", "\n"+text+"\n")
	}
	if runErr != nil {
		runErr = fmt.Errorf("vmtest/run: %w", runErr)
	}
	return errors.Join(err, runErr)
}

// countTable has a column for each kernel whose results are below dir.
func countTable(dir string) ([][]string, error) {
	type line struct{ flavour, what string }
	head := []string{"instructions"}
	cells := map[line]map[string]string{} // by kernel
	for _, kernel := range vmtest.Kernels() {
		counts, err := readCounts(filepath.Join(dir, "tiercost-"+kernel.Name, "test.json"))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		head = append(head, kernel.Name)
		for _, c := range counts {
			at := line{c.flavour, c.what}
			if cells[at] == nil {
				cells[at] = map[string]string{}
			}
			cells[at][kernel.Name] = c.n
		}
	}
	if len(cells) == 0 {
		return nil, errors.New("nothing was counted")
	}
	table := [][]string{head}
	for _, flavour := range append([]string{""}, countedFlavours...) {
		for _, c := range everythingCounted {
			found := cells[line{flavour, c.what}]
			if found == nil {
				continue
			}
			row := []string{c.what}
			if flavour != "" {
				row[0] = "... added by " + flavour + ": " + c.what
			}
			for _, kernel := range head[1:] {
				row = append(row, found[kernel])
			}
			table = append(table, row)
		}
	}
	return table, nil
}

func readCounts(file string) ([]count, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	outcomes, err := vmtest.DecodeOutcomes(f)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", file, err)
	}
	var counts []count
	for _, o := range outcomes {
		counts = append(counts, parseCounts(o.Output)...)
	}
	return counts, nil
}

// paired is the flavour of package pair: entry and end of the send paired by a hash map, as other tracers do.
const paired = "fentry and fexit paired by a hash map"

// countedFlavours are what a capture can be attached to, as --backend takes it, some with what more it is asked for.
var countedFlavours = []string{
	"fentry/unix_dgram_sendmsg, unix_dgram_recvmsg", "fentry/unix_dgram_sendmsg", "fentry/unix_dgram_sendmsg" + withLatency,
	"tracepoint/sock_send_length", "tracepoint/sys_exit", paired,
}

// withLatency is --latency.
const withLatency = " --latency"

// countingTest is the test that counts.
const countingTest = "TestInstructionsAddedToASender"
