package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/isobar-project/isobar/eviction/replay"
)

// print writes the tables.
func (r *report) print(out io.Writer) {
	fmt.Fprintf(out, "trace: %s\n", r.Trace)
	if r.Trace == replay.SyntheticName {
		fmt.Fprintf(out, "(%s is absent: a synthetic trace, whose bounds are not proven; its scores compare only with each other)\n", defaultTraces)
	}
	for _, cost := range []string{replay.Measured, replay.Bandwidth} {
		fmt.Fprintf(out, "\nseconds of reloading ÷ lower bound, %s costs: mean of the assignments (worst)\n", cost)
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		policy := ""
		for _, s := range r.Scores {
			if s.Cost != cost {
				continue
			}
			if policy == "" {
				fmt.Fprint(w, "policy", r.columns(s.Policy, cost))
			}
			if s.Policy != policy {
				policy = s.Policy
				fmt.Fprintf(w, "\n%s", policy)
			}
			fmt.Fprintf(w, "\t%.3f (%.3f)", s.Score, s.Worst)
		}
		fmt.Fprintln(w)
		r.spread(w, cost)
		w.Flush()
	}
	fmt.Fprintf(out, "\nassignments on which the default is worse than lru: %d\n", r.Worse)
	r.printTiers(out)
	fmt.Fprintln(out)
}

// printTiers writes the table of the runs over two tiers.
func (r *report) printTiers(out io.Writer) {
	fmt.Fprintln(out, "\ntwo tiers (device 25 %, main memory 50 %, 50 GB/s between them): seconds of reloading, mean of the assignments")
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "costs\tpolicy\ttiers\tseconds\tof these first loads\tthe default's against it")
	own := make(map[string]float64, 2)
	for _, t := range r.Tiers {
		against := ""
		if own[t.Cost] == 0 {
			own[t.Cost] = t.Seconds
		} else {
			against = fmt.Sprintf("%+.1f %%", 100*(own[t.Cost]/t.Seconds-1))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%.1f\t%.1f\t%s\n", t.Cost, t.Policy, t.Scheme, t.Seconds, t.First, against)
	}
	w.Flush()
}

// columns names the capacities of a table.
func (r *report) columns(policy, cost string) string {
	var b strings.Builder
	for _, s := range r.Scores {
		if s.Policy == policy && s.Cost == cost {
			fmt.Fprintf(&b, "\t%.0f %%", 100*s.Fraction)
		}
	}
	return b.String()
}

// spread is the line of the default policy's perturbed copies.
func (r *report) spread(w io.Writer, cost string) {
	fmt.Fprintf(w, "%s, perturbed", r.Scores[0].Policy)
	for _, s := range r.Scores {
		if s.Cost == cost && s.Most > 0 {
			fmt.Fprintf(w, "\t%.3f to %.3f", s.Least, s.Most)
		}
	}
	fmt.Fprintln(w)
}
