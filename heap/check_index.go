package heap

import (
	"fmt"
	"math/bits"
)

// checkShelf walks an owner's bins: every entry is a free span of the owner and stands in
// its bin and in order, the chunks are a tree in heap order, and the bits tell the truth.
func (h *Heap) checkShelf(o *owner) (seen int, largest uint32, err error) {
	f := &o.free
	for b := uint32(0); b < bins; b++ {
		if b%64 == 0 && f.some[b/64] == 0 && *(*[64]bin)(f.bins[b:]) == [64]bin{} && f.words&(1<<(b/64)) == 0 {
			b += 63 // none of these
			continue
		}
		some := f.some[b/64]&(1<<(b%64)) != 0
		if some != (f.bins[b] != bin{}) || (f.some[b/64] != 0) != (f.words&(1<<(b/64)) != 0) {
			return 0, 0, fmt.Errorf("bin %d: its bits are wrong", b)
		}
		if !some {
			continue
		}
		c := checkedBin{h: h, o: o, bin: b}
		c.tree(f.bins[b].root)
		if e := h.free.at(cursor{f.bins[b].head, 0}); c.err == nil && e != c.first {
			c.fail("its head is %+v, not %+v", e, c.first)
		}
		if c.err != nil {
			return 0, 0, fmt.Errorf("bin %d: %w", b, c.err)
		}
		seen += c.seen
		largest = c.prev.n()
	}
	if bits.Len64(f.words) > len(f.some) {
		return 0, 0, fmt.Errorf("bits of bins that there are not")
	}
	return seen, largest, nil
}

// checkedBin is the walk over one bin.
type checkedBin struct {
	h           *Heap
	o           *owner
	bin         uint32
	first, prev entry
	seen        int
	err         error
}

func (c *checkedBin) fail(format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf(format, args...)
	}
}

func (c *checkedBin) tree(at uint32) {
	if at == 0 || c.err != nil {
		return
	}
	k := &c.h.free.chunks[at]
	for _, child := range [...]uint32{k.left, k.right} {
		if child != 0 && priority(child) > priority(at) {
			c.fail("the tree is not in heap order")
		}
	}
	c.tree(k.left)
	c.chunk(at)
	c.tree(k.right)
}

func (c *checkedBin) chunk(at uint32) {
	k := &c.h.free.chunks[at]
	if k.n == 0 || k.n > chunkEntries {
		c.fail("chunk %d has %d entries", at, k.n)
		return
	}
	for _, e := range k.at[:k.n] {
		if !c.belongs(e) {
			c.fail("chunk %d has %+v after %+v", at, e, c.prev)
			return
		}
		if c.seen == 0 {
			c.first = e
		}
		c.prev = e
		c.seen++
	}
	for _, e := range k.at[k.n:] {
		if e != (entry{beyond, beyond}) {
			c.fail("chunk %d: what it does not use is not empty", at)
		}
	}
}

// belongs says whether an entry is a free span of the owner, and stands where it should.
func (c *checkedBin) belongs(e entry) bool {
	s := c.h.spans.segs[e.place()]
	if s == nil || s.owner != c.o || binOf(e.n()) != c.bin || c.seen > 0 && c.prev.before(e) == 0 {
		return false
	}
	p := c.h.spans.span(c.h.spans.find(s, e.off()))
	return !p.granted && s.entry(p.off, p.n) == e
}
