//go:build invariants

package heap

// invariants makes every change walk the whole heap.
const invariants = true
