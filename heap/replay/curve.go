package replay

import (
	"math"

	"github.com/isobar-project/isobar/heap"
)

// Moved is what it takes to run a trace in an arena of some size when blocks may be moved.
type Moved struct {
	Arena float64 `json:"arena"` // as a multiple of the peak
	// PerByte is how many bytes were moved for each that was allocated; −1: the trace fails,
	// as the sizes rounded to the unit are more than the arena or no room can be made.
	PerByte float64 `json:"moved_per_byte"`
	Passes  int     `json:"passes"` // plans carried out
	Moves   int     `json:"moves"`
}

// CurveArenas are the sizes at which Curve looks.
func CurveArenas() []float64 {
	return []float64{1.00, 1.01, 1.02, 1.03, 1.05, 1.07, 1.10, 1.15, 1.20, 1.30, 1.50}
}

// Curve replays the trace in arenas of each of the sizes. Where a block does not fit, blocks
// are moved to make room for it, the fewest bytes that the heap's plan finds; apart as in
// heap.Limits, which is how a node moves them.
func (a *Allocs) Curve(arenas []float64, apart bool) []Moved {
	var out []Moved
	for _, m := range arenas {
		out = append(out, a.moved(m, apart))
	}
	return out
}

func (a *Allocs) moved(arena float64, apart bool) Moved {
	m := Moved{Arena: arena}
	w := newArena(int64(float64(a.Peak)*arena), len(a.Sizes))
	at := map[int64]int32{} // which block lies where
	limits := heap.Limits{MaxBytes: math.MaxInt64, Apart: apart, Movable: func(heap.Block) (int64, bool) { return 0, true }}
	var moved, allocated int64
	for _, e := range a.Events {
		if e.Free {
			delete(at, w.blocks[e.ID].Offset)
			w.h.Free(w.blocks[e.ID])
			continue
		}
		size := a.Sizes[e.ID]
		b, err := w.h.Alloc(1, size, 0)
		if err != nil {
			plan, ok := w.h.PlanRoom(1, size, 0, limits)
			if !ok {
				m.PerByte = -1
				return m
			}
			m.Passes++
			for _, move := range plan.Moves {
				id := at[move.From.Offset]
				w.h.Free(move.From)
				if w.h.Restore(move.To) != nil {
					m.PerByte = -1
					return m
				}
				delete(at, move.From.Offset)
				at[move.To.Offset] = id
				w.blocks[id] = move.To
				m.Moves++
			}
			moved += plan.Moved
			if b, err = w.h.Alloc(1, size, 0); err != nil {
				m.PerByte = -1
				return m
			}
		}
		allocated += b.Bytes
		w.blocks[e.ID], at[b.Offset] = b, e.ID
	}
	m.PerByte = float64(moved) / float64(allocated)
	return m
}
