// Package replay runs the heap over traces of allocations and of model requests. It
// is what `make bench-heap` and tests judge the heap by; the node does not use it.
//
// [Allocations] reads the lifetimes of tensors: the smallest arena in which such a
// trace succeeds tells what the sub-allocator loses to fragmentation, and [Curve]
// what moving blocks wins back. [Tax] replays model requests: how much longer models
// reload because memory comes in segments, and not as a count of bytes.
//
// Everything here repeats exactly. What takes time in the world is measured by
// cmd/bench-heap.
package replay
