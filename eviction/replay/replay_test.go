package replay

import (
	"errors"
	"io/fs"
	"math"
	"os"
	"slices"
	"testing"

	"github.com/isobar-project/isobar/eviction"
)

// traces is where the published trace lies, from this package's folder; the
// variable TRACES names another place.
func traces() string {
	if dir := os.Getenv("TRACES"); dir != "" {
		return dir
	}
	return "../../../shared/traces"
}

// published is the published trace, or where that is absent a synthetic one.
func published(tb testing.TB) (t *Trace, real bool) {
	tb.Helper()
	t, err := Read(traces())
	switch {
	case err == nil:
		return t, true
	case errors.Is(err, fs.ErrNotExist) && os.Getenv("TRACES") == "":
		tb.Logf("no trace in %s: a synthetic one instead, whose scores compare only with each other", traces())
		return Synthetic(1, 20000), false
	}
	tb.Fatal(err)
	return nil, false
}

// TestTheDefaultPolicyScores holds the default policy, on one of the assignments, to be
// better than those that it is to replace and not worse than it was.
func TestTheDefaultPolicyScores(t *testing.T) {
	trace, real := published(t)
	for _, b := range trace.Bounds {
		if b.Fraction != .25 || b.Cost != Measured || b.Seed != trace.Assignments[0].Seed {
			continue
		}
		results := make(map[string]Result)
		for _, name := range []string{eviction.DefaultName, "gdsf", "lru"} {
			p, err := eviction.New(name)
			if err != nil {
				t.Fatal(err)
			}
			if results[name], err = trace.Run(b, p); err != nil {
				t.Fatal(err)
			}
		}
		t.Logf("seed %s: %+v", b.Seed, results)
		cost := results[eviction.DefaultName]
		if cost.Seconds >= results["lru"].Seconds || real && cost.Seconds >= results["gdsf"].Seconds {
			t.Errorf("the default policy reloads for %.0f s, gdsf for %.0f, lru for %.0f", cost.Seconds, results["gdsf"].Seconds, results["lru"].Seconds)
		}
		if real && os.Getenv("TRACES") == "" && (cost.Score > 1.75 || cost.Score < 1 || cost.Unserved > 0) {
			t.Errorf("score %.2f with %d unserved", cost.Score, cost.Unserved)
		}
	}
}

func TestAReplayRepeatsExactly(t *testing.T) {
	trace := Synthetic(7, 3000)
	for _, name := range eviction.Names() {
		var results []Result
		for range 2 {
			p, err := eviction.New(name)
			if err != nil {
				t.Fatal(err)
			}
			r, err := trace.Run(trace.Bounds[0], p)
			if err != nil {
				t.Fatal(err)
			}
			results = append(results, r)
		}
		if results[0] != results[1] {
			t.Errorf("%s: %+v, then %+v", name, results[0], results[1])
		}
	}
}

func TestAFolderWithoutTraceSaysSo(t *testing.T) {
	if _, err := Read(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("got %v", err)
	}
}

// A score is the mean of the assignments' scores, and a perturbed trace is nearly the same.
func TestScoresAreMeansOverTheAssignments(t *testing.T) {
	trace := Synthetic(3, 2000)
	cells := trace.Cells("gdsf")
	if len(cells) != 6 || len(trace.Assignments) != 5 {
		t.Fatalf("%d cells of %d assignments", len(cells), len(trace.Assignments))
	}
	for _, c := range cells {
		row, err := trace.Score(c)
		if err != nil {
			t.Fatal(err)
		}
		sum, worst := 0., 0.
		for _, s := range row.Scores {
			sum, worst = sum+s, max(worst, s)
		}
		if len(row.Scores) != 5 || math.Abs(row.Score-sum/5) > 1e-9 || row.Worst != worst {
			t.Errorf("%+v", row)
		}
	}
}

func TestPerturbedLeavesOutAFewRequests(t *testing.T) {
	trace := Synthetic(3, 10000)
	a, b, again := trace.Perturbed(1, .01), trace.Perturbed(2, .01), trace.Perturbed(1, .01)
	for _, p := range []*Trace{a, b} {
		if n := len(p.Requests); n < 9850 || n > 9950 {
			t.Errorf("%d of 10000 requests are left", n)
		}
	}
	if !slices.EqualFunc(a.Requests, again.Requests, slices.Equal) || slices.EqualFunc(a.Requests, b.Requests, slices.Equal) {
		t.Error("the seed does not decide what is left out")
	}
	if len(trace.Requests) != 10000 {
		t.Error("the trace itself was changed")
	}
}
