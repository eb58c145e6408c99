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
	cmd := exec.CommandContext(ctx, "go", "run", "./vmtest/run", "-tier", "cost", "-packages", "./bench", "-run", "^"+countingTest+"$", "-results", dir)
	cmd.Stderr = os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	runErr := cmd.Run()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	head := []string{"instructions"}
	var rows [][]string
	cells := map[[2]string]map[string]string{}
	for _, kernel := range vmtest.Kernels() {
		counts, err := readCounts(filepath.Join(dir, "tiercost-"+kernel.Name, "test.json"))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		head = append(head, kernel.Name)
		for _, c := range counts {
			key := [2]string{c.flavour, c.what}
			if cells[key] == nil {
				cells[key] = map[string]string{}
			}
			cells[key][kernel.Name] = c.n
		}
	}
	for _, flavour := range append([]string{""}, countedFlavours...) {
		for _, c := range everythingCounted {
			if cells[[2]string{flavour, c.what}] == nil {
				continue
			}
			row := []string{c.what}
			if flavour != "" {
				row[0] = "... added by " + flavour + ": " + c.what
			}
			for _, kernel := range head[1:] {
				row = append(row, cells[[2]string{flavour, c.what}][kernel])
			}
			rows = append(rows, row)
		}
	}
	if len(rows) == 0 {
		return errors.Join(errors.New("nothing was counted"), runErr)
	}
	text := vmtest.Markdown(append([][]string{head}, rows...))
	fmt.Print(text)
	if file != "" {
		err = document.Write(file, "vm", "\n"+text+"\n")
	}
	if runErr != nil {
		runErr = fmt.Errorf("vmtest/run: %w", runErr)
	}
	return errors.Join(err, runErr)
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

// countedFlavours are what a capture can be attached to, as --backend takes it.
var countedFlavours = []string{
	"fentry/unix_dgram_sendmsg, unix_dgram_recvmsg", "fentry/unix_dgram_sendmsg", "tracepoint/sock_send_length", "tracepoint/sys_exit",
}

// countingTest is the test that counts.
const countingTest = "TestInstructionsAddedToASender"
