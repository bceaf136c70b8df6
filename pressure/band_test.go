package pressure_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/pressure"
)

// steady foresees what it was told to.
type steady struct{ growth float64 }

func (*steady) Observe(int64, clock.Instant) {}
func (s *steady) Growth() float64            { return s.growth }

// Figures that the band holds change nothing: an evaluator that never sees them, but each
// sample of what others use, goes through the same levels as one that sees all.
func TestBandHoldsOnlyWhatChangesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := pressure.Config{Basis: rapid.SampledFrom([]pressure.Basis{pressure.BasisUsed, pressure.BasisUnreclaimable}).Draw(t, "basis")}
		limit := rapid.Int64Range(1, 1<<20).Draw(t, "limit")
		others := &steady{}
		cfg.NewForecaster = func() pressure.Forecaster { return others }
		all, _ := pressure.New(cfg, 0)
		some, _ := pressure.New(cfg, 0)
		var band pressure.Band
		now, sampled, skipped := clock.Instant(0), clock.Instant(0), 0
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now += clock.Instant(rapid.Int64Range(0, 4e9).Draw(t, "pause"))
			used := rapid.Int64Range(0, limit+limit/10).Draw(t, "used")
			told := rapid.IntRange(0, 3).Draw(t, "sample") == 0
			if told {
				sampled = now
				others.growth = rapid.SampledFrom([]float64{-1, 0, 0.01, 0.1, 0.3, 2}).Draw(t, "growth") * float64(limit)
			}
			f := pressure.Figures{Limit: limit, Used: used, Reclaimable: rapid.Int64Range(0, used).Draw(t, "reclaimable"), Sampled: sampled}
			want, changed := all.Step(f, pressure.CauseGrant, now)
			if !told && band.Holds(&f) {
				skipped++
				if changed && want.To > want.From {
					t.Fatalf("the band %+v held %+v, which raised the level to %v", band, f, want.To)
				}
				if changed {
					// A fall is due by time: the timer's step sees the newest figures.
					some.Step(f, pressure.CauseGrant, now)
				}
			} else {
				some.Step(f, pressure.CauseGrant, now)
			}
			band = some.Band()
			if all.Level() != some.Level() {
				t.Fatalf("after %+v the level is %v, without the skipped figures %v", f, all.Level(), some.Level())
			}
		}
	})
}
