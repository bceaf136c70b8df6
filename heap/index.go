package heap

import (
	"math"
	"math/bits"
)

// entry is a free span as the index orders them: by size, then by the id of the segment,
// then by offset.
type entry struct {
	hi uint64 // units, and the segment's rank
	lo uint64 // offset, and the segment's place
}

// beyond is above every entry; what a chunk does not use is filled with it.
const beyond = math.MaxUint64

// before is 1 where e comes before f, else 0.
func (e entry) before(f entry) uint64 {
	_, b := bits.Sub64(e.lo, f.lo, 0)
	_, b = bits.Sub64(e.hi, f.hi, b)
	return b
}

// n is the span's length in units.
func (e entry) n() uint32 { return uint32(e.hi >> 32) }

// off is where the span begins, in units.
func (e entry) off() uint32 { return uint32(e.lo >> 32) }

// span is the free span that it stands for.
func (e entry) span() span { return span{off: e.off(), n: e.n()} }

// place is that of the span's segment.
func (e entry) place() uint32 { return uint32(e.lo) }

// chunkEntries is how many entries a chunk holds at most. With 15 it is four lines of the
// processor's cache, and making room among them costs less than finding another place would.
const chunkEntries = 15

// chunk holds some entries of one bin in order. The chunks of a bin are in a search tree
// that is also a heap by pseudo-random priorities (a treap), which keeps it of logarithmic
// depth without bookkeeping; most bins have one chunk. Index 0 is no chunk.
type chunk struct {
	n           uint32
	left, right uint32 // left links the unused ones
	_           uint32
	at          [chunkEntries]entry
}

// The bins: each size up to fineUnits its own, beyond 32 to a factor of two.
const (
	fineBits  = 5
	fineUnits = 1 << fineBits
	// exactUnits is the least size whose bin has others, too.
	exactUnits = 2 * fineUnits
	bins       = (32 - fineBits + 1) << fineBits
)

// binOf is the bin of a size in units.
func binOf(n uint32) uint32 {
	if n < fineUnits {
		return n
	}
	e := uint32(bits.Len32(n)) - 1 - fineBits
	return (e+1)<<fineBits | n>>e&(fineUnits-1)
}

// bin has the free spans of an owner of one size, or of sizes near each other; without any its
// numbers are zero.
type bin struct {
	root uint32 // of the tree of its chunks
	head uint32 // the first of them
}

// shelf says where an owner's free spans are: its bins, and a bit for each that has any.
type shelf struct {
	bins  [bins]bin
	some  [bins / 64]uint64
	words uint64 // bit i: some[i] is not zero
}

// nextBin is the first bin from b on that has entries; bins where there is none.
func (f *shelf) nextBin(b uint32) uint32 {
	if b >= bins {
		return bins
	}
	w := b / 64
	if m := f.some[w] >> (b % 64); m != 0 {
		return b + uint32(bits.TrailingZeros64(m))
	}
	m := f.words >> (w + 1) << (w + 1)
	if m == 0 {
		return bins
	}
	w = uint32(bits.TrailingZeros64(m))
	return w*64 + uint32(bits.TrailingZeros64(f.some[w]))
}

func (f *shelf) mark(b uint32) {
	f.some[b/64] |= 1 << (b % 64)
	f.words |= 1 << (b / 64)
}

func (f *shelf) unmark(b uint32) {
	if f.some[b/64] &^= 1 << (b % 64); f.some[b/64] == 0 {
		f.words &^= 1 << (b / 64)
	}
}

// cursor is a place in the index; its zero value is none.
type cursor struct{ chunk, pos uint32 }

// index holds the free spans of all owners. An owner's are found from its shelf.
type index struct {
	chunks []chunk
	spare  uint32 // unused chunks
}

func (i *index) init() { i.chunks = make([]chunk, 1) }

func (i *index) make() uint32 {
	if x := i.spare; x != 0 {
		c := &i.chunks[x]
		i.spare, c.left = c.left, 0
		return x
	}
	i.chunks = append(i.chunks, chunk{})
	x := len(i.chunks) - 1
	i.chunks[x].clear(0)
	return uint32(x)
}

// drop gives back an empty chunk.
func (i *index) drop(x uint32) {
	c := &i.chunks[x]
	c.left, c.right = i.spare, 0
	i.spare = x
}

// clear empties a chunk from an entry on.
func (c *chunk) clear(from int) {
	for j := from; j < chunkEntries; j++ {
		c.at[j] = entry{beyond, beyond}
	}
	c.n = uint32(from)
}

// find is how many entries of a chunk come before e: without a branch that depends on them,
// and looking at each fourth first, so that no look waits for more than one other.
func (c *chunk) find(e entry) uint32 {
	p := 4 * (c.at[3].before(e) + c.at[7].before(e) + c.at[11].before(e))
	q := (*[3]entry)(c.at[p:])
	return uint32(p + q[0].before(e) + q[1].before(e) + q[2].before(e))
}

// chunkFor finds the chunk of a bin that e is in, or would be put into.
func (i *index) chunkFor(root uint32, e entry) (at uint32) {
	if c := &i.chunks[root]; c.left|c.right == 0 {
		return root
	}
	last := root
	for x := root; x != 0; {
		last = x
		c := &i.chunks[x]
		if e.before(c.at[0]) == 0 {
			at, x = x, c.right
		} else {
			x = c.left
		}
	}
	if at == 0 {
		return last // before all: it went left only
	}
	return at
}

// behind finds the chunk of a bin whose entries are the next behind e; 0: there is none.
func (i *index) behind(root uint32, e entry) (found uint32) {
	for x := root; x != 0; {
		c := &i.chunks[x]
		if e.before(c.at[0]) != 0 {
			found, x = x, c.left
		} else {
			x = c.right
		}
	}
	return found
}

// first finds an owner's smallest free span of at least n units.
func (i *index) first(f *shelf, n uint32) cursor {
	b := binOf(n)
	if root := f.bins[b].root; root != 0 {
		if n < exactUnits {
			return cursor{f.bins[b].head, 0}
		}
		e := entry{hi: uint64(n) << 32}
		x := i.chunkFor(root, e)
		c := &i.chunks[x]
		if p := c.find(e); p < c.n {
			return cursor{x, p}
		}
		if x := i.behind(root, e); x != 0 {
			return cursor{x, 0}
		}
	}
	return i.head(f, b+1)
}

// head is the first entry of the first bin from b on.
func (i *index) head(f *shelf, b uint32) cursor {
	if b = f.nextBin(b); b == bins {
		return cursor{}
	}
	return cursor{f.bins[b].head, 0}
}

// next is the place behind one.
func (i *index) next(f *shelf, at cursor) cursor {
	c := &i.chunks[at.chunk]
	if at.pos+1 < c.n {
		return cursor{at.chunk, at.pos + 1}
	}
	b := binOf(c.at[0].n())
	if x := i.behind(f.bins[b].root, c.at[at.pos]); x != 0 {
		return cursor{x, 0}
	}
	return i.head(f, b+1)
}

// at is the entry at a place that is not none.
func (i *index) at(c cursor) entry { return i.chunks[c.chunk].at[c.pos] }

// largest is the last entry's size in units; 0 where there are none.
func (i *index) largest(f *shelf) uint32 {
	if f.words == 0 {
		return 0
	}
	w := 63 - bits.LeadingZeros64(f.words)
	x := f.bins[w*64+63-bits.LeadingZeros64(f.some[w])].root
	for i.chunks[x].right != 0 {
		x = i.chunks[x].right
	}
	c := &i.chunks[x]
	return c.at[c.n-1].n()
}

func (i *index) insert(f *shelf, e entry) {
	b := binOf(uint32(e.hi >> 32))
	if f.bins[b].root == 0 {
		x := i.make()
		f.bins[b] = bin{root: x, head: x}
		f.mark(b)
		c := &i.chunks[x]
		c.at[0], c.n = e, 1
		return
	}
	x := i.chunkFor(f.bins[b].root, e)
	p := i.chunks[x].find(e)
	if i.chunks[x].n == chunkEntries {
		x, p = i.split(&f.bins[b].root, x, p, e)
	}
	c := &i.chunks[x]
	moved := c.at[p : c.n+1]
	for j := len(moved) - 1; j > 0; j-- {
		moved[j] = moved[j-1]
	}
	c.at[p] = e
	c.n++
}

// split makes room in a full chunk for e at p, and says where it now belongs. What comes
// behind all others begins a chunk: ascending entries fill them.
func (i *index) split(root *uint32, x, p uint32, e entry) (uint32, uint32) {
	y := i.make()
	c, d := &i.chunks[x], &i.chunks[y]
	if p == chunkEntries && i.behind(*root, e) == 0 {
		d.at[0] = e
		i.plant(root, y)
		return y, 0
	}
	const half = (chunkEntries + 1) / 2
	copy(d.at[:], c.at[half:])
	c.clear(half)
	d.n = chunkEntries - half
	i.plant(root, y)
	if p <= half {
		return x, p
	}
	return y, p - half
}

// where finds an entry that is there.
func (i *index) where(f *shelf, e entry) cursor {
	x := i.chunkFor(f.bins[binOf(e.n())].root, e)
	return cursor{x, i.chunks[x].find(e)}
}

// remove takes out the entry at a place.
func (i *index) remove(f *shelf, at cursor) {
	x := at.chunk
	c := &i.chunks[x]
	e := c.at[at.pos]
	moved := c.at[at.pos:c.n]
	for j := 1; j < len(moved); j++ {
		moved[j-1] = moved[j]
	}
	c.n--
	c.at[c.n] = entry{beyond, beyond}
	if c.n > chunkEntries/4 {
		return
	}
	b := binOf(e.n())
	switch {
	case c.n == 0:
		i.cut(f, b, x, e)
	case f.bins[b].root != x:
		i.merge(f, b, x)
	}
}

// merge puts the few entries of x into the chunk before it, where they fit with room to
// spare. The first chunk of a bin and the tree's root stay as small as they are.
func (i *index) merge(f *shelf, b, x uint32) {
	d := &i.chunks[x]
	first := d.at[0]
	y := uint32(0)
	for z := f.bins[b].root; z != 0; {
		if c := &i.chunks[z]; c.at[0].before(first) != 0 {
			y, z = z, c.right
		} else {
			z = c.left
		}
	}
	c := &i.chunks[y]
	if y == 0 || c.n+d.n > chunkEntries*3/4 {
		return
	}
	copy(c.at[c.n:], d.at[:d.n])
	c.n += d.n
	d.clear(0)
	i.cut(f, b, x, first)
}

// cut takes an empty chunk, in which e was, out of its bin.
func (i *index) cut(f *shelf, b, x uint32, e entry) {
	at := &f.bins[b]
	i.uproot(&at.root, x, e)
	if at.head == x {
		at.head = i.behind(at.root, e)
	}
	if at.root == 0 {
		f.unmark(b)
	}
	i.drop(x)
}

// priority is a fixed permutation of the indices.
func priority(x uint32) uint32 {
	x *= 0x9e3779b1
	x ^= x >> 15
	x *= 0x85ebca77
	return x ^ x>>13
}

// plant puts a chunk into a bin's tree.
func (i *index) plant(root *uint32, x uint32) {
	e := i.chunks[x].at[0]
	p := root
	for *p != 0 && priority(*p) > priority(x) {
		if e.before(i.chunks[*p].at[0]) != 0 {
			p = &i.chunks[*p].left
		} else {
			p = &i.chunks[*p].right
		}
	}
	rest := *p
	*p = x
	lo, hi := &i.chunks[x].left, &i.chunks[x].right
	for rest != 0 {
		c := &i.chunks[rest]
		if e.before(c.at[0]) == 0 {
			*lo = rest
			lo = &c.right
			rest = *lo
		} else {
			*hi = rest
			hi = &c.left
			rest = *hi
		}
	}
	*lo, *hi = 0, 0
}

// uproot takes a chunk, in which e was, out of a bin's tree.
func (i *index) uproot(root *uint32, x uint32, e entry) {
	p := root
	for *p != x {
		if c := &i.chunks[*p]; e.before(c.at[0]) != 0 {
			p = &c.left
		} else {
			p = &c.right
		}
	}
	lo, hi := i.chunks[x].left, i.chunks[x].right
	for lo != 0 && hi != 0 {
		if priority(lo) > priority(hi) {
			*p = lo
			p = &i.chunks[lo].right
			lo = *p
		} else {
			*p = hi
			p = &i.chunks[hi].left
			hi = *p
		}
	}
	*p = lo | hi
}
