package admission

import (
	"slices"
)

// Overtakings is how many younger requests of its own tenant can be served before a
// request because of their priority.
const Overtakings = 32

// Spot is the place of one who waits. The owner fills the exported fields before it is
// added to a Line or a Lane, and changes none while it is there.
type Spot[W any] struct {
	Of       W // who waits
	Tenant   string
	Priority int    // the higher goes first
	Age      uint64 // the lower came first; no two are the same
	Bytes    int64  // what it counts for, more than 0

	// served counts younger ones that were served before it; overtaken counts those that
	// stand before it as well.
	served, overtaken int

	// In a Line:
	flow     *flow[W] // nil: it is not there
	returned bool     // it stands before everybody
	since    float64  // virtual time at which it came
	eldest   uint64   // its age, or the lowest of those that were served while it waited
	lead     int64    // bytes of those that passed from the place before it
	tag      float64  // virtual time at which its turn comes
	key      uint64   // decides between tenants whose turns come at the same time
}

// Waiting reports whether the spot is in a Line.
func (s *Spot[W]) Waiting() bool { return s.flow != nil || s.returned }

// Lane is the waiters of one tenant, in order.
type Lane[W any] struct{ spots []*Spot[W] }

// Len is how many wait.
func (l *Lane[W]) Len() int { return len(l.spots) }

// At is the spot that has i before it.
func (l *Lane[W]) At(i int) *Spot[W] { return l.spots[i] }

// Index is how many are before a spot, -1 if it is not here.
func (l *Lane[W]) Index(s *Spot[W]) int { return slices.Index(l.spots, s) }

// Where is how many would be before one who came now.
func (l *Lane[W]) Where(priority int, age uint64) int {
	i := len(l.spots)
	for ; i > 0; i-- {
		y := l.spots[i-1]
		if y.Priority > priority || y.Priority == priority && y.Age < age || y.Age < age && y.overtaken >= Overtakings {
			break
		}
	}
	return i
}

// Add gives a spot its place and returns how many are before it. It need not be the
// youngest: who was here before has its age.
func (l *Lane[W]) Add(s *Spot[W]) int {
	for _, y := range l.spots {
		if y.Age > s.Age {
			l.spots = append(l.spots, s)
			l.arrange()
			return l.Index(s)
		}
	}
	s.overtaken = s.served
	return l.insert(s)
}

// insert adds the youngest.
func (l *Lane[W]) insert(s *Spot[W]) int {
	i := l.Where(s.Priority, s.Age)
	l.spots = slices.Insert(l.spots, i, s)
	for _, y := range l.spots[i+1:] {
		y.overtaken++
	}
	return i
}

// arrange builds the order anew: as if all had come in the order of their age.
func (l *Lane[W]) arrange() {
	all := slices.Clone(l.spots)
	slices.SortFunc(all, func(a, b *Spot[W]) int {
		if a.Age < b.Age {
			return -1
		}
		return 1
	})
	clear(l.spots)
	l.spots = l.spots[:0]
	for _, s := range all {
		s.overtaken = s.served
		l.insert(s)
	}
}

// Remove takes a spot out as if it had never come. It reports whether it was here.
func (l *Lane[W]) Remove(s *Spot[W]) bool {
	i := l.Index(s)
	if i < 0 {
		return false
	}
	again := s.overtaken >= Overtakings // somebody may stand behind it for that
	for _, y := range l.spots[i+1:] {
		if y.Age < s.Age {
			// Somebody may stand behind y only because s had overtaken it as well.
			again = again || y.overtaken >= Overtakings
			y.overtaken--
		}
	}
	l.spots = slices.Delete(l.spots, i, i+1)
	if again {
		l.arrange()
	}
	return true
}

// serve takes out a spot that is served: whom it has overtaken remembers it.
func (l *Lane[W]) serve(s *Spot[W]) {
	i := l.Index(s)
	for _, y := range l.spots[i+1:] {
		if y.Age < s.Age {
			y.served++
		}
	}
	l.spots = slices.Delete(l.spots, i, i+1)
}

// Overtake notes that one of that age, which did not stand here, was served before those
// who do.
func (l *Lane[W]) Overtake(age uint64) {
	for _, y := range l.spots {
		if y.Age < age {
			y.served++
			y.overtaken++
		}
	}
}
