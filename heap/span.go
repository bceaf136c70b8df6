package heap

// span is a range of an owned segment, granted or free. All spans of a segment
// are in a tree by offset; the free ones of an owner, over all its segments, are
// in a second tree by size. Index 0 of the slice is no span.
type span struct {
	seg   *segment
	off   uint32 // in units, from the segment's start
	n     uint32 // in units
	used  bool
	links [2][2]uint32 // by tree and side
	waste int64        // bytes granted beyond what was asked
}

// The two trees that a span can be in.
const (
	byOffset = iota
	bySize
)

const (
	left = iota
	right
)

// spans holds the spans of a heap in one slice, and the treaps over them. A
// treap is a search tree that is also a heap by pseudo-random priorities, which
// keeps it of logarithmic depth without bookkeeping.
type spans struct {
	all   []span
	spare uint32 // unused entries, linked by links[0][0]
}

func (s *spans) init() { s.all = make([]span, 1) }

// make takes an entry for a span that is in no tree yet.
func (s *spans) make(seg *segment, off, n uint32, used bool) uint32 {
	x := s.spare
	if x != 0 {
		s.spare = s.all[x].links[0][0]
	} else {
		x = uint32(len(s.all))
		s.all = append(s.all, span{})
	}
	s.all[x] = span{seg: seg, off: off, n: n, used: used}
	return x
}

// drop gives back the entry of a span that is in no tree any more.
func (s *spans) drop(x uint32) {
	s.all[x] = span{}
	s.all[x].links[0][0] = s.spare
	s.spare = x
}

// priority is a fixed permutation of the indices.
func priority(x uint32) uint32 {
	x *= 0x9e3779b1
	x ^= x >> 15
	x *= 0x85ebca77
	return x ^ x>>13
}

// less orders two spans of one tree. No two are equal.
func (s *spans) less(tree int, x, y uint32) bool {
	a, b := &s.all[x], &s.all[y]
	if tree == byOffset {
		return a.off < b.off
	}
	return sizeLess(a.n, a.seg.id, a.off, b.n, b.seg.id, b.off)
}

func sizeLess(an uint32, as SegmentID, ao uint32, bn uint32, bs SegmentID, bo uint32) bool {
	switch {
	case an != bn:
		return an < bn
	case as != bs:
		return as < bs
	}
	return ao < bo
}

func (s *spans) insert(tree int, root *uint32, x uint32) {
	p := root
	for *p != 0 && priority(*p) > priority(x) {
		p = s.child(tree, *p, x)
	}
	rest := *p
	*p = x
	lo, hi := &s.all[x].links[tree][left], &s.all[x].links[tree][right]
	for rest != 0 {
		if s.less(tree, rest, x) {
			*lo = rest
			lo = &s.all[rest].links[tree][right]
			rest = *lo
		} else {
			*hi = rest
			hi = &s.all[rest].links[tree][left]
			rest = *hi
		}
	}
	*lo, *hi = 0, 0
}

func (s *spans) erase(tree int, root *uint32, x uint32) {
	p := root
	for *p != x {
		p = s.child(tree, *p, x)
	}
	lo, hi := s.all[x].links[tree][left], s.all[x].links[tree][right]
	for lo != 0 && hi != 0 {
		if priority(lo) > priority(hi) {
			*p = lo
			p = &s.all[lo].links[tree][right]
			lo = *p
		} else {
			*p = hi
			p = &s.all[hi].links[tree][left]
			hi = *p
		}
	}
	*p = lo | hi
	s.all[x].links[tree] = [2]uint32{}
}

// child is the link of at under which x belongs.
func (s *spans) child(tree int, at, x uint32) *uint32 {
	if s.less(tree, x, at) {
		return &s.all[at].links[tree][left]
	}
	return &s.all[at].links[tree][right]
}

// around finds the last span that starts at or before off and the first that
// starts after it; 0 where there is none.
func (s *spans) around(root, off uint32) (at, after uint32) {
	for x := root; x != 0; {
		if s.all[x].off <= off {
			at, x = x, s.all[x].links[byOffset][right]
		} else {
			after, x = x, s.all[x].links[byOffset][left]
		}
	}
	return at, after
}

// fit finds the smallest free span of at least n units.
func (s *spans) fit(root, n uint32) (found uint32) {
	for x := root; x != 0; {
		if s.all[x].n >= n {
			found, x = x, s.all[x].links[bySize][left]
		} else {
			x = s.all[x].links[bySize][right]
		}
	}
	return found
}

// next finds the free span that follows x in the order of sizes.
func (s *spans) next(root, x uint32) (found uint32) {
	for y := root; y != 0; {
		if s.less(bySize, x, y) {
			found, y = y, s.all[y].links[bySize][left]
		} else {
			y = s.all[y].links[bySize][right]
		}
	}
	return found
}

// walk calls f for the spans of a tree in order until it returns false.
func (s *spans) walk(tree int, root uint32, f func(x uint32) bool) bool {
	if root == 0 {
		return true
	}
	lo, hi := s.all[root].links[tree][left], s.all[root].links[tree][right]
	return s.walk(tree, lo, f) && f(root) && s.walk(tree, hi, f)
}
