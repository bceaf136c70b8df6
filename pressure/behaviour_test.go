package pressure

import (
	"math"
	"math/rand"
	"testing"
	"time"

	"github.com/isobar-project/isobar/clock"
)

func newEvaluator(t testing.TB, cfg Config) *Evaluator {
	t.Helper()
	e, err := New(cfg, 0)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// TestHoveringAtAThresholdIsQuiet: an hour of noise of 2 % at 10 Hz around each
// threshold changes the level at most twice.
func TestHoveringAtAThresholdIsQuiet(t *testing.T) {
	const limit = 80 << 30
	th := DefaultThresholds()
	for _, mean := range []float64{th.Moderate.Enter, th.Moderate.Leave, th.High.Enter, th.High.Leave, th.Critical.Enter, th.Critical.Leave} {
		e := newEvaluator(t, Config{})
		random := rand.New(rand.NewSource(1))
		changes, now := 0, clock.Instant(0)
		naive, above := 0, false
		for range 36000 {
			next := now.Add(100 * time.Millisecond)
			for at, ok := e.Next(); ok && at <= next; at, ok = e.Next() {
				if _, changed := e.Tick(at); changed {
					changes++
				}
			}
			now = next
			share := mean + .02*random.NormFloat64()
			if (share >= mean) != above {
				above = !above
				naive++
			}
			if _, changed := e.Step(Figures{Limit: limit, Used: int64(share * limit)}, CauseForeign, now); changed {
				changes++
			}
		}
		// Reaching the place from empty is not hovering: from low it takes one change,
		// or one more where the noise then climbs to the next level.
		if changes > 2 {
			t.Errorf("hovering at %.2f: %d changes in an hour, want at most 2 (plain thresholds: %d)", mean, changes, naive)
		}
	}
}

// TestNoRampOutrunsTheSamples: whatever the speed, up to what the device can be
// filled with, critical is raised before the device is full.
func TestNoRampOutrunsTheSamples(t *testing.T) {
	const limit = 80 << 30
	for _, rate := range []float64{.1e9, .5e9, 1e9, 3e9, 10e9, 25e9, 50e9} {
		for phase := range 20 { // where in the period the ramp begins
			e := newEvaluator(t, Config{})
			s := Sampling{}
			used := func(since time.Duration) int64 {
				return int64(limit/2 + rate*max(0, since.Seconds()))
			}
			start := clock.Instant(10 * time.Second)
			start = start.Add(time.Duration(phase) * 37 * time.Millisecond)
			for now := clock.Instant(0); ; {
				u := used(now.Sub(start))
				if u >= limit {
					t.Errorf("%.1f GB/s, phase %d: full before critical", rate/1e9, phase)
					break
				}
				c, changed := e.Step(Figures{Limit: limit, Used: u}, CauseForeign, now)
				if changed && c.To == Critical {
					break
				}
				now = now.Add(s.Period(limit-u, e.State().TrendBytesPerSecond))
			}
		}
	}
}

func TestSamplingPeriod(t *testing.T) {
	slow := Sampling{FastestFill: 1e9}
	for _, c := range []struct {
		headroom int64
		rate     float64
		want     time.Duration
	}{
		{100e9, 0, time.Second},                  // at rest
		{1e9, 0, 500 * time.Millisecond},         // half of what the fastest fill leaves
		{1e9, 2e9, 250 * time.Millisecond},       // it fills faster than that
		{1e9, -5e9, 500 * time.Millisecond},      // it shrinks: that may end
		{1e6, 0, 50 * time.Millisecond},          // nearly full
		{0, 0, 50 * time.Millisecond},            // full
		{-5, 1e9, 50 * time.Millisecond},         // over
		{1e9, math.NaN(), 50 * time.Millisecond}, // whatever that means: look closely
	} {
		if got := slow.Period(c.headroom, c.rate); got != c.want {
			t.Errorf("headroom %d at %g B/s: %v, want %v", c.headroom, c.rate, got, c.want)
		}
	}
}

func TestTheTrendFollowsARampAndForgetsIt(t *testing.T) {
	trend, now, bytes := Trend{}, clock.Instant(0), int64(0)
	feed := func(d time.Duration, perSecond int64) {
		for range int(d / (50 * time.Millisecond)) {
			now = now.Add(50 * time.Millisecond)
			bytes += perSecond / 20
			trend.Observe(bytes, now)
		}
	}
	if _, ok := trend.Rate(); ok {
		t.Fatal("a trend before anything was seen")
	}
	feed(20*time.Second, 1e9)
	if r, ok := trend.Rate(); !ok || math.Abs(r-1e9) > 1e7 {
		t.Fatalf("rate %g after a ramp of 1e9", r)
	}
	feed(20*time.Second, 0)
	if r, _ := trend.Rate(); math.Abs(r) > 1e6 {
		t.Fatalf("rate %g long after the ramp", r)
	}
	// A thousand grants of 1 GB, each released at once, leave hardly a trace.
	for range 1000 {
		now = now.Add(time.Millisecond)
		trend.Observe(bytes, now)
		now = now.Add(10 * time.Microsecond)
		trend.Observe(bytes+1e9, now)
		now = now.Add(10 * time.Microsecond)
		trend.Observe(bytes, now)
	}
	if r, _ := trend.Rate(); math.Abs(r) > 1e7 {
		t.Fatalf("rate %g after a flicker", r)
	}
}

func TestUnsoundConfigurationsAreRefused(t *testing.T) {
	with := func(change func(*Config)) Config {
		c := Config{Thresholds: DefaultThresholds()}
		change(&c)
		return c
	}
	for name, cfg := range map[string]Config{
		"leave over enter": with(func(c *Config) { c.Thresholds.High.Leave = .9 }),
		"leave at enter":   with(func(c *Config) { c.Thresholds.High.Leave = .85 }),
		"not ascending":    with(func(c *Config) { c.Thresholds.Moderate = Threshold{.9, .6} }),
		"leaves cross":     with(func(c *Config) { c.Thresholds.Moderate = Threshold{.84, .81} }),
		"over one":         with(func(c *Config) { c.Thresholds.Critical.Enter = 1.01 }),
		"no leave":         with(func(c *Config) { c.Thresholds.Moderate.Leave = 0 }),
		"not a number":     with(func(c *Config) { c.Thresholds.Critical.Enter = math.NaN() }),
		"negative dwell":   with(func(c *Config) { c.Dwell = -1 }),
		"negative hold":    with(func(c *Config) { c.UnloadHold = -1 }),
		"unknown basis":    with(func(c *Config) { c.Basis = 7 }),
	} {
		if _, err := New(cfg, 0); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := New(Config{}, 0); err != nil {
		t.Errorf("defaults: %v", err)
	}
}

func TestNamesAreTheContracts(t *testing.T) {
	if Low.String() != "low" || Critical.String() != "critical" || Level(9).String() != "unknown" ||
		CauseGrant.String() != "grant" || CauseSourceLost.String() != "source_lost" || CauseDwell.String() != "dwell" {
		t.Error("a name is not the contract's")
	}
	if len(causeNames) != int(CauseSourceLost)+1 {
		t.Error("causes and their names differ in number")
	}
}

func TestAnEvaluationAllocatesNothing(t *testing.T) {
	e, f, now := newEvaluator(t, Config{}), Figures{Limit: 1000}, clock.Instant(0)
	n := testing.AllocsPerRun(1000, func() {
		f.Used = (f.Used + 13) % 1000
		now = now.Add(time.Millisecond)
		f.Foreign, f.Sampled = f.Used/2, now
		e.Step(f, CauseGrant, now)
		e.Tick(now)
		e.Next()
		_ = e.State()
	})
	if n != 0 {
		t.Fatalf("%.1f allocations an evaluation", n)
	}
}

// BenchmarkStep is one evaluation of figures that move and now and then cross.
func BenchmarkStep(b *testing.B) {
	e, f, now := newEvaluator(b, Config{}), Figures{Limit: 1000}, clock.Instant(0)
	b.ReportAllocs()
	for i := range b.N {
		f.Used = int64(i*7) % 1000
		now += 20_000
		e.Step(f, CauseGrant, now)
	}
}

// BenchmarkStepOfASample is the same where each evaluation is of a new sample, of a ramp.
func BenchmarkStepOfASample(b *testing.B) {
	e, f, now := newEvaluator(b, Config{}), Figures{Limit: 1 << 40}, clock.Instant(0)
	b.ReportAllocs()
	for i := range b.N {
		f.Used = int64(i*7) % (1 << 40)
		f.Foreign = f.Used
		now += 20_000
		f.Sampled = now
		e.Step(f, CauseForeign, now)
	}
}
