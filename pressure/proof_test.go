package pressure

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/isobar-project/isobar/clock"
)

// The proofs take seconds in the suite. With ISOBAR_PRESSURE_PROOF=long (make
// pressure-proof) they take minutes and print tables.

// long reports whether the long variants run, and prints a table's lines if so.
func long() bool { return os.Getenv("ISOBAR_PRESSURE_PROOF") == "long" }

func say(format string, args ...any) {
	if long() {
		fmt.Printf(format+"\n", args...)
	}
}

const proofLimit = 80 << 30

// outside drives an evaluator with samples of others' use.
type outside struct {
	e   *Evaluator
	now clock.Instant
	// heard gets each change.
	heard func(Change)
}

// sample lets time pass to the next sample, ticking as the evaluator asks for it.
func (o *outside) sample(share float64, period time.Duration) {
	next := o.now.Add(period)
	for at, ok := o.e.Next(); ok && at <= next; at, ok = o.e.Next() {
		if c, changed := o.e.Tick(at); changed {
			o.heard(c)
		} else {
			break
		}
	}
	o.now = next
	used := int64(share * proofLimit)
	if c, changed := o.e.Step(Figures{Limit: proofLimit, Used: used, Foreign: used, Sampled: next}, CauseForeign, next); changed {
		o.heard(c)
	}
}

// TestProofNoise: noise of σ 2 % at 10 Hz around any threshold changes the level at most
// twice an hour.
func TestProofNoise(t *testing.T) {
	hours, seeds := 1, uint64(1)
	if long() {
		hours, seeds = 24, 4
	}
	say("\n| mean of the noise | hours | most changes in an hour | changes in all | by forecast | plain thresholds: changes an hour |\n|---|---|---|---|---|---|")
	th := DefaultThresholds()
	for _, mean := range []float64{.60, th.Moderate.Leave, .675, th.Moderate.Enter, th.High.Leave, .825, th.High.Enter, .88, th.Critical.Leave, .93, th.Critical.Enter, 1} {
		most, all, foreseen, plain := 0, 0, 0, 0
		for seed := range seeds {
			random := rand.New(rand.NewPCG(seed, 1))
			inHour, above := 0, Low
			o := &outside{e: newEvaluator(t, Config{}), heard: func(c Change) {
				inHour++
				if c.Cause == CauseForecast {
					foreseen++
				}
			}}
			for range hours {
				inHour = 0
				for range 36000 {
					share := mean + .02*random.NormFloat64()
					if l := plainLevel(share); l != above {
						above = l
						plain++
					}
					o.sample(share, 100*time.Millisecond)
				}
				most = max(most, inHour)
				all += inHour
			}
		}
		at := false // other means are shown beside it
		for l := Moderate; l <= Critical; l++ {
			at = at || mean == th.of(l).Enter || mean == th.of(l).Leave
		}
		if at && most > 2 {
			t.Errorf("noise around %.3f: %d changes in an hour", mean, most)
		}
		say("| %.3f | %d | %d | %d | %d | %d |", mean, hours*int(seeds), most, all, foreseen, plain/hours/int(seeds))
	}
}

// plainLevel is the level without hysteresis or dwell.
func plainLevel(share float64) Level {
	th := DefaultThresholds()
	for l := Critical; l > Low; l-- {
		if share >= th.of(l).Enter {
			return l
		}
	}
	return Low
}

// TestProofForecast: in days of every kind of use that stays under 0.95, no critical.
func TestProofForecast(t *testing.T) {
	day, seeds := 20*time.Minute, uint64(1)
	if long() {
		day, seeds = 24*time.Hour, 10
	}
	say("\n| use of a day, always under 0.95 | days | samples | highest sample | raised by forecast | of them reached within the horizon | critical |\n|---|---|---|---|---|---|---|")
	for _, k := range []struct {
		name string
		use  func(*rand.Rand) func(time.Duration) float64
	}{
		{"noise of σ 2 % around 0.90", noiseAround(.90)},
		{"noise of σ 2 % around 0.93", noiseAround(.93)},
		{"noise of σ 2 % around 0.85", noiseAround(.85)},
		{"noise of σ 0.2 % around 0.94", func(r *rand.Rand) func(time.Duration) float64 {
			return func(time.Duration) float64 { return .94 + .002*r.NormFloat64() }
		}},
		{"a random walk", wander},
		{"a daily wave with noise of σ 1 %", func(r *rand.Rand) func(time.Duration) float64 {
			return func(at time.Duration) float64 {
				return .6 + .33*math.Sin(at.Hours()/24*2*math.Pi) + .01*r.NormFloat64()
			}
		}},
		{"models of others come at 0.2–25 GB/s and go", models(25)},
		{"the same at up to 50 GB/s, to just under 0.95", models(50)},
	} {
		n, critical, foreseen, reached, highest := 0, 0, 0, 0, 0.
		for seed := range seeds {
			random := rand.New(rand.NewPCG(seed, 2))
			use := k.use(random)
			var expected Level
			var until clock.Instant
			o := &outside{e: newEvaluator(t, Config{})}
			o.heard = func(c Change) {
				if c.To == Critical {
					critical++
				}
				if c.Cause == CauseForecast {
					foreseen++
					expected, until = c.To, c.At.Add(time.Second)
				}
			}
			period := 100 * time.Millisecond
			for at := time.Duration(0); at < day; at += period {
				share := min(use(at), .9499)
				highest = max(highest, share)
				o.sample(share, period)
				n++
				if expected > Low && plainLevel(share) >= expected {
					reached++
					expected = Low
				} else if o.now > until {
					expected = Low
				}
			}
		}
		if critical > 0 {
			t.Errorf("%s: %d criticals although no sample reached 0.95", k.name, critical)
		}
		say("| %s | %d | %d | %.4f | %d | %d | %d |", k.name, seeds, n, highest, foreseen, reached, critical)
	}
}

func noiseAround(mean float64) func(*rand.Rand) func(time.Duration) float64 {
	return func(r *rand.Rand) func(time.Duration) float64 {
		return func(time.Duration) float64 { return mean + .02*r.NormFloat64() }
	}
}

func wander(r *rand.Rand) func(time.Duration) float64 {
	x := .7
	return func(time.Duration) float64 {
		x += .002 * r.NormFloat64()
		if x < .3 || x > .949 {
			x = max(.3, min(x, .949))
		}
		return x
	}
}

// models of others are loaded at a speed of their own and stay for a while.
func models(fastest float64) func(*rand.Rand) func(time.Duration) float64 {
	return func(r *rand.Rand) func(time.Duration) float64 {
		x, to, speed, rest := .3, .3, 0., time.Duration(0)
		return func(time.Duration) float64 {
			switch {
			case x < to:
				x = min(x+speed/10, to)
			case rest > 0:
				rest -= 100 * time.Millisecond
			case r.IntN(3) == 0 || x > .93:
				x = max(.1, x-.5*r.Float64())
				to, rest = x, time.Duration(r.IntN(20))*time.Second
			default:
				to = min(x+.3*r.Float64(), .949)
				gbs := .2 * math.Pow(fastest/.2, r.Float64())
				speed, rest = gbs*1e9/proofLimit, time.Duration(r.IntN(20))*time.Second
			}
			return x
		}
	}
}

// TestProofRamps: from half of the device, whatever the speed, critical comes before full.
func TestProofRamps(t *testing.T) {
	speeds, phases := 11, 5
	if long() {
		speeds, phases = 60, 1000
	}
	say("\n| GB/s | ramps | high: first, latest share | critical: latest share | before full, at least | period when it began | shortest period |\n|---|---|---|---|---|---|---|")
	for i := range speeds {
		rate := .1e9 * math.Pow(500, float64(i)/float64(speeds-1))
		firstHigh, lastHigh, lastCritical, least := 1., 0., 0., time.Duration(math.MaxInt64)
		var rest time.Duration
		shortest := time.Hour
		for phase := range phases {
			var pace Pace
			start := clock.Instant(10*time.Second) + clock.Instant(phase)*clock.Instant(time.Second)/clock.Instant(phases)
			full := start.Add(time.Duration(proofLimit / 2 / rate * float64(time.Second)))
			level, period := Low, time.Duration(0)
			o := &outside{e: newEvaluator(t, Config{})}
			o.heard = func(c Change) {
				share := .5 + rate*max(0, c.At.Sub(start).Seconds())/proofLimit
				if level = c.To; level >= High && c.From < High {
					firstHigh, lastHigh = min(firstHigh, share), max(lastHigh, share)
				}
				if level == Critical {
					lastCritical, least = max(lastCritical, share), min(least, full.Sub(c.At))
				}
			}
			for level < Critical {
				used := .5*proofLimit + rate*max(0, o.now.Add(period).Sub(start).Seconds())
				if used >= proofLimit {
					t.Errorf("%.2f GB/s, phase %d: full, and the level is %s", rate/1e9, phase, level)
					break
				}
				o.sample(used/proofLimit, period)
				period = pace.Next(Sampling{}, int64(used), int64(proofLimit-used), o.now)
				if o.now < start {
					rest = period
				}
				shortest = min(shortest, period)
			}
		}
		if i%max(1, (speeds-1)/10) == 0 || i == speeds-1 {
			say("| %.2f | %d | %.3f, %.3f | %.3f | %v | %v | %v |", rate/1e9, phases, firstHigh, lastHigh, lastCritical,
				least.Round(time.Millisecond), rest.Round(time.Millisecond), shortest.Round(time.Millisecond))
		}
	}
}

// scripted foresees what the test says.
type scripted struct{ growth *int64 }

func (scripted) Observe(int64, clock.Instant) {}
func (s scripted) Growth() float64            { return float64(*s.growth) }

// TestProofTraces: random traces through an evaluator and the oracle bring the same changes
// at the same instants: none is missed, no two neighbours are equal, and each begins where
// the last one ended.
func TestProofTraces(t *testing.T) {
	traces := 1_500
	if long() {
		traces = 1_000_000
	}
	var steps, changes, falls, foreseen, reminders int
	for seed := range traces {
		r := rand.New(rand.NewPCG(uint64(seed), 3))
		x := newTrace(t, r)
		for range 5 + r.IntN(40) {
			if problem := x.step(); problem != "" {
				t.Fatalf("trace %d: %s\n%s", seed, problem, strings.Join(x.log, "\n"))
			}
			steps++
		}
		changes += x.changes
		falls += x.falls
		foreseen += x.foreseen
		reminders += x.reminders
	}
	if foreseen == 0 || falls == 0 || reminders == 0 {
		t.Errorf("in %d steps %d changes were by forecast, %d falls, %d reminders: the traces prove nothing", steps, foreseen, falls, reminders)
	}
	say("\n%d traces, %d evaluations, %d changes (%d falls, %d by forecast), %d reminders: all as the oracle says.", traces, steps, changes, falls, foreseen, reminders)
}

// trace is one random history of an evaluator and its oracle.
type trace struct {
	r       *rand.Rand
	e       *Evaluator
	o       *oracle
	f       Figures
	now     clock.Instant
	growth  int64
	last    Level
	episode uint64
	log     []string

	changes, falls, foreseen, reminders int
}

func newTrace(t *testing.T, r *rand.Rand) *trace {
	x := &trace{r: r, o: &oracle{hold: 4 * time.Second, remind: time.Second,
		enter: [4]int64{0, 70, 85, 95}, leave: [4]int64{0, 65, 80, 91},
		dwell: [4]time.Duration{0, 3 * time.Second, 3 * time.Second, 10 * time.Second}}}
	x.e = newEvaluator(t, Config{UnloadHold: x.o.hold, NewForecaster: func() Forecaster { return scripted{&x.growth} }})
	x.f.Limit = 1 + r.Int64N(5000)
	x.o.moments = append(x.o.moments, moment{f: x.f})
	return x
}

// step does one random thing and says what is wrong afterwards.
func (x *trace) step() string {
	r := x.r
	tick := false
	switch r.IntN(10) {
	case 0:
		x.f.Used = r.Int64N(x.f.Limit + x.f.Limit/10 + 1)
	case 1, 2, 3: // near a threshold
		l := 1 + r.IntN(3)
		of := x.o.enter[l]
		if r.IntN(2) == 0 {
			of = x.o.leave[l]
		}
		x.f.Used = max(0, of*x.f.Limit/100+r.Int64N(5)-2)
	case 4:
		x.f.Deficit = []int64{0, 0, 1, 100}[r.IntN(4)]
	case 5:
		x.f.UnloadInFlight = !x.f.UnloadInFlight
	case 6, 7: // a sample
		x.now++
		x.growth = max(0, r.Int64N(x.f.Limit+10)-x.f.Limit/3) * 2 / (1 + r.Int64N(9))
		x.o.growth, x.f.Sampled = x.growth, x.now
		x.f.Stale = false
	case 8:
		x.f.Stale = !x.f.Stale
	default:
		tick = true
	}
	if at, ok := x.e.Next(); tick && ok && at > x.now && r.IntN(3) > 0 {
		// Just before Next nothing is due; at it something is.
		if x.now = max(x.now, at-1); x.now == at-1 {
			if problem := x.judge(true); problem != "" {
				return "early: " + problem
			}
		}
		x.now = at
		before := x.changes + x.reminders
		problem := x.judge(true)
		if problem == "" && before == x.changes+x.reminders {
			problem = "nothing was due when Next said so"
		}
		return problem
	}
	x.now = x.now.Add(time.Duration(r.IntN(1500)) * time.Millisecond)
	if r.IntN(8) == 0 {
		x.now = x.now.Add(time.Duration(r.IntN(12000)) * time.Millisecond)
	}
	return x.judge(tick)
}

// judge has both evaluate the moment.
func (x *trace) judge(tick bool) string {
	want, wantOK := x.o.event(x.f, x.now)
	var c Change
	var ok bool
	if tick {
		c, ok = x.e.Tick(x.now)
	} else {
		c, ok = x.e.Step(x.f, CauseGrant, x.now)
	}
	x.log = append(x.log, fmt.Sprintf("%v %+v growth %d: %+v %v", x.now.Sub(0), x.f, x.growth, c, ok))
	switch {
	case ok != wantOK || c.From != want.From || c.To != want.To || c.Reminder != want.Reminder:
		return fmt.Sprintf("change %+v %v, the oracle says %+v %v", c, ok, want, wantOK)
	case x.e.Level() != x.o.level:
		return fmt.Sprintf("level %s, want %s", x.e.Level(), x.o.level)
	case !ok:
		return ""
	case c.From != x.last:
		return fmt.Sprintf("a gap: from %s after a change to %s", c.From, x.last)
	case c.Reminder:
		x.reminders++
		return ""
	case c.From == c.To:
		return "two changes name the same level"
	}
	x.changes++
	if c.From == Low {
		x.episode++
	}
	if c.To < c.From {
		x.falls++
	}
	if c.Cause == CauseForecast {
		x.foreseen++
	}
	x.last = c.To
	need := int64(0) // with it released, the level can be left
	if c.To > Low {
		need = max(x.f.Used-(x.o.leave[c.To]*x.f.Limit+99)/100+1, x.f.Deficit)
	}
	if c.Episode != x.episode || c.Target < min(need, x.f.Used) {
		return fmt.Sprintf("episode %d, want %d; target %d, want at least %d", c.Episode, x.episode, c.Target, need)
	}
	return ""
}
