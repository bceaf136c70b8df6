package heap

import "math"

// maxSegments bounds one grant.
const maxSegments = 1 << 20

// Kind says where a grant would lie.
type Kind uint8

const (
	// InSegment: in a segment that the owner already has.
	InSegment Kind = iota
	// Pooled: in segments of the pool, and in new ones where Create adds them.
	Pooled
	// Create: in segments that must be made first.
	Create
)

// String names the kind as its constant does.
func (k Kind) String() string {
	switch k {
	case InSegment:
		return "InSegment"
	case Pooled:
		return "Pooled"
	case Create:
		return "Create"
	}
	return "unknown"
}

// Placement is where a grant would lie now. To carry it out: Take each of
// Segment and More (Pooled), make and Add each of Create, in this order; then
// AllocWhole every one (Whole), or Alloc the only one.
type Placement struct {
	Kind       Kind
	Segment    SegmentID   // InSegment, Pooled: the first segment
	More       []SegmentID // Pooled: the further pooled ones of a grant above MaxSegmentBytes, in order
	Create     []int64     // bytes of the segments to make, which follow the pooled ones in the grant's order
	NeedsClear bool        // a pooled segment, or the owner's, holds another's bytes: Heap.NeedsClear tells which
	Whole      bool        // the grant takes whole segments: only the last has bytes that were not asked for
	BlockBytes int64       // what will be granted, in all
}

// Place says where a grant of size bytes, at a multiple of align (0: any), would
// go for an owner. It changes nothing. A size that no device has (over a million
// segments) is misuse: the limit is checked before.
func (h *Heap) Place(owner string, size, align int64) Placement {
	checkWish(size, align)
	o := h.party(owner)
	if size > h.cfg.MaxSegmentBytes {
		return h.placeSeveral(o, size)
	}
	class := h.classFor(size)
	if size < h.cfg.OwnSegmentBytes && class == 0 { // it shares its segment with others of its owner
		if s := h.fitFor(o, size, align); s != nil {
			h.recent = s
			return Placement{Kind: InSegment, Segment: s.id, NeedsClear: s.foreign, BlockBytes: h.bytes(h.found.n)}
		}
		return h.placeSlab(o, size)
	}
	need := class
	if size >= h.cfg.OwnSegmentBytes {
		need = roundUp(size, h.cfg.GranularityBytes)
	}
	most := max(need, h.waste(size))
	if s := h.emptyOf(o, size, most); s != nil {
		return Placement{Kind: InSegment, Segment: s.id, NeedsClear: s.foreign, Whole: true, BlockBytes: s.bytes}
	}
	if s := h.pick(o, size, most); s != nil {
		return Placement{Kind: Pooled, Segment: s.id, NeedsClear: s.needsClear(o), Whole: true, BlockBytes: s.bytes}
	}
	return Placement{Kind: Create, Create: []int64{need}, Whole: true, BlockBytes: need}
}

// placeSlab places a block for which none of its owner's segments has room.
func (h *Heap) placeSlab(o *owner, size int64) Placement {
	p := Placement{BlockBytes: roundUp(size, h.cfg.UnitBytes)}
	slab := h.slabFor(size)
	if s := h.pick(o, slab, max(slab, h.waste(slab))); s != nil {
		p.Kind, p.Segment, p.NeedsClear = Pooled, s.id, s.needsClear(o)
		return p
	}
	p.Kind, p.Create = Create, []int64{slab}
	return p
}

// placeSeveral places a grant above MaxSegmentBytes: as many of the largest
// segments as it fills and one of the rest.
func (h *Heap) placeSeveral(o *owner, size int64) Placement {
	if size/h.cfg.MaxSegmentBytes > maxSegments {
		misuse("a grant of %d bytes", size)
	}
	p := Placement{Kind: Create, Whole: true}
	var picked []*segment
	for left := size; left > 0; {
		ask := min(left, h.cfg.MaxSegmentBytes)
		left -= ask
		need := roundUp(ask, h.cfg.GranularityBytes)
		most := need // only the last may have bytes over: the grant's bytes follow each other
		if left == 0 {
			most = max(need, h.waste(ask))
		}
		// Segments of the pool come first in the grant, so the rest can be one
		// of them only if all before it are.
		var s *segment
		if left > 0 || len(p.Create) == 0 {
			s = h.pick(o, ask, most)
		}
		if s == nil {
			p.Create = append(p.Create, need)
			p.BlockBytes += need
			continue
		}
		s.picked = true
		picked = append(picked, s)
		p.BlockBytes += s.bytes
		p.NeedsClear = p.NeedsClear || s.needsClear(o)
		if len(picked) == 1 {
			p.Kind, p.Segment = Pooled, s.id
		} else {
			p.More = append(p.More, s.id)
		}
	}
	for _, s := range picked {
		s.picked = false
	}
	return p
}

// emptyOf finds a segment of size to most bytes that the owner has and no block
// is in.
func (h *Heap) emptyOf(o *owner, size, most int64) *segment {
	if o == nil {
		return nil
	}
	n, _, ok := h.units(size, 0)
	if !ok {
		return nil
	}
	at := h.free.first(&o.free, n)
	for tries := 0; at.chunk != 0 && tries < nearFits; tries++ {
		e := h.free.at(at)
		s := h.spans.segs[e.place()]
		if h.bytes(e.n()) > most {
			return nil
		}
		if e.n() == s.units {
			return s
		}
		at = h.free.next(&o.free, at)
	}
	return nil
}

// classFor is the smallest warm class that may be granted whole for size; 0 for
// none.
func (h *Heap) classFor(size int64) int64 {
	for _, c := range h.cfg.Classes {
		if c >= size {
			if c <= 2*size && c <= h.waste(size) { // it is never more than twice, and seldom near
				return c
			}
			return 0
		}
	}
	return 0
}

// slabFor is the size of the segment to make, or take, for a first block of
// size.
func (h *Heap) slabFor(size int64) int64 {
	fits := int64(0)
	for _, c := range h.cfg.Classes {
		if c >= slabFactor*size {
			return c
		}
		if c >= size {
			fits = c
		}
	}
	if fits > 0 {
		return fits
	}
	return min(roundUp(slabFactor*size, h.cfg.GranularityBytes), h.cfg.MaxSegmentBytes)
}

// waste is the largest segment that may be granted whole for size.
func (h *Heap) waste(size int64) int64 {
	return size + int64(math.Floor(float64(size)*h.cfg.MaxWaste))
}

func roundUp(n, to int64) int64 {
	over := n % to
	if over == 0 {
		return n
	}
	return n + to - over
}
