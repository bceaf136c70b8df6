package eviction

import (
	"math"

	"github.com/isobar-project/isobar/clock"
)

// Bookkeeper is a policy that keeps what each resident object is worth, and shows where: who
// plans often among many need not have every one looked up by its name. All policies that New
// makes are.
type Bookkeeper interface {
	Policy
	// Worth is where Value(key) is kept; nil if key is not resident. It stays right until the
	// object is loaded anew after it went: Loaded is when to ask for it.
	Worth(key string) *Worth
}

// Worth is what a Bookkeeper holds an object worth.
type Worth struct{ value float64 }

// worths is what a policy holds each resident object worth, by key.
type worths map[string]*Worth

// Value implements Policy.
func (w worths) Value(key string, _ clock.Instant) float64 {
	if x := w[key]; x != nil {
		return x.value
	}
	return math.Inf(-1)
}

// Worth implements Bookkeeper.
func (w worths) Worth(key string) *Worth { return w[key] }

// set has an object worth that much, resident from now on if it was not.
func (w worths) set(key string, value float64) {
	if x := w[key]; x != nil {
		x.value = value
		return
	}
	w[key] = &Worth{value}
}

// gone says that an object is not resident any more.
func (w worths) gone(key string) {
	if x := w[key]; x != nil {
		x.value = math.Inf(-1)
		delete(w, key)
	}
}
