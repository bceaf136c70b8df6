package schemas

import "math"

// Units of sizes. A megabyte of the contract (`_mb`) is Megabyte bytes.
const (
	Megabyte = 1 << 20

	// MaxPayloadBytes is the largest request accepted.
	MaxPayloadBytes = 256 << 10
	// MaxRequestIDBytes is the longest request_id.
	MaxRequestIDBytes = 128
	// MaxStringBytes is the longest string of a request where its field says nothing else.
	MaxStringBytes = 256
	// MaxListItems is the longest list of a request where its field says nothing else.
	MaxListItems = 4096
	// MaxSizeBytes is the largest size, offset or limit that a request can name, 1 EiB:
	// far beyond any device, and small enough that sums and roundings of a few of them
	// cannot overflow.
	MaxSizeBytes = 1 << 60
	// MaxAlignment is the largest alignment of a grant.
	MaxAlignment = 2 << 20

	// DefaultWaitMs and MaxWaitMs bound how long a command is waited for before it
	// is answered as queued or running.
	DefaultWaitMs = 2000
	MaxWaitMs     = 600_000
)

// Megabytes gives a size in megabytes.
func Megabytes(bytes int64) float64 { return float64(bytes) / Megabyte }

// BytesOfMegabytes gives the bytes of a size in megabytes, rounded up. It reports
// false for what is not a size: negative, not finite, or beyond int64.
func BytesOfMegabytes(mb float64) (int64, bool) {
	bytes := math.Ceil(mb * Megabyte)
	if !(bytes >= 0 && bytes < 1<<63) {
		return 0, false
	}
	return int64(bytes), true
}
