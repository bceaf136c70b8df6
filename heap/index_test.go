package heap

import (
	"cmp"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// Every size has one bin, the bins are in order of size, and those of small sizes hold one.
func TestBinsAreInOrder(t *testing.T) {
	last := uint32(0)
	for n := uint32(1); n < 1<<20; n++ {
		b := binOf(n)
		if b != last && b != last+1 || n < exactUnits && b != n {
			t.Fatalf("%d units are in bin %d, one less in %d", n, b, last)
		}
		if n == exactUnits && binOf(n+1) != b {
			t.Errorf("%d units have a bin of their own", n)
		}
		last = b
	}
	for bit := range 32 {
		n := uint32(1) << bit
		if binOf(n) < binOf(n-1) || binOf(n) >= bins {
			t.Errorf("%d units are in bin %d", n, binOf(n))
		}
	}
	if binOf(math.MaxUint32) != bins-1 {
		t.Errorf("the largest size is in bin %d of %d", binOf(math.MaxUint32), bins)
	}
}

// The index finds, follows and forgets as a sorted slice does, also where a bin has many
// chunks.
func TestIndexAgainstSorted(t *testing.T) {
	chunks := 0
	rapid.Check(t, func(t *rapid.T) {
		var f shelf
		var x index
		x.init()
		var sorted []entry
		compare := func(a, b entry) int { return cmp.Or(cmp.Compare(a.hi, b.hi), cmp.Compare(a.lo, b.lo)) }
		sizes := rapid.SampledFrom([]uint32{3, 40, 5000}).Draw(t, "sizes")
		seed := rapid.Uint32().Draw(t, "seed")
		next := func(n uint32) uint32 {
			seed = seed*1664525 + 1013904223
			return seed >> 8 % n
		}
		for step := range 1500 {
			grow := []uint32{90, 50, 10}[step/500] // it fills, lives and empties
			if len(sorted) == 0 || next(100) < grow {
				e := entry{uint64(1+next(sizes))<<32 | uint64(next(3)), uint64(next(1<<20))<<32 | uint64(step)}
				if at, there := slices.BinarySearchFunc(sorted, e, compare); !there {
					sorted = slices.Insert(sorted, at, e)
					x.insert(&f, e)
				}
			} else {
				at := int(next(uint32(len(sorted))))
				x.remove(&f, x.where(&f, sorted[at]))
				sorted = slices.Delete(sorted, at, at+1)
			}
			n := 1 + next(sizes+2)
			at, _ := slices.BinarySearchFunc(sorted, entry{hi: uint64(n) << 32}, compare)
			got := x.first(&f, n)
			for range 3 {
				if (got.chunk == 0) != (at == len(sorted)) || got.chunk != 0 && x.chunks[got.chunk].at[got.pos] != sorted[at] {
					t.Fatalf("from %d units: found %+v, entry %d of %d is next", n, got, at, len(sorted))
				}
				if got.chunk == 0 {
					break
				}
				got = x.next(&f, got)
				at++
			}
			largest := uint32(0)
			if len(sorted) > 0 {
				largest = uint32(sorted[len(sorted)-1].hi >> 32)
			}
			if got := x.largest(&f); got != largest {
				t.Fatalf("the largest has %d units, not %d", got, largest)
			}
		}
		chunks = max(chunks, len(x.chunks))
		for _, e := range slices.Clone(sorted) {
			x.remove(&f, x.where(&f, e))
		}
		if f != (shelf{}) {
			t.Fatal("an empty shelf is not empty")
		}
	})
	if chunks < 20 {
		t.Errorf("never more than %d chunks: the test shows little", chunks)
	}
}

// The leaves of a segment are what a sorted slice of spans would be, at any size.
func TestLeavesAgainstSorted(t *testing.T) {
	leaves := 0
	rapid.Check(t, func(t *rapid.T) {
		var of spans
		of.init()
		seg := &segment{id: 7, units: rapid.SampledFrom([]uint32{1, 60, 5000, maxUnits}).Draw(t, "units")}
		of.enter(seg)
		seed := rapid.Uint32().Draw(t, "seed")
		next := func(n uint32) uint32 {
			seed = seed*1664525 + 1013904223
			return uint32(uint64(seed) * uint64(n) >> 32)
		}
		sorted := []span{{n: seg.units}}
		for step := range 3000 {
			grow := []uint32{90, 50, 20}[step/1000] // many are cut, then joined
			off := next(seg.units)
			at, _ := slices.BinarySearchFunc(sorted, off, func(p span, off uint32) int { return cmp.Compare(int64(p.off+p.n-1), int64(off)) })
			p := &sorted[at]
			m := of.find(seg, off)
			if got := of.span(m); got != *p {
				t.Fatalf("unit %d is in %+v, found %+v", off, *p, got)
			}
			switch {
			case next(100) < grow && off > p.off: // cut in two
				granted := next(2)
				of.insert(m, off, granted)
				sorted = slices.Insert(sorted, at+1, span{off: off, n: p.off + p.n - off, granted: granted == 1})
				sorted[at].n = off - sorted[at].off
			case at > 0 && at+1 < len(sorted) && grow < 90: // joined with one or two
				var before, after mark
				from, to := at, at
				if how := 1 + next(3); how&1 != 0 {
					before, from = of.before(m), at-1
				} else if how&2 != 0 {
					after, to = of.behind(m), at+1
				}
				of.join(before, m, after)
				sorted[from].n = sorted[to].off + sorted[to].n - sorted[from].off
				sorted = slices.Delete(sorted, from+1, to+1)
			}
			leaves = max(leaves, len(seg.borders))
		}
		var got []span
		of.walk(seg, func(p span) bool { got = append(got, p); return true })
		if !slices.Equal(got, sorted) {
			t.Fatalf("the leaves have %v, not %v", got, sorted)
		}
		if few := 2 + len(sorted)/6; len(seg.borders) > few {
			t.Fatalf("%d spans lie in %d leaves: those that became few were not joined", len(sorted), len(seg.borders))
		}
	})
	if leaves < 5 {
		t.Errorf("never more than %d leaves: the test shows little", leaves)
	}
}

// What a block wastes is kept whatever it is.
func TestWasteOfAnySize(t *testing.T) {
	h := New(Config{UnitBytes: 4096})
	h.Add(1, mib, "a", true)
	var want int64
	var blocks []Block
	for i, waste := range []int64{0, 1, 254, 255, 256, 4095} {
		b := Block{Segment: 1, Offset: int64(i) * 16384, Bytes: 8192, Asked: 8192 - waste}
		if err := h.Restore(b); err != nil {
			t.Fatal(err)
		}
		want += waste
		blocks = append(blocks, b)
	}
	check := func() {
		t.Helper()
		if got := h.Stats().InternalWaste; got != want {
			t.Errorf("%d bytes are wasted, want %d", got, want)
		}
		if err := h.Check(); err != nil {
			t.Error(err)
		}
	}
	check()
	for _, b := range blocks {
		h.Free(b)
		want -= b.Bytes - b.Asked
		check()
	}
	b, err := h.AllocWhole(1, 100_000)
	if err != nil {
		t.Fatal(err)
	}
	want = mib - 100_000
	check()
	h.Free(b)
	want = 0
	check()
}
