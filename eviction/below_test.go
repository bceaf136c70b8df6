package eviction_test

import (
	"math"
	"math/rand"
	"testing"
	"time"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/eviction"
)

// What is heard of a place is worth there, once it comes, what it would be worth had it been
// there all the time.
func TestWhatIsHeardOfIsKnown(t *testing.T) {
	there, above := eviction.NewPanel(), eviction.NewPanel()
	objects := make([]eviction.Object, 40)
	random := rand.New(rand.NewSource(1))
	for i := range objects {
		objects[i] = eviction.Object{Key: string(rune('A' + i)), Bytes: 1 + random.Int63n(1<<34), Cost: random.Float64(), Place: "ram-0"}
	}
	for now := range clock.Instant(3000) {
		o := objects[random.Intn(1+random.Intn(len(objects)))]
		above.Heard(o, now)
		if there.Worth(o.Key) == nil {
			there.Loaded(o, now)
		}
		there.Used(o.Key, now)
		if above.Worth(o.Key) != nil || !math.IsInf(above.Value(o.Key, now), -1) {
			t.Fatalf("%s is said to be there", o.Key)
		}
	}
	for _, o := range objects {
		there.Loaded(o, 3000) // as it is at this moment
		if got, want := eviction.Returning(above, o.Key, 0, 0).Worth, there.Value(o.Key, 3000); got != want {
			t.Errorf("%s is worth %g, it should be %g", o.Key, got, want)
		}
	}
	if got := eviction.Returning(above, "never heard of", 0, 0).Worth; !math.IsInf(got, -1) {
		t.Errorf("a stranger is worth %g", got)
	}
	if got, whole := eviction.Returning(above, "A", 0, 3).Worth, eviction.Returning(above, "A", 0, 0).Worth; got != 3*whole {
		t.Errorf("with a weight of 3 it is worth %g, without %g", got, whole)
	}
}

// What gives way is worth less, all of it together.
func TestWhatGivesWayIsWorthLess(t *testing.T) {
	policy := eviction.NewLRU() // worth 1, 2 and 3 a byte
	of := func(change func(c *eviction.Candidate), n int) (out []eviction.Candidate) {
		for i := range n {
			o := eviction.Object{Key: string(rune('a' + i)), Bytes: 10}
			policy.Loaded(o, 0)
			c := eviction.Candidate{Object: o}
			change(&c)
			out = append(out, c)
		}
		return out
	}
	as := func(*eviction.Candidate) {}
	for _, x := range []struct {
		name  string
		of    []eviction.Candidate
		need  int64
		comes eviction.Newcomer
		want  bool
	}{
		{"worth less", of(as, 1), 10, eviction.Newcomer{Worth: 1.5}, true},
		{"worth as much", of(as, 1), 10, eviction.Newcomer{Worth: 1}, false},
		{"together worth more", of(as, 3), 30, eviction.Newcomer{Worth: 2.5}, false},
		{"together worth less", of(as, 3), 30, eviction.Newcomer{Worth: 7}, true},
		{"too few bytes", of(as, 3), 31, eviction.Newcomer{Worth: 100}, false},
		{"a stranger", of(as, 1), 10, *eviction.Stranger(0), false},
		{"of a higher priority", of(func(c *eviction.Candidate) { c.Priority = 1 }, 1), 10, eviction.Newcomer{Worth: 100}, false},
		{"of its priority", of(func(c *eviction.Candidate) { c.Priority = 1 }, 1), 10, eviction.Newcomer{Worth: 100, Priority: 1}, true},
		{"doubled", of(func(c *eviction.Candidate) { c.Doubled, c.Priority = true, 1 }, 2), 20, *eviction.Stranger(0), true},
		{"just loaded", of(func(c *eviction.Candidate) { c.Grace = eviction.GraceOf(minute, time.Second) }, 1), 10, eviction.Newcomer{Worth: .5}, false},
	} {
		plan := eviction.MakePlan(policy, eviction.Request{Need: x.need, Candidates: x.of, For: &x.comes}, minute)
		if got := plan.Yields(&x.comes, 10); got != x.want {
			t.Errorf("%s: %v", x.name, got)
		}
	}
}

const minute = clock.Instant(time.Minute)
