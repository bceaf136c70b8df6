package heap

import (
	"cmp"
	"slices"
)

// Room is how blocks of one segment would move so that a block fits between them.
type Room struct {
	// Moves are to be carried out in their order: copy, Free From, Restore To. Where the two
	// overlap, To lies lower, and the copy is made upward, as memmove does. With Limits.Apart
	// all of To can be restored first, and From freed when everything is copied.
	Moves []Move
	Moved int64 // bytes to copy
}

// Places that a plan of room looks at before it takes what comes cheapest so far.
const (
	// roomTries is how many ranges, the cheapest first, are tried.
	roomTries = 256
	// roomReach is by how many spans a range may be longer than the block needs: those are
	// pushed together where nothing outside takes them.
	roomReach = 32
)

// PlanRoom says how a block of size bytes at a multiple of align (0: of the unit) can be fit
// into an owner's segment that has the bytes, but not in one piece. It looks for the range
// with the fewest bytes to copy: some of its blocks go to free places elsewhere in the
// segment, the others are pushed together. ok is false where the bytes are not there, or where
// what may be moved (see Limits; MaxBytes, Movable and Apart count) does not suffice. It changes
// nothing, and takes time in proportion to the blocks of the segment.
func (h *Heap) PlanRoom(id SegmentID, size, align int64, l Limits) (Room, bool) {
	checkWish(size, align)
	s := h.lookup(id)
	if s == nil || s.owner == nil {
		return Room{}, false
	}
	n, a, ok := h.units(size, align)
	if !ok || n > s.units || int64(n)*h.cfg.UnitBytes > s.bytes-s.used {
		return Room{}, false
	}
	p := h.newRoomPlan(s, n, a, l)
	for i, c := range p.candidates() {
		if i == roomTries {
			break
		}
		if r, ok := p.try(c); ok {
			return r, true
		}
	}
	// What is pushed together always suffices, if it may be moved at all.
	if c, ok := p.squeeze(); ok {
		return p.try(c)
	}
	return Room{}, false
}

// piece is a span as a plan of room sees it, in units.
type piece struct {
	off, n uint32
	used   bool
	fixed  bool // may not be moved
	align  uint32
	asked  int64
}

// roomPlan is a plan of room in the making.
type roomPlan struct {
	h      *Heap
	s      *segment
	n, a   uint32
	budget int64 // units to copy
	apart  bool
	pieces []piece
	holes  []uint32 // the free pieces' places, by size
}

func (h *Heap) newRoomPlan(s *segment, n, a uint32, l Limits) *roomPlan {
	p := &roomPlan{h: h, s: s, n: n, a: a, budget: l.MaxBytes / h.cfg.UnitBytes, apart: l.Apart}
	h.spans.walk(s, func(sp span) bool {
		q := piece{off: sp.off, n: sp.n, used: sp.granted, align: 1}
		if q.used {
			b := h.block(s, sp)
			align, ok := l.Movable(b)
			_, q.align, _ = h.units(1, align)
			q.fixed, q.asked = !ok, b.Asked
		} else {
			p.holes = append(p.holes, uint32(len(p.pieces)))
		}
		p.pieces = append(p.pieces, q)
		return true
	})
	slices.SortFunc(p.holes, func(x, y uint32) int {
		return cmp.Or(cmp.Compare(p.pieces[x].n, p.pieces[y].n), cmp.Compare(x, y))
	})
	return p
}

// stretch is a range of pieces, and what is granted and free in it.
type stretch struct {
	from, to   int // pieces, half open
	used, free uint32
}

// candidates are the ranges worth trying, those with the least to copy first.
func (p *roomPlan) candidates() (out []stretch) {
	for from := range p.pieces {
		c := stretch{from: from, to: from}
		for more := 0; c.to < len(p.pieces) && more < roomReach; {
			q := &p.pieces[c.to]
			if q.fixed {
				break
			}
			c.to++
			if q.used {
				c.used += q.n
			} else {
				c.free += q.n
			}
			if int64(c.used) > p.budget {
				break
			}
			if c.used+c.free >= p.n {
				more++
				out = append(out, c)
			}
			if c.free >= p.n {
				break // longer ones only cost more
			}
		}
	}
	slices.SortFunc(out, func(x, y stretch) int {
		return cmp.Or(cmp.Compare(x.used, y.used), cmp.Compare(y.free, x.free), cmp.Compare(x.from, y.from))
	})
	return out
}

// squeeze is the range with the least to copy that has enough free by itself; what
// alignment may take is added.
func (p *roomPlan) squeeze() (best stretch, ok bool) {
	var c stretch
	add := func(q *piece, sign uint32) {
		if q.used {
			c.used += sign * q.n
		} else {
			c.free += sign * q.n
		}
	}
	for c.to < len(p.pieces) {
		q := &p.pieces[c.to]
		c.to++
		if q.fixed {
			c = stretch{from: c.to, to: c.to}
			continue
		}
		add(q, 1)
		for c.free >= p.n+p.a-1 {
			if int64(c.used) <= p.budget && (!ok || c.used < best.used) {
				best, ok = c, true
			}
			add(&p.pieces[c.from], ^uint32(0)) // less one
			c.from++
		}
	}
	return best, ok
}

// try makes the plan for a range: the largest blocks go elsewhere while the range is short
// of free units, the rest is pushed to its start.
func (p *roomPlan) try(c stretch) (Room, bool) {
	pieces := p.pieces[c.from:c.to]
	holes := p.outside(c)
	away := make([]int64, len(pieces)) // where to; −1: it stays in the range
	order := make([]int, 0, len(pieces))
	for i := range pieces {
		away[i] = -1
		if pieces[i].used {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(x, y int) int { return cmp.Compare(pieces[y].n, pieces[x].n) })
	short := int64(p.n) - int64(c.free)
	for _, i := range order {
		if short <= 0 {
			break
		}
		if off, ok := holes.take(pieces[i].n, pieces[i].align); ok {
			away[i] = int64(off)
			short -= int64(pieces[i].n)
		}
	}
	if short > 0 {
		return Room{}, false
	}
	var r Room
	var pushed []Move
	at := pieces[0].off
	for i, q := range pieces {
		switch {
		case !q.used:
		case away[i] >= 0:
			r.Moves = append(r.Moves, p.move(q, uint32(away[i])))
			r.Moved += int64(q.n) * p.h.cfg.UnitBytes
		default:
			to := alignUp(at, q.align)
			if to > q.off {
				to = q.off // it was not aligned, and stays so where it is
			}
			at = to + q.n
			if to != q.off {
				if p.apart && !p.wasFree(to, q.n) {
					return Room{}, false
				}
				pushed = append(pushed, p.move(q, to))
				r.Moved += int64(q.n) * p.h.cfg.UnitBytes
			}
		}
	}
	last := pieces[len(pieces)-1]
	if begin := alignUp(at, p.a); begin > last.off+last.n || last.off+last.n-begin < p.n {
		return Room{}, false
	}
	r.Moves = append(r.Moves, pushed...)
	return r, true
}

// wasFree reports whether nothing lay in a range before the plan.
func (p *roomPlan) wasFree(off, n uint32) bool {
	at, found := slices.BinarySearchFunc(p.pieces, off, func(q piece, off uint32) int { return cmp.Compare(q.off, off) })
	if !found {
		at--
	}
	q := &p.pieces[at]
	return !q.used && off+n <= q.off+q.n
}

func (p *roomPlan) move(q piece, to uint32) Move {
	u := p.h.cfg.UnitBytes
	b := Block{Segment: p.s.id, Offset: int64(q.off) * u, Bytes: int64(q.n) * u, Asked: q.asked}
	m := Move{From: b, To: b}
	m.To.Offset = int64(to) * u
	return m
}

// gaps are the free places outside a range, as blocks are put into them.
type gaps struct {
	free  []uint32 // pieces, by size
	p     *roomPlan
	taken map[uint32]uint32 // units of a piece that are taken, from its start
	skip  stretch
}

func (p *roomPlan) outside(c stretch) *gaps {
	return &gaps{free: p.holes, p: p, taken: map[uint32]uint32{}, skip: c}
}

// take finds the tightest place for n units.
func (g *gaps) take(n, align uint32) (off uint32, ok bool) {
	at, _ := slices.BinarySearchFunc(g.free, n, func(x, n uint32) int { return cmp.Compare(g.p.pieces[x].n, n) })
	for tries := 0; at < len(g.free) && tries < 4*nearFits; at, tries = at+1, tries+1 {
		x := g.free[at]
		if int(x) >= g.skip.from && int(x) < g.skip.to {
			continue
		}
		q := &g.p.pieces[x]
		off = alignUp(q.off+g.taken[x], align)
		if off+n <= q.off+q.n {
			g.taken[x] = off + n - q.off
			return off, true
		}
	}
	return 0, false
}
