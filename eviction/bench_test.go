package eviction

import (
	"fmt"
	"math/rand"
	"testing"
	"time"

	"github.com/isobar-project/isobar/clock"
)

// BenchmarkPlan is every kind of plan over 10,000 models of two tenants: room for one, for 5 % of their bytes
// and for all. As a node has them the planner is shown where the policy keeps their worths; by
// name it asks for each.
func BenchmarkPlan(b *testing.B) {
	random := rand.New(rand.NewSource(1))
	p := NewPanel()
	var r Request
	var total, half int64
	for i := range 10000 {
		o := Object{Key: fmt.Sprintf("tenant/model-%d", i), Bytes: 1e8 + random.Int63n(7e9), Cost: 10 * random.Float64()}
		p.Loaded(o, clock.Instant(i))
		for range random.Intn(5) {
			p.Used(o.Key, clock.Instant(i))
		}
		c := Candidate{Object: o, LastUsed: clock.Instant(random.Int63n(int64(time.Minute))), Group: random.Intn(2)}
		total += o.Bytes
		if c.Group == 0 {
			half += o.Bytes
		}
		r.Candidates = append(r.Candidates, c)
		r.Worths = append(r.Worths, p.Worth(o.Key))
	}
	one, part := int64(5e9), total/20
	floor := func(spare int64) func(*Request) {
		return func(r *Request) { r.Terms = []Terms{{Bounded: true, Spare: spare, Weight: 2}, {First: true}} }
	}
	each := func(change func(int, *Candidate)) func(*Request) {
		return func(r *Request) {
			r.Candidates = append([]Candidate(nil), r.Candidates...)
			for i := range r.Candidates {
				change(i, &r.Candidates[i])
			}
		}
	}
	for _, kind := range []struct {
		name string
		need int64
		with func(*Request)
	}{
		{"one/plain", one, nil},
		{"5%/plain", part, nil},
		{"all/plain", total, nil},
		{"one/by name", one, func(r *Request) { r.Worths = nil }},
		{"5%/by name", part, func(r *Request) { r.Worths = nil }},
		{"one/floor", one, floor(half / 2)},
		{"5%/floor", part, floor(half / 2)},
		{"5%/floor of nearly all", part, floor(half / 200)},
		{"5%/two floors", part, func(r *Request) {
			r.Terms = []Terms{{Bounded: true, Spare: half / 3}, {Bounded: true, Spare: half / 3}}
		}},
		{"5%/half pinned", part, each(func(i int, c *Candidate) { c.Pinned = i%2 == 0 })},
		{"5%/half read", part, each(func(i int, c *Candidate) { c.Readers = i % 2 * 2 })},
		{"5%/half excluded", part, each(func(i int, c *Candidate) {
			if i%2 == 0 {
				c.Excluded = "so it is said"
			}
		})},
		{"5%/by force", part, func(r *Request) {
			each(func(i int, c *Candidate) { c.Readers = i % 2 * 2 })(r)
			r.Force = true
		}},
		{"5%/guarded", part, func(r *Request) {
			each(func(_ int, c *Candidate) { c.Grace = GraceOf(minute, time.Second) })(r)
			r.For = Stranger(0)
		}},
		{"5%/most 10", part, func(r *Request) { r.MaxVictims = 10 }},
		{"5%/most 300", part, func(r *Request) { r.MaxVictims = 300 }},
		{"one/most 1", one, func(r *Request) { r.MaxVictims = 1 }},
		{"5%/floor, most 300", part, func(r *Request) { floor(half / 2)(r); r.MaxVictims = 300 }},
	} {
		r := r
		r.Need = kind.need
		if kind.with != nil {
			kind.with(&r)
		}
		b.Run(kind.name, func(b *testing.B) {
			var planner Planner
			b.ReportAllocs()
			for b.Loop() {
				if plan := planner.MakePlan(p, r, minute); len(plan.Victims) == 0 || plan.Shortfall > 0 && r.MaxVictims != 10 {
					b.Fatalf("%d victims, short of %d", len(plan.Victims), plan.Shortfall)
				}
			}
		})
	}
}
