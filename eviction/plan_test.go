package eviction

import (
	"fmt"
	"math/rand"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/isobar-project/isobar/clock"
)

// worth is a policy whose values a test writes down.
type worth map[string]float64

func (worth) Name() string                                { return "written down" }
func (worth) Loaded(Object, clock.Instant)                {}
func (worth) Used(string, clock.Instant)                  {}
func (worth) Evicted(string, clock.Instant)               {}
func (worth) Removed(string)                              {}
func (w worth) Value(key string, _ clock.Instant) float64 { return w[key] }

const gib = 1 << 30

// minute is the time of all plans in this file: candidates were last used before.
const minute = clock.Instant(time.Minute)

func candidate(key string, bytes int64) Candidate {
	return Candidate{Object: Object{Key: key, Bytes: bytes, Cost: 1}}
}

// explained is a plan that says what stays as well.
func explained(p Policy, r Request, now clock.Instant) Plan {
	r.Explain = true
	return MakePlan(p, r, now)
}

func keys(p Plan) string {
	var out []string
	for _, v := range p.Victims {
		out = append(out, v.Key)
	}
	return strings.Join(out, " ")
}

func kept(p Plan, key string) string {
	for _, k := range p.Kept {
		if k.Key == key {
			return k.Reason
		}
	}
	return ""
}

func TestTheLeastValuableGoesFirstAndNoMoreThanNeeded(t *testing.T) {
	p := explained(worth{"a": 3, "b": 1, "c": 2}, Request{Need: 2 * gib, Candidates: []Candidate{
		candidate("a", gib), candidate("b", gib), candidate("c", gib),
	}}, minute)
	if keys(p) != "b c" || p.Freed != 2*gib || p.Shortfall != 0 || p.ReloadSeconds != 2 {
		t.Fatalf("plan %+v", p)
	}
}

func TestBytesOnTheirWayBackAreNotWantedAgain(t *testing.T) {
	r := Request{Need: 2 * gib, Already: gib, Candidates: []Candidate{candidate("a", gib), candidate("b", gib)}}
	if p := explained(worth{"a": 1, "b": 2}, r, minute); keys(p) != "a" {
		t.Fatalf("plan %+v", p)
	}
	r.Already = 3 * gib
	if p := explained(worth{}, r, minute); len(p.Victims) != 0 || p.Shortfall != 0 {
		t.Fatalf("plan %+v although enough is on its way", p)
	}
}

func TestASmallOneIsSparedWhenALaterBigOneSuffices(t *testing.T) {
	p := explained(worth{"small": 1, "big": 2}, Request{Need: 3 * gib, Candidates: []Candidate{
		candidate("small", gib), candidate("big", 4*gib),
	}}, minute)
	if keys(p) != "big" || !strings.Contains(kept(p, "small"), "spared") {
		t.Fatalf("plan %+v", p)
	}
}

func TestTheMostValuableIsSparedFirst(t *testing.T) {
	// 1+1+1+2 frees 5 where 3 are needed: the 2 must stay, or two of the others.
	p := explained(worth{"a": 1, "b": 2, "c": 3, "d": 4}, Request{Need: 4, Candidates: []Candidate{
		candidate("a", 1), candidate("b", 1), candidate("c", 1), candidate("d", 3),
	}}, minute)
	if keys(p) != "a d" || !strings.Contains(kept(p, "c"), "spared") || !strings.Contains(kept(p, "b"), "spared") {
		t.Fatalf("plan %+v", p)
	}
}

func TestWhatMayNotGoStaysAndSaysWhy(t *testing.T) {
	pinned, read, floor, empty := candidate("pinned", gib), candidate("read", gib), candidate("floor", gib), candidate("empty", 0)
	pinned.Pinned, read.Readers, floor.Excluded = true, 2, "under the floor of tenant blue"
	p := explained(worth{}, Request{Need: 9 * gib, Candidates: []Candidate{pinned, read, floor, empty, candidate("free", gib)}}, minute)
	if keys(p) != "free" || p.Shortfall != 8*gib {
		t.Fatalf("plan %+v", p)
	}
	for key, want := range map[string]string{
		"pinned": "pinned", "read": "in use by 2 readers", "floor": "under the floor of tenant blue", "empty": "holds no bytes here",
	} {
		if got := kept(p, key); got != want {
			t.Errorf("%s is kept because %q, want %q", key, got, want)
		}
	}
}

func TestPriorityGoesBeforeValue(t *testing.T) {
	important := candidate("important", gib)
	important.Priority = 1
	p := explained(worth{"important": 0, "dear": 100}, Request{Need: gib, Candidates: []Candidate{important, candidate("dear", gib)}}, minute)
	if keys(p) != "dear" {
		t.Fatalf("plan %+v", p)
	}
}

func TestWhoAskedForTheRoomGoesLast(t *testing.T) {
	asker, important := candidate("asker", gib), candidate("important", gib)
	asker.LastVictim, important.Priority = true, 9
	r := Request{Need: gib, Candidates: []Candidate{asker, important}}
	if p := explained(worth{"important": 50}, r, minute); keys(p) != "important" {
		t.Fatalf("plan %+v", p)
	}
	r.Need = 2 * gib
	p := explained(worth{"important": 50}, r, minute)
	if keys(p) != "important asker" || !strings.Contains(p.Victims[1].Reason(), "asked for the room itself") {
		t.Fatalf("plan %+v", p)
	}
}

func TestOfEqualsTheLongestUnusedGoes(t *testing.T) {
	old, young := candidate("z-old", gib), candidate("a-young", gib)
	old.LastUsed, young.LastUsed = 1, 2
	if p := explained(worth{}, Request{Need: gib, Candidates: []Candidate{young, old}}, minute); keys(p) != "z-old" {
		t.Fatalf("plan %+v", p)
	}
}

func TestALimitOnVictimsTakesLargerOnes(t *testing.T) {
	c := []Candidate{candidate("a", gib), candidate("b", gib), candidate("c", 2*gib), candidate("d", 3*gib)}
	w := worth{"a": 1, "b": 2, "c": 3, "d": 4}
	for _, step := range []struct {
		need  int64
		limit int
		want  string
	}{
		{4 * gib, 0, "a b c"}, // without a limit, the cheapest
		{4 * gib, 3, "a b c"}, // within the limit, the same
		{4 * gib, 2, "a d"},   // two that suffice, the cheapest possible
		{3 * gib, 1, "d"},     // one that suffices
		{9 * gib, 2, "c d"},   // never enough: the largest
	} {
		p := explained(w, Request{Need: step.need, MaxVictims: step.limit, Candidates: c}, minute)
		if keys(p) != step.want || p.Shortfall != max(0, step.need-p.Freed) {
			t.Errorf("%d GiB with at most %d: %q, want %q (%+v)", step.need/gib, step.limit, keys(p), step.want, p)
		}
	}
}

func TestReasonsAreForPeople(t *testing.T) {
	a, b, c := candidate("a", gib), candidate("b", gib), candidate("c", gib)
	a.LastUsed, a.Cost = minute.Add(-42*time.Second), .8
	b.LastUsed, b.Cost = minute.Add(-700*time.Millisecond), 37.8
	c.LastUsed, c.Cost = minute.Add(-5*time.Hour), .012
	p := explained(worth{"a": 1, "b": 2, "c": 3}, Request{Need: 3 * gib, Candidates: []Candidate{a, b, c}}, minute)
	for i, want := range []string{
		"unread for 42 s; reload costs 0.8 s; cheapest of 3",
		"unread for 700 ms; reload costs 38 s; number 2 in cost of 3",
		"unread for 5 h; reload costs 0.012 s; number 3 in cost of 3",
	} {
		if got := p.Victims[i].Reason(); got != want {
			t.Errorf("reason %q, want %q", got, want)
		}
	}
	if p := explained(worth{}, Request{Need: 1, Candidates: []Candidate{a}}, minute); !strings.HasSuffix(p.Victims[0].Reason(), "the only one that may go") {
		t.Errorf("reason %q", p.Victims[0].Reason())
	}
}

// What is shown decides, and the policy need not be asked.
func TestAPlanReadsWorthsWhereTheyAreKept(t *testing.T) {
	a, b, c, unknown := candidate("a", gib), candidate("b", gib), candidate("c", gib), candidate("unknown", gib)
	w := worth{"a": 0, "b": 9, "c": 2, "unknown": 8}
	r := Request{Need: 3 * gib, Candidates: []Candidate{a, b, c, unknown}, Worths: []*Worth{{3}, {1}, {2}, nil}}
	if p := explained(w, r, minute); keys(p) != "unknown b c" || p.Victims[1].Value != 1 {
		t.Fatalf("plan %+v", p)
	}
	r.Candidates[1].Group, r.Terms = 1, []Terms{{}, {Weight: 4}}
	if p := explained(w, r, minute); keys(p) != "unknown c a" {
		t.Fatalf("plan %+v with a weight", p)
	}
}

// A bound that bounds nothing changes no plan, of however many.
func TestBoundsOfThousands(t *testing.T) {
	random := rand.New(rand.NewSource(1))
	w := worth{}
	var c []Candidate
	var red int64
	for i := range 3000 {
		x := candidate(fmt.Sprint(i), 1+random.Int63n(50))
		if w[x.Key] = random.Float64(); i%2 == 0 {
			x.Group = 1
			red += x.Bytes
		}
		c = append(c, x)
	}
	for _, need := range []int64{60, 3000, 30000} {
		free := explained(w, Request{Need: need, Candidates: c}, minute)
		for name, r := range map[string]Request{
			"victims":           {Need: need, Candidates: c, MaxVictims: 3000},
			"what may be taken": {Need: need, Candidates: c, Terms: []Terms{{}, {Bounded: true, Spare: red}}},
		} {
			if p := explained(w, r, minute); fmt.Sprint(p) != fmt.Sprint(free) {
				t.Errorf("%d bytes with a bound on %s: %+v; without it %+v", need, name, p, free)
			}
		}
		p := explained(w, Request{Need: need, Candidates: c, Terms: []Terms{{}, {Bounded: true}}}, minute)
		for _, v := range p.Victims {
			if i := slices.IndexFunc(c, func(x Candidate) bool { return x.Key == v.Key }); c[i].Group == 1 || !strings.HasSuffix(v.Reason(), " of 1500") {
				t.Errorf("%+v goes although there is nothing to spare", v)
			}
		}
		if p.Shortfall != 0 || len(p.Kept) < 1500 {
			t.Errorf("short of %d, %d kept", p.Shortfall, len(p.Kept))
		}
	}
	// The largest fifty suffice, those that come first do not.
	p := explained(w, Request{Need: 50 * 45, MaxVictims: 50, Candidates: c}, minute)
	if p.Shortfall != 0 || len(p.Victims) > 50 {
		t.Errorf("%d victims, short of %d", len(p.Victims), p.Shortfall)
	}
}

func TestPlansKeepTheirPromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := worth{}
		var c []Candidate
		var evictable int64
		count := rapid.IntRange(0, 25).Draw(t, "candidates")
		for i := range count {
			x := candidate(fmt.Sprint("m", i), rapid.Int64Range(0, 50).Draw(t, "bytes"))
			w[x.Key] = float64(rapid.IntRange(0, 5).Draw(t, "value"))
			switch rapid.IntRange(0, 9).Draw(t, "kind") {
			case 0:
				x.Pinned = true
			case 1:
				x.Readers = 3
			case 2:
				x.Excluded = "no"
			case 3:
				x.LastVictim = true
			case 4:
				x.Priority = 1
			}
			if unevictable(&x, &Terms{}, false) == "" {
				evictable += x.Bytes
			}
			c = append(c, x)
		}
		r := Request{
			Need: rapid.Int64Range(-5, 300).Draw(t, "need"), Already: rapid.Int64Range(0, 30).Draw(t, "already"),
			MaxVictims: rapid.IntRange(0, 5).Draw(t, "limit"), Candidates: c,
		}
		need := r.Need - r.Already
		p := explained(w, r, minute)

		var freed int64
		for _, v := range p.Victims {
			i := slices.IndexFunc(c, func(x Candidate) bool { return x.Key == v.Key })
			if unevictable(&c[i], &Terms{}, false) != "" {
				t.Fatalf("%s goes although: %s", v.Key, unevictable(&c[i], &Terms{}, false))
			}
			if v.Reason() == "" || v.Bytes != c[i].Bytes || v.Value != w[v.Key] {
				t.Fatalf("victim %+v of %+v", v, c[i])
			}
			freed += v.Bytes
		}
		switch {
		case freed != p.Freed || p.Shortfall != max(0, need-freed):
			t.Fatalf("need %d, victims free %d: plan says %d, short of %d", need, freed, p.Freed, p.Shortfall)
		case r.MaxVictims > 0 && len(p.Victims) > r.MaxVictims:
			t.Fatalf("%d victims, at most %d allowed", len(p.Victims), r.MaxVictims)
		case p.Shortfall > 0 && r.MaxVictims == 0 && freed != evictable:
			t.Fatalf("short of %d with %d of %d freed", p.Shortfall, freed, evictable)
		case p.Shortfall == 0:
			for _, v := range p.Victims {
				if freed-v.Bytes >= need {
					t.Fatalf("%s is not needed: %+v", v.Key, p)
				}
			}
		}
		if r.MaxVictims > 0 && p.Shortfall > 0 { // then no choice of so many suffices
			sizes := []int64{}
			for _, x := range c {
				if unevictable(&x, &Terms{}, false) == "" {
					sizes = append(sizes, -x.Bytes)
				}
			}
			slices.Sort(sizes)
			var most int64
			for _, s := range sizes[:min(r.MaxVictims, len(sizes))] {
				most -= s
			}
			if most >= need {
				t.Fatalf("short of %d although %d victims could free %d", p.Shortfall, r.MaxVictims, most)
			}
		}
		// The order in which candidates are named does not matter.
		shuffled := slices.Clone(c)
		rand.New(rand.NewSource(1)).Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		r.Candidates = shuffled
		again := explained(w, r, minute)
		for _, x := range []struct {
			victims []Victim
			of      []Candidate
		}{{p.Victims, c}, {again.Victims, shuffled}} {
			for i := range x.victims {
				if v := &x.victims[i]; v.Key != x.of[v.Index].Key {
					t.Fatalf("%s is said to be number %d", v.Key, v.Index)
				}
				x.victims[i].Index = 0
			}
		}
		if fmt.Sprint(again.Victims) != fmt.Sprint(p.Victims) {
			t.Fatalf("victims depend on the order of candidates:\n%+v\n%+v", p.Victims, again.Victims)
		}
	})
}
