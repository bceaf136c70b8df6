package eviction

import (
	"math"

	"github.com/isobar-project/isobar/clock"
)

// The policies of this file look at one thing each. They are there for hosts whose
// owners know better than the default what matters, and forget an object when it goes.

// LFU lets go what was used least often since it was loaded. Of equals the planner takes
// the one that is unused for longest.
type LFU struct{ uses map[string]uint64 }

var _ Policy = (*LFU)(nil)

// NewLFU makes a policy that has seen nothing.
func NewLFU() *LFU { return &LFU{uses: make(map[string]uint64)} }

// Name implements Policy.
func (l *LFU) Name() string { return "lfu" }

// Loaded implements Policy.
func (l *LFU) Loaded(o Object, _ clock.Instant) { l.uses[o.Key] += 0 }

// Used implements Policy.
func (l *LFU) Used(key string, _ clock.Instant) {
	if n, known := l.uses[key]; known {
		l.uses[key] = n + 1
	}
}

// Evicted implements Policy.
func (l *LFU) Evicted(key string, _ clock.Instant) { delete(l.uses, key) }

// Removed implements Policy.
func (l *LFU) Removed(key string) { delete(l.uses, key) }

// Value implements Policy.
func (l *LFU) Value(key string, _ clock.Instant) float64 {
	if n, known := l.uses[key]; known {
		return float64(n)
	}
	return math.Inf(-1)
}

// FIFO lets go what was loaded first. A use changes nothing.
type FIFO struct {
	loads uint64
	at    map[string]uint64
}

var _ Policy = (*FIFO)(nil)

// NewFIFO makes a policy that has seen nothing.
func NewFIFO() *FIFO { return &FIFO{at: make(map[string]uint64)} }

// Name implements Policy.
func (f *FIFO) Name() string { return "fifo" }

// Loaded implements Policy. What becomes known better keeps its place.
func (f *FIFO) Loaded(o Object, _ clock.Instant) {
	if _, known := f.at[o.Key]; !known {
		f.loads++
		f.at[o.Key] = f.loads
	}
}

// Used implements Policy.
func (f *FIFO) Used(string, clock.Instant) {}

// Evicted implements Policy: who comes back stands at the end.
func (f *FIFO) Evicted(key string, _ clock.Instant) { delete(f.at, key) }

// Removed implements Policy.
func (f *FIFO) Removed(key string) { delete(f.at, key) }

// Value implements Policy.
func (f *FIFO) Value(key string, _ clock.Instant) float64 {
	if at, known := f.at[key]; known {
		return float64(at)
	}
	return math.Inf(-1)
}

// Size lets go the largest first, so that as few as possible go.
type Size struct{ bytes map[string]int64 }

var _ Policy = (*Size)(nil)

// NewSize makes a policy that has seen nothing.
func NewSize() *Size { return &Size{bytes: make(map[string]int64)} }

// Name implements Policy.
func (s *Size) Name() string { return "size" }

// Loaded implements Policy.
func (s *Size) Loaded(o Object, _ clock.Instant) { s.bytes[o.Key] = o.Bytes }

// Used implements Policy.
func (s *Size) Used(string, clock.Instant) {}

// Evicted implements Policy.
func (s *Size) Evicted(key string, _ clock.Instant) { delete(s.bytes, key) }

// Removed implements Policy.
func (s *Size) Removed(key string) { delete(s.bytes, key) }

// Value implements Policy: less for more bytes.
func (s *Size) Value(key string, _ clock.Instant) float64 {
	if n, known := s.bytes[key]; known {
		return -float64(n)
	}
	return math.Inf(-1)
}
