package eviction

import (
	"fmt"
	"math"
	"math/rand"
	"testing"
	"time"

	"github.com/isobar-project/isobar/clock"
)

// asked has a policy serve one request: what is not there is loaded, then all is used.
type asked struct {
	p        Policy
	now      clock.Instant
	resident map[string]bool
}

func asking(p Policy) *asked { return &asked{p: p, resident: map[string]bool{}} }

func (a *asked) request(objects ...Object) {
	a.now += clock.Instant(time.Second)
	for _, o := range objects {
		if !a.resident[o.Key] {
			a.resident[o.Key] = true
			a.p.Loaded(o, a.now)
		}
		a.p.Used(o.Key, a.now)
	}
}

func (a *asked) evict(key string) {
	delete(a.resident, key)
	a.p.Evicted(key, a.now)
}

func sized(key string) Object { return Object{Key: key, Bytes: gib, Cost: 1} }

func TestCostWeighsCostAndSize(t *testing.T) {
	p := NewCost(10)
	a := asking(p)
	a.request(Object{Key: "plain", Bytes: 2 * gib, Cost: 2}, Object{Key: "dear", Bytes: 2 * gib, Cost: 5}, Object{Key: "large", Bytes: 3 * gib, Cost: 2})
	order(t, p, "a stranger", "large", "plain", "dear")
}

// One burst of many uses is one visit: who visits again and again is worth more, though it
// was used less often.
func TestCostCountsVisitsNotUses(t *testing.T) {
	p, gdsf := NewCost(10), NewGDSF(10)
	for _, policy := range []Policy{p, gdsf} {
		a := asking(policy)
		for visit := range 12 {
			a.request(sized("faithful"))
			for i := range 100 {
				a.request(sized(fmt.Sprint("other", visit, "-", i)))
			}
			if visit == 10 {
				for range 60 {
					a.request(sized("passing"))
				}
			}
		}
	}
	order(t, p, "passing", "faithful")
	order(t, gdsf, "faithful", "passing")
}

// While it is at work an object is worth more than when its work is done.
func TestCostFallsWhenTheWorkIsDone(t *testing.T) {
	random := rand.New(rand.NewSource(1))
	p := NewCost(10)
	a := asking(p)
	for range 30 {
		for range 10 {
			a.request(sized("a"))
		}
		for range int(20 * math.Exp(4*random.Float64())) {
			a.request(sized("b"))
		}
	}
	a.request(sized("a"))
	atWork := p.Value("a", a.now)
	for range 40 {
		a.request(sized("b"))
	}
	if done := p.Value("a", a.now); done > .8*atWork {
		t.Errorf("at work worth %g, after it %g", atWork, done)
	}
}

// What comes at regular times is worth more the nearer the next one is.
func TestCostKnowsWhatIsDue(t *testing.T) {
	p := NewCost(10)
	a := asking(p)
	for range 20 {
		for range 10 {
			a.request(sized("a"))
		}
		for range 200 {
			a.request(sized("b"))
		}
	}
	a.request(sized("a"))
	soon := 0.
	for range 5 {
		for range 25 {
			a.request(sized("b"))
		}
		worth := p.Value("a", a.now)
		if worth < soon {
			t.Errorf("worth %g, earlier %g", worth, soon)
		}
		soon = worth
	}
}

// Time alone makes nothing older: ages are counted in requests.
func TestCostSleepsWhileNobodyAsks(t *testing.T) {
	worth := func(pause time.Duration) float64 {
		p := NewCost(10)
		a := asking(p)
		for i := range 50 {
			a.request(sized(fmt.Sprint(i % 7)))
			if i == 40 {
				a.now = a.now.Add(pause)
			}
		}
		return p.Value("3", a.now)
	}
	if a, b := worth(0), worth(72*time.Hour); a != b {
		t.Errorf("worth %g, after an idle weekend %g", a, b)
	}
}

// What an object did is known when it comes back, for so many as are remembered.
func TestCostRemembersWhatItEvicted(t *testing.T) {
	p := NewCost(2)
	a := asking(p)
	for i := range 400 {
		a.request(sized(fmt.Sprint("other", i%20)))
		if i%40 == 0 {
			a.request(sized("regular"))
		}
	}
	if a.evict("regular"); !math.IsInf(p.Value("regular", a.now), -1) {
		t.Error("an evicted object is worth something")
	}
	a.evict("regular") // once more does no harm
	a.request(sized("regular"), sized("new"))
	for range 100 {
		a.request(sized("other1"))
	}
	order(t, p, "new", "regular")

	for i := range 5 {
		a.evict(fmt.Sprint("other", i))
	}
	if len(p.known) != 22-3 || p.ghosts.Len() != 2 {
		t.Errorf("%d known, %d of them ghosts, want 19 and 2", len(p.known), p.ghosts.Len())
	}
	a.evict("regular")
	p.Removed("regular")
	p.Removed("new")
	p.Removed("never seen")
	p.Used("regular", a.now)
	if len(p.known) != 16 || p.ghosts.Len() != 1 || !math.IsInf(p.Value("new", a.now), -1) {
		t.Errorf("%d known, %d of them ghosts after removal", len(p.known), p.ghosts.Len())
	}
}

// Each place has a time and habits of its own; an object that moved starts anew.
func TestCostLearnsPlacesApart(t *testing.T) {
	p := NewCost(10)
	a := asking(p)
	busy := Object{Key: "busy", Bytes: gib, Cost: 1, Place: "gpu-0"}
	calm := Object{Key: "calm", Bytes: gib, Cost: 1, Place: "gpu-1"}
	a.request(busy, calm)
	before := p.Value("calm", a.now)
	for range 300 {
		a.request(busy)
	}
	if after := p.Value("calm", a.now); after != before {
		t.Errorf("worth %g, before somebody was busy elsewhere %g", after, before)
	}
	calm.Place = "gpu-0"
	p.Loaded(calm, a.now)
	if p.known["calm"].book != p.books["gpu-0"] || p.known["calm"].asked {
		t.Error("it is still where it was")
	}
	p.check(t)
}

// What restarts know of an object is that it is there; it has not been asked for yet.
func TestCostValuesWhatWasNeverUsed(t *testing.T) {
	p := NewCost(10)
	p.Loaded(sized("a"), 0)
	p.Loaded(Object{Key: "b", Bytes: gib, Cost: 3}, 0)
	order(t, p, "a stranger", "a", "b")
	if v := p.Value("a", 0); v <= 0 || math.IsNaN(v) {
		t.Errorf("worth %g", v)
	}
	p.Loaded(Object{Key: "free", Bytes: 0, Cost: 0}, 0)
	if v := p.Value("free", 0); v != 0 {
		t.Errorf("what costs nothing is worth %g", v)
	}
}

func TestAgesFallIntoSteps(t *testing.T) {
	for age := int64(1); age < 1<<21; age++ {
		if age > 5000 {
			age += age / 100
		}
		step := stepOf(age)
		if last := step == steps-1; step < 0 || step >= steps || stepEnd(step) <= age && !last || age > 1 && stepOf(age-1) > step {
			t.Fatalf("age %d is in step %d, which ends at %d", age, step, stepEnd(step))
		}
		if octave(age) != step/quarter {
			t.Fatalf("age %d is in octave %d and step %d", age, octave(age), step)
		}
	}
	if stepOf(math.MaxInt64/8) != steps-1 {
		t.Error("an age without end is in no step")
	}
}

// Whatever happens, everything that is known stands once where its age belongs, and what is
// resident is worth about what it would be found worth now. What was shown when an object was
// loaded is where its worth is kept until it is loaded anew.
func TestCostKeepsItsBooks(t *testing.T) {
	for seed := range int64(20) {
		random := rand.New(rand.NewSource(seed))
		p := NewCost(15)
		a := asking(p)
		shown := map[string]*Worth{}
		for range 1500 {
			key := fmt.Sprint(min(random.Intn(60), random.Intn(60), random.Intn(60)))
			o := Object{Key: key, Bytes: int64(len(key)) * gib, Cost: 1 + random.Float64(), Place: key[:1]}
			switch n := random.Intn(20); {
			case n < 14:
				a.request(o)
			case n < 18:
				a.evict(key)
			case n < 19:
				p.Loaded(o, a.now)
				a.resident[key] = true
			default:
				p.Removed(key)
				delete(a.resident, key)
			}
			if p.Worth(key) != nil {
				shown[key] = p.Worth(key)
			}
			for key, w := range shown {
				if v := p.Value(key, a.now); w.value != v {
					t.Fatalf("seed %d: %s is worth %g, and shown is %g", seed, key, v, w.value)
				}
			}
		}
		p.check(t)
		for key := range a.resident {
			if math.IsInf(p.Value(key, a.now), -1) {
				t.Errorf("seed %d: %s is resident and worth nothing", seed, key)
			}
		}
		if len(p.worths) != len(a.resident) || p.ghosts.Len() > 15 {
			t.Errorf("seed %d: %d are worth something, %d are resident; %d ghosts", seed, len(p.worths), len(a.resident), p.ghosts.Len())
		}
	}
}

// check walks everything.
func (c *Cost) check(t *testing.T) {
	t.Helper()
	standing := 0
	for place, b := range c.books {
		var waiting [octaves]int
		for step := range b.queues {
			var before *entry
			for e := b.queues[step].head; e != nil; e = e.younger {
				standing++
				waiting[step/quarter]++
				if e.older != before || e.step != step || e.book != b || c.known[e.object.Key] != e {
					t.Fatalf("%s stands wrongly in step %d of %q", e.object.Key, step, place)
				}
				if before != nil && before.used > e.used {
					t.Fatalf("%s stands before %s, which is older", before.object.Key, e.object.Key)
				}
				if age := b.requests - e.used; stepOf(max(1, age)) != step {
					t.Fatalf("%s of age %d stands in step %d", e.object.Key, age, step)
				}
				before = e
			}
			if b.queues[step].tail != before {
				t.Fatalf("step %d of %q does not end with its last", step, place)
			}
		}
		sum := waiting
		for _, h := range b.classes {
			if h != nil {
				for o, n := range h.waiting {
					sum[o] -= n
				}
			}
		}
		if b.all.waiting != waiting || sum != ([octaves]int{}) {
			t.Fatalf("%q counts %v waiting, there are %v, by size too many %v", place, b.all.waiting, waiting, sum)
		}
	}
	if standing != len(c.known) {
		t.Fatalf("%d stand in queues, %d are known", standing, len(c.known))
	}
}

// BenchmarkUse is a use among 10,000 objects, of which any may be next.
func BenchmarkUse(b *testing.B) {
	p := NewCost(DefaultRemembered)
	a := asking(p)
	random := rand.New(rand.NewSource(1))
	zipf := rand.NewZipf(random, 1.1, 10, 9999)
	objects := make([]Object, 10000)
	for i := range objects {
		objects[i] = sized(fmt.Sprintf("gpu-0/default/model-%d", i))
		a.request(objects[i])
	}
	b.ReportAllocs()
	for b.Loop() {
		a.request(objects[zipf.Uint64()])
	}
}
