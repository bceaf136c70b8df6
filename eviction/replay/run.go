package replay

import (
	"fmt"
	"time"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/eviction"
)

// Result is what one run cost.
type Result struct {
	Seconds   float64 // of reloading, first loads included
	Score     float64 // over the lower bound
	Loads     int
	Evictions int
	// Unserved counts requests whose models don't fit the capacity together.
	Unserved int
}

// Run replays the trace with capacity, cost model and seed of a bound.
func (t *Trace) Run(b Bound, p eviction.Policy) (Result, error) {
	return t.Follow(b, p, func(int, eviction.Plan) {})
}

// Follow is Run that tells decided of every plan, by the number of its request.
func (t *Trace) Follow(b Bound, p eviction.Policy, decided func(request int, plan eviction.Plan)) (Result, error) {
	objects := t.objects(b)
	if objects == nil {
		return Result{}, fmt.Errorf("no assignment %s with cost %s", b.Seed, b.Cost)
	}
	r := run{objects: objects, policy: p, free: b.Capacity, place: make(map[string]int)}
	for seq, needs := range t.Requests {
		r.decided = func(plan eviction.Plan) { decided(seq, plan) }
		now := clock.Instant(seq) * clock.Instant(time.Second)
		if err := r.serve(needs, b.Capacity, now); err != nil {
			return Result{}, fmt.Errorf("request %d: %w", seq, err)
		}
	}
	r.result.Score = r.result.Seconds / b.Seconds
	return r.result, nil
}

// objects are the models as a bound's assignment and cost model have them; nil if it has
// none.
func (t *Trace) objects(b Bound) (objects []eviction.Object) {
	for _, a := range t.Assignments {
		if a.Seed == b.Seed {
			objects = a.Costs[b.Cost]
		}
	}
	return objects
}

// run is one device of a given capacity.
type run struct {
	objects  []eviction.Object
	policy   eviction.Policy
	free     int64
	resident []eviction.Candidate
	place    map[string]int // key → index in resident
	result   Result
	decided  func(eviction.Plan)
}

func (r *run) serve(needs []int, capacity int64, now clock.Instant) error {
	var together, missing int64
	for _, i := range needs {
		o := &r.objects[i]
		together += o.Bytes
		if at, ok := r.place[o.Key]; ok {
			r.resident[at].Readers = 1
		} else {
			missing += o.Bytes
		}
	}
	if together > capacity {
		for _, i := range needs {
			if at, ok := r.place[r.objects[i].Key]; ok {
				r.resident[at].Readers = 0
			}
		}
		r.result.Unserved++
		return nil
	}
	if need := missing - r.free; need > 0 {
		plan := eviction.MakePlan(r.policy, eviction.Request{Need: need, Candidates: r.resident}, now)
		if plan.Shortfall > 0 {
			return fmt.Errorf("short of %d bytes of %d although all fits", plan.Shortfall, need)
		}
		r.decided(plan)
		for _, v := range plan.Victims {
			r.evict(v.Key, now)
		}
	}
	for _, i := range needs {
		o := r.objects[i]
		if _, ok := r.place[o.Key]; !ok {
			r.place[o.Key] = len(r.resident)
			r.resident = append(r.resident, eviction.Candidate{Object: o})
			r.free -= o.Bytes
			r.result.Loads++
			r.result.Seconds += o.Cost
			r.policy.Loaded(o, now)
		}
		r.policy.Used(o.Key, now)
		c := &r.resident[r.place[o.Key]]
		c.Readers, c.LastUsed = 0, now
	}
	return nil
}

func (r *run) evict(key string, now clock.Instant) {
	r.remove(key)
	r.result.Evictions++
	r.policy.Evicted(key, now)
}

// remove takes an object out, without a word to the policy.
func (r *run) remove(key string) {
	at, last := r.place[key], len(r.resident)-1
	r.free += r.resident[at].Bytes
	r.resident[at] = r.resident[last]
	r.place[r.resident[at].Key] = at
	r.resident = r.resident[:last]
	delete(r.place, key)
}
