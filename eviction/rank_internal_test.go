package eviction

import (
	"fmt"
	"math/rand"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// rankingOf takes in candidates that are worth so much.
func rankingOf(of []Candidate, values []float64, need int64) *ranking {
	request := Request{Candidates: of, Worths: make([]*Worth, len(of))}
	for i, value := range values {
		request.Worths[i] = &Worth{value}
	}
	r := new(ranking)
	r.begin(&request, need)
	r.gather(nil, 0)
	return r
}

// prefix checks that what is chosen of candidates is what their whole order begins with: where
// all were kept, and where what is not needed was dropped on the way. It returns how many were not.
func prefix(t interface{ Fatalf(string, ...any) }, of []Candidate, values []float64, need int64) (left int) {
	all, few := rankingOf(of, values, 0), rankingOf(of, values, need)
	inOrder := slices.Clone(all.items)
	all.sort(inOrder)
	var want int64
	n, k := len(of), 0
	for ; k < n && want < need; k++ {
		want += inOrder[k].bytes
	}
	left = len(few.items)
	for _, r := range []*ranking{all, few} {
		var bytes int64
		for _, x := range r.items {
			bytes += x.bytes
		}
		if r.bytes != bytes || r.count != n {
			t.Fatalf("%d of %d with %d bytes, said to be %d with %d", len(r.items), n, bytes, r.count, r.bytes)
		}
		chosen, next, freed := r.cheapest(need)
		if freed != want || len(chosen) != k {
			t.Fatalf("%d of %d free %d bytes of %d needed; the first %d free %d", len(chosen), n, freed, need, k, want)
		}
		for i, c := range slices.Concat(chosen, next) {
			if c.index != inOrder[i].index || c.rank != int32(i+1) {
				t.Fatalf("number %d is %d, ranked %d; it should be %d", i, c.index, c.rank, inOrder[i].index)
			}
		}
		if m := max(0, min(n, among)-k); len(next) != m {
			t.Fatalf("%d follow %d chosen of %d, it should be %d", len(next), k, n, m)
		}
	}
	return left
}

func TestCheapestIsThePrefix(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 500).Draw(t, "candidates")
		different := rapid.IntRange(1, 1000).Draw(t, "different values")
		largest := rapid.SampledFrom([]int64{2, 1 << 30}).Draw(t, "largest")
		of, values := make([]Candidate, n), make([]float64, n)
		var all int64
		for i := range of {
			of[i] = candidate(fmt.Sprint(i), rapid.Int64Range(1, largest).Draw(t, "bytes"))
			all += of[i].Bytes
			values[i] = float64(rapid.IntRange(0, different).Draw(t, "value"))
		}
		prefix(t, of, values, rapid.Int64Range(1, all+all/8+1).Draw(t, "need"))
	})
}

// Of thousands most are dropped as they come in, in whatever order they come.
func TestCheapestOfThousands(t *testing.T) {
	const n = 3000
	for seed := range int64(9) {
		random := rand.New(rand.NewSource(seed))
		of, values := make([]Candidate, n), make([]float64, n)
		var all int64
		for i := range of {
			of[i] = candidate(fmt.Sprint(i), 1+random.Int63n(1<<uint(1+random.Intn(30))))
			all += of[i].Bytes
			values[i] = float64(random.Intn(3 * n))
		}
		switch seed % 3 {
		case 1:
			slices.Sort(values)
		case 2:
			slices.Sort(values)
			slices.Reverse(values)
		}
		for _, need := range []int64{1, all / 10000, all / 100, all / 20, all / 3, all, all + 1} {
			if left := prefix(t, of, values, need); need <= all/100 && left > n/2 {
				t.Errorf("seed %d: %d of %d were left to choose %d bytes of %d from", seed, left, n, need, all)
			}
		}
	}
}
