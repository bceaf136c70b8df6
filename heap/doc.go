// Package heap decides where the grants of one device lie: in which segment, and
// at which offset of it. It is bookkeeping only: no memory, goroutine, clock or
// I/O. The device actor asks it, makes the segments and clears the bytes.
//
// # Model
//
// A segment is one physical handle of the driver. It lies either in the pool,
// idle and unshared, or belongs to one owner, an opaque string: whoever may map
// one byte of a segment may map all of it, so owners never mix. A block is a
// range of an owner's segment that was granted; it never overlaps another.
//
// The life of a segment is Add, then Take and Pool any number of times, then
// Remove. The life of a block is Alloc (or AllocWhole, or Restore at a
// take-over), then Free.
//
// # Contract
//
// Placement. [Heap.Place] says where a grant would go and changes nothing, so
// that a dry run and the real thing share the code. Grants of
// Config.OwnSegmentBytes and more take whole segments, made to measure; smaller
// ones take a whole segment of a warm class where that wastes little, else a
// block of a segment that the owner has, else a block of a new slab. Idle
// segments are used before new ones are made, and those that need no clearing
// before those that do.
//
// Best fit. Inside an owner's segments the smallest free range that holds the
// block is used; among equal ones that of the lowest segment id and offset. A
// block lies at the start of that range, but one of a tenth of its segment or
// more at the end. A freed range joins its free neighbours at once. The state depends on the
// blocks there are, not on the order in which they came.
//
// Defragmentation. [Heap.PlanDefragment] says which segments can be emptied by
// moving their blocks to others of the owner, [Heap.PlanRoom] how a block can be
// fit into a segment that has the bytes, but not in one piece. Both change
// nothing, copy no more than their budget of bytes, and leave alone what may not
// be moved; the owner of the bytes copies, and tells the heap. [Limits].Apart keeps
// every block whole while it is copied.
//
// Clean memory. The heap knows whose bytes a segment holds. A segment taken by
// another owner than its last must be cleared before it is handed out, and the
// heap told by [Heap.MarkClean]; one that goes back to the pool without that is
// treated as anybody's bytes, never as its taker's own.
//
// Warm pools. The pool keeps what it is given. What it gives back while nobody
// asks for it is the caller's to order: [Wane] says how much is due, so that half
// of a surplus goes in each half-life, and [Heap.Waning] which segments.
//
// Failure. What may come from outside (a wish that does not fit, a block read
// from a ledger) is an error. A call that contradicts the heap's state, such as
// freeing a block twice, is a defect of the caller, which would sooner or later
// grant a byte twice: it panics.
//
// Cost. Everything on the path of a grant takes time that hardly depends on how
// many blocks there are: a segment's blocks and free ranges lie in leaves of two
// cache lines each, in order, so that a block is found with its neighbors, and the
// best fit in a bin by its size, of which those with many ranges are search trees.
// It does not allocate once the heap has reached its size; Idle, Remove and
// placements of several segments may. A block takes about 35 bytes with the gap
// behind it.
//
// Concurrency. None: one goroutine at a time.
//
// To test code above it, use the real thing. [Heap.Check] walks every structure;
// built with the tag "invariants" the heap does that after each change.
package heap
