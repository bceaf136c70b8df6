package device

import "context"

// Stager is a driver that makes a segment in two steps. What a caller does with the descriptor, to
// keep it elsewhere, need not wait for the second.
type Stager interface {
	// Begin makes the memory and its descriptor (Segment.File), as Create does, with Create's
	// errors. Finish and Destroy are all that may be called with scratch until Finish has
	// returned; other calls are ErrUnfinished. Weights are finished by the first call that
	// needs their bytes, unless Finish was called before: so the first of several segments is
	// filled while the next are made.
	Begin(ctx context.Context, bytes int64, o CreateOptions) (Segment, error)

	// Finish does what Create does besides: the bytes can be used, and are zero where Create's are.
	// On an error the segment is as unfinished as before. To finish twice is no error.
	Finish(ctx context.Context, s Segment) error
}
