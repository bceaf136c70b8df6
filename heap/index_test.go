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
		if b != last && b != last+1 || n <= fineUnits && b != n {
			t.Fatalf("%d units are in bin %d, one less in %d", n, b, last)
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

// A table finds what was put in and not taken out, whatever the order.
func TestTableAgainstMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s spans
		var of table
		s.init()
		of.init()
		seg := &segment{id: 7}
		s.enter(seg)
		there := map[uint32]uint32{}
		for range rapid.IntRange(1, 400).Draw(t, "steps") {
			off := rapid.Uint32Max(200).Draw(t, "off")
			at, x := of.find(&s, seg, off)
			if x != there[off] {
				t.Fatalf("%d is span %d, found %d", off, there[off], x)
			}
			if x != 0 {
				of.remove(at)
				s.drop(x)
				delete(there, off)
				continue
			}
			there[off] = s.make(seg.place, off, 1, true)
			of.add(7, off, there[off])
		}
		if of.n != len(there) {
			t.Fatalf("%d entries, %d counted", len(there), of.n)
		}
	})
}
