package device

import "context"

// Bridge is a driver that copies between its own segments and those of other drivers by
// itself, at the speed of the link between them. Where there is none, bytes go by Read and
// Write, by way of a buffer of the caller.
type Bridge interface {
	// Bridges tells whether Pull and Push take s, a segment of another driver. It never
	// blocks.
	Bridges(s Segment) bool

	// Pull copies n bytes of src, another driver's, from srcOff on to dst, this driver's, at
	// dstOff. When ctx ends it stops after a few milliseconds, with ctx's error; what it has
	// written by then is not said. ErrSealed, ErrRange, ErrForeign. ErrUnsupported: nothing
	// was done, the way by a buffer is open.
	Pull(ctx context.Context, dst Segment, dstOff int64, src Segment, srcOff, n int64) error

	// Push is Pull the other way: src is this driver's, dst another's. What makes pulling weights
	// back fast is done on the way, or not.
	Push(ctx context.Context, dst Segment, dstOff int64, src Segment, srcOff, n int64) error

	// Expect says that src, sealed weights of another driver, will likely be pulled: what
	// makes that fast is begun in the background, or not. It never blocks for long.
	Expect(src Segment)
}

// Lender is a segment of main memory whose pages other drivers of this process may use in
// place.
type Lender interface {
	Segment

	// Lends tells whether it can be done on this machine. It never blocks.
	Lends() bool

	// Lend maps n bytes from off in this process, for reading or for both. Until the loan is
	// returned whatever needs the segment alone waits (Seal, Released, Destroy): loans are for
	// milliseconds. ErrRange, ErrSealed, ErrDestroyed.
	Lend(off, n int64, m Mode) (Loan, error)

	// Backing is which memory it is, to be compared: weights may get the memory of others that
	// were destroyed, with all that was entrusted of it. It never blocks.
	Backing() any

	// Entrust maps all of weights, for reading at least, for as long as their memory lives: when
	// that ends, recall is called, once, and the memory let go of when that returns. It must have
	// returned the loan by then. A loan that is returned before is not recalled. Of weights that are not
	// sealed yet, only what the caller has written itself may be looked at or pinned: no other
	// process has them, but their pages are still being made. ErrNotSealed of scratch, whose
	// pages a client can take away; ErrDestroyed.
	Entrust(recall func()) (Loan, error)
}

// Loan is memory of a segment, mapped in this process. Its methods may be called from any
// goroutine.
type Loan interface {
	// Bytes is the memory. What was lent for writing must be made Ready before it is touched.
	Bytes() []byte

	// Ready makes the pages of n bytes from off on, so that touching them is no page fault.
	// ErrOutOfMemory.
	Ready(off, n int64) error

	// Writes tells whether the memory is mapped for writing. It is written to by who writes the
	// segment, and by nobody once that is sealed.
	Writes() bool

	// Return ends the loan; nobody may touch the memory any more. A second time does nothing.
	Return()
}
