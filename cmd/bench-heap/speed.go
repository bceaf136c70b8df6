package main

import (
	"fmt"
	"io"
	"runtime"
	"slices"
	"time"

	"github.com/isobar-project/isobar/heap"
)

// speed is what calls cost while so many blocks live.
type speed struct {
	Live       int     `json:"live_blocks"`
	AllocP50   int64   `json:"allocate_p50_ns"`
	AllocP99   int64   `json:"allocate_p99_ns"`
	FreeP50    int64   `json:"free_p50_ns"`
	FreeP99    int64   `json:"free_p99_ns"`
	OpP50      int64   `json:"operation_p50_ns"`
	OpP99      int64   `json:"operation_p99_ns"`
	PairP50    int64   `json:"pair_p50_ns"`
	PairP99    int64   `json:"pair_p99_ns"`
	PairMean   float64 `json:"pair_mean_ns"` // over all, without a clock between
	HeapAllocs float64 `json:"go_allocations_per_pair"`
}

// footprint is what a heap takes beside the memory that it manages.
type footprint struct {
	Blocks int     `json:"blocks"`
	Bytes  float64 `json:"bytes_per_block"` // of the Go heap
}

const (
	rounds = 15
	pairs  = 50_000 // of a free and an allocation that are measured in a round
	mib    = 1 << 20
)

// churn is an arena with live blocks of random sizes, 256 bytes to 64 KiB, each factor of
// two as likely as the next. It keeps little itself: what it looks at drives the heap's
// memory out of the processor's caches.
type churn struct {
	h      *heap.Heap
	random uint64
	blocks []kept
	times  [2][]int32 // of frees and of allocations, in ns
}

// kept is a block in units of the heap.
type kept struct{ off, asked uint32 }

const unit = 256

func newChurn(live int) *churn {
	c := &churn{h: heap.New(heap.Config{MaxSegmentBytes: 1 << 36, OwnSegmentBytes: 1 << 36, UnitBytes: unit}), random: 1, blocks: make([]kept, live)}
	c.h.Add(1, int64(live)*24<<10+mib, "bench", true)
	for i := range c.blocks {
		c.blocks[i] = c.alloc(c.size())
	}
	for range 4 * live {
		c.pair()
	}
	return c
}

// draw is a random number below n.
func (c *churn) draw(n uint32) uint32 {
	c.random = c.random*6364136223846793005 + 1442695040888963407
	return uint32(c.random >> 32 * uint64(n) >> 32)
}

func (c *churn) size() uint32 {
	n := uint32(unit) << c.draw(8)
	return n + c.draw(n)
}

func (c *churn) alloc(size uint32) kept {
	p := c.h.Place("bench", int64(size), 0)
	if p.Kind != heap.InSegment {
		panic("bench-heap: the arena is too small")
	}
	b, err := c.h.Alloc(p.Segment, int64(size), 0)
	if err != nil {
		panic("bench-heap: " + err.Error())
	}
	return kept{uint32(b.Offset / unit), size}
}

func (k kept) block() heap.Block {
	return heap.Block{Segment: 1, Offset: int64(k.off) * unit, Bytes: (int64(k.asked) + unit - 1) / unit * unit, Asked: int64(k.asked)}
}

// pair frees a block and allocates another.
func (c *churn) pair() {
	i := c.draw(uint32(len(c.blocks)))
	c.h.Free(c.blocks[i].block())
	c.blocks[i] = c.alloc(c.size())
}

// measureSpeed is the least disturbed of some rounds, by its median.
func measureSpeed(live, pairs int) speed {
	c := newChurn(live)
	best := c.round(live, pairs)
	for range rounds - 1 {
		if s := c.round(live, pairs); s.OpP50 < best.OpP50 {
			best = s
		}
	}
	return best
}

func (c *churn) round(live, pairs int) speed {
	none := make([]int64, 1000)
	for i := range none {
		from := time.Now()
		none[i] = int64(time.Since(from))
	}
	slices.Sort(none)
	clock := none[len(none)/2] // what looking at the clock costs itself
	c.times = [2][]int32{c.times[0][:0], c.times[1][:0]}
	for range pairs {
		i, size := c.draw(uint32(live)), c.size()
		block := c.blocks[i].block() // the caller's own cache misses are not the heap's
		from := time.Now()
		c.h.Free(block)
		between := time.Now()
		c.blocks[i] = c.alloc(size)
		end := time.Now()
		c.times[0] = append(c.times[0], int32(min(int64(between.Sub(from))-clock, 1<<30)))
		c.times[1] = append(c.times[1], int32(min(int64(end.Sub(between))-clock, 1<<30)))
	}
	s := speed{Live: live}
	both := slices.Clone(c.times[0])
	for i, t := range c.times[1] {
		both[i] += t
	}
	for _, f := range []struct {
		of       []int32
		p50, p99 *int64
	}{{both, &s.PairP50, &s.PairP99}, {slices.Concat(c.times[0], c.times[1]), &s.OpP50, &s.OpP99}, {c.times[0], &s.FreeP50, &s.FreeP99}, {c.times[1], &s.AllocP50, &s.AllocP99}} {
		slices.Sort(f.of)
		*f.p50, *f.p99 = int64(f.of[len(f.of)/2]), int64(f.of[len(f.of)*99/100])
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	from := time.Now()
	for range pairs {
		c.pair()
	}
	s.PairMean = float64(time.Since(from)) / float64(pairs)
	runtime.ReadMemStats(&after)
	s.HeapAllocs = float64(after.Mallocs-before.Mallocs) / float64(pairs)
	return s
}

// measureFootprint fills a heap with blocks with a gap between any two.
func measureFootprint(blocks int) footprint {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	h := heap.New(heap.Config{MaxSegmentBytes: 1 << 36, OwnSegmentBytes: 1 << 36})
	h.Add(1, int64(blocks)*1024, "bench", true)
	for i := range int64(blocks) {
		if err := h.Restore(heap.Block{Segment: 1, Offset: 1024 * i, Bytes: 512}); err != nil {
			panic("bench-heap: " + err.Error())
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	used := after.HeapAlloc - before.HeapAlloc
	runtime.KeepAlive(h)
	return footprint{blocks, float64(used) / float64(blocks)}
}

func (r *report) speeds(out io.Writer, pairs int) {
	fmt.Fprintf(out, "\nTime of a call in ns, with so many live blocks of 256 bytes to 64 KiB in one arena (allocate: Place and Alloc);\nof %d rounds of %d pairs the one with the least p50 of an operation\n\n", rounds, pairs)
	fmt.Fprintf(out, "| live blocks | operation p50 / p99 | allocate p50 / p99 | free p50 / p99 | a pair p50 / p99 | a pair, mean | Go allocations |\n|---:|---:|---:|---:|---:|---:|---:|\n")
	for _, live := range []int{100, 1000, 10_000, 60_000} {
		s := measureSpeed(live, pairs)
		r.Speed = append(r.Speed, s)
		fmt.Fprintf(out, "| %d | %d / %d | %d / %d | %d / %d | %d / %d | %.0f | %.2f |\n", live, s.OpP50, s.OpP99, s.AllocP50, s.AllocP99, s.FreeP50, s.FreeP99, s.PairP50, s.PairP99, s.PairMean, s.HeapAllocs)
	}
	r.Million = measureFootprint(1_000_000)
	fmt.Fprintf(out, "\nA million blocks with a gap after each: %.0f bytes of the Go heap a block\n", r.Million.Bytes)
}
