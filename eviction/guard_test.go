package eviction_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/eviction"
)

// weights are those of the groups of fresh.
var weights = []eviction.Terms{{Weight: 1}, {Weight: 3}}

// fresh draws candidates of which some were just loaded, on a policy that knows them.
func fresh(t *rapid.T, now clock.Instant) (eviction.Policy, []eviction.Candidate) {
	p := eviction.NewPanel()
	var all []eviction.Candidate
	for i := range rapid.IntRange(1, 12).Draw(t, "candidates") {
		o := eviction.Object{Key: fmt.Sprint("m", i), Bytes: rapid.Int64Range(1, 10).Draw(t, "bytes"), Cost: rapid.Float64Range(.01, 20).Draw(t, "cost"), Place: "gpu-0"}
		c := eviction.Candidate{Object: o, Priority: rapid.IntRange(0, 1).Draw(t, "priority"), Readers: rapid.SampledFrom([]int{0, 0, 0, 1}).Draw(t, "readers"),
			Group: rapid.IntRange(0, 2).Draw(t, "group")}
		if rapid.Bool().Draw(t, "just loaded") {
			c.Grace = eviction.GraceOf(now.Add(-time.Duration(rapid.Int64Range(0, int64(6*time.Second)).Draw(t, "since"))), time.Duration(o.Cost*float64(time.Second)))
			if rapid.Bool().Draw(t, "and used") {
				c.Grace = c.Grace.LetGo(now.Add(-time.Duration(rapid.Int64Range(0, int64(time.Second)).Draw(t, "let go"))))
			}
		}
		p.Loaded(o, now)
		p.Used(o.Key, now)
		all = append(all, c)
	}
	return p, all
}

// The guard never changes what goes, only when: at the latest MaxGrace after the last load,
// and then at once. Nothing goes that is kept from the newcomer.
func TestTheGuardChangesOnlyWhen(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := clock.Instant(time.Hour)
		p, all := fresh(t, now)
		r := eviction.Request{Need: rapid.Int64Range(1, 60).Draw(t, "need"), Candidates: all, Terms: weights}
		plain := eviction.MakePlan(p, r, now)
		n := eviction.Stranger(rapid.IntRange(0, 1).Draw(t, "newcomer's priority"))
		if rapid.Bool().Draw(t, "known") {
			n.Worth = rapid.Float64Range(0, 1e12).Draw(t, "worth")
		}
		r.For = n
		plan := eviction.MakePlan(p, r, now)
		keys := func(p eviction.Plan) (keys []string) {
			for _, v := range p.Victims {
				keys = append(keys, v.Key)
			}
			return keys
		}
		if !slices.Equal(keys(plan), keys(plain)) || plan.Shortfall != plain.Shortfall {
			t.Fatalf("with the guard %v go, without %v", keys(plan), keys(plain))
		}
		var until clock.Instant
		for _, v := range plan.Victims {
			c := all[slices.IndexFunc(all, func(c eviction.Candidate) bool { return c.Key == v.Key })]
			var want clock.Instant
			switch {
			case n.Priority > c.Priority || c.Grace.Until <= now:
			case n.Worth <= v.Value:
				want = c.Grace.Until
			case min(c.Grace.Until, c.Grace.Loaded.Add(eviction.MinGrace)) > now:
				want = min(c.Grace.Until, c.Grace.Loaded.Add(eviction.MinGrace))
			}
			if v.Guarded != want {
				t.Fatalf("%+v is kept until %v from %+v, not %v", c, v.Guarded, n, want)
			}
			until = max(until, want)
		}
		if plan.Until != until || until > now.Add(eviction.MaxGrace) {
			t.Fatalf("the plan waits until %v, not %v", plan.Until, until)
		}
		if until == 0 {
			return
		}
		if then := eviction.MakePlan(p, r, until); then.Until != 0 || !slices.Equal(keys(then), keys(plain)) {
			t.Fatalf("then it waits until %v for %v", then.Until, keys(then))
		}
	})
}

// A model stays as long as its load took, within bounds; once it was used, for short pauses.
func TestGrace(t *testing.T) {
	at := clock.Instant(time.Hour)
	for _, c := range []struct{ took, want time.Duration }{
		{0, eviction.MinGrace}, {time.Millisecond, eviction.MinGrace}, {2 * time.Second, 2 * time.Second}, {time.Minute, eviction.MaxGrace},
	} {
		if got := eviction.GraceOf(at, c.took).Until.Sub(at); got != c.want {
			t.Errorf("a load of %v: %v, not %v", c.took, got, c.want)
		}
	}
	g := eviction.GraceOf(at, 4*time.Second)
	for _, c := range []struct{ used, want time.Duration }{{0, 500 * time.Millisecond}, {time.Second, 1500 * time.Millisecond}, {3900 * time.Millisecond, 4 * time.Second}, {time.Hour, 4 * time.Second}} {
		if got := g.LetGo(at.Add(c.used)).Until.Sub(at); got != c.want {
			t.Errorf("let go after %v: %v, not %v", c.used, got, c.want)
		}
	}
}

// What a policy remembers is worth, as a newcomer, what it is worth when it has come.
func TestExpectedWorth(t *testing.T) {
	c := eviction.NewCost(100)
	now := clock.Instant(time.Hour)
	random := rand.New(rand.NewPCG(1, 2))
	objects := make([]eviction.Object, 20)
	for i := range objects {
		objects[i] = eviction.Object{Key: fmt.Sprint("m", i), Bytes: 1 << random.IntN(8), Cost: random.Float64(), Place: "gpu-0"}
	}
	for range 5000 {
		o := objects[int(20*random.Float64()*random.Float64())]
		now = now.Add(time.Second)
		c.Loaded(o, now)
		c.Used(o.Key, now)
		if random.IntN(3) == 0 {
			c.Evicted(o.Key, now)
		}
	}
	for _, o := range objects {
		n := eviction.Expected(c, o.Key, 3, 2)
		c.Loaded(o, now)
		c.Used(o.Key, now) // of one instant with the last request: it makes nothing older
		if got := c.Value(o.Key, now); math.Abs(n.Worth/got-2) > .05 || n.Priority != 3 {
			t.Errorf("%s is expected to be worth %v, it is %v", o.Key, n.Worth/2, got)
		}
	}
	for _, p := range []eviction.Policy{c, eviction.NewLRU(), eviction.NewPanel()} {
		if n := eviction.Expected(p, "never seen", 1, 0); *n != *eviction.Stranger(1) {
			t.Errorf("%s expects %+v of a stranger", p.Name(), n)
		}
	}
}
