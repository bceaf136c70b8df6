// Package eviction decides what goes when room must be made: policies say what
// each object is worth, the planner picks the cheapest set that frees enough.
//
// # Policies
//
// A Policy is told of every load, use and eviction, and answers with a Value:
// the smaller goes first. Values of one policy compare with each other at one
// moment and mean nothing else. Popularity outlives eviction, within a bound, so
// that an object that comes back is not a stranger. Nothing expires on a timer:
// while there is room, nothing goes.
//
// Cost is the default. It learns, from the uses so far, how likely each object is to be
// used again after having been unused for so many requests. The others look at one thing
// each and are there to be chosen by name.
//
// # Plans
//
// MakePlan chooses among candidates and changes nothing, neither the policy nor
// the candidates: the same call serves a dry run. It is deterministic, and its
// victims don't depend on the order of the candidates. Each victim has its reason in words,
// and so has, where that is asked for, each object that had to be kept. Who plans often keeps
// a Planner, and shows it where the policy keeps its worths: a Bookkeeper does.
//
// # Tiers
//
// What goes from a device can be kept in a slower tier below it. A Listener hears there of
// the uses above; Returning says what is worth there what comes down, and Plan.Yields says whether
// what is there should give way to it.
//
// Both are plain single-threaded values without goroutine, clock or I/O: one
// caller at a time. Package eviction/replay runs a policy over a request trace.
package eviction
