package store

import "math/bits"

// arena hands out runs of granules. Its state is volatile: Open rebuilds it from
// the live records.
//
// Free runs lie in bins: one for each length up to exactBins granules, above
// that four to each doubling. A run is taken from the smallest bin whose every
// run is long enough, so that take and give cost the same however many runs
// there are. Room above top was never used since it was last given back, and is
// taken only where no bin serves; a run that ends at top lowers it.
type arena struct {
	limit uint32 // granules the arena may grow to
	top   uint32 // granules ever in use
	used  uint32 // granules in use now
	tags  []tag  // by granule, up to top
	heads [bins]uint32
	set   [(bins + 63) / 64]uint64 // bins that are not empty
}

// tag describes a run at its first granule and, for n and free, at its last.
type tag struct {
	n          uint32 // granules of the run, 0 inside it
	free       bool
	prev, next uint32 // neighbours in the bin, 1 + granule, 0: none
}

// span is a run of granules.
type span struct{ pos, n uint32 }

const (
	exactBins = 32
	bins      = exactBins + 4*(32-5)
)

// binOf is the bin that a free run of n granules lies in.
func binOf(n uint32) int {
	if n < exactBins {
		return int(n)
	}
	top := bits.Len32(n) - 1
	return exactBins + (top-5)*4 + int(n>>(top-2)&3)
}

// binFor is the first bin all of whose runs hold n granules.
func binFor(n uint32) int {
	if n < exactBins {
		return int(n)
	}
	step := uint32(1) << (bits.Len32(n) - 3)
	return binOf(n + step - 1)
}

// take finds a run of n granules, n > 0.
func (a *arena) take(n uint32) (pos uint32, ok bool) {
	if b, found := a.bin(binFor(n)); found {
		pos = a.heads[b] - 1
		have := a.tags[pos].n
		a.unlink(pos)
		a.mark(pos, n, false)
		if have > n {
			a.link(pos+n, have-n)
		}
		a.used += n
		return pos, true
	}
	if uint64(a.top)+uint64(n) > uint64(a.limit) {
		return a.takeTight(n)
	}
	pos = a.top
	a.grow(pos + n)
	a.mark(pos, n, false)
	a.used += n
	return pos, true
}

// takeTight is the last resort of a full arena: the bin that may hold runs both
// shorter and longer than n.
func (a *arena) takeTight(n uint32) (pos uint32, ok bool) {
	for at := a.heads[binOf(n)]; at != 0; at = a.tags[at-1].next {
		if have := a.tags[at-1].n; have >= n {
			pos = at - 1
			a.unlink(pos)
			a.mark(pos, n, false)
			if have > n {
				a.link(pos+n, have-n)
			}
			a.used += n
			return pos, true
		}
	}
	return 0, false
}

// give returns a run, joining it with free neighbours.
func (a *arena) give(pos, n uint32) {
	a.used -= n
	a.erase(pos, n)
	if pos > 0 && a.tags[pos-1].free {
		before := a.tags[pos-1].n
		pos -= before
		n += before
		a.unlink(pos)
	}
	if end := pos + n; end < a.top && a.tags[end].free {
		after := a.tags[end].n
		a.unlink(end)
		n += after
	}
	if pos+n == a.top {
		a.tags, a.top = a.tags[:pos], pos
		return
	}
	a.link(pos, n)
}

// grow raises top. Tags above the old top may be stale: a run's tags are
// written when it is made, and no others are read.
func (a *arena) grow(top uint32) {
	if int(top) <= cap(a.tags) {
		a.tags = a.tags[:top]
	} else {
		a.tags = append(a.tags, make([]tag, int(top)-len(a.tags))...)
	}
	a.top = top
}

// rebuild starts anew from the runs in use, sorted and without overlap.
func (a *arena) rebuild(used []span) {
	*a = arena{limit: a.limit}
	at := uint32(0)
	for _, s := range used {
		a.grow(s.pos + s.n)
		if s.pos > at {
			a.link(at, s.pos-at)
		}
		a.mark(s.pos, s.n, false)
		a.used += s.n
		at = s.pos + s.n
	}
}

func (a *arena) mark(pos, n uint32, free bool) {
	a.tags[pos].n, a.tags[pos].free = n, free
	a.tags[pos+n-1].n, a.tags[pos+n-1].free = n, free
}

// erase clears the tags of a run that is about to be part of another.
func (a *arena) erase(pos, n uint32) {
	a.tags[pos], a.tags[pos+n-1] = tag{}, tag{}
}

// link puts a free run into its bin.
func (a *arena) link(pos, n uint32) {
	a.mark(pos, n, true)
	b := binOf(n)
	first := a.heads[b]
	a.tags[pos].prev, a.tags[pos].next = 0, first
	if first != 0 {
		a.tags[first-1].prev = pos + 1
	}
	a.heads[b] = pos + 1
	a.set[b/64] |= 1 << (b % 64)
}

// unlink takes a free run out of its bin and erases its tags.
func (a *arena) unlink(pos uint32) {
	t := a.tags[pos]
	b := binOf(t.n)
	if t.prev != 0 {
		a.tags[t.prev-1].next = t.next
	} else {
		a.heads[b] = t.next
		if t.next == 0 {
			a.set[b/64] &^= 1 << (b % 64)
		}
	}
	if t.next != 0 {
		a.tags[t.next-1].prev = t.prev
	}
	a.erase(pos, t.n)
}

// bin finds the first bin at or after b that is not empty.
func (a *arena) bin(b int) (int, bool) {
	if b >= bins {
		return 0, false
	}
	w := b / 64
	m := a.set[w] &^ (1<<(b%64) - 1)
	for {
		if m != 0 {
			return w*64 + bits.TrailingZeros64(m), true
		}
		if w++; w == len(a.set) {
			return 0, false
		}
		m = a.set[w]
	}
}
