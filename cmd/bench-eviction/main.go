// Command bench-eviction replays a trace of model requests with every eviction policy and
// says how many seconds each reloads, as a multiple of what no schedule can undercut. It
// prints tables and then one JSON object. `make bench-eviction` runs it.
package main

import (
	"errors"
	"flag"
	"io"
	"runtime"
	"sync"

	"github.com/isobar-project/isobar/eviction"
	"github.com/isobar-project/isobar/eviction/replay"
	"github.com/isobar-project/isobar/internal/bench"
)

func main() {
	traces := flag.String("traces", "", "folder of the trace; empty: ../shared/traces, or a synthetic trace where that is absent")
	quick := flag.Bool("quick", false, "measure the default policy alone")
	bench.Main(func(tables io.Writer) (any, error) {
		trace, from, err := replay.Published(*traces, defaultTraces)
		if err != nil {
			return nil, err
		}
		r, err := measure(trace, *quick)
		if err != nil {
			return nil, err
		}
		r.Trace = from
		r.print(tables)
		return r, nil
	})
}

const (
	// defaultTraces is where the published trace lies, from the project's root.
	defaultTraces = "../shared/traces"
	// perturbed is how many copies of the trace lack dropped of its requests.
	perturbed = 3
	dropped   = .01
)

// report is what the program prints as JSON.
type report struct {
	Trace string `json:"trace"`
	// Scores are seconds of reloading over the lower bound; the first policy is the default.
	Scores []score `json:"scores"`
	// Worse counts the assignments, of all capacities and cost models, on which the default
	// reloads for longer than LRU.
	Worse int `json:"worse_than_lru"`
	// Tiers are runs over two tiers; the first of each cost model is the default's.
	Tiers []tierRow `json:"two_tiers"`
}

// tierRow is a run over two tiers: the means over the assignments.
type tierRow struct {
	replay.TierCell
	replay.TierResult
}

// tierCells are the default's runs over two tiers and what they are compared with: each
// tier on its own, and the same without a model being in both.
func tierCells() (out []replay.TierCell) {
	for _, cost := range []string{replay.Measured, replay.Bandwidth} {
		out = append(out,
			replay.TierCell{Policy: eviction.DefaultName, Scheme: replay.Together, Cost: cost},
			replay.TierCell{Policy: eviction.DefaultName, Scheme: replay.Node, Cost: cost},
			replay.TierCell{Policy: "gdsf", Scheme: replay.Apart, Cost: cost},
			replay.TierCell{Policy: "gdsf", Scheme: replay.Exclusive, Cost: cost})
	}
	return out
}

// score is a row with its spread over the perturbed copies, where that was measured.
type score struct {
	replay.Row
	Least float64 `json:"perturbed_least,omitempty"`
	Most  float64 `json:"perturbed_most,omitempty"`
}

// measure replays the trace with the default policy, its perturbed copies too, and with
// the others unless it is to be quick.
func measure(t *replay.Trace, quick bool) (*report, error) {
	names := eviction.Names()
	if quick {
		names = names[:1]
	}
	var cells []replay.Cell
	for _, n := range names {
		cells = append(cells, t.Cells(n)...)
	}
	traces := []*replay.Trace{t}
	for i := range perturbed {
		traces = append(traces, t.Perturbed(int64(i+1), dropped))
	}
	// The first rows are the default policy's: those are replayed on the copies as well.
	own := len(t.Cells(names[0]))
	rows := make([]replay.Row, len(cells)+perturbed*own)
	r := &report{}
	for _, c := range tierCells() {
		r.Tiers = append(r.Tiers, tierRow{TierCell: c})
	}
	err := each(len(rows)+len(r.Tiers), func(i int) (err error) {
		if i >= len(rows) {
			row := &r.Tiers[i-len(rows)]
			row.TierResult, err = t.ScoreTiers(row.TierCell)
			return err
		}
		trace, cell := 0, i
		if i >= len(cells) {
			trace, cell = 1+(i-len(cells))/own, (i-len(cells))%own
		}
		rows[i], err = traces[trace].Score(cells[cell])
		return err
	})
	if err != nil {
		return nil, err
	}
	for i, row := range rows[:len(cells)] {
		s := score{Row: row}
		for k := 0; i < own && k < perturbed; k++ {
			copied := rows[len(cells)+k*own+i].Score
			if k == 0 {
				s.Least = copied
			}
			s.Least, s.Most = min(s.Least, copied), max(s.Most, copied)
		}
		r.Scores = append(r.Scores, s)
	}
	r.Worse = r.worseThan("lru")
	return r, nil
}

// worseThan counts the assignments on which the default policy scores worse than another.
func (r *report) worseThan(policy string) (n int) {
	for _, own := range r.Scores {
		for _, s := range r.Scores {
			if own.Policy != eviction.DefaultName || s.Policy != policy || s.Cost != own.Cost || s.Fraction != own.Fraction {
				continue
			}
			for i := range own.Scores {
				if own.Scores[i] > s.Scores[i] {
					n++
				}
			}
		}
	}
	return n
}

// each calls f(0) to f(n-1), as many at a time as there are processors.
func each(n int, f func(i int) error) error {
	var (
		wait sync.WaitGroup
		next = make(chan int)
		errs = make([]error, n)
	)
	for range runtime.GOMAXPROCS(0) {
		wait.Go(func() {
			for i := range next {
				errs[i] = f(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wait.Wait()
	return errors.Join(errs...)
}
