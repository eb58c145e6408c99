// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Command bench measures what sdtrace costs on this machine and writes the table into
// docs/benchmarks.md. "make bench" runs it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"runtime"
	"syscall"

	"github.com/sdtrace/sdtrace/vmtest"
	"github.com/sdtrace/sdtrace/vmtest/document"
)

// bench is a run of measurements.
type bench struct {
	ctx     context.Context
	sdtrace string
	dir     string
	short   bool
	groups  *groups
}

// row is one line of the table.
type row struct{ what, figure, target string }

func main() {
	// What a measurement starts ends with the thread that has started it.
	runtime.LockOSThread()
	if isSender() {
		os.Exit(beSender())
	}
	if err := run(os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	b := &bench{}
	flags.StringVar(&b.sdtrace, "sdtrace", "bin/sdtrace", "`path` of the sdtrace to measure")
	flags.BoolVar(&b.short, "short", false, "a try: few pairs, seconds instead of a minute; nothing is written")
	only := flags.String("only", "", "measure only what matches this `pattern`; nothing is written")
	vm := flags.Bool("vm", false, "count instructions in virtual machines instead")
	file := flags.String("write", "docs/benchmarks.md", "`file` whose section is written; empty for none")
	if err := flags.Parse(args); err != nil {
		return err
	}
	pattern, err := regexp.Compile(*only)
	if err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	b.ctx = ctx
	if *vm {
		return countInstructions(ctx, *file)
	}
	if os.Geteuid() != 0 {
		return errors.New("not root: capturing and making control groups takes that")
	}
	// In memory: a disk that stalls is not what is to be measured.
	if b.dir, err = os.MkdirTemp("/dev/shm", "sdtrace-bench"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	if b.groups, err = newGroups(); err != nil {
		return err
	}
	defer b.groups.close()

	rows := [][]string{{"what", "measured", "target"}}
	for i, f := range figures {
		if !pattern.MatchString(f.name) {
			continue
		}
		fmt.Fprintf(os.Stderr, "bench: %d/%d %s\n", i+1, len(figures), f.name)
		more, err := f.measure(b)
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			fmt.Print(vmtest.Markdown(rows))
			return fmt.Errorf("%s: %w", f.name, err)
		}
		for _, r := range more {
			rows = append(rows, []string{r.what, r.figure, r.target})
		}
	}
	text := describeMachine() + "\n" + vmtest.Markdown(rows)
	fmt.Print(text)
	if b.short || *only != "" || *file == "" {
		return nil
	}
	return document.Write(*file, "native", "\n"+text+"\n")
}
