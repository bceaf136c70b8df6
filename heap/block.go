package heap

import (
	"errors"
	"fmt"
	"slices"
)

var (
	// ErrNoRoom means that the segment has no free range that holds the block.
	ErrNoRoom = errors.New("heap: no room in the segment")
	// ErrNotOwned means that the segment is unknown or lies in the pool.
	ErrNotOwned = errors.New("heap: the segment has no owner")
	// ErrBadBlock means that a block to restore can't be: outside its segment,
	// not on whole units, or over another block.
	ErrBadBlock = errors.New("heap: impossible block")
)

// nearFits is how many free ranges, from the best fit on, are tried for a place
// that is aligned, or lies in a given segment, before the search gives up on the
// order of sizes.
const nearFits = 16

// largeShare is the share of its segment, one in so many, from which a block is large.
const largeShare = 10

// Alloc grants size bytes at an offset that is a multiple of align (0: of the
// unit) in an owner's segment: the one that Place named. Alignment is relative
// to the segment's start. The errors are ErrNoRoom and ErrNotOwned.
func (h *Heap) Alloc(id SegmentID, size, align int64) (Block, error) {
	checkWish(size, align)
	s := h.lookup(id)
	if s == nil || s.owner == nil {
		return Block{}, fmt.Errorf("%w: %d", ErrNotOwned, id)
	}
	n, a, ok := h.units(size, align)
	if !ok || n > s.units {
		return Block{}, fmt.Errorf("%w: %d bytes in segment %d", ErrNoRoom, size, id)
	}
	x := h.fitIn(s, n, a)
	if x == 0 {
		return Block{}, fmt.Errorf("%w: %d bytes in segment %d", ErrNoRoom, size, id)
	}
	b := h.grant(x, h.spot(x, n, a), n, size)
	h.changed()
	return b, nil
}

// spot is where in the free span x a block of n units at a multiple of a goes: at the
// start, but a large one at the end. Large blocks then lie against what follows a gap and
// small ones against what precedes it, and what remains between two large ones stays whole.
func (h *Heap) spot(x, n, a uint32) uint32 {
	p := &h.spans.all[x]
	if n < h.spans.of(x).units/largeShare {
		return alignUp(p.off, a)
	}
	return (p.off + p.n - n) &^ (a - 1)
}

// AllocWhole grants all of an owner's segment that no block is in: what Place
// means by Whole. Asked is how many of its bytes were requested, at most the
// segment's.
func (h *Heap) AllocWhole(id SegmentID, asked int64) (Block, error) {
	s := h.lookup(id)
	if s == nil || s.owner == nil {
		return Block{}, fmt.Errorf("%w: %d", ErrNotOwned, id)
	}
	if s.blocks > 0 || asked < 1 || asked > s.bytes {
		return Block{}, fmt.Errorf("%w: %d bytes as the whole of segment %d", ErrNoRoom, asked, id)
	}
	b := h.grant(s.first, 0, s.units, asked)
	h.changed()
	return b, nil
}

// Restore marks a block that a ledger recorded, at its known place. The blocks
// of a segment may come in any order. The errors are ErrBadBlock and ErrNotOwned.
func (h *Heap) Restore(b Block) error {
	s := h.lookup(b.Segment)
	if s == nil || s.owner == nil {
		return fmt.Errorf("%w: %d", ErrNotOwned, b.Segment)
	}
	if b.Asked == 0 {
		b.Asked = b.Bytes
	}
	u := h.cfg.UnitBytes
	if b.Offset < 0 || b.Offset%u != 0 || b.Bytes < 1 || b.Bytes%u != 0 || b.Bytes > s.bytes ||
		b.Offset > s.bytes-b.Bytes || b.Asked < 1 || b.Asked > b.Bytes {
		return fmt.Errorf("%w: %+v in a segment of %d bytes", ErrBadBlock, b, s.bytes)
	}
	off, n := uint32(b.Offset/u), uint32(b.Bytes/u)
	x, at := h.spans.around(s, off)
	p := &h.spans.all[x]
	if x == 0 || p.off+p.n < off+n {
		return fmt.Errorf("%w: %+v overlaps another", ErrBadBlock, b)
	}
	before, after := off-p.off, p.off+p.n-(off+n)
	order := s.ordered
	h.grant(x, off, n, b.Asked)
	// What is left of x, before the block and behind it, takes its place in the order.
	switch {
	case before == 0 && after == 0:
		order = slices.Delete(order, at, at+1)
	case before == 0:
		order[at] = h.spans.all[x].next
	case after > 0:
		block := h.spans.all[x].next
		order = slices.Insert(order, at+1, h.spans.all[block].next)
	}
	s.ordered = order
	h.changed()
	return nil
}

// Free takes a block back. Its room belongs to the segment's owner until the
// segment is pooled or removed; empty says that no block is left in it.
//
// Of many blocks memory answers late where one is in the table, and then where its neighbors
// are. Its place among the free spans depends on neither, so that the processor looks for it
// meanwhile: most neighbors are granted, and it guesses that.
func (h *Heap) Free(b Block) (empty bool) {
	u := h.cfg.UnitBytes
	s, slot, x := h.lookup(b.Segment), 0, uint32(0)
	if s != nil && s.owner != nil && b.Offset >= 0 && b.Offset/u < maxUnits {
		slot, x = h.granted.find(&h.spans, s, uint32(b.Offset/u))
	}
	p := &h.spans.all[x]
	if x == 0 || int64(p.off)*u != b.Offset || int64(p.n)*u != b.Bytes {
		misuse("no block like %+v to free", b)
	}
	off, n := uint32(b.Offset/u), uint32(b.Bytes/u)
	before, after := p.prev, p.next
	joinsBefore, joinsAfter := before != 0 && !h.spans.used(before), after != 0 && !h.spans.used(after)
	h.granted.remove(slot)
	s.ordered = nil
	s.blocks--
	s.used -= b.Bytes
	h.sums.used -= b.Bytes
	h.sums.waste -= p.waste
	p.waste = 0
	h.spans.use(x, false)
	if joinsAfter {
		h.unlinkFree(after)
		h.spans.swallow(x)
	}
	if joinsBefore {
		h.unlinkFree(before)
		h.spans.swallow(before)
		x = before
	}
	if joinsBefore || joinsAfter {
		off, n = h.spans.all[x].off, h.spans.all[x].n
	}
	h.linkFree(s, x, off, n)
	h.changed()
	return s.blocks == 0
}

// grant carves a block out of the free span x. What is before it stays x; what is behind
// it is new.
func (h *Heap) grant(x, off, n uint32, asked int64) Block {
	h.unlinkFree(x)
	p := &h.spans.all[x]
	s := h.spans.of(x)
	head, tail := off-p.off, p.off+p.n-(off+n)
	if head > 0 {
		p.n = head
		h.linkFree(s, x, p.off, head)
		y := h.spans.make(s.place, off, n, true)
		h.spans.follow(x, y)
		x = y
	}
	b := Block{
		Segment: s.id,
		Offset:  int64(off) * h.cfg.UnitBytes,
		Bytes:   int64(n) * h.cfg.UnitBytes,
		Asked:   asked,
	}
	p = &h.spans.all[x]
	p.n, p.waste = n, b.Bytes-asked
	h.spans.use(x, true)
	if tail > 0 {
		y := h.spans.make(s.place, off+n, tail, false)
		h.spans.follow(x, y)
		h.linkFree(s, y, off+n, tail)
	}
	h.granted.add(s.id, off, x)
	s.ordered = nil
	s.blocks++
	s.used += b.Bytes
	h.sums.used += b.Bytes
	h.sums.waste += b.Bytes - asked
	return b
}

// entry is what the index knows of a free span.
func (h *Heap) entry(x uint32) (entry, *owner) {
	p, s := &h.spans.all[x], h.spans.of(x)
	return s.entry(x, p.off, p.n), s.owner
}

// entry is what the index knows of a free span of n units at off.
func (s *segment) entry(x, off, n uint32) entry {
	return entry{hi: uint64(n)<<32 | uint64(s.rank), lo: uint64(off)<<32 | uint64(x)}
}

// linkFree puts a span of a segment, of n units at off, among its owner's free ones.
func (h *Heap) linkFree(s *segment, x, off, n uint32) {
	e := s.entry(x, off, n)
	h.free.insert(&s.owner.free, e)
	h.found = found{}
	h.sums.free++
	if n := uint32(e.hi >> 32); n >= h.sums.largest {
		h.sums.largest, h.sums.stale = n, false
	}
}

func (h *Heap) unlinkFree(x uint32) {
	e, o := h.entry(x)
	at := h.found.at
	if h.found.span != x {
		at = h.free.where(&o.free, e)
	}
	h.free.remove(&o.free, at)
	h.found = found{}
	h.sums.free--
	if uint32(e.hi>>32) == h.sums.largest {
		h.sums.stale = true
	}
}

// fitFor finds the owner's best free span for n units at a multiple of a; 0 for none.
func (h *Heap) fitFor(o *owner, n, a uint32) uint32 {
	at := h.free.first(&o.free, n)
	x := h.free.span(at)
	for tries := 0; x != 0 && a > 1 && !h.holds(x, n, a); {
		at = h.free.next(&o.free, at)
		if tries++; tries == nearFits {
			at = h.free.first(&o.free, n+a-1) // holds it wherever it starts
		}
		x = h.free.span(at)
	}
	h.found = found{at: at, span: x, n: n, a: a}
	return x
}

// fitIn finds the best free span of one segment for n units at a multiple of a.
func (h *Heap) fitIn(s *segment, n, a uint32) uint32 {
	if f := &h.found; f.span != 0 && f.n == n && f.a == a && h.spans.of(f.span) == s {
		return f.span
	}
	o := s.owner
	at := h.free.first(&o.free, n)
	for tries := 0; at.chunk != 0 && tries < nearFits; tries++ {
		if x := h.free.span(at); h.spans.of(x) == s && h.holds(x, n, a) {
			h.found = found{at: at, span: x, n: n, a: a}
			return x
		}
		at = h.free.next(&o.free, at)
	}
	best := uint32(0)
	h.spans.walk(s.first, func(x uint32) bool {
		if !h.spans.used(x) && h.holds(x, n, a) && (best == 0 || h.spans.all[x].n < h.spans.all[best].n) {
			best = x
		}
		return true
	})
	return best
}

// holds says whether a span has room for n units at a multiple of a.
func (h *Heap) holds(x, n, a uint32) bool {
	p := &h.spans.all[x]
	skip := alignUp(p.off, a) - p.off
	return skip <= p.n && p.n-skip >= n
}

// units converts a wish to units; ok is false where no segment can be so large.
func (h *Heap) units(size, align int64) (n, a uint32, ok bool) {
	u := h.cfg.UnitBytes
	if size > maxUnits*u-u || align > maxUnits/2*u {
		return 0, 0, false
	}
	return uint32((size + u - 1) / u), uint32(max(align/u, 1)), true
}

// alignUp needs a power of two.
func alignUp(off, a uint32) uint32 { return (off + a - 1) &^ (a - 1) }

func checkWish(size, align int64) {
	if size < 1 || align < 0 || align&(align-1) != 0 {
		misuse("a block of %d bytes aligned to %d", size, align)
	}
}
