package eviction

import (
	"fmt"

	"github.com/isobar-project/isobar/clock"
)

// Object is something that can be dropped and loaded again.
type Object struct {
	Key   string
	Bytes int64
	Cost  float64 // seconds to load it again
	// Place is where it lies, if there are several: objects of one place compete for the
	// same bytes.
	Place string
}

// Policy values objects. One caller at a time.
type Policy interface {
	// Name is the strategy's name in the contract.
	Name() string
	// Loaded says that o is resident from now on; again, that its size or cost
	// became known better. It is not a use.
	Loaded(o Object, now clock.Instant)
	// Used says that somebody needed the object. A load on demand is Loaded and
	// then Used.
	Used(key string, now clock.Instant)
	// Evicted says that the object went to make room. What is known of its
	// popularity is kept, within the policy's bound.
	Evicted(key string, now clock.Instant)
	// Removed says that the object is gone for good: everything is forgotten.
	Removed(key string)
	// Value is what keeping a resident object is worth; the smallest goes first.
	// It changes nothing. An object that the policy was never told of is worth
	// less than any other.
	Value(key string, now clock.Instant) float64
}

// DefaultRemembered is how many evicted objects a policy remembers: with
// 100-byte keys about 2 MiB.
const DefaultRemembered = 8192

// DefaultName is what the default policy is called: it weighs what a reload costs.
const DefaultName = "cost"

// Names lists the policies that New makes, the default one first.
func Names() []string { return []string{DefaultName, "gdsf", "lru", "lfu", "fifo", "size"} }

// New makes a policy by its name. "" and "cost" are a Panel: all policies at once, of
// which the default decides unless another is chosen.
func New(name string) (Policy, error) {
	switch name {
	case "", DefaultName:
		return NewPanel(), nil
	case "gdsf":
		return NewGDSF(DefaultRemembered), nil
	case "lru":
		return NewLRU(), nil
	case "lfu":
		return NewLFU(), nil
	case "fifo":
		return NewFIFO(), nil
	case "size":
		return NewSize(), nil
	}
	return nil, fmt.Errorf("eviction policy %q is unknown, want one of %v", name, Names())
}
