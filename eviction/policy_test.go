package eviction

import (
	"fmt"
	"math"
	"math/rand"
	"testing"

	"github.com/isobar-project/isobar/clock"
)

func order(t *testing.T, p Policy, keys ...string) {
	t.Helper()
	for i := 1; i < len(keys); i++ {
		a, b := p.Value(keys[i-1], 0), p.Value(keys[i], 0)
		if a >= b {
			t.Errorf("%s is worth %g, want less than %s with %g", keys[i-1], a, keys[i], b)
		}
	}
}

func load(p Policy, key string, bytes int64, cost float64) {
	p.Loaded(Object{Key: key, Bytes: bytes, Cost: cost}, 0)
	p.Used(key, 0)
}

func TestGDSFWeighsCostSizeAndUse(t *testing.T) {
	p := NewGDSF(10)
	load(p, "plain", 2*gib, 2)
	load(p, "dear", 2*gib, 5)
	load(p, "large", 4*gib, 2)
	load(p, "popular", 2*gib, 2)
	for range 9 {
		p.Used("popular", 0)
	}
	order(t, p, "a stranger", "large", "plain", "dear", "popular")
}

func TestGDSFLetsOldFavouritesGo(t *testing.T) {
	p := NewGDSF(10)
	load(p, "favourite", gib, 1)
	for range 4 {
		p.Used("favourite", 0)
	}
	// Nothing is fought over: it stays the favourite whatever comes.
	load(p, "new", gib, 1)
	order(t, p, "new", "favourite")
	// Memory is fought over: each eviction raises what the living must be worth.
	for i := range 6 {
		key := fmt.Sprint("passing", i)
		load(p, key, gib, 1)
		p.Evicted(key, 0)
	}
	load(p, "newest", gib, 1)
	order(t, p, "favourite", "newest")
}

func TestGDSFRemembersWhatItEvictedAndHowOften(t *testing.T) {
	p := NewGDSF(2)
	load(p, "a", gib, 1)
	p.Used("a", 0)
	p.Evicted("a", 0)
	if v := p.Value("a", 0); !math.IsInf(v, -1) {
		t.Errorf("an evicted object is worth %g", v)
	}
	load(p, "a", gib, 1)     // its third use
	load(p, "new", gib, 1)   // its first
	order(t, p, "new", "a")  // ages are the same
	p.Evicted("a", 0)        //
	p.Evicted("a", 0)        // once more does no harm
	load(p, "x", gib, 1)     //
	p.Evicted("x", 0)        //
	load(p, "y", gib, 1)     //
	p.Evicted("y", 0)        // the third: a, the oldest, is forgotten
	load(p, "a", gib, 1)     // a stranger again
	load(p, "other", gib, 1) //
	if a, o := p.Value("a", 0), p.Value("other", 0); a != o {
		t.Errorf("a is worth %g, a stranger %g", a, o)
	}
	if len(p.known) != 5 || p.ghosts.Len() != 2 {
		t.Errorf("%d known, %d of them ghosts, want 5 and 2", len(p.known), p.ghosts.Len())
	}
	p.Removed("x")
	p.Removed("a")
	p.Removed("never seen")
	if len(p.known) != 3 || p.ghosts.Len() != 1 {
		t.Errorf("%d known, %d of them ghosts after removal", len(p.known), p.ghosts.Len())
	}
}

func TestGDSFTakesABetterSizeWithoutCountingAUse(t *testing.T) {
	p := NewGDSF(2)
	load(p, "a", gib, 1)
	before := p.Value("a", 0)
	p.Loaded(Object{Key: "a", Bytes: 2 * gib, Cost: 2}, 0)
	if after := p.Value("a", 0); after != before {
		t.Errorf("twice the cost at twice the size is worth %g, before %g", after, before)
	}
}

func TestLRUOrdersByLastUse(t *testing.T) {
	p := NewLRU()
	for _, key := range []string{"a", "b", "c"} {
		load(p, key, gib, 1)
	}
	p.Used("a", 0)
	p.Used("unknown", 0)
	order(t, p, "unknown", "b", "c", "a")
	p.Evicted("a", 0)
	p.Removed("c")
	if len(p.worths) != 1 {
		t.Errorf("%d known, want b alone", len(p.worths))
	}
}

func TestPoliciesAreMadeByName(t *testing.T) {
	for _, name := range Names() {
		p, err := New(name)
		if err != nil || p.Name() != name {
			t.Errorf("policy %q: %v, %v", name, p, err)
		}
	}
	if p, err := New(""); err != nil || p.Name() != Names()[0] {
		t.Errorf("default policy: %v, %v", p, err)
	}
	if _, err := New("clairvoyant"); err == nil {
		t.Error("an unknown policy was made")
	}
}

// TestValueChangesNothing: a dry run asks without leaving a trace.
func TestValueChangesNothing(t *testing.T) {
	for _, name := range Names() {
		p, err := New(name)
		if err != nil {
			t.Fatal(err)
		}
		load(p, "a", gib, 1)
		load(p, "b", gib, 2)
		a := p.Value("a", 0)
		for range 10 {
			MakePlan(p, Request{Need: gib, Candidates: []Candidate{candidate("a", gib), candidate("b", gib)}}, minute)
		}
		if p.Value("a", 0) != a {
			t.Errorf("%s: planning changed what a is worth", name)
		}
	}
}

// All policies keep what each object is worth, and say so where they said they would.
func TestWorthsAreKeptInPlace(t *testing.T) {
	for _, name := range Names() {
		policy, err := New(name)
		p, ok := policy.(Bookkeeper)
		if err != nil || !ok {
			t.Fatalf("%s keeps no books: %v", name, err)
		}
		now := clock.Instant(0)
		keys := []string{"a", "b", "c", "d"}
		at := map[string]*Worth{}
		random := rand.New(rand.NewSource(1))
		for range 1000 {
			now++
			key := keys[random.Intn(len(keys))]
			switch random.Intn(8) {
			case 0:
				p.Evicted(key, now)
			case 1:
				p.Removed(key)
			case 2:
				p.Loaded(Object{Key: key, Bytes: 1 + random.Int63n(gib), Cost: random.Float64()}, now)
				at[key] = p.Worth(key)
			default:
				p.Used(key, now)
			}
			for _, key := range keys {
				w, value := at[key], p.Value(key, now)
				if w != nil && w.value != value || (p.Worth(key) == nil) != math.IsInf(value, -1) {
					t.Fatalf("%s: %s is worth %g, kept is %+v", name, key, value, w)
				}
			}
		}
	}
}
