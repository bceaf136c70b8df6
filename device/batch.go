package device

import "context"

// Range is a part of a segment.
type Range struct {
	Segment    Segment
	Off, Bytes int64
}

// Batcher is a driver that clears and copies many ranges as one piece of work: the device has
// all of it before anybody waits. Clear and Copy of each range, one after the other, would
// leave it idle in between.
//
// did is told of bytes that are done, some milliseconds' worth at a time, from one goroutine.
// When ctx ends the work stops after as long, with ctx's error. What has been written by then
// is not said. ErrSealed, ErrRange, ErrForeign, ErrDestroyed, before a byte is written.
type Batcher interface {
	// ClearAll sets all bytes of ranges to value.
	ClearAll(ctx context.Context, ranges []Range, value byte, did func(n int64)) error

	// CopyAll copies range by range: to[i] has as many bytes as from[i]. Nothing that is
	// written may be read by the same call.
	CopyAll(ctx context.Context, to, from []Range, did func(n int64)) error
}
