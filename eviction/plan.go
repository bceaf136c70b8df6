package eviction

import (
	"github.com/isobar-project/isobar/clock"
)

// Candidate is a resident object as the planner sees it.
type Candidate struct {
	Object
	Pinned   bool // its tenant forbids to drop it
	Readers  int  // who map or hold it now
	Priority int  // the lower goes first, whatever it is worth
	LastUsed clock.Instant
	Excluded string // not empty: keep it, for this reason
	// Group is whose the object is, for Request.Spare.
	Group string
	// First objects go before all others: their group has more than it should.
	First bool
	// Weight multiplies what the policy holds it worth; 0 is 1.
	Weight float64
	// LastVictim marks the object whose load caused this plan: it goes only when
	// everything else does not suffice.
	LastVictim bool
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
	Spare      map[string]int64
	Candidates []Candidate // in any order, each key once
}

// Victim is an object that should go, and why this one.
type Victim struct {
	Key    string
	Bytes  int64
	Cost   float64 // seconds to load it again
	Value  float64 // what the policy holds it worth
	Reason string
}

// Skipped is an object that stays although it might have been thought of.
type Skipped struct{ Key, Reason string }

// Plan is what should go. It is the planner's to make and the caller's to keep.
type Plan struct {
	Victims []Victim // in the order in which they should go
	Freed   int64    // the sum of the victims' bytes
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
	order := ranking{of: r.Candidates, items: make([]ranked, 0, len(r.Candidates))}
	for i := range r.Candidates {
		c := &r.Candidates[i]
		if reason := unevictable(c, r.Force); reason != "" {
			plan.Kept = append(plan.Kept, Skipped{c.Key, reason})
			continue
		}
		value := p.Value(c.Key, now)
		if c.Weight > 0 {
			value *= c.Weight
		}
		order.add(i, value)
	}
	for _, key := range order.keepFloors(r.Spare) {
		plan.Kept = append(plan.Kept, Skipped{key, "whose it is has no more to spare"})
	}

	chosen, freed := order.cheapest(need)
	if r.MaxVictims > 0 && len(chosen) > r.MaxVictims {
		chosen, freed = order.fewest(need, r.MaxVictims)
	} else if _, ok := p.(perByte); ok && freed >= need && r.MaxVictims == 0 {
		first := chosen
		chosen = order.cheapestSet(first, need)
		freed = 0
		taken := make(map[int32]bool, len(chosen))
		for _, c := range chosen {
			freed += order.bytes(c)
			taken[c.index] = true
		}
		for _, c := range first {
			if !taken[c.index] {
				plan.Kept = append(plan.Kept, Skipped{r.Candidates[c.index].Key, "spared: others that are worth less together suffice"})
			}
		}
	}
	needed := make([]ranked, 0, len(chosen)) // the most valuable first
	for i := len(chosen) - 1; i >= 0; i-- {
		c := chosen[i]
		if rest := freed - order.bytes(c); rest >= need {
			freed = rest
			plan.Kept = append(plan.Kept, Skipped{r.Candidates[c.index].Key, "spared: the others suffice without it"})
			continue
		}
		needed = append(needed, c)
	}

	plan.Freed, plan.Shortfall = freed, max(0, need-freed)
	plan.Victims = make([]Victim, 0, len(needed))
	for i := len(needed) - 1; i >= 0; i-- {
		c := &r.Candidates[needed[i].index]
		plan.ReloadSeconds += c.Cost
		plan.Victims = append(plan.Victims, Victim{
			Key: c.Key, Bytes: c.Bytes, Cost: c.Cost, Value: needed[i].value,
			Reason: why(c, int(needed[i].rank), len(order.items), now),
		})
	}
	return plan
}
