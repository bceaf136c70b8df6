package soak

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Report is how a soak went.
type Report struct {
	Seed uint64
	Took time.Duration
	// Counts are outcomes by what was done.
	Counts map[string]map[string]int
	// Violations are what must be true and was not; nothing else fails a soak.
	Violations []string
	// Notes are worth knowing.
	Notes []string
	// Sums are the figures that were compared at the end.
	Sums []Sum
	// Starts are the times that restarts took, in milliseconds.
	Starts []float64
}

func (t *truth) report() *Report {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := &Report{Counts: maps.Clone(t.counts), Violations: slices.Clone(t.violations), Notes: slices.Clone(t.notes), Sums: slices.Clone(t.sums),
		Starts: slices.Clone(t.starts)}
	if t.more > 0 {
		r.Violations = append(r.Violations, fmt.Sprintf("and %d more", t.more))
	}
	if len(t.starts) > 0 {
		r.Notes = append(r.Notes, fmt.Sprintf("restarts took at most %.0f ms, with up to %d grants", slices.Max(t.starts), t.restored))
	}
	return r
}

// Markdown is the report for people.
func (r *Report) Markdown() string {
	var b strings.Builder
	verdict := "everything that must be true was"
	if n := len(r.Violations); n > 0 {
		verdict = fmt.Sprintf("%d things that must be true were not", n)
	}
	fmt.Fprintf(&b, "# Soak\n\n%s. Seed %d, %s.\n", verdict, r.Seed, r.Took.Round(time.Second))
	list := func(title string, lines []string) {
		if len(lines) == 0 {
			return
		}
		fmt.Fprintf(&b, "\n## %s\n\n", title)
		for _, l := range lines {
			fmt.Fprintf(&b, "- %s\n", l)
		}
	}
	list("Violations", r.Violations)
	list("Notes", r.Notes)
	if len(r.Sums) > 0 {
		b.WriteString("\n## Sums, in bytes\n\n| device | what | one | other | |\n|---|---|---:|---:|---|\n")
		for _, s := range r.Sums {
			mark := "equal"
			if s.One != s.Other {
				mark = "**differ**"
			}
			fmt.Fprintf(&b, "| %s | %s | %d | %d | %s |\n", s.Device, s.What, s.One, s.Other, mark)
		}
	}
	b.WriteString("\n## What was done\n\n| what | outcomes |\n|---|---|\n")
	for _, what := range slices.Sorted(maps.Keys(r.Counts)) {
		var parts []string
		for _, c := range slices.Sorted(maps.Keys(r.Counts[what])) {
			parts = append(parts, fmt.Sprintf("%s %d", c, r.Counts[what][c]))
		}
		fmt.Fprintf(&b, "| %s | %s |\n", what, strings.Join(parts, ", "))
	}
	return b.String()
}
