package heap

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// The path of a warm grant allocates nothing, by one owner or two in turn.
func TestWarmGrantDoesNotAllocate(t *testing.T) {
	h := New(Config{})
	for i := range 32 {
		h.Add(SegmentID(i+1), mib, "", true)
	}
	for name, owners := range map[string][]string{"one owner": {"a"}, "two in turn": {"a", "b"}} {
		i := 0
		if n := testing.AllocsPerRun(1000, func() { warmPair(h, owners[i%len(owners)]); i++ }); n != 0 {
			t.Errorf("%s: %v allocations, want 0", name, n)
		}
	}
	b := churn(t, 1000)
	if n := testing.AllocsPerRun(1000, b); n != 0 {
		t.Errorf("blocks: %v allocations, want 0", n)
	}
}

func warmPair(h *Heap, owner string) {
	p := h.Place(owner, mib, 0)
	h.Take(p.Segment, owner)
	if p.NeedsClear {
		h.MarkClean(p.Segment)
	}
	b, err := h.AllocWhole(p.Segment, mib)
	if err != nil {
		panic(err)
	}
	h.Free(b)
	h.Pool(b.Segment)
}

// churn fills a heap with live blocks of one owner and returns a step that
// frees one at random and grants another.
func churn(tb testing.TB, live int) func() {
	h := New(Config{})
	next := SegmentID(0)
	rng := rand.New(rand.NewPCG(1, 2))
	blocks := make([]Block, live)
	grant := func(i int) {
		size := 256 + rng.Int64N(4096)
		p := h.Place("a", size, 0)
		if p.Kind == Create {
			next++
			h.Add(next, p.Create[0], "a", true)
			p.Segment = next
		}
		b, err := h.Alloc(p.Segment, size, 0)
		if err != nil {
			tb.Fatal(err)
		}
		blocks[i] = b
	}
	for i := range blocks {
		grant(i)
	}
	step := func() {
		i := rng.IntN(live)
		h.Free(blocks[i])
		grant(i)
	}
	for range 2 * live {
		step()
	}
	return step
}

func BenchmarkWarmPair(b *testing.B) {
	for name, owners := range map[string][]string{"one": {"a"}, "two": {"a", "b"}} {
		b.Run(name, func(b *testing.B) {
			h := New(Config{})
			for i := range 32 {
				h.Add(SegmentID(i+1), mib, "", true)
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				warmPair(h, owners[i%len(owners)])
				i++
			}
		})
	}
}

func BenchmarkBlockPair(b *testing.B) {
	for _, live := range []int{100, 60_000} {
		b.Run(fmt.Sprint(live), func(b *testing.B) {
			step := churn(b, live)
			b.ReportAllocs()
			for b.Loop() {
				step()
			}
		})
	}
}
