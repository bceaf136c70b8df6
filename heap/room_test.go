package heap

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// makeRoom has room made for a block in a segment, and reports the first thing that is not
// as the plan promises. held are the blocks that may not move.
func (w *world) makeRoom(id SegmentID, size, align int64, l Limits, held map[Block]bool) (made bool, err error) {
	before := w.h.Stats()
	plan, ok := w.h.PlanRoom(id, size, align, l)
	if again, _ := w.h.PlanRoom(id, size, align, l); fmt.Sprint(plan) != fmt.Sprint(again) || w.h.Stats() != before {
		return false, fmt.Errorf("planning changed something: %+v, then %+v", plan, again)
	}
	info, _ := w.h.Segment(id)
	if !ok {
		enough := (size+w.cfg.UnitBytes-1)/w.cfg.UnitBytes*w.cfg.UnitBytes <= info.Bytes-info.UsedBytes
		if enough && len(held) == 0 && !l.Apart && l.MaxBytes == math.MaxInt64 && align == 0 {
			return false, fmt.Errorf("no room for %d bytes in segment %d with %+v, where all may be moved", size, id, info)
		}
		return false, nil
	}
	moved := int64(0)
	if l.Apart { // every place is free before the first move
		for _, m := range plan.Moves {
			if err := w.h.Restore(m.To); err != nil {
				return false, fmt.Errorf("%+v lies on bytes of a block: %w", m, err)
			}
		}
		for _, m := range plan.Moves {
			w.h.Free(m.From)
		}
	}
	for _, m := range plan.Moves {
		at := slices.Index(w.blocks, m.From)
		unit, _ := l.Movable(m.From)
		switch {
		case at < 0 || held[m.From]:
			return false, fmt.Errorf("%+v is not there, or may not be moved", m)
		case m.To.Segment != id || m.To.Bytes != m.From.Bytes || m.To.Asked != m.From.Asked || m.To.Offset%max(unit, 1) != 0:
			return false, fmt.Errorf("%+v is not the same block elsewhere in segment %d, aligned to %d", m, id, unit)
		case m.To.Offset > m.From.Offset && m.To.Offset < m.From.Offset+m.From.Bytes:
			return false, fmt.Errorf("%+v overlaps upward", m)
		}
		w.o.free(m.From)
		if err := w.o.grant(m.To); err != nil {
			return false, err
		}
		if !l.Apart {
			w.h.Free(m.From)
			if err := w.h.Restore(m.To); err != nil {
				return false, err
			}
		}
		w.blocks[at] = m.To
		moved += m.From.Bytes
	}
	if moved != plan.Moved || moved > l.MaxBytes {
		return false, fmt.Errorf("%d bytes moved, %d planned, at most %d", moved, plan.Moved, l.MaxBytes)
	}
	b, err := w.h.Alloc(id, size, align)
	if err != nil {
		return false, fmt.Errorf("after %+v: %w", plan, err)
	}
	w.blocks = append(w.blocks, b)
	return true, w.o.grant(b)
}

// Every plan of room can be carried out as it says, and the block fits then; without bounds
// there is one wherever the bytes are.
func TestRoomAgainstBitmap(t *testing.T) {
	made, moves := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(tinyConfig)
		w.next = 1
		w.h.Add(1, 32768, "a", true)
		w.adopt(1, 32768, "a")
		for range rapid.IntRange(1, 60).Draw(t, "blocks") {
			b, err := w.h.Alloc(1, 512*rapid.Int64Range(1, 5).Draw(t, "size"), 512)
			if err != nil {
				break
			}
			if err := w.o.grant(b); err != nil {
				t.Fatal(err)
			}
			w.blocks = append(w.blocks, b)
		}
		held := map[Block]bool{}
		for i := 0; i < len(w.blocks); i++ {
			switch rapid.IntRange(0, 9).Draw(t, "fate") {
			case 0, 1, 2, 3, 4:
				if len(w.blocks) > 1 {
					w.free(i)
					i--
				}
			case 5:
				held[w.blocks[i]] = true
			}
		}
		if w.owner[1] != "a" {
			return // its last block went, and it with it
		}
		if rapid.Bool().Draw(t, "all") {
			clear(held)
		}
		l := Limits{
			MaxBytes: rapid.SampledFrom([]int64{0, 3000, math.MaxInt64}).Draw(t, "budget"),
			Movable:  func(b Block) (int64, bool) { return 512, !held[b] },
			Apart:    rapid.Bool().Draw(t, "apart"),
		}
		align := rapid.SampledFrom([]int64{0, 0, 1024, 4096}).Draw(t, "align")
		ok, err := w.makeRoom(1, 512*rapid.Int64Range(1, 40).Draw(t, "room"), align, l, held)
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			made++
		}
		moves += len(w.blocks)
		if err := w.check(); err != nil {
			t.Fatal(err)
		}
	})
	if made == 0 || moves == 0 {
		t.Error("no plan had anything to do: the test shows nothing")
	}
}

func TestRoomTakesTheFewestBytes(t *testing.T) {
	h := New(Config{UnitBytes: 1024, Classes: []int64{mib}})
	h.Add(1, 64<<10, "a", true)
	place := func(off, n int64) {
		t.Helper()
		if err := h.Restore(Block{Segment: 1, Offset: off << 10, Bytes: n << 10}); err != nil {
			t.Fatal(err)
		}
	}
	place(0, 10)  // 6 free behind it
	place(16, 2)  // 4 free behind it: the cheapest to move
	place(22, 12) // 8 free behind it
	place(42, 10) // 12 free behind it, to the end
	movable := func(Block) (int64, bool) { return 0, true }
	plan, ok := h.PlanRoom(1, 12<<10+1, 0, Limits{MaxBytes: math.MaxInt64, Movable: movable})
	if !ok || plan.Moved != 10<<10 && plan.Moved != 2<<10 {
		t.Fatalf("plan %+v, %v", plan, ok)
	}
	plan, ok = h.PlanRoom(1, 12<<10, 0, Limits{MaxBytes: math.MaxInt64, Movable: movable})
	if !ok || plan.Moved != 2<<10 && len(plan.Moves) > 0 {
		t.Fatalf("plan %+v, %v", plan, ok)
	}
	if plan, ok := h.PlanRoom(1, 30<<10, 0, Limits{MaxBytes: 12<<10 - 1, Movable: movable}); ok && plan.Moved > 12<<10-1 {
		t.Fatalf("over the budget: %+v", plan)
	}
	if plan, ok := h.PlanRoom(1, 31<<10, 0, Limits{MaxBytes: math.MaxInt64, Movable: movable}); ok {
		t.Fatalf("room for more than is free: %+v", plan)
	}
	if plan, ok := h.PlanRoom(1, 30<<10, 0, Limits{MaxBytes: math.MaxInt64, Movable: func(b Block) (int64, bool) { return 0, b.Offset != 22<<10 }}); ok {
		t.Fatalf("room past a block that may not be moved: %+v", plan)
	}
}
