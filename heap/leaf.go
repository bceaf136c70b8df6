package heap

import "slices"

// A leaf that has fewer spans than this is joined with a neighbor where both fit with room to spare.
const (
	fewSpans  = leafSpans / 4
	manySpans = leafSpans * 3 / 4
)

// make takes an unused leaf.
func (t *spans) make(seg uint32) uint32 {
	x := t.spare
	if x != 0 {
		t.spare = t.leaves[x].next
	} else {
		x = uint32(len(t.leaves))
		t.leaves = append(t.leaves, leaf{})
		if len(t.leaves)*guessesPerLeaf > len(t.guesses) {
			t.guesses = make([]uint32, 2*len(t.guesses))
		}
	}
	l := &t.leaves[x]
	*l = leaf{seg: seg}
	l.clear(0)
	return x
}

// drop gives back a leaf that is not linked any more.
func (t *spans) drop(x uint32) {
	t.leaves[x] = leaf{next: t.spare}
	t.spare = x
}

// clear says that the spans from one on are unused.
func (l *leaf) clear(from uint32) {
	for i := from; i < leafSpans; i++ {
		l.at[i] = unused
	}
	l.n = uint8(from)
}

// insert puts a span that begins inside another one behind it, and says where. What it
// inserts into may be in another leaf afterwards.
func (t *spans) insert(m mark, off uint32, granted uint32) mark {
	l := &t.leaves[m.leaf]
	if l.n == leafSpans {
		m = t.split(m)
		l = &t.leaves[m.leaf]
	}
	p := m.pos + 1
	for i := uint32(l.n); i > p; i-- {
		l.at[i], l.waste[i] = l.at[i-1], l.waste[i-1]
	}
	l.at[p], l.waste[p] = off<<1|granted, 0
	l.n++
	return mark{m.leaf, p}
}

// split moves half of a full leaf to a new one, and says where m is then. What is inserted
// behind all others begins a leaf instead: ascending ones fill them.
func (t *spans) split(m mark) mark {
	y := t.make(t.leaves[m.leaf].seg)
	l, r := &t.leaves[m.leaf], &t.leaves[y]
	from := uint32(leafSpans / 2)
	if m.pos == leafSpans-1 && l.next == 0 {
		from = leafSpans - 1
	}
	r.n = uint8(copy(r.at[:], l.at[from:]))
	copy(r.waste[:], l.waste[from:])
	l.clear(from)
	r.end, l.end = l.end, r.at[0]>>1
	r.next, l.next = l.next, y
	s := t.segs[l.seg]
	s.borders = slices.Insert(s.borders, s.borderOf(l.at[0]>>1)+1, border{l.end, y})
	s.near = nearOf(s.units, len(s.borders))
	if m.pos >= from {
		return mark{y, m.pos - from}
	}
	return m
}

// cut takes k spans of a leaf out: they belong to the span before them from now on. The
// leaf goes when it becomes empty.
func (t *spans) cut(m mark, k uint32) {
	l := &t.leaves[m.leaf]
	first, n := l.at[0]>>1, uint32(l.n)
	for i := m.pos; i+k < n; i++ {
		l.at[i], l.waste[i] = l.at[i+k], l.waste[i+k]
	}
	for i := n - k; i < n; i++ {
		l.at[i] = unused
	}
	l.n -= uint8(k)
	if m.pos > 0 {
		return
	}
	s := t.segs[l.seg]
	b := s.borderOf(first)
	last := &t.leaves[s.borders[b-1].leaf]
	if l.n > 0 {
		s.borders[b].off = l.at[0] >> 1
		last.end = s.borders[b].off
		return
	}
	last.end = l.end
	t.unlink(s, b)
}

// unlink takes an empty leaf, which is not its segment's first, out.
func (t *spans) unlink(s *segment, at int) {
	x := s.borders[at].leaf
	t.leaves[s.borders[at-1].leaf].next = t.leaves[x].next
	s.borders = slices.Delete(s.borders, at, at+1)
	s.near = nearOf(s.units, len(s.borders))
	t.drop(x)
}

// settle joins a leaf of few spans with one beside it.
func (t *spans) settle(x uint32) {
	l := &t.leaves[x]
	if l.n == 0 || l.n > fewSpans {
		return
	}
	s := t.segs[l.seg]
	at := s.borderOf(l.at[0] >> 1)
	if at+1 < len(s.borders) && l.n+t.leaves[l.next].n <= manySpans {
		t.merge(s, at)
	} else if at > 0 && l.n+t.leaves[s.borders[at-1].leaf].n <= manySpans {
		t.merge(s, at-1)
	}
}

// merge moves all spans of the leaf behind one to that.
func (t *spans) merge(s *segment, at int) {
	l, r := &t.leaves[s.borders[at].leaf], &t.leaves[s.borders[at+1].leaf]
	copy(l.at[l.n:], r.at[:r.n])
	copy(l.waste[l.n:], r.waste[:r.n])
	l.n += r.n
	l.end = r.end
	t.unlink(s, at+1)
}

// join makes one span of m, which is free, and of those before and behind it that are not none:
// one of them, or both.
func (t *spans) join(before, m, after mark) {
	switch {
	case after.leaf == 0:
		t.cut(m, 1)
	case before.leaf == 0:
		t.cut(after, 1)
	case after.leaf == m.leaf:
		t.cut(m, 2)
	default:
		t.cut(after, 1)
		t.cut(m, 1)
	}
	t.settle(m.leaf)
}
