package heap

import (
	"errors"
	"fmt"
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
	f := &h.found
	if f.at.chunk == 0 || f.size != size || f.align != align || f.e.place() != s.place {
		if !h.fitIn(s, size, align) {
			return Block{}, fmt.Errorf("%w: %d bytes in segment %d", ErrNoRoom, size, id)
		}
	}
	p := f.e.span()
	b := h.grant(s, h.spans.find(s, p.off), p, s.spot(p, f.n, f.a), f.n, size)
	h.changed()
	return b, nil
}

// spot is where in a free span a block of n units at a multiple of a goes: at the start,
// but a large one at the end. Large blocks then lie against what follows a gap and small
// ones against what precedes it, and what remains between two large ones stays whole.
func (s *segment) spot(p span, n, a uint32) uint32 {
	if n < s.units/largeShare {
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
	b := h.grant(s, h.spans.find(s, 0), span{n: s.units}, 0, s.units, asked)
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
	m := h.spans.find(s, off)
	p := h.spans.span(m)
	if p.granted || p.off+p.n < off+n {
		return fmt.Errorf("%w: %+v overlaps another", ErrBadBlock, b)
	}
	h.grant(s, m, p, off, n, b.Asked)
	h.changed()
	return nil
}

// Free takes a block back. Its room belongs to the segment's owner until the
// segment is pooled or removed; empty says that no block is left in it.
func (h *Heap) Free(b Block) (empty bool) {
	s := h.lookup(b.Segment)
	if s == nil || s.owner == nil || b.Offset < 0 || b.Offset >= s.bytes {
		misuse("no block like %+v to free", b)
	}
	from := uint32(b.Offset >> (h.shift & 63))
	to := from + uint32(b.Bytes>>(h.shift&63))
	m := h.spans.find(s, from)
	l := &h.spans.leaves[m.leaf]
	if l.at[m.pos] != from<<1|1 || l.endOf(m.pos) != to || h.bytes(from) != b.Offset || h.bytes(to-from) != b.Bytes {
		misuse("no block like %+v to free", b)
	}
	s.blocks--
	s.used -= b.Bytes
	h.sums.used -= b.Bytes
	if waste := l.waste[m.pos]; waste < muchWaste {
		h.sums.waste -= int64(waste)
	} else {
		h.sums.waste -= h.spans.takeWaste(m)
	}
	l.at[m.pos] = from << 1
	if !l.between(m.pos) {
		from, to = h.join(s, m, from, to)
	}
	h.linkFree(s, from, to-from)
	h.changed()
	return s.blocks == 0
}

// join makes one span of a free one and those beside it that are free too, and says from
// where to where that goes.
func (h *Heap) join(s *segment, m mark, from, to uint32) (uint32, uint32) {
	var before, after mark
	if to < s.units {
		if x := h.spans.behind(m); !h.spans.granted(x) {
			after = x
			end := h.spans.end(x)
			h.unlinkFree(s, to, end-to)
			to = end
		}
	}
	if from > 0 {
		if x := h.spans.before(m); !h.spans.granted(x) {
			before = x
			off := h.spans.off(x)
			h.unlinkFree(s, off, from-off)
			from = off
		}
	}
	if before.leaf|after.leaf != 0 {
		h.spans.join(before, m, after)
	}
	return from, to
}

// grant carves a block out of the free span p at m. What is left of that before and behind
// the block stays free.
func (h *Heap) grant(s *segment, m mark, p span, off, n uint32, asked int64) Block {
	h.unlinkFree(s, p.off, p.n)
	if head := off - p.off; head > 0 {
		h.linkFree(s, p.off, head)
		m = h.spans.insert(m, off, 1)
	} else {
		l := &h.spans.leaves[m.leaf]
		l.at[m.pos] |= 1
	}
	if tail := p.off + p.n - (off + n); tail > 0 {
		h.linkFree(s, off+n, tail)
		m = h.spans.before(h.spans.insert(m, off+n, 0))
	}
	b := Block{Segment: s.id, Offset: h.bytes(off), Bytes: h.bytes(n), Asked: asked}
	if waste := b.Bytes - asked; waste < muchWaste {
		h.spans.leaves[m.leaf].waste[m.pos] = uint8(waste)
	} else {
		h.spans.setWaste(m, waste)
	}
	s.blocks++
	s.used += b.Bytes
	h.sums.used += b.Bytes
	h.sums.waste += b.Bytes - asked
	return b
}

// entry is what the index knows of a free span of n units at off.
func (s *segment) entry(off, n uint32) entry {
	return entry{hi: uint64(n)<<32 | uint64(s.rank), lo: uint64(off)<<32 | uint64(s.place)}
}

// linkFree puts a span of a segment, of n units at off, among its owner's free ones.
func (h *Heap) linkFree(s *segment, off, n uint32) {
	h.free.insert(&s.owner.free, s.entry(off, n))
	h.found.at.chunk = 0
	h.sums.free++
	if n >= h.sums.largest {
		h.sums.largest, h.sums.stale = n, false
	}
}

// unlinkFree takes it out.
func (h *Heap) unlinkFree(s *segment, off, n uint32) {
	e := s.entry(off, n)
	at := h.found.at
	if at.chunk == 0 || h.found.e != e {
		at = h.free.where(&s.owner.free, e)
	}
	h.free.remove(&s.owner.free, at)
	h.found.at.chunk = 0
	h.sums.free--
	if n == h.sums.largest {
		h.sums.stale = true
	}
}

// fitFor finds the owner's best free span for size bytes at a multiple of align, notes it as
// found, and says in which segment it is; nil for none.
func (h *Heap) fitFor(o *owner, size, align int64) *segment {
	n, a, ok := h.units(size, align)
	if o == nil || !ok {
		return nil
	}
	at := h.free.first(&o.free, n)
	for tries := 0; at.chunk != 0; {
		if e := h.free.at(at); a == 1 || e.holds(n, a) {
			h.found = found{at: at, e: e, size: size, align: align, n: n, a: a}
			return h.spans.segs[e.place()]
		}
		at = h.free.next(&o.free, at)
		if tries++; tries == nearFits {
			at = h.free.first(&o.free, n+a-1) // holds it wherever it starts
		}
	}
	return nil
}

// fitIn finds the best free span of one segment for size bytes at a multiple of align, and
// notes it as found.
func (h *Heap) fitIn(s *segment, size, align int64) bool {
	n, a, ok := h.units(size, align)
	if !ok || n > s.units {
		return false
	}
	o := s.owner
	at := h.free.first(&o.free, n)
	for tries := 0; at.chunk != 0 && tries < nearFits; tries++ {
		if e := h.free.at(at); e.place() == s.place && e.holds(n, a) {
			h.found = found{at: at, e: e, size: size, align: align, n: n, a: a}
			return true
		}
		at = h.free.next(&o.free, at)
	}
	var best entry
	h.spans.walk(s, func(p span) bool {
		if e := s.entry(p.off, p.n); !p.granted && e.holds(n, a) && (best.n() == 0 || p.n < best.n()) {
			best = e
		}
		return true
	})
	if best.n() == 0 {
		return false
	}
	h.found = found{at: h.free.where(&o.free, best), e: best, size: size, align: align, n: n, a: a}
	return true
}

// holds says whether a span has room for n units at a multiple of a.
func (e entry) holds(n, a uint32) bool {
	skip := alignUp(e.off(), a) - e.off()
	return skip <= e.n() && e.n()-skip >= n
}

// bytes are so many units in bytes.
func (h *Heap) bytes(units uint32) int64 { return int64(units) << (h.shift & 63) }

// block describes a granted span of a segment.
func (h *Heap) block(s *segment, p span) Block {
	b := Block{Segment: s.id, Offset: h.bytes(p.off), Bytes: h.bytes(p.n)}
	b.Asked = b.Bytes - p.waste
	return b
}

// units converts a wish to units; ok is false where no segment can be so large.
func (h *Heap) units(size, align int64) (n, a uint32, ok bool) {
	u := h.cfg.UnitBytes
	if size > maxUnits*u-u || align > maxUnits/2*u {
		return 0, 0, false
	}
	return uint32((size + u - 1) >> (h.shift & 63)), uint32(max(align>>(h.shift&63), 1)), true
}

// alignUp needs a power of two.
func alignUp(off, a uint32) uint32 { return (off + a - 1) &^ (a - 1) }

func checkWish(size, align int64) {
	if size < 1 || align < 0 || align&(align-1) != 0 {
		badWish(size, align)
	}
}

// badWish is apart so that checkWish costs no call.
func badWish(size, align int64) { misuse("a block of %d bytes aligned to %d", size, align) }
