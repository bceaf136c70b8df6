package pressure

import (
	"math"
	"math/rand"
	"testing"
	"time"

	"github.com/isobar-project/isobar/clock"
)

// samples feeds a forecaster with what a function says, at a period.
func samples(f Forecaster, from clock.Instant, d, period time.Duration, bytes func(since time.Duration) float64) clock.Instant {
	for t := time.Duration(0); t < d; t += period {
		from = from.Add(period)
		f.Observe(int64(bytes(t+period)), from)
	}
	return from
}

func TestGrowthSpeaksOfARampAfterThreeRises(t *testing.T) {
	g := &Growth{}
	now := samples(g, 0, 10*time.Second, time.Second, func(time.Duration) float64 { return 5e9 })
	for i := range 6 {
		now = now.Add(100 * time.Millisecond)
		g.Observe(5e9+int64(i+1)*1e8, now)
		want := 0.
		if i >= 2 {
			want = 1e9
		}
		if got := g.Growth(); math.Abs(got-want) > 1e3 {
			t.Errorf("after %d rises: %g, want %g", i+1, got, want)
		}
	}
	g.Observe(5.6e9, now.Add(time.Second))
	if g.Growth() != 0 {
		t.Error("it speaks of a ramp that has ended")
	}
}

func TestGrowthTakesTheLesserSpeed(t *testing.T) {
	for name, square := range map[string]float64{"faster and faster": 1, "slower and slower": -1} {
		g := &Growth{}
		samples(g, 0, time.Second, 50*time.Millisecond, func(s time.Duration) float64 {
			x := s.Seconds() / 2
			return 1e9 * (2*x + square*x*x)
		})
		// At the end 1.5 or 0.5, on the way 1.25 or 0.75.
		if got, want := g.Growth(), min(1+square*.5, 1+square*.25)*1e9; math.Abs(got-want) > .05*want {
			t.Errorf("%s: %g", name, g.Growth())
		}
	}
}

// What hovers or comes in steps is no ramp; what wanders is one now and then.
func TestGrowthIsSilentOfNoise(t *testing.T) {
	random := rand.New(rand.NewSource(1))
	walk, stairs := 40e9, 40e9
	for name, bytes := range map[string]func(time.Duration) float64{
		"noise": func(time.Duration) float64 { return 40e9 + 1.6e9*random.NormFloat64() },
		"walk":  func(time.Duration) float64 { walk += .3e9 * random.NormFloat64(); return walk },
		"stairs": func(s time.Duration) float64 {
			if s%time.Second == 0 {
				stairs += 1e9
			}
			return stairs
		},
	} {
		g, now, spoke := &Growth{}, clock.Instant(0), 0
		for range 36000 {
			now = samples(g, now, 100*time.Millisecond, 100*time.Millisecond, bytes)
			if g.Growth() > 0 {
				spoke++
			}
		}
		if spoke > 0 && (name != "walk" || spoke > 360) {
			t.Errorf("%s: a ramp in %d of 36,000 samples", name, spoke)
		}
	}
}

func TestGrowthOfUnevenSamples(t *testing.T) {
	g := &Growth{}
	now := samples(g, 0, 10*time.Second, time.Second, func(time.Duration) float64 { return 0 })
	g.Observe(10, now) // of the same instant
	begun := now
	for _, ms := range []int{1000, 500, 250, 120, 60, 50, 50} {
		now = now.Add(time.Duration(ms) * time.Millisecond)
		g.Observe(10+int64(now.Sub(begun).Seconds()*1e9), now)
	}
	if r := g.Growth(); math.Abs(r-1e9) > 1e6 {
		t.Errorf("growth %g", r)
	}
}

func TestPaceFollowsTheFillRate(t *testing.T) {
	s := Sampling{FastestFill: 1}
	var p Pace
	const limit = 80e9
	now, outside := clock.Instant(0), 40e9
	next := func(perSecond float64, d time.Duration) time.Duration {
		now = now.Add(d)
		outside += perSecond * d.Seconds()
		return p.Next(s, int64(outside), int64(limit-outside), now)
	}
	if d := next(0, 0); d != time.Second {
		t.Fatalf("at rest %v", d)
	}
	if d := next(20e9, time.Second); d != 500*time.Millisecond || p.FillRate() != 20e9 {
		t.Fatalf("with 20 GB left at 20 GB/s %v", d)
	}
	// The growth ends: for a while the pace stays.
	if d := next(0, 500*time.Millisecond); d < 500*time.Millisecond || d > 700*time.Millisecond {
		t.Fatalf("half a second after %v", d)
	}
	for range 20 {
		next(0, time.Second)
	}
	if d := next(0, time.Second); d != time.Second {
		t.Fatalf("at rest again %v", d)
	}
	if d := next(0, 0); d != time.Second { // of the same instant
		t.Fatalf("the same again %v", d)
	}
	outside = limit
	if d := next(0, time.Second); d != 50*time.Millisecond {
		t.Fatalf("full %v", d)
	}
}
