package heap

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// grantOne carries out a placement the way a device actor does.
func grantOne(h *Heap, next *SegmentID, owner string, size, align int64) ([]Block, error) {
	p := h.Place(owner, size, align)
	var ids []SegmentID
	if p.Kind != Create {
		ids = append([]SegmentID{p.Segment}, p.More...)
	}
	for _, id := range ids {
		clear := h.NeedsClear(id, owner)
		if clear && !p.NeedsClear {
			return nil, fmt.Errorf("segment %d needs clearing, the placement says none does", id)
		}
		if p.Kind == Pooled {
			h.Take(id, owner)
		}
		if clear {
			h.MarkClean(id)
		}
	}
	for _, bytes := range p.Create {
		*next++
		h.Add(*next, bytes, owner, true)
		ids = append(ids, *next)
	}
	var blocks []Block
	total := int64(0)
	for _, id := range ids {
		var b Block
		var err error
		if p.Whole {
			info, _ := h.Segment(id)
			b, err = h.AllocWhole(id, min(size-total, info.Bytes))
		} else {
			b, err = h.Alloc(id, size, align)
		}
		if err != nil {
			return nil, fmt.Errorf("placed by %+v: %w", p, err)
		}
		if align > 0 && b.Offset%align != 0 {
			return nil, fmt.Errorf("offset %d is not aligned to %d", b.Offset, align)
		}
		blocks = append(blocks, b)
		total += b.Bytes
	}
	if total != p.BlockBytes || total < size {
		return nil, fmt.Errorf("granted %d bytes, the placement said %d, asked %d", total, p.BlockBytes, size)
	}
	return blocks, nil
}

// oracle knows of every unit of every segment whether it is granted, and whose
// bytes it holds.
type oracle struct {
	unit     int64
	granted  map[SegmentID][]bool
	contents map[SegmentID]string // the only owner that wrote to it; "": zero
}

func (o *oracle) grant(b Block) error {
	units := o.granted[b.Segment]
	if b.Offset < 0 || b.Offset%o.unit != 0 || b.Bytes < 1 || (b.Offset+b.Bytes)/o.unit > int64(len(units)) {
		return fmt.Errorf("block %+v lies outside its segment", b)
	}
	for i := b.Offset / o.unit; i < (b.Offset+b.Bytes)/o.unit; i++ {
		if units[i] {
			return fmt.Errorf("block %+v overlaps another", b)
		}
		units[i] = true
	}
	return nil
}

func (o *oracle) free(b Block) (empty bool) {
	units := o.granted[b.Segment]
	for i := b.Offset / o.unit; i < (b.Offset+b.Bytes)/o.unit; i++ {
		units[i] = false
	}
	return !slices.Contains(units, true)
}

// world drives a heap through random changes and checks every answer.
type world struct {
	h      *Heap
	o      oracle
	next   SegmentID
	blocks []Block
	owner  map[SegmentID]string // "": pooled
	cfg    Config
}

func newWorld(cfg Config) *world {
	h := New(cfg)
	return &world{
		h: h, cfg: h.Config(), owner: map[SegmentID]string{},
		o: oracle{unit: h.Config().UnitBytes, granted: map[SegmentID][]bool{}, contents: map[SegmentID]string{}},
	}
}

var tinyConfig = Config{
	GranularityBytes: 1024, Classes: []int64{1024, 4096, 16384}, OwnSegmentBytes: 8192,
	MaxSegmentBytes: 32768, UnitBytes: 256,
}

// step makes one change, chosen by its arguments.
func (w *world) step(verb, a, b uint32) error {
	owner := string('a' + rune(a%3))
	switch verb % 15 {
	case 0, 1, 2, 3, 4:
		sizes := [...]int64{1, 255, 256, 300, 700, 1024, 3000, 4000, 5000, 9000, 16384, 20000, 40000, 100000}
		size := sizes[b%uint32(len(sizes))]
		return w.grant(owner, size, int64(0x100)<<(a/3%5)&^0x100)
	case 5, 6, 7, 8:
		if len(w.blocks) > 0 {
			w.free(int(a) % len(w.blocks))
		}
	case 9:
		return w.work(b)
	case 10:
		if ids := w.h.Idle(int64(b % 50000)); len(ids) > 0 {
			w.remove(ids[0])
		}
	case 11:
		w.next++
		bytes := 1024 * int64(1+b%20)
		w.h.Add(w.next, bytes, "", a%2 == 0)
		w.adopt(w.next, bytes, "")
		if a%2 != 0 {
			w.o.contents[w.next] = "stranger"
		}
	case 12: // taken, and given up before a byte was handed out
		if p := w.h.Place(owner, 1024, 0); p.Kind == Pooled {
			w.h.Take(p.Segment, owner)
			if a%2 == 0 && p.NeedsClear {
				w.h.MarkClean(p.Segment)
				w.o.contents[p.Segment] = ""
			}
			if w.o.contents[p.Segment] == "" { // as far as the heap can know
				w.o.contents[p.Segment] = owner
			}
			w.h.Pool(p.Segment)
		}
	case 13: // room made in a segment that has blocks
		if len(w.blocks) > 0 {
			id := w.blocks[int(a)%len(w.blocks)].Segment
			_, err := w.makeRoom(id, int64(256*(1+b%64)), 0, Limits{MaxBytes: math.MaxInt64, Movable: func(Block) (int64, bool) { return 0, true }}, nil)
			return err
		}
	case 14: // segments emptied
		l := Limits{MaxBytes: int64(b % 20000), MaxVacancies: 2, Movable: func(Block) (int64, bool) { return 512, true }}
		return w.carryOut(w.h.PlanDefragment(l), l, nil)
	}
	return nil
}

func (w *world) adopt(id SegmentID, bytes int64, owner string) {
	w.o.granted[id] = make([]bool, bytes/w.o.unit)
	w.owner[id] = owner
}

func (w *world) grant(owner string, size, align int64) error {
	before := w.h.Stats()
	p := w.h.Place(owner, size, align)
	if again := w.h.Place(owner, size, align); fmt.Sprint(p) != fmt.Sprint(again) || w.h.Stats() != before {
		return fmt.Errorf("Place changed something: %+v, then %+v", p, again)
	}
	first := w.next
	dirty := map[SegmentID]bool{}
	for id := range w.owner {
		dirty[id] = w.h.NeedsClear(id, owner)
	}
	blocks, err := grantOne(w.h, &w.next, owner, size, align)
	if err != nil {
		return err
	}
	for _, b := range blocks {
		if b.Segment > first {
			info, _ := w.h.Segment(b.Segment)
			w.adopt(b.Segment, info.Bytes, owner)
		}
		if at := w.owner[b.Segment]; at != "" && at != owner {
			return fmt.Errorf("%q got %+v in a segment of %q", owner, b, at)
		}
		if has := w.o.contents[b.Segment]; has != "" && has != owner && !dirty[b.Segment] {
			return fmt.Errorf("%q got %+v with the bytes of %q", owner, b, has)
		}
		w.owner[b.Segment] = owner
		w.o.contents[b.Segment] = owner
		if err := w.o.grant(b); err != nil {
			return err
		}
		if p.Whole && b.Asked < b.Bytes && float64(b.Bytes-b.Asked) > max(w.cfg.MaxWaste*float64(b.Asked), float64(w.cfg.GranularityBytes-1)) {
			return fmt.Errorf("block %+v wastes too much", b)
		}
		w.blocks = append(w.blocks, b)
	}
	return nil
}

func (w *world) free(i int) {
	b := w.blocks[i]
	w.blocks[i] = w.blocks[len(w.blocks)-1]
	w.blocks = w.blocks[:len(w.blocks)-1]
	want := w.o.free(b)
	if empty := w.h.Free(b); empty != want {
		panic(fmt.Sprintf("freeing %+v: empty %v, want %v", b, empty, want))
	}
	if want && b.Offset%512 == 0 { // some stay with their owner
		w.h.Pool(b.Segment)
		w.owner[b.Segment] = ""
	}
}

// work clears in the background, or fails to.
func (w *world) work(b uint32) error {
	id, ok := w.h.Dirty()
	if !ok {
		return nil
	}
	if w.o.contents[id] == "" {
		return fmt.Errorf("segment %d is to be cleared but holds zeros", id)
	}
	if b%3 == 0 {
		w.h.MarkClean(id)
		w.o.contents[id] = ""
		return nil
	}
	w.h.SetAside(id)
	if again, ok := w.h.Dirty(); ok && again == id {
		return fmt.Errorf("segment %d is set aside and yet to be cleared", id)
	}
	if slices.Contains(w.h.Idle(1<<40), id) {
		return fmt.Errorf("segment %d is set aside and yet to be given up", id)
	}
	switch b % 4 {
	case 0:
		w.h.Pool(id)
	case 1:
		w.remove(id)
	default:
		w.h.MarkClean(id)
		w.o.contents[id] = ""
	}
	return nil
}

func (w *world) remove(id SegmentID) {
	w.h.Remove(id)
	delete(w.owner, id)
	delete(w.o.granted, id)
	delete(w.o.contents, id)
}

// check compares the heap's figures with the oracle's count of units.
func (w *world) check() error {
	if !invariants { // else every change has done that
		if err := w.h.Check(); err != nil {
			return err
		}
	}
	var want Stats
	want.Segments = len(w.owner)
	for id, units := range w.o.granted {
		bytes := int64(len(units)) * w.o.unit
		want.SegmentBytes += bytes
		if w.owner[id] == "" {
			want.PooledBytes += bytes
			continue
		}
		run := int64(0)
		for i, used := range append(slices.Clone(units), true) {
			if i < len(units) && used {
				want.UsedBytes += w.o.unit
			}
			if used && run > 0 {
				want.FreeBlocks++
				want.LargestFree = max(want.LargestFree, run)
				want.SlackBytes += run
				run = 0
			} else if !used {
				run += w.o.unit
			}
		}
	}
	for _, b := range w.blocks {
		want.InternalWaste += b.Bytes - b.Asked
	}
	if want.SlackBytes > 0 {
		want.FragmentationPercentage = 100 * (1 - float64(want.LargestFree)/float64(want.SlackBytes))
	}
	if got := w.h.Stats(); got != want {
		return fmt.Errorf("stats are %+v, the oracle counts %+v", got, want)
	}
	return nil
}

// A heap never grants a unit twice, mixes owners, or shows one owner another's
// bytes; its figures agree with a bitmap of every unit.
func TestAgainstBitmap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(tinyConfig)
		for range rapid.IntRange(1, 120).Draw(t, "steps") {
			verb, a, b := rapid.Uint32Max(1000).Draw(t, "verb"), rapid.Uint32Max(1000).Draw(t, "a"), rapid.Uint32Max(100000).Draw(t, "b")
			if err := w.step(verb, a, b); err != nil {
				t.Fatal(err)
			}
			if err := w.check(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// FuzzAgainstBitmap is the same with the fuzzer's bytes as steps.
func FuzzAgainstBitmap(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 1, 3, 5, 0, 0, 0, 2, 4})
	f.Add([]byte{0, 0, 13, 0, 1, 13, 5, 0, 0, 5, 0, 0, 0, 2, 13, 9, 0, 2, 10, 0, 9})
	f.Add([]byte{11, 1, 3, 11, 0, 7, 0, 0, 6, 0, 0, 11, 5, 1, 0, 9, 0, 1, 9, 0, 3})
	f.Fuzz(func(t *testing.T, steps []byte) {
		w := newWorld(tinyConfig)
		for len(steps) >= 3 && w.next < 300 {
			if err := w.step(uint32(steps[0]), uint32(steps[1]), uint32(steps[2])*257); err != nil {
				t.Fatal(err)
			}
			steps = steps[3:]
			if err := w.check(); err != nil {
				t.Fatal(err)
			}
		}
	})
}
