package eviction

import (
	"slices"

	"github.com/isobar-project/isobar/clock"
)

// Candidate is a resident object as the planner sees it.
type Candidate struct {
	Object
	Readers  int // who map or hold it now
	Priority int // the lower goes first, whatever it is worth
	LastUsed clock.Instant
	// Worth is where the policy that decides keeps what it holds the object worth; nil: it is
	// asked for it by the object's key, which takes longer.
	Worth    *Worth
	Excluded string // not empty: keep it, for this reason
	// Group is whose the object is, for Request.Spare.
	Group string
	// Weight multiplies what the policy holds it worth; 0 is 1.
	Weight float64
	Pinned bool // its tenant forbids to drop it
	// First objects go before all others: their group has more than it should.
	First bool
	// LastVictim marks the object whose load caused this plan: it goes only when
	// everything else does not suffice.
	LastVictim bool
	// Grace is for how long it is kept because it was just loaded.
	Grace Grace
}

// Request says how much room is wanted, and what there is to choose from.
type Request struct {
	Need    int64 // bytes wanted
	Already int64 // bytes on their way back; subtracted from Need
	// MaxVictims bounds how many objects may go; 0 is no bound.
	MaxVictims int
	// Force takes what somebody reads as well, after everything that nobody does. What is
	// pinned or excluded stays all the same.
	Force bool
	// Spare is how many bytes of a group may go at most; a group that is not named has no
	// such bound.
	Spare map[string]int64
	// For is what the room is made for: from it is kept what was just loaded. nil: nothing is.
	For        *Newcomer
	Candidates []Candidate // in any order, each key once
}

// Victim is an object that should go, and why this one.
type Victim struct {
	Key    string
	Index  int // among the request's candidates
	Bytes  int64
	Cost   float64 // seconds to load it again
	Value  float64 // what the policy holds it worth
	Reason string
	// Guarded is until when it is kept because it was just loaded; 0: it is not.
	Guarded clock.Instant
}

// Skipped is an object that stays although it might have been thought of.
type Skipped struct{ Key, Reason string }

// Plan is what should go. It is the planner's to make and the caller's to keep.
type Plan struct {
	Victims []Victim // in the order in which they should go
	Freed   int64    // the sum of the victims' bytes
	// Until is not 0 where a victim is kept until then because it was just loaded: nobody
	// goes before, and the plan is to be made again.
	Until clock.Instant
	// Shortfall is what is still missing when all victims are gone. Unless
	// MaxVictims bounds the plan, everything that may go is then among them.
	Shortfall int64
	// ReloadSeconds is the sum of the victims' costs.
	ReloadSeconds float64
	// Kept lists what may not go, and what was spared because others suffice, in
	// the order of the candidates, the spared last.
	Kept []Skipped
}

// MakePlan picks the cheapest objects that free r.Need − r.Already bytes: in
// the order of priority and value, until there is enough, sparing then what later
// choices made needless, the most valuable first. Where a few are enough, and the policy's
// values are worth per byte, it is the cheapest set of the first dozen. Removing any victim from a plan
// without shortfall leaves too little.
func MakePlan(p Policy, r Request, now clock.Instant) Plan {
	need := r.Need - r.Already
	if need <= 0 {
		return Plan{}
	}
	var plan Plan
	some := need
	if r.MaxVictims > 0 || len(r.Spare) > 0 {
		some = 0
	}
	order := rankingOf(r.Candidates, some)
	for i := range r.Candidates {
		c := &r.Candidates[i]
		if reason := unevictable(c, r.Force); reason != "" {
			plan.keep(c, reason)
			continue
		}
		order.add(i, c.worth(p, now))
	}
	floored := order.keepFloors(r.Spare)
	plan.Kept = slices.Grow(plan.Kept, len(floored))
	for _, i := range floored {
		plan.keep(&r.Candidates[i], "whose it is has no more to spare")
	}

	chosen, next, freed := order.cheapest(need)
	if r.MaxVictims > 0 && len(chosen) > r.MaxVictims {
		chosen, freed = order.fewest(need, r.MaxVictims)
	} else if _, ok := p.(perByte); ok && freed >= need && r.MaxVictims == 0 && len(chosen) <= among/2 {
		first := chosen
		chosen, freed = cheapestSet(first, next, need), 0
		for _, x := range chosen {
			freed += x.bytes
		}
		for _, x := range first {
			if !slices.ContainsFunc(chosen, func(y ranked) bool { return x.index == y.index }) {
				plan.keep(&r.Candidates[x.index], "spared: others that are worth less together suffice")
			}
		}
	}
	needed := len(chosen)                   // from there on
	for i := len(chosen) - 1; i >= 0; i-- { // the most valuable first
		x := chosen[i]
		if rest := freed - x.bytes; rest >= need {
			freed = rest
			plan.keep(&r.Candidates[x.index], "spared: the others suffice without it")
			continue
		}
		needed--
		chosen[needed] = x
	}
	chosen = chosen[needed:]

	plan.Freed, plan.Shortfall = freed, max(0, need-freed)
	plan.Victims = make([]Victim, len(chosen))
	for i, x := range chosen {
		c := &r.Candidates[x.index]
		plan.ReloadSeconds += c.Cost
		guarded := c.guarded(r.For, x.value)
		if guarded <= now {
			guarded = 0
		}
		plan.Until = max(plan.Until, guarded)
		plan.Victims[i] = Victim{Key: c.Key, Index: int(x.index), Bytes: c.Bytes, Cost: c.Cost, Value: x.value, Guarded: guarded}
	}
	order.explain(plan.Victims, chosen, now)
	return plan
}

func (p *Plan) keep(c *Candidate, reason string) { p.Kept = append(p.Kept, Skipped{c.Key, reason}) }

// worth is what keeping c is worth to its owner, by the policy that decides.
func (c *Candidate) worth(p Policy, now clock.Instant) (value float64) {
	if c.Worth != nil {
		value = c.Worth.value
	} else {
		value = p.Value(c.Key, now)
	}
	if c.Weight > 0 {
		value *= c.Weight
	}
	return value
}
