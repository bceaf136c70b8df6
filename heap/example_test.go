package heap_test

import (
	"fmt"

	"github.com/isobar-project/isobar/heap"
)

// The life of a warm 1 MiB grant, and of a small block.
func Example() {
	h := heap.New(heap.Config{})
	h.Add(1, 1<<20, "", true) // made and cleared ahead of need

	p := h.Place("renderer", 1<<20, 0)
	fmt.Println(p.Kind, "whole:", p.Whole, "clear first:", p.NeedsClear)
	h.Take(p.Segment, "renderer")
	grant, err := h.AllocWhole(p.Segment, 1<<20)
	if err != nil {
		fmt.Println(err)
		return
	}

	p = h.Place("renderer", 5000, 4096)
	fmt.Println(p.Kind, p.Create, "for a block of", p.BlockBytes)
	h.Add(2, p.Create[0], "renderer", true)
	block, err := h.Alloc(2, 5000, 4096)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("block at", block.Offset, "of segment", block.Segment)

	if h.Free(grant) {
		h.Pool(grant.Segment) // once its release is proved
	}
	p = h.Place("trainer", 1<<20, 0)
	fmt.Println(p.Kind, "clear first:", p.NeedsClear)
	s := h.Stats()
	fmt.Println(s.SegmentBytes == s.UsedBytes+s.SlackBytes+s.PooledBytes)
	// Output:
	// Pooled whole: true clear first: false
	// Create [1048576] for a block of 5120
	// block at 0 of segment 2
	// Pooled clear first: true
	// true
}
