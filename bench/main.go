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
	"strings"
	"syscall"

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
	file := flags.String("write", "docs/benchmarks.md", "`file` whose section is written; empty for none")
	if err := flags.Parse(args); err != nil {
		return err
	}
	pattern, err := regexp.Compile(*only)
	if err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	if os.Geteuid() != 0 {
		return errors.New("not root: capturing and making control groups takes that")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	b.ctx = ctx
	if b.dir, err = os.MkdirTemp("", "sdtrace-bench"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	if b.groups, err = newGroups(); err != nil {
		return err
	}
	defer func() { b.groups.close() }()

	var rows []row
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
			return fmt.Errorf("%s: %w", f.name, err)
		}
		rows = append(rows, more...)
	}
	text := describeMachine() + "\n" + table(rows)
	fmt.Print(text)
	if b.short || *only != "" || *file == "" {
		return nil
	}
	return document.Write(*file, "native", "\n"+text+"\n")
}

// table is Markdown that can be read on a terminal.
func table(rows []row) string {
	all := append([]row{{"what", "measured", "target"}}, rows...)
	var widths [3]int
	for _, r := range all {
		for i, cell := range []string{r.what, r.figure, r.target} {
			widths[i] = max(widths[i], len([]rune(cell)))
		}
	}
	var text strings.Builder
	for i, r := range all {
		for j, cell := range []string{r.what, r.figure, r.target} {
			fmt.Fprintf(&text, "| %s%s ", cell, strings.Repeat(" ", widths[j]-len([]rune(cell))))
		}
		text.WriteString("|\n")
		if i == 0 {
			for _, w := range widths {
				text.WriteString("|" + strings.Repeat("-", w+2))
			}
			text.WriteString("|\n")
		}
	}
	return text.String()
}
