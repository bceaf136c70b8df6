package replay

import (
	"fmt"
	"math/rand"

	"github.com/isobar-project/isobar/eviction"
)

// Row is one line of a table of scores: a policy at a capacity.
type Row struct {
	Policy   string  `json:"policy"`
	Cost     string  `json:"cost"`
	Fraction float64 `json:"capacity"` // of the bytes of all models
	Score    float64 `json:"score"`    // the mean over the assignments
	Worst    float64 `json:"worst"`    // of the assignments
	// Scores are those of the assignments, in the trace's order.
	Scores []float64 `json:"scores"`
}

// Cell names a row of a table before it is measured.
type Cell struct {
	Policy, Cost string
	Fraction     float64
}

// Cells lists what Score can measure of a policy, in the order of the bounds.
func (t *Trace) Cells(policy string) (out []Cell) {
	seen := make(map[Cell]bool)
	for _, b := range t.Bounds {
		c := Cell{policy, b.Cost, b.Fraction}
		if !seen[c] {
			seen[c] = true
			out = append(out, c)
		}
	}
	return out
}

// Score runs a policy over every assignment of one cost model and capacity. Any number
// of goroutines may score one trace.
func (t *Trace) Score(c Cell) (Row, error) {
	row := Row{Policy: c.Policy, Cost: c.Cost, Fraction: c.Fraction}
	for _, b := range t.Bounds {
		if b.Cost != c.Cost || b.Fraction != c.Fraction {
			continue
		}
		p, err := eviction.New(c.Policy)
		if err != nil {
			return Row{}, err
		}
		result, err := t.Run(b, p)
		if err != nil {
			return Row{}, fmt.Errorf("%s, seed %s, capacity %.2f: %w", c.Policy, b.Seed, b.Fraction, err)
		}
		row.Scores = append(row.Scores, result.Score)
	}
	for _, s := range row.Scores {
		row.Score += s / float64(len(row.Scores))
		row.Worst = max(row.Worst, s)
	}
	return row, nil
}

// Perturbed is the trace without a share of its requests, chosen by chance. The bounds
// stay: what they bound is nearly the same.
func (t *Trace) Perturbed(seed int64, dropped float64) *Trace {
	random := rand.New(rand.NewSource(seed))
	p := *t
	p.Requests = make([][]int, 0, len(t.Requests))
	for _, r := range t.Requests {
		if random.Float64() >= dropped {
			p.Requests = append(p.Requests, r)
		}
	}
	return &p
}

// TierCell names a run over two tiers: the device holds a quarter of the bytes of all
// models, main memory half of them.
type TierCell struct {
	Policy string `json:"policy"`
	Scheme Scheme `json:"scheme"`
	Cost   string `json:"cost"`
}

const (
	deviceFraction = .25
	mainFraction   = .50
	busSpeed       = 50e9 // bytes a second
)

// ScoreTiers is the mean over the assignments.
func (t *Trace) ScoreTiers(c TierCell) (mean TierResult, err error) {
	main := make(map[string]int64)
	for _, b := range t.Bounds {
		if b.Cost == c.Cost && b.Fraction == mainFraction {
			main[b.Seed] = b.Capacity
		}
	}
	for _, b := range t.Bounds {
		if b.Cost != c.Cost || b.Fraction != deviceFraction || t.objects(b) == nil {
			continue
		}
		r, err := t.RunTiers(b, Tiers{Device: b.Capacity, Main: main[b.Seed], BytesPerSecond: busSpeed}, c.Policy, c.Scheme)
		if err != nil {
			return TierResult{}, fmt.Errorf("%s, %s, seed %s: %w", c.Policy, c.Scheme, b.Seed, err)
		}
		n := float64(len(t.Assignments))
		mean.Seconds += r.Seconds / n
		mean.Disk += r.Disk / n
		mean.First += r.First / n
	}
	return mean, nil
}
