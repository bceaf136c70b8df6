package heap

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// carryOut does what a plan says as a device actor does, and reports the first thing that
// is not as the plan promises. held are the blocks that may not move.
func (w *world) carryOut(plan []Vacancy, l Limits, held map[Block]bool) error {
	emptied, filled := map[SegmentID]bool{}, map[SegmentID]bool{}
	left := l.MaxBytes
	for _, v := range plan {
		if filled[v.Segment] || emptied[v.Segment] || w.owner[v.Segment] == "" {
			return fmt.Errorf("segment %d is emptied twice, filled before, or nobody's", v.Segment)
		}
		emptied[v.Segment] = true
		moved := int64(0)
		for _, m := range v.Moves {
			at := slices.Index(w.blocks, m.From)
			switch {
			case at < 0 || m.From.Segment != v.Segment:
				return fmt.Errorf("%+v is not a block of segment %d", m.From, v.Segment)
			case held[m.From]:
				return fmt.Errorf("%+v may not be moved", m.From)
			case emptied[m.To.Segment] || w.owner[m.To.Segment] != w.owner[v.Segment]:
				return fmt.Errorf("%+v goes to a segment that is emptied, or another owner's", m)
			case m.To.Bytes != m.From.Bytes || m.To.Asked != m.From.Asked || m.To.Offset%512 != 0:
				return fmt.Errorf("%+v is not the same block elsewhere, aligned to 512", m)
			}
			filled[m.To.Segment] = true
			if err := w.h.Restore(m.To); err != nil {
				return err
			}
			if err := w.o.grant(m.To); err != nil {
				return err
			}
			w.blocks = append(w.blocks, m.To)
			moved += m.From.Bytes
		}
		if left -= moved; moved != v.Moved || left < 0 {
			return fmt.Errorf("%d bytes moved, %d planned, %d over the bound", moved, v.Moved, -left)
		}
		for i, m := range v.Moves {
			at := slices.Index(w.blocks, m.From)
			w.blocks = slices.Delete(w.blocks, at, at+1)
			empty := w.o.free(m.From)
			if got := w.h.Free(m.From); got != empty || empty != (i == len(v.Moves)-1) {
				return fmt.Errorf("after move %d of %d: segment %d is empty %v, the oracle says %v", i+1, len(v.Moves), v.Segment, got, empty)
			}
		}
		info, _ := w.h.Segment(v.Segment)
		if info.Bytes != v.Bytes {
			return fmt.Errorf("segment %d has %d bytes, the plan says %d", v.Segment, info.Bytes, v.Bytes)
		}
		w.remove(v.Segment)
	}
	return nil
}

// Every plan can be carried out as it says, empties what it says, moves nothing that may
// not be moved and nothing to another owner; planning changes nothing.
func TestPlansAgainstBitmap(t *testing.T) {
	vacated := 0
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(tinyConfig)
		for range rapid.IntRange(5, 150).Draw(t, "steps") {
			if err := w.step(rapid.Uint32Max(12).Draw(t, "verb"), rapid.Uint32Max(1000).Draw(t, "a"), rapid.Uint32Max(8).Draw(t, "b")); err != nil {
				t.Fatal(err)
			}
		}
		held := map[Block]bool{}
		for _, b := range w.blocks {
			held[b] = rapid.IntRange(0, 9).Draw(t, "held") == 0
		}
		skip := SegmentID(rapid.IntRange(0, 5).Draw(t, "skip"))
		l := Limits{
			MaxBytes:     rapid.SampledFrom([]int64{0, 2000, 20000, 1 << 30}).Draw(t, "budget"),
			MaxVacancies: rapid.IntRange(0, 3).Draw(t, "vacancies"),
			Movable:      func(b Block) (int64, bool) { return 512, !held[b] },
			Skip:         func(id SegmentID) bool { return id == skip },
		}
		closed := SegmentID(rapid.IntRange(0, 5).Draw(t, "closed"))
		l.Closed = func(id SegmentID) bool { return id == closed }
		before := w.h.Stats()
		plan := w.h.PlanDefragment(l)
		if again := w.h.PlanDefragment(l); fmt.Sprint(plan) != fmt.Sprint(again) || w.h.Stats() != before {
			t.Fatalf("planning changed something: %+v, then %+v", plan, again)
		}
		if l.MaxVacancies > 0 && len(plan) > l.MaxVacancies {
			t.Fatalf("%d segments are to be emptied, not %d", len(plan), l.MaxVacancies)
		}
		for _, v := range plan {
			if v.Segment == skip {
				t.Fatal("a segment to be left as it is would be emptied")
			}
			for _, m := range v.Moves {
				if m.To.Segment == closed {
					t.Fatal("a segment to be left as it is would be filled")
				}
			}
		}
		vacated += len(plan)
		if err := w.carryOut(plan, l, held); err != nil {
			t.Fatal(err)
		}
		if err := w.check(); err != nil {
			t.Fatal(err)
		}
	})
	if vacated == 0 {
		t.Error("no plan had anything to do: the test shows nothing")
	}
}

func TestPlanFreesMostForLeast(t *testing.T) {
	h := New(Config{Classes: []int64{mib}})
	alloc := func(id SegmentID, sizes ...int64) (out []Block) {
		h.Add(id, mib, "a", true)
		for _, n := range sizes {
			b, err := h.Alloc(id, n, 0)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, b)
		}
		return out
	}
	alloc(1, 256<<10, 512<<10) // three quarters full, from its end: filled up first
	alloc(2, 64<<10)           // hardly used: emptied
	alloc(3, 512<<10)
	alloc(4, mib) // full: emptying it frees nothing
	movable := func(Block) (int64, bool) { return 4096, true }
	plan := h.PlanDefragment(Limits{MaxBytes: 1 << 30, Movable: movable})
	want := []Vacancy{{Segment: 2, Bytes: mib, Moved: 64 << 10, Moves: []Move{{
		Block{Segment: 2, Bytes: 64 << 10, Asked: 64 << 10}, Block{Segment: 1, Bytes: 64 << 10, Asked: 64 << 10}}}}}
	if fmt.Sprint(plan) != fmt.Sprint(want) {
		t.Fatalf("plan %+v, want %+v", plan, want)
	}
	if plan := h.PlanDefragment(Limits{MaxBytes: 64<<10 - 1, Movable: movable}); len(plan) != 0 {
		t.Fatalf("over the budget: %+v", plan)
	}
}
