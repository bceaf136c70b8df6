package heap

import "fmt"

// checkedSpans is the walk over an owned segment's leaves: their spans cover it without gap or
// overlap, no two free ones touch, and no leaf is empty.
type checkedSpans struct {
	h    *Heap
	s    *segment
	sums *sums // of all segments so far

	at           uint32 // where the next span should begin
	blocks, free int
	much         int // blocks in spans.much
	used         int64
	wasFree      bool
}

func (c *checkedSpans) check() error {
	s, t := c.s, &c.h.spans
	if s.dirty || s.last != nil || s.aside {
		return fmt.Errorf("it has marks of a pooled one")
	}
	if t.segs[s.place] != s {
		return fmt.Errorf("another has its place")
	}
	for i, b := range s.borders {
		l := &t.leaves[b.leaf]
		if l.seg != s.place || l.n < 1 || l.n > leafSpans || b.off != c.at || l.at[0]>>1 != b.off {
			return fmt.Errorf("leaf %d of %d spans at %d, expected at %d, is not what should stand there", b.leaf, l.n, b.off, c.at)
		}
		if end := i == len(s.borders)-1; end != (l.next == 0) || !end && l.next != s.borders[i+1].leaf {
			return fmt.Errorf("leaf %d is followed by leaf %d", b.leaf, l.next)
		}
		for _, v := range l.at[l.n:] {
			if v != unused {
				return fmt.Errorf("leaf %d: what it does not use is not empty", b.leaf)
			}
		}
		for pos := range uint32(l.n) {
			if err := c.span(mark{b.leaf, pos}); err != nil {
				return err
			}
		}
		if l.end != c.at {
			return fmt.Errorf("leaf %d ends at %d, its spans at %d", b.leaf, l.end, c.at)
		}
	}
	if c.at != s.units || c.blocks != s.blocks || c.used != s.used {
		return fmt.Errorf("spans cover %d of %d units, %d blocks of %d, %d bytes of %d", c.at, s.units, c.blocks, s.blocks, c.used, s.used)
	}
	c.sums.used += c.used
	return nil
}

func (c *checkedSpans) span(m mark) error {
	t := &c.h.spans
	p := t.span(m)
	if p.off != c.at || p.n == 0 || int64(p.off)+int64(p.n) > int64(c.s.units) || c.wasFree && !p.granted {
		return fmt.Errorf("wrong span of %d units at %d, expected at %d", p.n, p.off, c.at)
	}
	if found := t.find(c.s, p.off); found != m {
		return fmt.Errorf("the span at %d is at %+v, found at %+v", p.off, m, found)
	}
	if found := t.find(c.s, p.off+p.n-1); found != m {
		return fmt.Errorf("the last unit of the span at %d is found at %+v, not %+v", p.off, found, m)
	}
	c.at, c.wasFree = p.off+p.n, !p.granted
	if !p.granted {
		c.free++
		return nil
	}
	bytes := c.h.bytes(p.n)
	if p.waste < 0 || p.waste >= bytes {
		return fmt.Errorf("a block wastes %d of %d bytes", p.waste, bytes)
	}
	if _, ok := t.much[t.key(m)]; ok {
		c.much++
	}
	if c.s.waste != 0 && p.waste != c.s.waste {
		return fmt.Errorf("the block at %d is not all of it", p.off)
	}
	c.blocks++
	c.used += bytes
	c.sums.waste += p.waste
	return nil
}
