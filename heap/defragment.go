package heap

import (
	"cmp"
	"slices"
)

// Move takes one block to another place of the same owner.
type Move struct {
	From, To Block
}

// Vacancy is a segment that its moves would empty.
type Vacancy struct {
	Segment SegmentID
	Bytes   int64 // of the segment: what is released
	Moved   int64 // bytes of its blocks: what is copied
	Moves   []Move
}

// Limits bound a plan of defragmentation.
type Limits struct {
	// MaxBytes is the most to copy.
	MaxBytes int64
	// MaxVacancies is the most segments to empty; 0: no bound.
	MaxVacancies int
	// Movable says whether a block may be moved, and to a multiple of which offset (0: any).
	// It is called for every block of a segment until one may not.
	Movable func(Block) (align int64, ok bool)
	// Skip leaves a segment as it is: it is not emptied. nil: none is left out.
	Skip func(SegmentID) bool
	// Apart leaves out moves of PlanRoom whose copy would overwrite bytes of a block: every
	// place To is free before the first move, so that all blocks are whole whenever the
	// copying is interrupted, and the moves can be made in any order.
	Apart bool
	// Closed leaves a segment without new blocks. nil: none is closed.
	Closed func(SegmentID) bool
}

// PlanDefragment says which segments can be emptied by moving their blocks to free places
// of other segments of the same owner, those that free most for what is copied first. It
// changes nothing. The moves of a plan can be carried out in their order, one vacancy after
// the other; to carry one out, Restore the places To, copy, and Free those From. No block is
// moved twice, no segment is both emptied and filled.
//
// It takes time in proportion to the blocks of all owners that have free places.
func (h *Heap) PlanDefragment(l Limits) []Vacancy {
	var names []string
	for name, o := range h.owners {
		if o.free.words != 0 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var donors []*donor
	owned := map[*owner][]*segment{}
	for _, s := range h.segments {
		if s.owner != nil && !s.foreign {
			owned[s.owner] = append(owned[s.owner], s)
		}
	}
	for _, name := range names {
		o := h.owners[name]
		if len(owned[o]) < 2 {
			continue
		}
		p := h.newPlaces(owned[o], l)
		for _, s := range owned[o] {
			if d := h.donor(s, p, l); d != nil {
				donors = append(donors, d)
			}
		}
	}
	slices.SortFunc(donors, func(a, b *donor) int {
		return cmp.Or(cmp.Compare(float64(a.seg.used)/float64(a.seg.bytes), float64(b.seg.used)/float64(b.seg.bytes)),
			cmp.Compare(b.seg.bytes, a.seg.bytes), cmp.Compare(a.seg.id, b.seg.id))
	})
	var out []Vacancy
	left := l.MaxBytes
	for _, d := range donors {
		if l.MaxVacancies > 0 && len(out) == l.MaxVacancies {
			break
		}
		if d.seg.used > left || d.places.taken[d.seg] {
			continue
		}
		if v, ok := d.vacate(h.cfg.UnitBytes); ok {
			out = append(out, v)
			left -= v.Moved
		}
	}
	return out
}

// donor is a segment that may be emptied.
type donor struct {
	seg    *segment
	places *places
	blocks []Block
	aligns []int64
}

// donor looks at a segment; nil: it cannot be emptied, or that would free nothing.
func (h *Heap) donor(s *segment, p *places, l Limits) *donor {
	if s.blocks == 0 || s.used == s.bytes || l.Skip != nil && l.Skip(s.id) {
		return nil
	}
	d := &donor{seg: s, places: p}
	ok := true
	h.spans.walk(s, func(p span) bool {
		if !p.granted {
			return true
		}
		b := h.block(s, p)
		var align int64
		align, ok = l.Movable(b)
		d.blocks, d.aligns = append(d.blocks, b), append(d.aligns, max(align, h.cfg.UnitBytes))
		return ok
	})
	if !ok {
		return nil
	}
	return d
}

// vacate finds a place for each block, the largest first; either for all or for none.
func (d *donor) vacate(unit int64) (Vacancy, bool) {
	v := Vacancy{Segment: d.seg.id, Bytes: d.seg.bytes, Moved: d.seg.used, Moves: make([]Move, len(d.blocks))}
	order := make([]int, len(d.blocks))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(d.blocks[b].Bytes, d.blocks[a].Bytes) })
	p := d.places
	before := slices.Clone(p.free)
	filled := map[*segment]bool{}
	for _, i := range order {
		b := d.blocks[i]
		s, off, ok := p.take(d.seg, b.Bytes, d.aligns[i])
		if !ok {
			p.free = before
			return Vacancy{}, false
		}
		filled[s] = true
		v.Moves[i] = Move{From: b, To: Block{Segment: s.id, Offset: off, Bytes: b.Bytes, Asked: b.Asked}}
	}
	for s := range filled {
		p.taken[s] = true // it is filled: not one to empty any more
	}
	p.close(d.seg)
	return v, true
}

// place is a free range of a segment, in bytes.
type place struct {
	seg    *segment
	off, n int64
}

// places are the free ranges of one owner as a plan goes on, in order of size.
type places struct {
	free  []place
	taken map[*segment]bool // segments that blocks are moved into
}

func (h *Heap) newPlaces(segs []*segment, l Limits) *places {
	p := &places{taken: map[*segment]bool{}}
	for _, s := range segs {
		if s.blocks == 0 || l.Closed != nil && l.Closed(s.id) {
			continue
		}
		h.spans.walk(s, func(sp span) bool {
			if !sp.granted {
				p.free = append(p.free, place{s, h.bytes(sp.off), h.bytes(sp.n)})
			}
			return true
		})
	}
	slices.SortFunc(p.free, comparePlaces)
	return p
}

// comparePlaces puts the best fit first; among equal ones the fullest segment, so that the
// emptier ones stay emptiable.
func comparePlaces(a, b place) int {
	return cmp.Or(cmp.Compare(a.n, b.n), cmp.Compare(b.seg.used, a.seg.used), cmp.Compare(a.seg.id, b.seg.id), cmp.Compare(a.off, b.off))
}

// take finds a place outside the segment that is being emptied.
func (p *places) take(not *segment, n, align int64) (*segment, int64, bool) {
	at, _ := slices.BinarySearchFunc(p.free, n, func(x place, n int64) int { return cmp.Compare(x.n, n) })
	for ; at < len(p.free); at++ {
		x := p.free[at]
		skip := (align - x.off%align) % align
		if x.seg == not || x.n-skip < n {
			continue
		}
		p.free = slices.Delete(p.free, at, at+1)
		p.put(place{x.seg, x.off, skip})
		p.put(place{x.seg, x.off + skip + n, x.n - skip - n})
		return x.seg, x.off + skip, true
	}
	return nil, 0, false
}

func (p *places) put(x place) {
	if x.n == 0 {
		return
	}
	at, _ := slices.BinarySearchFunc(p.free, x, comparePlaces)
	p.free = slices.Insert(p.free, at, x)
}

// close takes a segment that is to be emptied off the places.
func (p *places) close(s *segment) {
	p.free = slices.DeleteFunc(p.free, func(x place) bool { return x.seg == s })
}
