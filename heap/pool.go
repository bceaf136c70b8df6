package heap

import "slices"

// bucket holds the idle segments of one size.
type bucket struct {
	bytes    int64
	class    bool // a warm class: stays when empty
	segments int  // of this size, idle or not
	clean    list
	dirty    list
}

// link is a segment's place in a list.
type link struct{ prev, next *segment }

// The lists that an idle segment can be in.
const (
	inBucket = iota // its bucket's clean or dirty one
	ofOwner         // of the owner whose bytes it holds
	byAge           // dirty ones of the whole heap
)

// list is a list of segments linked through themselves, the longest idle first.
type list struct {
	kind        uint8
	bytes       int64 // ofOwner: the size of its segments
	n           int
	first, last *segment
}

func (l *list) push(s *segment) {
	s.links[l.kind] = link{prev: l.last}
	if l.last != nil {
		l.last.links[l.kind].next = s
	} else {
		l.first = s
	}
	l.last = s
	l.n++
}

func (l *list) remove(s *segment) {
	at := s.links[l.kind]
	if at.prev != nil {
		at.prev.links[l.kind].next = at.next
	} else {
		l.first = at.next
	}
	if at.next != nil {
		at.next.links[l.kind].prev = at.prev
	} else {
		l.last = at.prev
	}
	s.links[l.kind] = link{}
	l.n--
}

// newest is the segment used last, whose bytes are the likeliest to be in a
// cache, of those not picked yet.
func (l *list) newest() *segment {
	s := l.last
	for s != nil && s.picked {
		s = s.links[l.kind].prev
	}
	return s
}

func (h *Heap) findBucket(bytes int64) (at int, ok bool) {
	return slices.BinarySearchFunc(h.sizes, bytes, func(b *bucket, bytes int64) int {
		switch {
		case b.bytes < bytes:
			return -1
		case b.bytes > bytes:
			return 1
		}
		return 0
	})
}

// bucket finds or makes the bucket of a size.
func (h *Heap) bucket(bytes int64) *bucket {
	at, ok := h.findBucket(bytes)
	if !ok {
		h.sizes = slices.Insert(h.sizes, at, &bucket{
			bytes: bytes, clean: list{kind: inBucket}, dirty: list{kind: inBucket},
		})
	}
	return h.sizes[at]
}

// sized is the list of idle segments of one size that hold the owner's bytes.
func (o *owner) sized(bytes int64) *list {
	for i := range o.pooled {
		if o.pooled[i].bytes == bytes {
			return &o.pooled[i]
		}
	}
	o.pooled = slices.DeleteFunc(o.pooled, func(l list) bool { return l.n == 0 })
	o.pooled = append(o.pooled, list{kind: ofOwner, bytes: bytes})
	return &o.pooled[len(o.pooled)-1]
}

// shelve puts an idle segment within the pool's reach.
func (h *Heap) shelve(s *segment) {
	h.sums.pooled += s.bytes
	h.sums.idle++
	if !s.dirty {
		s.bucket.clean.push(s)
		return
	}
	s.bucket.dirty.push(s)
	h.dirty.push(s)
	if s.last != nil {
		s.last.sized(s.bytes).push(s)
	}
}

func (h *Heap) unshelve(s *segment) {
	h.sums.pooled -= s.bytes
	h.sums.idle--
	if !s.dirty {
		s.bucket.clean.remove(s)
		return
	}
	s.bucket.dirty.remove(s)
	h.dirty.remove(s)
	if s.last != nil {
		s.last.sized(s.bytes).remove(s)
	}
}

// pick finds the idle segment of least to most bytes that suits the owner best:
// one that holds its own bytes, else a clean one, else any; of those the
// smallest, and then the one used last.
func (h *Heap) pick(o *owner, least, most int64) *segment {
	if o != nil {
		var best *segment
		for i := range o.pooled {
			if l := &o.pooled[i]; l.bytes >= least && l.bytes <= most && (best == nil || l.bytes < best.bytes) {
				if s := l.newest(); s != nil {
					best = s
				}
			}
		}
		if best != nil {
			return best
		}
	}
	at, _ := h.findBucket(least)
	var dirty *segment
	for ; at < len(h.sizes) && h.sizes[at].bytes <= most; at++ {
		b := h.sizes[at]
		if s := b.clean.newest(); s != nil {
			return s
		}
		if dirty == nil {
			dirty = b.dirty.newest()
		}
	}
	return dirty
}

// Dirty names the pooled segment that has been waiting longest to be cleared.
// Whoever clears it outside the heap's goroutine sets it aside first.
func (h *Heap) Dirty() (id SegmentID, ok bool) {
	if h.dirty.first == nil {
		return 0, false
	}
	return h.dirty.first.id, true
}

// IdleOf is how many idle segments of a size the pool has, cleared or not.
func (h *Heap) IdleOf(bytes int64) int {
	if at, ok := h.findBucket(bytes); ok {
		return h.sizes[at].clean.n + h.sizes[at].dirty.n
	}
	return 0
}

// Idle names pooled segments to give up so that at least want bytes come free;
// all of them where the pool has not so many. It comes close to the fewest
// bytes over (where each size divides the next, as those of the classes do, no
// other choice is closer), and of one size names dirty ones first, then those
// idle for longest. It changes nothing.
func (h *Heap) Idle(want int64) []SegmentID {
	if want <= 0 {
		return nil
	}
	counts := make([]int, len(h.sizes))
	best, bestOver := []int(nil), int64(-1)
	// Greedy from each size downward: leaving out the largest sizes can come
	// closer where sizes don't divide each other.
	for from := len(h.sizes) - 1; from >= 0 && bestOver != 0; from-- {
		clear(counts)
		left := want
		for i := from; i >= 0 && left > 0; i-- {
			b := h.sizes[i]
			have := b.clean.n + b.dirty.n
			counts[i] = int(min(int64(have), left/b.bytes))
			left -= int64(counts[i]) * b.bytes
			over := b.bytes - left
			if left == 0 {
				over = 0
			} else if counts[i] == have {
				continue
			}
			if bestOver < 0 || over < bestOver {
				best, bestOver = append(best[:0], counts...), over
				if left > 0 {
					best[i]++
				}
			}
		}
	}
	if bestOver < 0 {
		for i, b := range h.sizes {
			counts[i] = b.clean.n + b.dirty.n
		}
		best = counts
	}
	var ids []SegmentID
	for i := range slices.Backward(h.sizes) {
		n := best[i]
		for _, l := range [...]*list{&h.sizes[i].dirty, &h.sizes[i].clean} {
			for s := l.first; s != nil && n > 0; s = s.links[inBucket].next {
				ids = append(ids, s.id)
				n--
			}
		}
	}
	return ids
}
