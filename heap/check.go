package heap

import "fmt"

// Check walks every structure of the heap and says what contradicts what. It is
// for tests, and for the build tag "invariants"; it takes time in proportion to
// all segments and blocks.
func (h *Heap) Check() error {
	var want sums
	leaves, much := 0, 0
	refs := map[*owner]int{}
	free := map[*owner]int{}
	has := map[*owner]int64{}
	shelved, sized := map[*bucket]int{}, map[*bucket]int{}
	for id, s := range h.segments {
		want.bytes += s.bytes
		sized[s.bucket]++
		if s.id != id || s.bucket.bytes != s.bytes || s.picked || int64(s.units)*h.cfg.UnitBytes != s.bytes {
			return fmt.Errorf("heap: segment %d: wrong id, bucket or size, or still picked", id)
		}
		if s.owner == nil {
			if err := checkPooled(s); err != nil {
				return err
			}
			want.pooled += s.bytes
			if !s.aside {
				want.idle++
				shelved[s.bucket]++
			}
			if s.last != nil {
				refs[s.last]++
			}
			continue
		}
		refs[s.owner]++
		has[s.owner] += s.bytes
		c := checkedSpans{h: h, s: s, sums: &want}
		if err := c.check(); err != nil {
			return fmt.Errorf("heap: segment %d of %q: %w", s.id, s.owner.name, err)
		}
		free[s.owner] += c.free
		want.free += c.free
		leaves += len(s.borders)
		much += c.much
	}
	for name, o := range h.owners {
		if o.name != name || o.segments != refs[o] || o.segments == 0 || o.bytes != has[o] {
			return fmt.Errorf("heap: owner %q counts %d segments and %d bytes, has %d and %d", name, o.segments, o.bytes, refs[o], has[o])
		}
		if err := h.checkOwner(o, free[o]); err != nil {
			return err
		}
		delete(refs, o)
	}
	if len(refs) != 0 {
		return fmt.Errorf("heap: %d owners with segments are not listed", len(refs))
	}
	for x := h.spans.spare; x != 0; x = h.spans.leaves[x].next {
		leaves++
	}
	if leaves != len(h.spans.leaves)-1 || much != len(h.spans.much) {
		return fmt.Errorf("heap: %d leaves of %d are in use or spare, and %d blocks of %d waste much", leaves, len(h.spans.leaves)-1, much, len(h.spans.much))
	}
	if f := h.found; f.at.chunk != 0 && h.free.at(f.at) != f.e {
		return fmt.Errorf("heap: %+v was found where it is not", f.e)
	}
	if err := h.checkSizes(shelved, sized); err != nil {
		return err
	}
	got := h.sums
	want.largest = h.largest()
	if got.stale && got.largest >= want.largest {
		got.largest, got.stale = want.largest, false
	}
	if got != want {
		return fmt.Errorf("heap: sums are %+v, should be %+v", got, want)
	}
	return nil
}

func checkPooled(s *segment) error {
	if len(s.borders) != 0 || s.waste != 0 || s.blocks != 0 || s.used != 0 || s.foreign || s.last != nil && !s.dirty {
		return fmt.Errorf("heap: pooled segment %d has spans, blocks or an owner's marks", s.id)
	}
	return nil
}

// checkOwner walks an owner's free spans as the index has them.
func (h *Heap) checkOwner(o *owner, free int) error {
	seen, largest, err := h.checkShelf(o)
	switch {
	case err != nil:
		return fmt.Errorf("heap: owner %q: %w", o.name, err)
	case seen != free || largest != h.free.largest(&o.free):
		return fmt.Errorf("heap: owner %q: %d free spans up to %d units, the index has %d up to %d", o.name, free, h.free.largest(&o.free), seen, largest)
	}
	for i := range o.pooled {
		l := &o.pooled[i]
		if err := l.check(func(s *segment) bool { return s.last == o && s.bytes == l.bytes }); err != nil {
			return err
		}
	}
	return nil
}

func (h *Heap) checkSizes(shelved, sized map[*bucket]int) error {
	last, dirty, owners := int64(0), 0, 0
	for _, b := range h.sizes {
		if b.bytes <= last || b.segments != sized[b] || b.segments == 0 && !b.class || b.clean.n+b.dirty.n != shelved[b] {
			return fmt.Errorf("heap: size %d after %d: counts %d segments of %d, has %d + %d of %d idle",
				b.bytes, last, b.segments, sized[b], b.clean.n, b.dirty.n, shelved[b])
		}
		last = b.bytes
		dirty += b.dirty.n
		if err := b.clean.check(func(s *segment) bool { return s.bucket == b && !s.dirty && !s.aside }); err != nil {
			return err
		}
		if err := b.dirty.check(func(s *segment) bool {
			if s.last != nil {
				owners++
			}
			return s.bucket == b && s.dirty && !s.aside
		}); err != nil {
			return err
		}
	}
	for _, o := range h.owners {
		for i := range o.pooled {
			owners -= o.pooled[i].n
		}
	}
	if owners != 0 || h.dirty.n != dirty {
		return fmt.Errorf("heap: of the dirty segments %d lack in the owners' lists, and %d of %d are in the list by age", owners, h.dirty.n, dirty)
	}
	return h.dirty.check(func(s *segment) bool { return s.dirty && !s.aside && s.owner == nil })
}

func (l *list) check(belongs func(*segment) bool) error {
	n := 0
	var prev *segment
	for s := l.first; s != nil; s = s.links[l.kind].next {
		if s.links[l.kind].prev != prev || s.owner != nil || !belongs(s) || n > l.n {
			return fmt.Errorf("heap: segment %d is in a list where it does not belong", s.id)
		}
		prev = s
		n++
	}
	if n != l.n || l.last != prev {
		return fmt.Errorf("heap: a list of %d segments counts %d", n, l.n)
	}
	return nil
}
