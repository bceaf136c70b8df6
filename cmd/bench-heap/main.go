// Command bench-heap measures the heap on traces of allocations and of model requests:
// what it loses to fragmentation, what defragmentation wins back, and what a call costs.
// It prints tables and then one JSON object. `make bench-heap` runs it.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"

	models "github.com/isobar-project/isobar/eviction/replay"
	"github.com/isobar-project/isobar/heap/replay"
	"github.com/isobar-project/isobar/internal/bench"
)

func main() {
	traces := flag.String("traces", "", "folder of allocation traces (*.csv.gz); empty: ../shared/traces/alloc, or synthetic ones where that is absent")
	requests := flag.String("requests", "", "folder of the model requests; empty: ../shared/traces, or a synthetic trace where that is absent")
	quick := flag.Bool("quick", false, "leave out the model requests and the curve of defragmentation")
	bench.Main(func(tables io.Writer) (any, error) { return measure(*traces, *requests, *quick, tables) })
}

// defaultTraces is where the published traces lie, from the project's root.
const defaultTraces = "../shared/traces/alloc"

// report is what the program prints as JSON.
type report struct {
	Traces   string       `json:"traces"`
	Arenas   []arenaRow   `json:"arenas"`
	Large    float64      `json:"large"`      // geometric mean of the smallest arenas
	Odd      float64      `json:"minimalloc"` // the same
	Curves   []curve      `json:"defragmentation,omitempty"`
	Speed    []speed      `json:"speed"`
	Million  footprint    `json:"million_blocks"`
	Requests string       `json:"requests,omitempty"`
	Taxes    []replay.Tax `json:"contiguity_tax,omitempty"`
}

type arenaRow struct {
	Trace string  `json:"trace"`
	Group string  `json:"group"`
	Peak  int64   `json:"peak_bytes"`
	Live  int     `json:"peak_blocks"`
	Arena float64 `json:"smallest_arena"`
}

func measure(traces, requests string, quick bool, out io.Writer) (*report, error) {
	r := &report{Traces: traces}
	if traces == "" {
		r.Traces = defaultTraces
	}
	all, err := replay.Allocations(r.Traces)
	if errors.Is(err, fs.ErrNotExist) && traces == "" {
		r.Traces = "synthetic"
		all, err = replay.Synthetic(1), nil
	}
	if err != nil {
		return nil, err
	}
	r.arenas(all, out)
	r.speeds(out, pairs)
	if quick {
		return r, nil
	}
	r.curves(all, out)
	return r, r.taxes(requests, out)
}

// arenas finds the smallest arena of each trace.
func (r *report) arenas(all []*replay.Allocs, out io.Writer) {
	fmt.Fprintf(out, "Smallest arena, as a multiple of the peak of live bytes (traces: %s)\n\n", r.Traces)
	fmt.Fprintf(out, "| trace | peak bytes | most blocks | smallest arena |\n|---|---:|---:|---:|\n")
	groups := map[string][]float64{}
	for _, a := range all {
		row := arenaRow{a.Name, a.Group(), a.Peak, a.Live, a.Smallest()}
		r.Arenas = append(r.Arenas, row)
		groups[row.Group] = append(groups[row.Group], row.Arena)
		fmt.Fprintf(out, "| %s | %d | %d | %.2f |\n", row.Trace, row.Peak, row.Live, row.Arena)
	}
	r.Large, r.Odd = replay.GeometricMean(groups[replay.GroupLarge]), replay.GeometricMean(groups[replay.GroupMinimalloc])
	fmt.Fprintf(out, "| geometric mean of the %d large ones | | | %.3f |\n", len(groups[replay.GroupLarge]), r.Large)
	fmt.Fprintf(out, "| geometric mean of the %d of minimalloc's kind | | | %.3f |\n", len(groups[replay.GroupMinimalloc]), r.Odd)
}

// curve is what a trace takes in arenas of several sizes, with defragmentation.
type curve struct {
	Trace string         `json:"trace"`
	Moved []replay.Moved `json:"moved"`
	Apart []replay.Moved `json:"moved_apart"` // as a node moves them
}

// curves measures what defragmentation takes.
func (r *report) curves(all []*replay.Allocs, out io.Writer) {
	arenas := replay.CurveArenas()
	for _, a := range all {
		r.Curves = append(r.Curves, curve{a.Name, a.Curve(arenas, false), a.Curve(arenas, true)})
	}
	table := func(how string, of func(curve) []replay.Moved) {
		fmt.Fprintf(out, "\nBytes moved for each byte allocated, in arenas of so many times the peak (no: the sizes rounded to 256 bytes are more than the arena, or no room can be made), %s\n\n| trace |", how)
		for _, m := range arenas {
			fmt.Fprintf(out, " %.2f |", m)
		}
		fmt.Fprintf(out, "\n|---|%s\n", strings.Repeat("---:|", len(arenas)))
		for _, c := range r.Curves {
			fmt.Fprintf(out, "| %s |", c.Trace)
			for _, m := range of(c) {
				if m.PerByte < 0 {
					fmt.Fprint(out, " no |")
				} else {
					fmt.Fprintf(out, " %.3f |", m.PerByte)
				}
			}
			fmt.Fprintln(out)
		}
	}
	table("blocks may be pushed onto bytes of their own", func(c curve) []replay.Moved { return c.Moved })
	table("only to places that are free before the first move, as in a node", func(c curve) []replay.Moved { return c.Apart })
}

// taxes compares segments with counted bytes on the model requests.
func (r *report) taxes(dir string, out io.Writer) error {
	t, from, err := models.Published(dir, filepath.Dir(defaultTraces))
	if err != nil {
		return err
	}
	r.Requests = from
	if r.Taxes, err = replay.Taxes(t); err != nil {
		return err
	}
	fmt.Fprintf(out, "\nContiguity tax: seconds of reloading over those with counted bytes, mean of %d assignments (requests: %s)\n\n", len(t.Assignments), r.Requests)
	fmt.Fprintf(out, "| costs | capacity | memory | seconds | more | worst assignment |\n|---|---:|---|---:|---:|---:|\n")
	for _, x := range r.Taxes {
		fmt.Fprintf(out, "| %s | %.0f %% | %s | %.0f | %.2f %% | %.2f %% |\n", x.Cost, 100*x.Fraction, x.Memory, x.Seconds, x.Percent, x.Worst)
	}
	return nil
}
