// Package store keeps records in a slice of shared memory so that they survive
// the process that wrote them.
//
// A [Region] is one such slice, normally a mapped memfd that the vault holds.
// It lives exactly as long as the memory it describes, so nothing is ever
// synced to a disk: a record is safe as soon as its bytes are in the mapping.
// What the package defends against is a writer that is killed between two
// stores.
//
// # Contract
//
// Atomicity. A transaction is any number of inserts, updates and deletes. An
// image of the region taken after any single store opens to exactly the state
// before the transaction or exactly the state after it.
//
// How. Every record has two slots, each with the number of the transaction that
// wrote it, the place of its payload and a checksum. A change writes a fresh
// extent and the slot that is not in force; nothing that is in force is ever
// overwritten. One aligned 64-bit store of the commit word then makes all slots
// of that number valid at once. Until that store the half-written slots carry
// either an older number than their neighbour, and lose to it, or a newer number
// than the commit word, and are scrubbed by [Open] before the number is used
// again. The order of the stores before the commit word therefore does not
// matter; only that all of them precede it, which the atomic store gives. (A
// killed process loses no store that was executed before the one that counted.)
//
// Ordering. Records have no order of their own: ids of deleted records are used
// again, lowest first after an Open. Put a sequence into the payload where order
// matters.
//
// Ownership. One writer, one goroutine at a time: a region has no lock. It keeps
// the slice it was given and copies every payload handed to it. Slices that it
// hands out point into the region and are valid until the next Commit.
//
// Blocking. Nothing here blocks or does I/O, but the first touch of a page of
// the mapping is a page fault.
//
// Failure. [ErrFull] leaves everything as it was, and a transaction of deletes
// alone never meets it. An image that no writer can have left gives a
// [*CorruptError], one of another format version a [*VersionError]; opening
// never panics, never changes an image that it refuses, and allocates in
// proportion to the size of the image at most.
//
// Sparse memory. The record table grows up from the start and the payloads grow
// down from the end, each reusing freed room before new, so that an idle region
// of many megabytes has a few resident pages. Open reads only what was ever used.
//
// To test code that uses a region, give it make([]byte, n). To test what
// happens when the writer dies, copy the slice from the observer
// ([Region.SetObserver]) and open the copy.
package store
