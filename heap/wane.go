package heap

import (
	"math"
	"time"
)

// Wane is how a pool that nobody asks for shrinks: by a share of what is over its floor in
// each span of time, so that much goes soon, little late, and nothing all at once.
// Whoever keeps the pool asks from time to time; how often does not matter to the curve.
type Wane struct {
	// HalfLife is in what time half of the surplus goes; it must be above zero.
	HalfLife time.Duration
	owed     float64 // bytes that should have gone and have not; segments go whole, so it may be below zero
}

// Due notes that the pool had surplus bytes over its floor for a further span of time, in
// which nobody used it, and says how many bytes should go now.
func (w *Wane) Due(surplus int64, span time.Duration) int64 {
	left := max(0, float64(surplus)-w.owed)
	w.owed = min(float64(surplus), w.owed+left*(1-math.Exp2(-float64(span)/float64(w.HalfLife))))
	return max(0, int64(w.owed))
}

// Gone notes that bytes went.
func (w *Wane) Gone(bytes int64) { w.owed -= float64(bytes) }

// Surplus is how many bytes of the pool lie in segments beyond those that keep says for
// their size.
func (h *Heap) Surplus(keep func(bytes int64) int) (bytes int64) {
	for _, b := range h.sizes {
		if n := b.clean.n + b.dirty.n; n > 0 {
			bytes += b.bytes * int64(max(0, n-keep(b.bytes)))
		}
	}
	return bytes
}

// Waning names at most so many pooled segments to give up so that about due bytes go: of each
// size those beyond what keep says, dirty ones first, then those idle for longest. A segment
// goes when half of it is due. It changes nothing.
func (h *Heap) Waning(due int64, keep func(bytes int64) int, most int) (ids []SegmentID) {
	for i := len(h.sizes) - 1; i >= 0; i-- {
		b := h.sizes[i]
		n := min(b.clean.n+b.dirty.n-keep(b.bytes), int((due+b.bytes/2)/b.bytes), most-len(ids))
		for _, l := range [...]*list{&b.dirty, &b.clean} {
			for s := l.first; s != nil && n > 0; s = s.links[inBucket].next {
				ids = append(ids, s.id)
				due -= b.bytes
				n--
			}
		}
	}
	return ids
}
