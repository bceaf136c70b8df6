package eviction

import (
	"fmt"
	"math"
	"math/rand"
	"testing"
)

// dense is a policy whose values are worth per byte.
type dense struct{ worth }

func (dense) worthPerByte() {}

func TestOneOfTheRightSizeGoesRatherThanALargeOne(t *testing.T) {
	large, fitting := candidate("large", 7*gib), candidate("fitting", 2*gib)
	r := Request{Need: 2 * gib, Candidates: []Candidate{large, fitting}}
	w := worth{"large": .50, "fitting": .51}
	if p := MakePlan(w, r, minute); keys(p) != "large" {
		t.Errorf("in order of values %+v", p)
	}
	p := explained(dense{w}, r, minute)
	if keys(p) != "fitting" || kept(p, "large") != "spared: others that are worth less together suffice" || p.Shortfall != 0 {
		t.Errorf("the cheapest set is %+v", p)
	}
	// Unless it is worth much more: what goes beyond the need is not lost.
	w["fitting"] = 1
	if p := explained(dense{w}, r, minute); keys(p) != "large" {
		t.Errorf("of different worth %+v", p)
	}
	// What must go first goes first, whatever it is worth.
	w["fitting"], r.Candidates[1].Priority = .51, 1
	if p := explained(dense{w}, r, minute); keys(p) != "large" {
		t.Errorf("of higher priority %+v", p)
	}
}

// No set of the first few costs less than the one that is found.
func TestNoSetIsCheaper(t *testing.T) {
	for seed := range int64(300) {
		random := rand.New(rand.NewSource(seed))
		w := dense{worth{}}
		var r Request
		for i := range 1 + random.Intn(among) {
			key := fmt.Sprint(i)
			w.worth[key] = random.Float64()
			r.Candidates = append(r.Candidates, candidate(key, 1+random.Int63n(50)))
		}
		r.Need = 1 + random.Int63n(60)
		var values []float64
		for _, c := range r.Candidates {
			values = append(values, w.worth[c.Key])
		}
		order := rankingOf(r.Candidates, values, 0)
		first, next, freed := order.cheapest(r.Need)
		if freed < r.Need || len(first) > among/2 {
			continue
		}
		price := beyond * first[len(first)-1].value
		cost := func(set uint) (bytes int64, cost float64) {
			for i, c := range r.Candidates {
				if set>>i&1 == 1 {
					bytes += c.Bytes
					cost += w.worth[c.Key] * float64(c.Bytes)
				}
			}
			return bytes, cost - price*float64(bytes-r.Need)
		}
		least := math.Inf(1)
		for set := range uint(1) << len(r.Candidates) {
			if bytes, c := cost(set); bytes >= r.Need && c < least {
				least = c
			}
		}
		var found uint
		for _, x := range cheapestSet(first, next, r.Need) {
			found |= 1 << x.index
		}
		if bytes, c := cost(found); bytes < r.Need || c > least+1e-9 {
			t.Fatalf("seed %d: a set of %d bytes costs %g, the cheapest %g", seed, bytes, c, least)
		}
	}
}
