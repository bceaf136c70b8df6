package eviction

import "github.com/isobar-project/isobar/clock"

// The policies of this file look at one thing each. They are there for hosts whose
// owners know better than the default what matters, and forget an object when it goes.

// LRU lets go what was unused for longest. It counts events, not time, so two
// uses at one instant still have an order.
type LRU struct {
	worths // the number of the last event
	events float64
}

var _ Bookkeeper = (*LRU)(nil)

// NewLRU makes a policy that has seen nothing.
func NewLRU() *LRU { return &LRU{worths: worths{}} }

// Name implements Policy.
func (l *LRU) Name() string { return "lru" }

// Loaded implements Policy. A first load counts like a use: else what is on its
// way in would be the first to go.
func (l *LRU) Loaded(o Object, _ clock.Instant) {
	if l.worths[o.Key] == nil {
		l.touch(o.Key)
	}
}

// Used implements Policy.
func (l *LRU) Used(key string, _ clock.Instant) {
	if l.worths[key] != nil {
		l.touch(key)
	}
}

// Evicted implements Policy: recency says nothing any more once it is gone.
func (l *LRU) Evicted(key string, _ clock.Instant) { l.gone(key) }

// Removed implements Policy.
func (l *LRU) Removed(key string) { l.gone(key) }

func (l *LRU) touch(key string) {
	l.events++
	l.set(key, l.events)
}

// LFU lets go what was used least often since it was loaded. Of equals the planner takes
// the one that is unused for longest.
type LFU struct {
	worths // the number of uses
}

var _ Bookkeeper = (*LFU)(nil)

// NewLFU makes a policy that has seen nothing.
func NewLFU() *LFU { return &LFU{worths{}} }

// Name implements Policy.
func (l *LFU) Name() string { return "lfu" }

// Loaded implements Policy.
func (l *LFU) Loaded(o Object, _ clock.Instant) {
	if l.worths[o.Key] == nil {
		l.set(o.Key, 0)
	}
}

// Used implements Policy.
func (l *LFU) Used(key string, _ clock.Instant) {
	if uses := l.worths[key]; uses != nil {
		uses.value++
	}
}

// Evicted implements Policy.
func (l *LFU) Evicted(key string, _ clock.Instant) { l.gone(key) }

// Removed implements Policy.
func (l *LFU) Removed(key string) { l.gone(key) }

// FIFO lets go what was loaded first. A use changes nothing.
type FIFO struct {
	worths // the number of the load
	loads  float64
}

var _ Bookkeeper = (*FIFO)(nil)

// NewFIFO makes a policy that has seen nothing.
func NewFIFO() *FIFO { return &FIFO{worths: worths{}} }

// Name implements Policy.
func (f *FIFO) Name() string { return "fifo" }

// Loaded implements Policy. What becomes known better keeps its place.
func (f *FIFO) Loaded(o Object, _ clock.Instant) {
	if f.worths[o.Key] == nil {
		f.loads++
		f.set(o.Key, f.loads)
	}
}

// Used implements Policy.
func (f *FIFO) Used(string, clock.Instant) {}

// Evicted implements Policy: who comes back stands at the end.
func (f *FIFO) Evicted(key string, _ clock.Instant) { f.gone(key) }

// Removed implements Policy.
func (f *FIFO) Removed(key string) { f.gone(key) }

// Size lets go the largest first, so that as few as possible go.
type Size struct {
	worths // less for more bytes
}

var _ Bookkeeper = (*Size)(nil)

// NewSize makes a policy that has seen nothing.
func NewSize() *Size { return &Size{worths{}} }

// Name implements Policy.
func (s *Size) Name() string { return "size" }

// Loaded implements Policy.
func (s *Size) Loaded(o Object, _ clock.Instant) { s.set(o.Key, -float64(o.Bytes)) }

// Used implements Policy.
func (s *Size) Used(string, clock.Instant) {}

// Evicted implements Policy.
func (s *Size) Evicted(key string, _ clock.Instant) { s.gone(key) }

// Removed implements Policy.
func (s *Size) Removed(key string) { s.gone(key) }
