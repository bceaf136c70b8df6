package eviction

import (
	"math"
	"slices"
	"testing"
)

// Each policy looks at its own: a and b are loaded in that order, a is larger and used
// less often, b was used longer ago.
func TestEachPolicyChoosesByWhatItLooksAt(t *testing.T) {
	for name, first := range map[string]string{"lru": "b", "lfu": "a", "fifo": "a", "size": "a", "cost": "b", "gdsf": "b"} {
		p, err := New(name)
		if err != nil {
			t.Fatal(err)
		}
		load(p, "a", 2*gib, 90)
		load(p, "b", gib, 1)
		p.Used("b", 0)
		p.Used("a", 0)
		p.Used("b", 0)
		p.Used("a", 0)
		if name == "lfu" {
			p.Used("b", 0)
		}
		other := map[string]string{"a": "b", "b": "a"}[first]
		order(t, p, "a stranger", first, other)
		if p.Name() != name {
			t.Errorf("%s calls itself %s", name, p.Name())
		}
		p.Evicted(first, 0)
		if v := p.Value(first, 0); !math.IsInf(v, -1) {
			t.Errorf("%s: what went is worth %g", name, v)
		}
		p.Removed(other)
		if v := p.Value(other, 0); !math.IsInf(v, -1) {
			t.Errorf("%s: what is gone is worth %g", name, v)
		}
	}
}

func TestFIFOKeepsThePlaceOfWhatBecomesKnownBetter(t *testing.T) {
	p := NewFIFO()
	load(p, "a", gib, 1)
	load(p, "b", gib, 1)
	p.Loaded(Object{Key: "a", Bytes: gib, Cost: 7}, 0)
	order(t, p, "a", "b")
	p.Evicted("a", 0)
	load(p, "a", gib, 1) // back, at the end
	order(t, p, "b", "a")
}

func TestLFUForgetsUsesWithTheObject(t *testing.T) {
	p := NewLFU()
	for range 5 {
		p.Used("a", 0) // not loaded: not counted
	}
	load(p, "a", gib, 1)
	load(p, "b", gib, 1)
	p.Used("b", 0)
	order(t, p, "a", "b")
	p.Evicted("b", 0)
	load(p, "b", gib, 1)
	if a, b := p.Value("a", 0), p.Value("b", 0); a != b {
		t.Errorf("a is worth %g, b %g after it came back", a, b)
	}
}

// A panel answers as each of its members would that had seen the same.
func TestAPanelIsEveryPolicy(t *testing.T) {
	panel := NewPanel()
	alone := map[string]Policy{}
	for _, name := range Names()[1:] {
		alone[name], _ = New(name)
	}
	tell := func(f func(Policy)) {
		f(panel)
		for _, p := range alone {
			f(p)
		}
	}
	tell(func(p Policy) { load(p, "a", 3*gib, 2) })
	tell(func(p Policy) { load(p, "b", gib, 9) })
	tell(func(p Policy) { load(p, "c", 2*gib, 4) })
	tell(func(p Policy) { p.Used("a", 0) })
	tell(func(p Policy) { p.Evicted("b", 0) })
	tell(func(p Policy) { load(p, "b", gib, 9) })
	tell(func(p Policy) { p.Removed("c") })
	for name, want := range alone {
		got, ok := panel.Choose(name)
		if !ok {
			t.Fatalf("no %s on the panel", name)
		}
		for _, key := range []string{"a", "b", "c"} {
			if g, w := got.Value(key, 0), want.Value(key, 0); g != w {
				t.Errorf("%s: %s is worth %g on the panel, %g alone", name, key, g, w)
			}
		}
	}
	byDefault, _ := panel.Choose("")
	cost, _ := panel.Choose(DefaultName)
	if byDefault != cost || panel.Value("a", 0) != cost.Value("a", 0) || panel.Name() != DefaultName {
		t.Error("the panel does not speak for its default")
	}
	if _, ok := panel.Choose("random"); ok || slices.Contains(Names(), "random") {
		t.Error("a policy that nobody made")
	}
	if _, err := New("random"); err == nil {
		t.Error("New made it")
	}
}

func TestForceTakesWhatIsReadAfterEverythingElse(t *testing.T) {
	read, pinned, dear := candidate("read", 4*gib), candidate("pinned", gib), candidate("dear", gib)
	read.Readers, pinned.Pinned, pinned.Readers, dear.Priority = 2, true, 1, 9
	r := Request{Need: gib, Force: true, Candidates: []Candidate{read, pinned, dear}}
	w := worth{"read": 0, "dear": 100}
	if p := explained(w, r, minute); keys(p) != "dear" {
		t.Fatalf("plan %+v", p)
	}
	r.Need = 5 * gib
	p := explained(w, r, minute)
	if keys(p) != "dear read" || kept(p, "pinned") != "pinned" || p.Shortfall != 0 {
		t.Fatalf("plan %+v", p)
	}
	if got := p.Victims[1].Reason(); got != "forced while in use, readers: 2; reload costs 1.0 s; number 2 in cost of 2" {
		t.Errorf("reason %q", got)
	}
	r.Force = false
	if p := explained(w, r, minute); keys(p) != "dear" || kept(p, "read") != "in use by 2 readers" {
		t.Fatalf("plan %+v", p)
	}
}
