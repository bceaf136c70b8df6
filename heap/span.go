package heap

import "slices"

// span is a range of an owned segment, granted or free. The spans of a segment are linked
// in order of offset. It has no pointer, so that the collector does not look at a million
// of them. Index 0 of the slice is no span.
type span struct {
	seg        uint32 // its segment's place in spans.segs
	off        uint32 // in units, from the segment's start
	n          uint32 // in units
	prev, next uint32 // the spans before and behind it
	waste      int64  // bytes granted beyond what was asked
}

// spans holds the spans of a heap in one slice.
type spans struct {
	all   []span
	spare uint32 // unused entries, linked by next
	// taken has a bit for each span that is granted. A free that looks at both neighbors, of which
	// most are, finds all bits in the nearest cache where the spans themselves are far away.
	taken []uint64

	segs  []*segment // by place; nil: to be used again
	holes []uint32   // the places that are nil
}

func (s *spans) init() { s.all, s.taken = make([]span, 1), make([]uint64, 1) }

// used reports whether a span is granted.
func (s *spans) used(x uint32) bool { return s.taken[x/64]>>(x%64)&1 != 0 }

// use says that a span is granted, or not any more.
func (s *spans) use(x uint32, granted bool) {
	if granted {
		s.taken[x/64] |= 1 << (x % 64)
	} else {
		s.taken[x/64] &^= 1 << (x % 64)
	}
}

// enter gives a segment a place.
func (s *spans) enter(seg *segment) {
	if n := len(s.holes); n > 0 {
		seg.place, s.holes = s.holes[n-1], s.holes[:n-1]
		s.segs[seg.place] = seg
		return
	}
	seg.place = uint32(len(s.segs))
	s.segs = append(s.segs, seg)
}

// exit takes a segment's place back.
func (s *spans) exit(seg *segment) {
	s.segs[seg.place] = nil
	s.holes = append(s.holes, seg.place)
}

// of is the segment that a span lies in.
func (s *spans) of(x uint32) *segment { return s.segs[s.all[x].seg] }

// make takes an entry for a span that is not linked yet.
func (s *spans) make(seg, off, n uint32, used bool) uint32 {
	x := s.spare
	if x != 0 {
		s.spare = s.all[x].next
	} else {
		x = uint32(len(s.all))
		s.all = append(s.all, span{})
		if x/64 == uint32(len(s.taken)) {
			s.taken = append(s.taken, 0)
		}
	}
	s.all[x] = span{seg: seg, off: off, n: n}
	s.use(x, used)
	return x
}

// drop gives back the entry of a free span that is not linked any more.
func (s *spans) drop(x uint32) {
	s.all[x] = span{next: s.spare}
	s.spare = x
}

// follow links y behind x.
func (s *spans) follow(x, y uint32) {
	after := s.all[x].next
	s.all[y].prev, s.all[y].next = x, after
	s.all[x].next = y
	if after != 0 {
		s.all[after].prev = y
	}
}

// swallow makes x as long as itself and the next span, which is dropped.
func (s *spans) swallow(x uint32) {
	y := s.all[x].next
	p, q := &s.all[x], &s.all[y]
	p.n += q.n
	p.next = q.next
	if q.next != 0 {
		s.all[q.next].prev = x
	}
	s.drop(y)
}

// walk calls f for the spans of a segment in order until it returns false.
func (s *spans) walk(first uint32, f func(x uint32) bool) {
	for x := first; x != 0; x = s.all[x].next {
		if !f(x) {
			return
		}
	}
}

// around finds the free span of a segment that holds the unit at off; 0: it is not free.
// The segment's free spans are put in order for that, and stay so for the next call:
// blocks are restored in great numbers, and seldom while others are granted.
func (s *spans) around(seg *segment, off uint32) (x uint32, at int) {
	if seg.ordered == nil {
		seg.ordered = []uint32{}
		s.walk(seg.first, func(x uint32) bool {
			if !s.used(x) {
				seg.ordered = append(seg.ordered, x)
			}
			return true
		})
	}
	at, ok := slices.BinarySearchFunc(seg.ordered, off, func(x, off uint32) int {
		switch p := &s.all[x]; {
		case p.off+p.n <= off:
			return -1
		case p.off > off:
			return 1
		}
		return 0
	})
	if !ok {
		return 0, 0
	}
	return seg.ordered[at], at
}
