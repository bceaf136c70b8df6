// Package device is the seam between the house and the hardware: one Driver
// owns the bytes of one memory device and hands them out as segments.
//
// A Segment is one physical handle of the driver (a memfd on RAM, a CUDA VMM
// handle on a GPU): the unit of sharing, spilling and moving. Its bytes are real
// when Create returns, can be mapped by another process without a copy, and
// outlive this process as long as somebody keeps its descriptor.
//
// # Two kinds of segment
//
// Scratch is read-write memory for one owner: populated, zero, and sealed
// against shrinking, growing and further seals before any descriptor leaves, so
// that no client can pull pages from under whoever touches them.
//
// Weights are written once by Fill, then Seal'd: after Seal nobody, the driver
// included, can write them or map them writable; before Seal they cannot be
// exported. They are never recycled, only destroyed.
//
// # Who calls, and blocking
//
// Every method may block (populating a gigabyte takes a second on small pages)
// and is called from worker goroutines of the device's actor, never from an
// actor itself. Info is the exception: it never blocks and never changes. All
// methods may be called from any goroutine; a driver whose hardware needs a
// particular thread keeps one itself. Fill may run concurrently on disjoint
// ranges of one segment. What the caller must order itself: Destroy comes after
// every other call on that segment has returned, and Clear, Copy, Write and
// Fill of overlapping ranges do not run at once.
//
// # Ownership
//
// A Segment belongs to the driver that made it; passing it to another driver is
// ErrForeign. Segment.File stays owned by the segment (the vault gets it through
// SCM_RIGHTS, which duplicates it). A file given by Export belongs to the caller.
// Import takes its file over on success only. Destroy drops this process's
// references; the bytes are back in the machine when the last other holder is
// gone too, which Released proves beforehand.
//
// # Between drivers
//
// Bytes of one driver reach another by Read and Write, by way of a buffer of the caller; or a
// driver that is a Bridge copies them by itself. It gets at main memory by the segment's being
// a Lender.
//
// # Failure
//
// A Create or Import that fails leaves nothing behind. Errors wrap the sentinels
// of this package; a driver that reports ErrLost reports it for ever after, and
// its segments can only be destroyed. Short files, truncated while being read or
// not, are errors and never signals. Cancelling a context stops Create and Fill
// at the next chunk (at most 16 MiB of work).
//
// # How to test
//
// Package device/conformance checks a driver by its effects: the kernel's block
// counts, another process's checksum, a consumer killed with kill -9. Every
// driver passes it unchanged. For tests above the seam, device/sim is a GPU of
// declared size with faults to inject.
package device
