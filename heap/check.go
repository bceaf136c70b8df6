package heap

import "fmt"

// Check walks every structure of the heap and says what contradicts what. It is
// for tests, and for the build tag "invariants"; it takes time in proportion to
// all segments and blocks.
func (h *Heap) Check() error {
	var want sums
	blocks := 0
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
		n, err := h.checkSpans(s, &want)
		if err != nil {
			return err
		}
		free[s.owner] += n
		blocks += s.blocks
		want.free += n
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
	if blocks != h.granted.n {
		return fmt.Errorf("heap: %d blocks, the table has %d", blocks, h.granted.n)
	}
	if f := h.found; f.span != 0 && (h.spans.used(f.span) || h.free.span(f.at) != f.span) {
		return fmt.Errorf("heap: span %d was found where it is not", f.span)
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
	if s.first != 0 || s.ordered != nil || s.blocks != 0 || s.used != 0 || s.foreign || s.last != nil && !s.dirty {
		return fmt.Errorf("heap: pooled segment %d has spans, blocks or an owner's marks", s.id)
	}
	return nil
}

// checkSpans walks a segment's spans in order: they cover it without gap or
// overlap, and no two free ones touch.
func (h *Heap) checkSpans(s *segment, want *sums) (free int, err error) {
	if s.dirty || s.last != nil || s.aside {
		return 0, fmt.Errorf("heap: segment %d of %q has marks of a pooled one", s.id, s.owner.name)
	}
	at, blocks, used, wasFree, before := uint32(0), 0, int64(0), false, uint32(0)
	if h.spans.segs[s.place] != s {
		return 0, fmt.Errorf("heap: segment %d: another has its place", s.id)
	}
	kept := s.ordered
	h.spans.walk(s.first, func(x uint32) bool {
		p := &h.spans.all[x]
		if p.seg != s.place || p.prev != before || p.off != at || p.n == 0 || wasFree && !h.spans.used(x) {
			err = fmt.Errorf("heap: segment %d: wrong span of %d units at %d, expected at %d", s.id, p.n, p.off, at)
			return false
		}
		if bytes := int64(p.n) * h.cfg.UnitBytes; h.spans.used(x) {
			blocks++
			used += bytes
			want.waste += p.waste
			if p.waste < 0 || p.waste >= bytes {
				err = fmt.Errorf("heap: segment %d: a block wastes %d of %d bytes", s.id, p.waste, bytes)
			}
			if _, y := h.granted.find(&h.spans, s, p.off); y != x {
				err = fmt.Errorf("heap: segment %d: the block at %d is span %d, not %d", s.id, p.off, x, y)
			}
		} else {
			free++
			if s.ordered != nil && (len(kept) == 0 || kept[0] != x) {
				err = fmt.Errorf("heap: segment %d: the order of its free spans lacks that at %d", s.id, p.off)
			} else if s.ordered != nil {
				kept = kept[1:]
			}
		}
		at, wasFree, before = p.off+p.n, !h.spans.used(x), x
		return err == nil
	})
	if err != nil {
		return 0, err
	}
	if len(kept) != 0 || at != s.units || blocks != s.blocks || used != s.used {
		return 0, fmt.Errorf("heap: segment %d: spans cover %d of %d units, %d blocks of %d, %d bytes of %d",
			s.id, at, s.units, blocks, s.blocks, used, s.used)
	}
	want.used += used
	return free, nil
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
