package eviction

import (
	"math"

	"github.com/isobar-project/isobar/clock"
)

// LRU lets go what was unused for longest. It counts events, not time, so two
// uses at one instant still have an order.
type LRU struct {
	events uint64
	last   map[string]uint64
}

var _ Policy = (*LRU)(nil)

// NewLRU makes a policy that has seen nothing.
func NewLRU() *LRU { return &LRU{last: make(map[string]uint64)} }

// Name implements Policy.
func (l *LRU) Name() string { return "lru" }

// Loaded implements Policy. A first load counts like a use: else what is on its
// way in would be the first to go.
func (l *LRU) Loaded(o Object, _ clock.Instant) {
	if _, known := l.last[o.Key]; !known {
		l.touch(o.Key)
	}
}

// Used implements Policy.
func (l *LRU) Used(key string, _ clock.Instant) {
	if _, known := l.last[key]; known {
		l.touch(key)
	}
}

// Evicted implements Policy: recency says nothing any more once it is gone.
func (l *LRU) Evicted(key string, _ clock.Instant) { delete(l.last, key) }

// Removed implements Policy.
func (l *LRU) Removed(key string) { delete(l.last, key) }

// Value implements Policy.
func (l *LRU) Value(key string, _ clock.Instant) float64 {
	if at, known := l.last[key]; known {
		return float64(at)
	}
	return math.Inf(-1)
}

func (l *LRU) touch(key string) {
	l.events++
	l.last[key] = l.events
}
