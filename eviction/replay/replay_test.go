package replay

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
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

// TestTheDefaultPolicyScores holds the default policy to what is recorded for its
// kind (1.79 at a quarter of the bytes), on one of the assignments.
func TestTheDefaultPolicyScores(t *testing.T) {
	trace, real := published(t)
	for _, b := range trace.Bounds {
		if b.Fraction != .25 || b.Cost != Measured || b.Seed != trace.Assignments[0].Seed {
			continue
		}
		gdsf, err := trace.Run(b, eviction.NewGDSF(eviction.DefaultRemembered))
		if err != nil {
			t.Fatal(err)
		}
		lru, err := trace.Run(b, eviction.NewLRU())
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("seed %s: gdsf %+v, lru %+v", b.Seed, gdsf, lru)
		if gdsf.Seconds >= lru.Seconds {
			t.Errorf("gdsf reloads for %.0f s, lru for %.0f", gdsf.Seconds, lru.Seconds)
		}
		if real && (gdsf.Score > 2 || gdsf.Score < 1 || gdsf.Unserved > 0) {
			t.Errorf("score %.2f with %d unserved", gdsf.Score, gdsf.Unserved)
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

// BenchmarkScores reports each policy's mean score over the assignments, as
// policy:costs:capacity.
func BenchmarkScores(b *testing.B) {
	trace, _ := published(b)
	for range b.N {
		for _, cost := range []string{Measured, Bandwidth} {
			rows, err := trace.Table(cost, eviction.Names())
			if err != nil {
				b.Fatal(err)
			}
			for _, r := range rows {
				b.ReportMetric(r.Score, fmt.Sprintf("%s:%s:%.0f%%", r.Policy, r.Cost, 100*r.Fraction))
			}
		}
	}
}
