package heap

import (
	"math"
	"math/bits"
)

// span is a range of an owned segment, granted or free.
type span struct {
	off, n  uint32 // in units, from the segment's start
	granted bool
	waste   int64 // bytes granted beyond what was asked
}

// leafSpans is how many spans a leaf holds at most: with 23 it is two lines of the processor's
// cache, which are fetched together.
const leafSpans = 23

// leaf holds some spans of a segment that follow each other. A span is where it begins and
// whether it is granted, in one number, and a byte: where one ends the next begins. So sixty
// thousand blocks fit in the processor's nearer caches, with what is next to each beside it.
// It has no pointer, so that the collector does not look at a million of them. Leaf 0 is none.
type leaf struct {
	seg   uint32            // its segment's place in spans.segs
	next  uint32            // the segment's leaf behind it
	end   uint32            // where its last span ends
	at    [leafSpans]uint32 // twice the offset, and 1 where granted; ascending, and unused beyond n
	waste [leafSpans]uint8  // see spans.waste
	n     uint8
}

const (
	// unused is no less than every number in leaf.at.
	unused = math.MaxUint32
	// muchWaste stands for more than a byte can say: see spans.waste.
	muchWaste = math.MaxUint8
)

// border is where a leaf's first span begins.
type border struct{ off, leaf uint32 }

// mark is a span's place; leaf 0: none.
type mark struct{ leaf, pos uint32 }

// spans holds the spans of a heap.
type spans struct {
	leaves []leaf
	spare  uint32 // unused leaves, linked by next
	// much is the waste of blocks that waste more than muchWaste and are not all of their
	// segment, by segment's place and offset.
	much map[uint64]int64

	// guesses are the leaves that were found for some units of each segment; they may be
	// anything since.
	guesses []uint32

	segs  []*segment // by place; nil: to be used again
	holes []uint32   // the places that are nil
}

const (
	leastGuesses = 64
	// guessesPerLeaf makes most units that share a guess share a leaf.
	guessesPerLeaf = 4
	// guessSpread keeps the guesses of segments apart.
	guessSpread = 0x9e3779b1
)

func (t *spans) init() {
	t.leaves = make([]leaf, 1)
	t.guesses = make([]uint32, leastGuesses)
}

// enter gives a segment a place, and one free span.
func (t *spans) enter(s *segment) {
	if n := len(t.holes); n > 0 {
		s.place, t.holes = t.holes[n-1], t.holes[:n-1]
		t.segs[s.place] = s
	} else {
		s.place = uint32(len(t.segs))
		t.segs = append(t.segs, s)
	}
	x := t.make(s.place)
	l := &t.leaves[x]
	l.n, l.at[0], l.end = 1, 0, s.units
	s.borders = append(s.borders[:0], border{0, x})
	s.near = nearOf(s.units, 1)
}

// exit forgets a segment that is one free span.
func (t *spans) exit(s *segment) {
	t.drop(s.borders[0].leaf)
	s.borders = s.borders[:0]
	t.segs[s.place] = nil
	t.holes = append(t.holes, s.place)
}

// before is 1 where a is less than b, else 0: without a branch, as either is as likely.
func before(a uint32, b uint64) uint64 { return (uint64(a) - b) >> 63 }

// upTo is how many of a leaf's spans begin at off or before. It looks at each eighth, then
// at those between two: what it looks at does not depend on what it saw last, but once.
func (l *leaf) upTo(off uint32) uint32 {
	k := uint64(off)<<1 + 2
	p := 8 * (before(l.at[7], k) + before(l.at[15], k))
	q := (*[7]uint32)(l.at[p:])
	p += before(q[0], k) + before(q[1], k) + before(q[2], k) + before(q[3], k) + before(q[4], k) + before(q[5], k) + before(q[6], k)
	return min(uint32(p), uint32(l.n))
}

// nearOf is the shift of offsets after which units of a segment with so many leaves share a guess.
func nearOf(units uint32, leaves int) uint8 {
	return uint8(max(0, bits.Len32(units/guessesPerLeaf/uint32(leaves))))
}

// borderOf is the last border of a segment at a unit or before it.
func (s *segment) borderOf(off uint32) int {
	at := uint64(0)
	for n := uint64(len(s.borders)); n > 1; {
		half := n / 2
		at += half & -before(s.borders[at+half].off, uint64(off)+1)
		n -= half
	}
	return int(at)
}

// find is the span of a segment that holds the unit at off. Where the leaf that had its
// neighborhood last has it still, or the next, no border is looked at.
func (t *spans) find(s *segment, off uint32) mark {
	guess := &t.guesses[int(s.place*guessSpread+off>>s.near)&(len(t.guesses)-1)]
	x := *guess
	l := &t.leaves[x]
	if first := l.at[0] >> 1; l.seg != s.place || off-first >= l.end-first {
		if next := &t.leaves[l.next]; l.seg == s.place && off-l.end < next.end-l.end {
			x, l = l.next, next
		} else {
			x = s.borders[s.borderOf(off)].leaf
			*guess = x
			l = &t.leaves[x]
		}
	}
	return mark{x, l.upTo(off) - 1}
}

// off is where a span begins.
func (t *spans) off(m mark) uint32 { return t.leaves[m.leaf].at[m.pos] >> 1 }

// end is where a span ends.
func (t *spans) end(m mark) uint32 { return t.leaves[m.leaf].endOf(m.pos) }

// between reports whether a span stands between two granted ones, as far as its leaf says.
func (l *leaf) between(pos uint32) bool {
	return pos > 0 && pos+1 < uint32(l.n) && l.at[pos-1]&l.at[pos+1]&1 != 0
}

// endOf is where one of a leaf's spans ends.
func (l *leaf) endOf(pos uint32) uint32 {
	if pos+1 < uint32(l.n) {
		return l.at[pos+1] >> 1
	}
	return l.end
}

// granted reports whether a span is.
func (t *spans) granted(m mark) bool { return t.leaves[m.leaf].at[m.pos]&1 != 0 }

// before is the span before one of the same segment.
func (t *spans) before(m mark) mark {
	if m.pos > 0 {
		return mark{m.leaf, m.pos - 1}
	}
	s := t.segs[t.leaves[m.leaf].seg]
	x := s.borders[s.borderOf(t.off(m))-1].leaf
	return mark{x, uint32(t.leaves[x].n) - 1}
}

// behind is the span behind one of the same segment.
func (t *spans) behind(m mark) mark {
	if m.pos+1 < uint32(t.leaves[m.leaf].n) {
		return mark{m.leaf, m.pos + 1}
	}
	return mark{t.leaves[m.leaf].next, 0}
}

// span is all there is to know about one.
func (t *spans) span(m mark) span {
	p := span{off: t.off(m), granted: t.granted(m)}
	p.n = t.end(m) - p.off
	if p.granted {
		p.waste = t.waste(m)
	}
	return p
}

// walk calls f for the spans of a segment in order until it returns false.
func (t *spans) walk(s *segment, f func(p span) bool) {
	for m := (mark{s.borders[0].leaf, 0}); m.leaf != 0; m = t.behind(m) {
		if !f(t.span(m)) {
			return
		}
	}
}

// waste is what a block wastes. Few waste more than fits in a byte: those rounded to a
// larger unit than the usual 256 bytes, and those that are all of a segment.
func (t *spans) waste(m mark) int64 {
	l := &t.leaves[m.leaf]
	if w := l.waste[m.pos]; w < muchWaste {
		return int64(w)
	}
	s := t.segs[l.seg]
	if s.waste != 0 {
		return s.waste
	}
	if w, ok := t.much[t.key(m)]; ok {
		return w
	}
	return muchWaste
}

// setWaste notes what a block wastes.
func (t *spans) setWaste(m mark, waste int64) {
	l := &t.leaves[m.leaf]
	l.waste[m.pos] = uint8(min(waste, muchWaste))
	if waste <= muchWaste {
		return
	}
	if s := t.segs[l.seg]; t.end(m)-t.off(m) == s.units {
		s.waste = waste
		return
	}
	if t.much == nil {
		t.much = map[uint64]int64{}
	}
	t.much[t.key(m)] = waste
}

// takeWaste gives what a block wastes, and forgets it.
func (t *spans) takeWaste(m mark) int64 {
	waste := t.waste(m)
	if waste > muchWaste {
		t.segs[t.leaves[m.leaf].seg].waste = 0
		delete(t.much, t.key(m))
	}
	return waste
}

func (t *spans) key(m mark) uint64 { return uint64(t.leaves[m.leaf].seg)<<32 | uint64(t.off(m)) }
