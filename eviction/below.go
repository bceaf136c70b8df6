package eviction

import (
	"math"

	"github.com/isobar-project/isobar/clock"
)

// What goes from a device may be kept in a slower tier below it, which is full sooner or later:
// then what is worth less there gives way. For that the tier's books must know what is used above.

// Listener is a policy that can hear of uses of what is not there: of an object that would be
// used in this place if it were not in a faster one.
type Listener interface {
	Policy
	// Heard is Used of an object that need not be resident, nor ever have been. What the policy
	// knows of it is remembered like what it knows of evicted ones.
	Heard(o Object, now clock.Instant)
}

// Returning is a newcomer that comes to a place where it was, or was Heard of: it is worth what
// the policy would hold it worth there now. Others are strangers. Weight is as in Terms.
func Returning(p Policy, key string, priority int, weight float64) *Newcomer {
	return foreseen(p, foreseer.recalled, key, priority, weight)
}

// Yields reports whether what a plan would take should go for a newcomer of so many bytes: it
// makes the room, nothing of it is of a higher priority or kept because it was just loaded, and all of it together
// is worth less. What is doubled is not lost.
func (p *Plan) Yields(n *Newcomer, bytes int64) bool {
	if p.Shortfall > 0 || p.Until > 0 {
		return false
	}
	lost, all := 0., true // all of it is doubled
	for i := range p.Victims {
		v := &p.Victims[i]
		if v.doubled {
			continue
		}
		if v.priority > n.Priority {
			return false
		}
		if all = false; !math.IsInf(v.Value, -1) {
			lost += v.Value * float64(v.Bytes)
		}
	}
	return all || lost < n.Worth*float64(bytes)
}
