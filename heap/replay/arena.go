package replay

import (
	"math"
	"strings"

	"github.com/isobar-project/isobar/heap"
)

// arena is one segment of one owner, as the node's heap manages it.
type arena struct {
	h      *heap.Heap
	blocks []heap.Block
}

const (
	arenaUnit  = 256 // the node's default
	arenaOwner = "replay"
	maxUnits   = 1 << 31 // of a segment; arenas of more than 512 GiB get larger units
)

// newArena makes an arena of at most so many bytes.
func newArena(bytes int64, blocks int) *arena {
	unit := int64(arenaUnit)
	for bytes/unit > maxUnits {
		unit *= 2
	}
	bytes -= bytes % unit
	h := heap.New(heap.Config{GranularityBytes: unit, UnitBytes: unit, MaxSegmentBytes: bytes, OwnSegmentBytes: bytes + 1, Classes: []int64{unit}})
	h.Add(1, bytes, arenaOwner, true)
	return &arena{h: h, blocks: make([]heap.Block, blocks)}
}

// Fits reports whether the whole trace succeeds in an arena of so many bytes.
func (a *Allocs) Fits(bytes int64) bool {
	w := newArena(bytes, len(a.Sizes))
	for _, e := range a.Events {
		if e.Free {
			w.h.Free(w.blocks[e.ID])
			continue
		}
		b, err := w.h.Alloc(1, a.Sizes[e.ID], 0)
		if err != nil {
			return false
		}
		w.blocks[e.ID] = b
	}
	return true
}

// share is a size of an arena, in percent of the peak.
func (a *Allocs) share(percent int) int64 {
	return int64(float64(a.Peak) * float64(percent) / 100)
}

// largestArena ends the search, in percent of the peak.
const largestArena = 400

// Smallest is the smallest arena in which the trace succeeds, as a multiple of its peak, in
// steps of 0.01 up to 1.5 and of 0.05 beyond; 0: not in four times the peak either.
func (a *Allocs) Smallest() float64 {
	for p := 100; p <= largestArena; p += step(p) {
		if a.Fits(a.share(p)) {
			return float64(p) / 100
		}
	}
	return 0
}

func step(percent int) int {
	if percent < 150 {
		return 1
	}
	return 5
}

// The groups that arenas are reported in.
const (
	GroupLarge      = "large"
	GroupMinimalloc = "minimalloc"
)

// Group is the group of a trace, by its name.
func (a *Allocs) Group() string {
	if strings.HasPrefix(a.Name, "minimalloc") || strings.HasSuffix(a.Name, "_odd") {
		return GroupMinimalloc
	}
	return GroupLarge
}

// GeometricMean is that of some figures above zero; 0 where there are none, or one is not.
func GeometricMean(of []float64) float64 {
	if len(of) == 0 {
		return 0
	}
	sum := 0.
	for _, x := range of {
		if x <= 0 {
			return 0
		}
		sum += math.Log(x)
	}
	return math.Exp(sum / float64(len(of)))
}
