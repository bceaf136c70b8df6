package main

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// table is rows of cells, aligned. Columns that are empty in every row are left out.
type table struct {
	indent  string
	minimum int // width of the first column
	header  []string
	rows    [][]string
	right   map[int]bool // columns that are aligned to the right
}

func (t *table) head(cells ...string) { t.header = cells }

func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) alignRight(columns ...int) {
	if t.right == nil {
		t.right = map[int]bool{}
	}
	for _, c := range columns {
		t.right[c] = true
	}
}

// turned is the table with rows as columns, the header first.
func (t *table) turned() *table {
	out := &table{indent: t.indent}
	for i, name := range t.header {
		row := []string{name}
		for _, r := range t.rows {
			if i < len(r) {
				row = append(row, r[i])
			}
		}
		if strings.Join(row[1:], "") != "" {
			out.row(row...)
		}
	}
	return out
}

// width is how wide the widest row is.
func (t *table) width() int {
	var b strings.Builder
	t.write(&b)
	widest := 0
	for line := range strings.Lines(b.String()) {
		widest = max(widest, utf8.RuneCountInString(line)-1)
	}
	return widest
}

func (t *table) write(w io.Writer) {
	var widths []int
	for _, row := range t.rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	shown := make([]bool, len(widths))
	last := 0
	for i := range widths {
		shown[i] = widths[i] > 0 || i == 0
		if shown[i] {
			last = i
		}
		if i < len(t.header) && shown[i] {
			widths[i] = max(widths[i], utf8.RuneCountInString(t.header[i]))
		}
	}
	if len(widths) > 0 {
		widths[0] = max(widths[0], t.minimum)
	}
	line := func(cells []string) {
		var b strings.Builder
		b.WriteString(t.indent)
		for i, cell := range cells {
			if i >= len(shown) || !shown[i] {
				continue
			}
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			switch {
			case t.right[i]:
				b.WriteString(pad + cell)
			default:
				b.WriteString(cell + pad)
			}
			if i != last {
				b.WriteString("  ")
			}
		}
		fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
	}
	if t.header != nil && len(t.rows) > 0 {
		line(t.header)
	}
	for _, row := range t.rows {
		line(row)
	}
}
