// SPDX-License-Identifier: Apache-2.0

package render

import (
	"strings"
	"unicode/utf8"
)

// table is one of several columns.
type table struct {
	rows [][]string
}

const (
	// columnGap is how many blanks there are at least behind a column.
	columnGap = 2
	// columnMax is the length of the longest cell that a column is as wide as: a longer one moves what is behind it in
	// its own row alone.
	columnMax = 64
)

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

// String is all rows, a line each.
func (t *table) String() string {
	var widths []int
	for _, row := range t.rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			if n := utf8.RuneCountInString(cell); n <= columnMax {
				widths[i] = max(widths[i], n)
			}
		}
	}
	var b strings.Builder
	for _, row := range t.rows {
		for i, cell := range row {
			b.WriteString(cell)
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", max(0, widths[i]-utf8.RuneCountInString(cell))+columnGap))
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}
