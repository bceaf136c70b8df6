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
	// Waited is how long requests waited for what had just been loaded to be let go.
	Waited time.Duration
	// Unserved counts requests whose models don't fit the capacity together.
	Unserved int
}

// Run replays the trace with capacity, cost model and seed of a bound.
func (t *Trace) Run(b Bound, p eviction.Policy) (Result, error) {
	return t.Follow(b, p, func(int, time.Duration, eviction.Plan) {})
}

// Follow is Run that tells decided of every plan, by the number of its request, and how long
// that waited for what had just been loaded. A request comes one second after the one before
// has been served.
func (t *Trace) Follow(b Bound, p eviction.Policy, decided func(request int, waited time.Duration, plan eviction.Plan)) (Result, error) {
	objects := t.objects(b)
	if objects == nil {
		return Result{}, fmt.Errorf("no assignment %s with cost %s", b.Seed, b.Cost)
	}
	r := run{objects: objects, policy: p, free: b.Capacity, place: make(map[string]int)}
	var err error
	var now clock.Instant
	for seq, needs := range t.Requests {
		r.decided = func(waited time.Duration, plan eviction.Plan) { decided(seq, waited, plan) }
		came := now.Add(time.Second)
		if now, err = r.serve(needs, b.Capacity, came, came); err != nil {
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
	decided  func(time.Duration, eviction.Plan)
}

// serve has a request's models there, and returns when they are. The policy hears of the
// request as of came; what is missing is looked for at now, no later than that.
func (r *run) serve(needs []int, capacity int64, came, now clock.Instant) (clock.Instant, error) {
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
		return now, nil
	}
	if need := missing - r.free; need > 0 {
		want := eviction.Request{Need: need, Candidates: r.resident, For: r.newcomer(needs)}
		plan, began := eviction.MakePlan(r.policy, want, now), now
		for ; plan.Until > now; plan = eviction.MakePlan(r.policy, want, now) {
			now = plan.Until
		}
		r.result.Waited += now.Sub(began)
		if plan.Shortfall > 0 {
			return now, fmt.Errorf("short of %d bytes of %d although all fits", plan.Shortfall, need)
		}
		r.decided(now.Sub(began), plan)
		for _, v := range plan.Victims {
			r.evict(v.Key, came)
		}
	}
	for _, i := range needs {
		o := r.objects[i]
		if _, ok := r.place[o.Key]; !ok {
			took := time.Duration(o.Cost * float64(time.Second))
			now = now.Add(took)
			r.place[o.Key] = len(r.resident)
			r.resident = append(r.resident, eviction.Candidate{Object: o, Grace: eviction.GraceOf(now, took)})
			r.free -= o.Bytes
			r.result.Loads++
			r.result.Seconds += o.Cost
			r.policy.Loaded(o, came)
		}
		r.policy.Used(o.Key, came)
		c := &r.resident[r.place[o.Key]]
		c.Readers, c.LastUsed = 0, came
	}
	return now, nil
}

// newcomer is what a request's models are worth, at most.
func (r *run) newcomer(needs []int) *eviction.Newcomer {
	most := eviction.Stranger(0)
	for _, i := range needs {
		if _, there := r.place[r.objects[i].Key]; there {
			continue
		}
		if n := eviction.Expected(r.policy, r.objects[i].Key, 0, 0); n.Worth > most.Worth {
			most = n
		}
	}
	return most
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
