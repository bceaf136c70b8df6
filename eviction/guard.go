package eviction

import (
	"math"
	"time"

	"github.com/isobar-project/isobar/clock"
)

// What was just loaded is kept for a while from needs that are worth no more: else two who
// load in turn what does not fit together evict what the other has not used yet. The guard
// never changes what goes, only when: a plan that would take what is kept waits for it.
const (
	// MinGrace is for who loaded it to map it: so long it is kept from what is worth more too,
	// though not from a higher priority.
	MinGrace = 250 * time.Millisecond
	// MaxGrace bounds how long anybody waits for it.
	MaxGrace = 5 * time.Second
	// pauses is what part of its grace an object stays that was used and let go.
	pauses = 8
)

// Grace is for how long an object is kept because it was just loaded. Zero: it is not.
type Grace struct{ Loaded, Until clock.Instant }

// GraceOf is that of an object that was loaded just then: as long as the load took, so that
// no more than half of the time goes into loading, within MinGrace and MaxGrace.
func GraceOf(loaded clock.Instant, took time.Duration) Grace {
	return Grace{Loaded: loaded, Until: loaded.Add(min(MaxGrace, max(MinGrace, took)))}
}

// LetGo is what is left of it when the object was used, and was let go at that moment: it
// served its purpose, and is kept only for short pauses between uses.
func (g Grace) LetGo(at clock.Instant) Grace {
	g.Until = min(g.Until, at.Add(g.Until.Sub(g.Loaded)/pauses))
	return g
}

// Newcomer is what room is made for, to be compared with what was just loaded.
type Newcomer struct {
	Priority int
	Worth    float64 // as the policy values objects
}

// Stranger is a newcomer of whom nothing is known but its priority: memory for other things
// than models, or a model that was never loaded. It is worth less than anything that is there.
func Stranger(priority int) *Newcomer {
	return &Newcomer{Priority: priority, Worth: math.Inf(-1)}
}

// Expected is a newcomer that the policy may remember. Weight is as a Candidate's.
func Expected(p Policy, key string, priority int, weight float64) *Newcomer {
	return foreseen(p, foreseer.prospect, key, priority, weight)
}

// foreseen is a newcomer that is worth what a policy says when it is asked so, as far as it knows.
func foreseen(p Policy, ask func(x foreseer, key string) (float64, bool), key string, priority int, weight float64) *Newcomer {
	n := Stranger(priority)
	if x, ok := p.(foreseer); ok {
		if worth, known := ask(x, key); known {
			if n.Worth = worth; weight > 0 {
				n.Worth *= weight
			}
		}
	}
	return n
}

// foreseer is implemented by policies that can say what an object would be worth. With
// others only priorities are compared.
type foreseer interface {
	// prospect is the worth of an object if it were loaded and used now.
	prospect(key string) (worth float64, known bool)
	// recalled is the worth of an object if it were loaded now.
	recalled(key string) (worth float64, known bool)
}

// guarded is until when a candidate that is worth so much is kept from a newcomer.
func (c *Candidate) guarded(n *Newcomer, worth float64) clock.Instant {
	switch {
	case n == nil || c.Grace == Grace{} || n.Priority > c.Priority:
		return 0
	case n.Worth > worth:
		return min(c.Grace.Until, c.Grace.Loaded.Add(MinGrace))
	}
	return c.Grace.Until
}
