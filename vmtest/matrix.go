// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"unicode/utf8"
)

// Verdict is how a test ended on one kernel.
type Verdict string

// The verdicts. Skipped is a failure: a test may only be left out where the
// kernel's declared minimum says so, and then it is NotDeclared.
const (
	Passed      Verdict = "ok"
	Failed      Verdict = "FAIL"
	Skipped     Verdict = "SKIP"
	NotDeclared Verdict = "n/d"
	Unfinished  Verdict = "DIED"
)

// Bad reports whether the verdict makes the run fail.
func (v Verdict) Bad() bool { return v != Passed && v != NotDeclared }

// Outcome is one test's or subtest's end.
type Outcome struct {
	// Package is the import path, Test the name with slashes before subtests.
	Package, Test string
	Verdict       Verdict
	// Output is what the test itself printed, without its subtests.
	Output string
}

// notDeclared matches the line that t.Skip("not declared: …") leaves.
var notDeclared = regexp.MustCompile(`(?m)^\s*\S+\.go:\d+: not declared:`)

// DecodeOutcomes reads what go tool test2json made of one or more packages'
// output, and returns the tests in the order in which they started. Package
// level events and events of benchmarks and examples without a "run" are left
// out. The first line that is not JSON ends it with an error.
func DecodeOutcomes(r io.Reader) ([]Outcome, error) {
	type key struct{ pkg, test string }
	var order []key
	outcomes := map[key]*Outcome{}
	dec := json.NewDecoder(r)
	for {
		var e struct{ Action, Package, Test, Output string }
		if err := dec.Decode(&e); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("decoding test events: %w", err)
		}
		k := key{e.Package, e.Test}
		o := outcomes[k]
		if e.Action == "run" {
			order = append(order, k)
			outcomes[k] = &Outcome{Package: e.Package, Test: e.Test, Verdict: Unfinished}
			continue
		}
		if o == nil {
			continue
		}
		switch e.Action {
		case "output":
			o.Output += e.Output
		case "pass":
			o.Verdict = Passed
		case "fail":
			o.Verdict = Failed
		case "skip":
			o.Verdict = Skipped
			if notDeclared.MatchString(o.Output) {
				o.Verdict = NotDeclared
			}
		}
	}
	var list []Outcome
	for _, k := range order {
		list = append(list, *outcomes[k])
	}
	return list, nil
}

// Column is one kernel of a [Matrix].
type Column struct {
	// Name heads the column.
	Name     string
	Outcomes []Outcome
}

// Matrix returns a Markdown table: one line for each test and first-level
// subtest, in the order of the first column that has it, one column a kernel.
// The verdict of a deeper subtest shows in its first-level ancestor when it is
// bad. A cell is empty where the test does not exist.
func Matrix(columns []Column) string {
	type row struct{ pkg, top, sub string }
	var rows []row
	at := map[row]int{}
	cells := map[row][]Verdict{}
	for c, column := range columns {
		previous := -1
		for _, o := range column.Outcomes {
			parts := strings.SplitN(o.Test, "/", 3)
			r := row{pkg: o.Package, top: parts[0]}
			if len(parts) > 1 {
				r.sub = parts[1]
			}
			if cells[r] == nil {
				cells[r] = make([]Verdict, len(columns))
				rows = append(rows[:previous+1], append([]row{r}, rows[previous+1:]...)...)
				for i := previous + 1; i < len(rows); i++ {
					at[rows[i]] = i
				}
			}
			previous = at[r]
			if cell := &cells[r][c]; *cell == "" || o.Verdict.Bad() && !cell.Bad() {
				*cell = o.Verdict
			}
		}
	}

	table := [][]string{{"test"}}
	for _, column := range columns {
		table[0] = append(table[0], column.Name)
	}
	lastPackage := ""
	for _, r := range rows {
		if r.pkg != lastPackage {
			lastPackage = r.pkg
			table = append(table, append([]string{"**" + r.pkg + "**"}, make([]string, len(columns))...))
		}
		name := r.top
		if r.sub != "" {
			name = "– " + r.sub
		}
		line := []string{strings.ReplaceAll(name, "|", `\|`)}
		for _, v := range cells[r] {
			line = append(line, string(v))
		}
		table = append(table, line)
	}
	return Markdown(table)
}

// Markdown lays out a table whose first line is its head, padded so that it
// reads well as plain text too. All lines have as many cells as the head.
func Markdown(table [][]string) string {
	width := make([]int, len(table[0]))
	for _, line := range table {
		for i, cell := range line {
			width[i] = max(width[i], utf8.RuneCountInString(cell), 3)
		}
	}
	var b strings.Builder
	for n, line := range table {
		for i, cell := range line {
			fmt.Fprintf(&b, "| %-*s ", width[i], cell)
		}
		b.WriteString("|\n")
		if n == 0 {
			for _, w := range width {
				b.WriteString("|" + strings.Repeat("-", w+2))
			}
			b.WriteString("|\n")
		}
	}
	return b.String()
}
