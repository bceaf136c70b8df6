package eviction

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestCheapestIsThePrefix: what is chosen of many is what the whole order begins with.
func TestCheapestIsThePrefix(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 500).Draw(t, "candidates")
		values := rapid.IntRange(1, 1000).Draw(t, "different values")
		largest := rapid.SampledFrom([]int64{2, 1 << 30}).Draw(t, "largest")
		of := make([]Candidate, n)
		r := ranking{of: of}
		var all int64
		for i := range of {
			of[i] = Candidate{Object: Object{Key: fmt.Sprint(i), Bytes: rapid.Int64Range(1, largest).Draw(t, "bytes")}}
			all += of[i].Bytes
			r.add(i, float64(rapid.IntRange(0, values).Draw(t, "value")))
		}
		need := rapid.Int64Range(1, all+all/8+1).Draw(t, "need")
		inOrder := slices.Clone(r.items)
		r.sort(inOrder)
		var want int64
		k := 0
		for ; k < n && want < need; k++ {
			want += r.bytes(inOrder[k])
		}
		chosen, freed := r.cheapest(need)
		if freed != want || len(chosen) != k || len(r.items) != n {
			t.Fatalf("%d of %d free %d bytes of %d needed; the first %d free %d", len(chosen), n, freed, need, k, want)
		}
		for i, c := range chosen {
			if c.index != inOrder[i].index || c.rank != int32(i+1) {
				t.Fatalf("number %d is %d, ranked %d; it should be %d", i, c.index, c.rank, inOrder[i].index)
			}
		}
		if k > 0 && k <= 6 {
			pool := r.next(chosen, among)
			if m := min(n, among); len(pool) != m || !slices.EqualFunc(pool, inOrder[:m], func(a, b ranked) bool { return a.index == b.index }) {
				t.Fatalf("the first %d are %v, not %v", m, pool, inOrder[:m])
			}
		}
	})
}
