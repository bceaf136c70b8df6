package pressure

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/isobar-project/isobar/clock"
)

// oracle is the specification done slowly: it keeps everything it was ever told
// and answers each question by looking back through it. Thresholds are percents
// and all arithmetic is in whole numbers.
type oracle struct {
	enter, leave [4]int64
	dwell        [4]time.Duration
	hold         time.Duration
	remind       time.Duration

	growth int64 // bytes a second, as of the latest sample

	level   Level
	moments []moment
}

// foreseen is the level that growth is about to call for, and until when that is known.
func (o *oracle) foreseen(f Figures, want Level, at clock.Instant) (Level, clock.Instant) {
	until := f.Sampled.Add(time.Second)
	if o.growth <= 0 || f.Stale || want >= High || at >= until || (f.Used+o.growth)*100 < o.enter[want+1]*f.Limit {
		return Low, 0
	}
	return want + 1, until
}

type moment struct {
	at      clock.Instant
	f       Figures
	level   Level // after this moment
	under   bool  // the share was under the level's leave threshold
	ahead   Level // foreseen,
	until   clock.Instant
	needy   bool // critical with a deficit
	changed bool
	minded  bool
}

func (o *oracle) event(f Figures, at clock.Instant) (Change, bool) {
	m := moment{at: at, f: f, level: o.level}
	defer func() { o.moments = append(o.moments, m) }()

	want := Low
	for l := Moderate; l <= Critical; l++ {
		if f.Used*100 >= o.enter[l]*f.Limit && f.Used > 0 {
			want = l
		}
	}
	if f.Deficit > 0 && want < High {
		want = High
	}
	m.ahead, m.until = o.foreseen(f, want, at)
	want = max(want, m.ahead)
	leaves := func(l Level) bool {
		return l != Low && f.Used*100 < o.leave[l]*f.Limit && !(f.Deficit > 0 && l <= High)
	}
	move := func(to Level) (Change, bool) {
		c := Change{From: o.level, To: to, At: at}
		o.level = to
		m.level, m.changed, m.under, m.needy = to, true, leaves(to), to == Critical && f.Deficit > 0
		return c, true
	}
	if want > o.level {
		return move(want)
	}
	m.under, m.needy = leaves(o.level), o.level == Critical && f.Deficit > 0

	// Under since when? Back to the first moment of an unbroken run at this level.
	if m.under {
		since := at
		if m.ahead >= o.level {
			since = m.until
		} else {
			for i := len(o.moments) - 1; i >= 0; i-- {
				p := o.moments[i]
				if !p.under || p.level != o.level {
					break
				}
				if p.ahead >= o.level { // held until it was known better
					since = min(since, p.until)
					break
				}
				since = p.at
				if p.changed {
					break
				}
			}
		}
		wait := o.dwell[o.level]
		if f.UnloadInFlight {
			wait += o.hold
		}
		if at.Sub(since) >= wait {
			return move(o.level - 1)
		}
	}
	// A reminder is due one period after the last one, or after the need began.
	if m.needy {
		for i := len(o.moments) - 1; i >= 0; i-- {
			p := o.moments[i]
			began := p.needy && (p.changed || i == 0 || !o.moments[i-1].needy)
			if !p.needy || !(p.minded || began) {
				if !p.needy {
					break
				}
				continue
			}
			if at.Sub(p.at) >= o.remind {
				m.minded = true
				return Change{From: o.level, To: o.level, At: at, Reminder: true}, true
			}
			break
		}
	}
	return Change{}, false
}

// TestEvaluatorAgreesWithTheOracle drives both through random figures, times and
// settings, and checks what must hold of any history.
func TestEvaluatorAgreesWithTheOracle(t *testing.T) {
	settings := []struct{ enter, leave [4]int64 }{
		{[4]int64{0, 70, 85, 95}, [4]int64{0, 65, 80, 91}},
		{[4]int64{0, 50, 60, 70}, [4]int64{0, 30, 58, 69}},
	}
	history := func(t *rapid.T) {
		now := clock.Instant(0)
		limit := rapid.Int64Range(1, 5000).Draw(t, "limit")
		o := &oracle{hold: 4 * time.Second, remind: time.Second,
			dwell: [4]time.Duration{0, 3 * time.Second, 3 * time.Second, 10 * time.Second}}
		config := func(i int) Config {
			o.enter, o.leave = settings[i].enter, settings[i].leave
			share := func(l Level) Threshold {
				return Threshold{float64(o.enter[l]) / 100, float64(o.leave[l]) / 100}
			}
			return Config{UnloadHold: o.hold, Thresholds: Thresholds{share(Moderate), share(High), share(Critical)}}
		}
		e, err := New(config(0), now)
		if err != nil {
			t.Fatal(err)
		}
		f := Figures{Limit: limit}
		o.moments = append(o.moments, moment{at: now, f: f})
		last, lastFall, episode := Low, clock.Instant(0), uint64(0)

		check := func(c Change, ok bool, want Change, wantOK bool) {
			if ok != wantOK || c.From != want.From || c.To != want.To || c.Reminder != want.Reminder {
				t.Fatalf("at %v with %+v: change %+v %v, the oracle says %+v %v", now, f, c, ok, want, wantOK)
			}
			if e.Level() != o.level {
				t.Fatalf("level %v, want %v", e.Level(), o.level)
			}
			if !ok {
				return
			}
			if c.From != last {
				t.Fatalf("a gap: change from %v after one to %v", c.From, last)
			}
			if c.Reminder {
				if c.To != Critical || f.Deficit <= 0 {
					t.Fatalf("reminder %+v without need", c)
				}
				return
			}
			if c.To == c.From || c.To < c.From-1 && c.From > Low {
				t.Fatalf("change %+v names one level twice or skips one downwards", c)
			}
			if c.From == Low {
				episode++
			}
			if c.Episode != episode {
				t.Fatalf("episode %d, want %d", c.Episode, episode)
			}
			if c.To < c.From {
				if c.Cause != CauseDwell || now.Sub(lastFall) < 3*time.Second && lastFall > 0 {
					t.Fatalf("fall %+v %v after the last change", c, now.Sub(lastFall))
				}
			}
			last, lastFall = c.To, now
			if c.To > Low { // Target is enough to leave, and a byte less is not.
				after := f.Used - c.Target
				if f.Deficit <= c.Target && after*100 >= o.leave[c.To]*limit && after > 0 {
					t.Fatalf("target %d leaves %d of %d at %v", c.Target, after, limit, c.To)
				}
				if c.Target > max(0, f.Deficit) && (after+1)*100 < o.leave[c.To]*limit {
					t.Fatalf("target %d is more than needed", c.Target)
				}
			}
		}
		step := func() {
			want, wantOK := o.event(f, now)
			c, ok := e.Step(f, CauseGrant, now)
			check(c, ok, want, wantOK)
		}
		tick := func() {
			want, wantOK := o.event(f, now)
			c, ok := e.Tick(now)
			check(c, ok, want, wantOK)
		}
		t.Repeat(map[string]func(*rapid.T){
			"figures": func(t *rapid.T) {
				f.Used = rapid.Int64Range(0, limit+limit/10).Draw(t, "used")
				step()
			},
			"near a threshold": func(t *rapid.T) {
				l := rapid.IntRange(1, 3).Draw(t, "level")
				of := o.enter[l]
				if rapid.Bool().Draw(t, "leave") {
					of = o.leave[l]
				}
				f.Used = max(0, of*limit/100+rapid.Int64Range(-2, 2).Draw(t, "off"))
				step()
			},
			"deficit": func(t *rapid.T) {
				f.Deficit = rapid.SampledFrom([]int64{0, 0, 1, 100}).Draw(t, "deficit")
				step()
			},
			"unload": func(t *rapid.T) { f.UnloadInFlight = !f.UnloadInFlight; step() },
			"wait as Next says": func(t *rapid.T) {
				end := now.Add(time.Duration(rapid.IntRange(0, 12000).Draw(t, "ms")) * time.Millisecond)
				for {
					at, ok := e.Next()
					if !ok || at > end {
						break
					}
					// Nothing may be due before Next: the oracle is asked just before.
					if now = max(now, at-1); now == at-1 {
						if c, early := e.Tick(now); early {
							t.Fatalf("%+v was due before Next said so", c)
						}
						if c, early := o.event(f, now); early {
							t.Fatalf("the oracle has %+v before Next says so", c)
						}
					}
					now = at
					tick()
				}
				now = end
			},
			"be late": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(0, 30000).Draw(t, "ms")) * time.Millisecond)
				tick()
			},
			"configure": func(t *rapid.T) {
				cfg := config(rapid.IntRange(0, 1).Draw(t, "setting"))
				want, wantOK := o.event(f, now)
				c, ok, err := e.Configure(cfg, now)
				if err != nil {
					t.Fatal(err)
				}
				check(c, ok, want, wantOK)
			},
		})
	}
	for range 20 { // rapid's own count of 100 takes milliseconds
		rapid.Check(t, history)
	}
}
