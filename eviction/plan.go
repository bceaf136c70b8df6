package eviction

import (
	"slices"
	"time"

	"github.com/isobar-project/isobar/clock"
)

// Candidate is a resident object as the planner sees it.
type Candidate struct {
	Object
	Readers  int // who map or hold it now
	Priority int // the lower goes first, whatever it is worth
	LastUsed clock.Instant
	Excluded string // not empty: keep it, for this reason
	// Group is whose the object is: the number of its Terms.
	Group  int
	Pinned bool // its tenant forbids to drop it
	// Doubled objects lie on a faster tier too, so that nothing is lost with them: they go
	// before all that are not.
	Doubled bool
	// LastVictim marks the object whose load caused this plan: it goes only when
	// everything else does not suffice.
	LastVictim bool
	// Grace is for how long it is kept because it was just loaded.
	Grace Grace
}

// Terms are what holds for all candidates of a group, in one plan.
type Terms struct {
	// Excluded, if not empty, is why all of them stay.
	Excluded string
	// Spare is how many bytes of the group may go at most, if it is Bounded.
	Spare   int64
	Bounded bool
	// First has them go before those of other groups: theirs has more than it should.
	First bool
	// Weight multiplies what the policy holds them worth; 0 is 1.
	Weight float64
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
	// For is what the room is made for: from it is kept what was just loaded. nil: nothing is.
	For        *Newcomer
	Candidates []Candidate // in any order, each key once
	// Worths are where the policy that decides keeps what it holds each candidate worth (see
	// Bookkeeper); of a nil one it knows nothing. Without them it is asked for each by its key,
	// which takes longer.
	Worths []*Worth
	// Terms are those of the groups, by number. A group beyond them has none.
	Terms []Terms
	// Explain has the plan say of what stays why: Plan.Kept.
	Explain bool
}

// Victim is an object that should go, and why this one.
type Victim struct {
	Key   string
	Index int // among the request's candidates
	Bytes int64
	Cost  float64 // seconds to load it again
	Value float64 // what the policy holds it worth
	// Guarded is until when it is kept because it was just loaded; 0: it is not.
	Guarded clock.Instant

	// What Reason puts into words.
	unread   time.Duration
	readers  int
	priority int
	doubled  bool
	asked    bool // for the room itself
	rank     int32
	of       int32 // so many that may go
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
	// the order of the candidates, the spared last; nil unless it was asked for.
	Kept []Skipped
}

// Planner makes plans, and keeps the memory that it takes to make one for the next. The zero
// Planner is ready; it is not safe for concurrent use.
type Planner struct{ ranking }

// MakePlan makes a plan by a Planner of its own.
func MakePlan(p Policy, r Request, now clock.Instant) Plan {
	var planner Planner
	return planner.MakePlan(p, r, now)
}

// MakePlan picks the cheapest objects that free r.Need − r.Already bytes: in
// the order of priority and value, until there is enough, sparing then what later
// choices made needless, the most valuable first. Where a few are enough, and the policy's
// values are worth per byte, it is the cheapest set of the first dozen. Removing any victim from a plan
// without shortfall leaves too little.
func (p *Planner) MakePlan(policy Policy, r Request, now clock.Instant) Plan {
	need := r.Need - r.Already
	if need <= 0 {
		return Plan{}
	}
	some := need
	if r.MaxVictims > 0 {
		some = 0
	}
	p.begin(&r, some)
	defer p.end()
	p.gather(policy, now)
	var plan Plan
	if r.Explain {
		plan.Kept = p.kept()
	}

	var (
		chosen, next []ranked
		freed        int64
	)
	if r.MaxVictims > 0 && p.needed(need) > r.MaxVictims {
		chosen, freed = p.fewest(need, r.MaxVictims)
	} else {
		chosen, next, freed = p.cheapest(need)
	}
	if _, ok := policy.(perByte); ok && freed >= need && r.MaxVictims == 0 && len(chosen) <= among/2 {
		first := chosen
		chosen, freed = cheapestSet(first, next, need), 0
		for _, x := range chosen {
			freed += x.bytes
		}
		for _, x := range first {
			if r.Explain && !slices.ContainsFunc(chosen, func(y ranked) bool { return x.index == y.index }) {
				plan.keep(&r.Candidates[x.index], "spared: others that are worth less together suffice")
			}
		}
	}
	needed := len(chosen)                   // from there on
	for i := len(chosen) - 1; i >= 0; i-- { // the most valuable first
		x := chosen[i]
		if rest := freed - x.bytes; rest >= need {
			freed = rest
			if r.Explain {
				plan.keep(&r.Candidates[x.index], "spared: the others suffice without it")
			}
			continue
		}
		needed--
		chosen[needed] = x
	}
	chosen = chosen[needed:]

	plan.Freed, plan.Shortfall = freed, max(0, need-freed)
	plan.Victims = make([]Victim, len(chosen))
	for i := range chosen {
		v := &plan.Victims[i]
		p.victim(v, &chosen[i], now)
		plan.ReloadSeconds += v.Cost
		plan.Until = max(plan.Until, v.Guarded)
	}
	return plan
}

func (p *Plan) keep(c *Candidate, reason string) { p.Kept = append(p.Kept, Skipped{c.Key, reason}) }

// victim describes a chosen candidate.
func (p *Planner) victim(v *Victim, x *ranked, now clock.Instant) {
	c := &p.of[x.index]
	*v = Victim{
		Key: c.Key, Index: int(x.index), Bytes: c.Bytes, Cost: c.Cost, Value: x.value,
		unread: max(0, now.Sub(c.LastUsed)), readers: c.Readers, priority: c.Priority, doubled: c.Doubled, asked: c.LastVictim, rank: x.rank, of: int32(p.count),
	}
	if until := c.guarded(p.request.For, x.value); until > now {
		v.Guarded = until
	}
}
