package heap

import (
	"math"
	"slices"
)

// segment is a segment of the device.
type segment struct {
	id     SegmentID
	bytes  int64
	units  uint32
	bucket *bucket
	owner  *owner // nil: in the pool

	// What its bytes are. In the pool: zero unless dirty, and then last's alone,
	// or anybody's where last is nil. With an owner: the owner's alone unless
	// foreign.
	dirty   bool
	last    *owner
	foreign bool

	aside  bool // in the pool, but being worked on
	picked bool // by the placement being made

	place   uint32   // in spans.segs, while it has spans
	rank    uint32   // its id, as far as the index orders by it
	near    uint8    // see spans.guesses
	borders []border // of its spans' leaves, in order; empty in the pool
	blocks  int
	used    int64
	waste   int64 // of the block that is all of it: see spans.waste

	links [3]link // by the lists it is in
}

// SegmentInfo describes a segment.
type SegmentInfo struct {
	Bytes     int64
	Owner     string // empty in the pool
	Pooled    bool
	Aside     bool // pooled and set aside
	Dirty     bool // its bytes are not known to be zero or its owner's
	Blocks    int
	UsedBytes int64 // in blocks
}

// Add takes in a segment that was created or imported: into the pool where owner
// is empty, else as the owner's. Clean says that its bytes are zero, or the
// owner's own. The id must be new, and bytes a multiple of the granularity.
func (h *Heap) Add(id SegmentID, bytes int64, owner string, clean bool) {
	units := bytes / h.cfg.UnitBytes
	if bytes < 1 || bytes%h.cfg.GranularityBytes != 0 || units > maxUnits {
		misuse("a segment of %d bytes", bytes)
	}
	if h.lookup(id) != nil {
		misuse("segment %d is there already", id)
	}
	s := &segment{id: id, bytes: bytes, units: uint32(units), bucket: h.bucket(bytes), rank: uint32(min(id, math.MaxUint32))}
	s.bucket.segments++
	h.segments[id] = s
	h.sums.bytes += bytes
	if owner == "" {
		s.dirty = !clean
		h.shelve(s)
	} else {
		h.give(s, h.owner(owner))
		s.foreign = !clean
	}
	h.changed()
}

// Take moves a segment from the pool to an owner. Where NeedsClear says so it
// must be cleared before it is handed out, and MarkClean called.
func (h *Heap) Take(id SegmentID, owner string) {
	s := h.pooledSegment(id)
	if s.aside || owner == "" {
		misuse("segment %d can't be taken by %q", id, owner)
	}
	h.unshelve(s)
	o := h.owner(owner)
	foreign := s.dirty && s.last != o
	last := s.last
	h.give(s, o)
	s.foreign, s.dirty, s.last = foreign, false, nil
	if last != nil {
		h.leave(last)
	}
	h.changed()
}

// Pool puts an owner's segment without blocks into the pool, or one that was set
// aside back within the pool's reach. Its bytes stay the last owner's.
func (h *Heap) Pool(id SegmentID) {
	s := h.segment(id)
	switch {
	case s.owner == nil && s.aside:
		s.aside = false
		h.sums.pooled -= s.bytes // shelve counts it again
		h.shelve(s)
	case s.owner == nil:
		misuse("segment %d is in the pool already", id)
	case s.blocks > 0:
		misuse("segment %d has %d blocks", id, s.blocks)
	default:
		o := s.owner
		h.ungive(s)
		s.dirty = true
		if s.foreign {
			h.leave(o)
		} else {
			s.last = o // the owner's reference stays
		}
		s.foreign = false
		h.shelve(s)
	}
	h.changed()
}

// SetAside keeps a pooled segment from being placed, given up or cleared a second
// time while it is being worked on. It still counts as pooled. MarkClean ends
// that, as do Pool (it is as it was) and Remove.
func (h *Heap) SetAside(id SegmentID) {
	s := h.pooledSegment(id)
	if s.aside {
		misuse("segment %d is set aside already", id)
	}
	h.unshelve(s)
	h.sums.pooled += s.bytes
	s.aside = true
	h.changed()
}

// MarkClean says that a segment was filled with zeros: a pooled one, or an
// owner's before any of it was handed out.
func (h *Heap) MarkClean(id SegmentID) {
	s := h.segment(id)
	if s.owner != nil {
		s.foreign = false
		h.changed()
		return
	}
	if s.aside {
		s.aside = false
		h.sums.pooled -= s.bytes
	} else {
		h.unshelve(s)
	}
	last := s.last
	s.dirty, s.last = false, nil
	if last != nil {
		h.leave(last)
	}
	h.shelve(s)
	h.changed()
}

// Remove forgets a segment without blocks: it was, or will be, destroyed.
func (h *Heap) Remove(id SegmentID) {
	s := h.segment(id)
	switch {
	case s.blocks > 0:
		misuse("segment %d has %d blocks", id, s.blocks)
	case s.owner != nil:
		o := s.owner
		h.ungive(s)
		h.leave(o)
	case s.aside:
		h.sums.pooled -= s.bytes
	default:
		h.unshelve(s)
	}
	if s.last != nil {
		h.leave(s.last)
	}
	h.sums.bytes -= s.bytes
	delete(h.segments, id)
	h.recent = nil
	if s.bucket.segments--; s.bucket.segments == 0 && !s.bucket.class {
		at, _ := h.findBucket(s.bytes)
		h.sizes = slices.Delete(h.sizes, at, at+1)
	}
	h.changed()
}

// NeedsClear says whether a segment must be cleared before owner may have it, or,
// where it is the owner's already, before its first block is handed out.
func (h *Heap) NeedsClear(id SegmentID, owner string) bool {
	s := h.segment(id)
	if s.owner != nil {
		return s.foreign || s.owner.name != owner
	}
	return s.needsClear(h.party(owner))
}

// needsClear says whether a pooled segment holds bytes that o must not see.
func (s *segment) needsClear(o *owner) bool { return s.dirty && (s.last == nil || s.last != o) }

// Segment describes a segment; ok is false where there is none of that id.
func (h *Heap) Segment(id SegmentID) (info SegmentInfo, ok bool) {
	s := h.lookup(id)
	if s == nil {
		return SegmentInfo{}, false
	}
	info = SegmentInfo{
		Bytes: s.bytes, Pooled: s.owner == nil, Aside: s.aside, Dirty: s.dirty || s.foreign,
		Blocks: s.blocks, UsedBytes: s.used,
	}
	if s.owner != nil {
		info.Owner = s.owner.name
	}
	return info, true
}

// give makes a segment the owner's, as one free span.
func (h *Heap) give(s *segment, o *owner) {
	s.owner = o
	o.segments++
	o.bytes += s.bytes
	h.spans.enter(s)
	h.linkFree(s, 0, s.units)
}

// ungive undoes give but for the owner's count.
func (h *Heap) ungive(s *segment) {
	h.unlinkFree(s, 0, s.units)
	h.spans.exit(s)
	s.owner.bytes -= s.bytes
	s.owner = nil
}

// lookup finds a segment, or nil. The calls of one grant ask for the same one.
func (h *Heap) lookup(id SegmentID) *segment {
	if h.recent != nil && h.recent.id == id {
		return h.recent
	}
	s := h.segments[id]
	if s != nil {
		h.recent = s
	}
	return s
}

func (h *Heap) segment(id SegmentID) *segment {
	s := h.lookup(id)
	if s == nil {
		misuse("no segment %d", id)
	}
	return s
}

func (h *Heap) pooledSegment(id SegmentID) *segment {
	s := h.segment(id)
	if s.owner != nil {
		misuse("segment %d is %q's", id, s.owner.name)
	}
	return s
}
