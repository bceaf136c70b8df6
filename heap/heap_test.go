package heap

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
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
	switch verb % 13 {
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
	if err := w.h.Check(); err != nil {
		return err
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

// A heap rebuilt from a ledger's segments and blocks, in any order, has the same
// figures and the same room.
func TestRestoreInAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(tinyConfig)
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			if err := w.step(rapid.Uint32Max(8).Draw(t, "verb"), rapid.Uint32Max(1000).Draw(t, "a"), rapid.Uint32Max(1000).Draw(t, "b")); err != nil {
				t.Fatal(err)
			}
		}
		again := New(tinyConfig)
		var ids []SegmentID
		for id := range w.owner {
			ids = append(ids, id)
		}
		slices.Sort(ids)
		for _, id := range rapid.Permutation(ids).Draw(t, "segments") {
			info, _ := w.h.Segment(id)
			again.Add(id, info.Bytes, info.Owner, !info.Dirty)
		}
		for _, b := range rapid.Permutation(w.blocks).Draw(t, "blocks") {
			if err := again.Restore(b); err != nil {
				t.Fatal(err)
			}
			if err := again.Restore(b); !errors.Is(err, ErrBadBlock) {
				t.Fatalf("restored %+v twice: %v", b, err)
			}
		}
		if err := again.Check(); err != nil {
			t.Fatal(err)
		}
		if a, b := w.h.Stats(), again.Stats(); a != b {
			t.Fatalf("stats were %+v, restored %+v", a, b)
		}
		for _, size := range []int64{1, 500, 3000} {
			a, b := w.h.Place("a", size, 0), again.Place("a", size, 0)
			if a.Kind == InSegment && fmt.Sprint(a) != fmt.Sprint(b) {
				t.Fatalf("%d bytes were placed at %+v, restored %+v", size, a, b)
			}
		}
	})
}

func TestRestoreRefusesImpossibleBlocks(t *testing.T) {
	h := New(Config{})
	h.Add(1, mib, "a", true)
	h.Add(2, mib, "", true)
	if err := h.Restore(Block{Segment: 1, Offset: 4096, Bytes: 4096}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		b    Block
		want error
	}{
		{Block{Segment: 9, Bytes: 256}, ErrNotOwned},
		{Block{Segment: 2, Bytes: 256}, ErrNotOwned},
		{Block{Segment: 1, Bytes: 0}, ErrBadBlock},
		{Block{Segment: 1, Bytes: -256}, ErrBadBlock},
		{Block{Segment: 1, Bytes: 100}, ErrBadBlock},
		{Block{Segment: 1, Offset: 1, Bytes: 256}, ErrBadBlock},
		{Block{Segment: 1, Offset: -256, Bytes: 256}, ErrBadBlock},
		{Block{Segment: 1, Offset: mib, Bytes: 256}, ErrBadBlock},
		{Block{Segment: 1, Offset: mib - 256, Bytes: 512}, ErrBadBlock},
		{Block{Segment: 1, Offset: 1 << 62, Bytes: 256}, ErrBadBlock},
		{Block{Segment: 1, Offset: 256, Bytes: 1<<63 - 256}, ErrBadBlock},
		{Block{Segment: 1, Offset: 0, Bytes: 4096 + 256}, ErrBadBlock},
		{Block{Segment: 1, Offset: 4096 + 256, Bytes: 256}, ErrBadBlock},
		{Block{Segment: 1, Offset: 8192 - 256, Bytes: 512}, ErrBadBlock},
		{Block{Segment: 1, Offset: 0, Bytes: 256, Asked: 257}, ErrBadBlock},
		{Block{Segment: 1, Offset: 0, Bytes: 256, Asked: -1}, ErrBadBlock},
	} {
		if err := h.Restore(c.b); !errors.Is(err, c.want) {
			t.Errorf("restores %+v with %v, want %v", c.b, err, c.want)
		}
	}
	if err := h.Check(); err != nil {
		t.Fatal(err)
	}
}

func TestAllocRefuses(t *testing.T) {
	h := New(Config{})
	h.Add(1, mib, "a", true)
	h.Add(2, mib, "", true)
	for _, c := range []struct {
		what string
		do   func() error
		want error
	}{
		{"more than the segment", func() error { _, err := h.Alloc(1, mib+1, 0); return err }, ErrNoRoom},
		{"more than any segment", func() error { _, err := h.Alloc(1, 1<<62, 0); return err }, ErrNoRoom},
		{"an absurd alignment", func() error { _, err := h.Alloc(1, 1, 1<<61); return err }, ErrNoRoom},
		{"a pooled segment", func() error { _, err := h.Alloc(2, 1, 0); return err }, ErrNotOwned},
		{"an unknown segment", func() error { _, err := h.Alloc(3, 1, 0); return err }, ErrNotOwned},
		{"the whole for too much", func() error { _, err := h.AllocWhole(1, mib+1); return err }, ErrNoRoom},
		{"the whole for nothing", func() error { _, err := h.AllocWhole(1, 0); return err }, ErrNoRoom},
		{"the whole of a pooled one", func() error { _, err := h.AllocWhole(2, 1); return err }, ErrNotOwned},
	} {
		if err := c.do(); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.what, err, c.want)
		}
	}
	if _, err := h.Alloc(1, 1, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := h.AllocWhole(1, mib); !errors.Is(err, ErrNoRoom) {
		t.Errorf("the whole of a segment with a block: %v, want ErrNoRoom", err)
	}
}

// What contradicts the heap's state panics, with the heap unharmed.
func TestMisusePanics(t *testing.T) {
	h := New(Config{})
	h.Add(1, mib, "a", true)
	h.Add(2, mib, "", true)
	h.Add(3, mib, "", false)
	h.SetAside(3)
	b, err := h.Alloc(1, 4096, 0)
	if err != nil {
		t.Fatal(err)
	}
	for what, do := range map[string]func(){
		"add a known id":           func() { h.Add(1, mib, "", true) },
		"add half a page":          func() { h.Add(9, 2048, "", true) },
		"take an owner's":          func() { h.Take(1, "b") },
		"take for nobody":          func() { h.Take(2, "") },
		"take one set aside":       func() { h.Take(3, "a") },
		"take an unknown one":      func() { h.Take(9, "a") },
		"pool one with blocks":     func() { h.Pool(1) },
		"pool a pooled one":        func() { h.Pool(2) },
		"remove one with blocks":   func() { h.Remove(1) },
		"set aside twice":          func() { h.SetAside(3) },
		"free half a block":        func() { h.Free(Block{Segment: 1, Offset: b.Offset, Bytes: b.Bytes / 2}) },
		"free from inside a block": func() { h.Free(Block{Segment: 1, Offset: b.Offset + 256, Bytes: b.Bytes - 256}) },
		"free free room":           func() { h.Free(Block{Segment: 1, Offset: 8192, Bytes: 4096}) },
		"free outside":             func() { h.Free(Block{Segment: 1, Offset: -1, Bytes: 1}) },
		"place nothing":            func() { h.Place("a", 0, 0) },
		"place on a third":         func() { h.Place("a", 1, 3) },
		"place more than a world":  func() { h.Place("a", 1<<62, 0) },
	} {
		func() {
			defer func() {
				if s, ok := recover().(string); !ok || !strings.HasPrefix(s, "heap: ") {
					t.Errorf("%s: does not panic as misuse (%q)", what, s)
				}
			}()
			do()
		}()
		if err := h.Check(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	h.Free(b)
	func() {
		defer func() {
			if recover() == nil {
				t.Error("a block is freed twice")
			}
		}()
		h.Free(b)
	}()
}

func TestConfigValidate(t *testing.T) {
	for _, c := range []struct {
		cfg  Config
		want string // empty: valid
	}{
		{Config{}, ""},
		{Config{GranularityBytes: 2 * mib}, ""},
		{Config{GranularityBytes: 1 << 30}, ""},
		{Config{MaxWaste: -1}, ""},
		{Config{GranularityBytes: -1}, "granularity"},
		{Config{GranularityBytes: 1000}, "granularity"},
		{Config{UnitBytes: 100}, "power of two"},
		{Config{UnitBytes: -256}, "power of two"},
		{Config{Classes: []int64{4 * mib, mib}}, "ascending"},
		{Config{Classes: []int64{mib, mib}}, "ascending"},
		{Config{Classes: []int64{2 << 30}}, "largest segment"},
		{Config{MaxSegmentBytes: 100}, "largest segment"},
		{Config{MaxSegmentBytes: 1 << 62}, "units"},
		{Config{OwnSegmentBytes: -1}, "own segments"},
		{Config{MaxWaste: 2}, "waste"},
	} {
		err := c.cfg.Validate()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.cfg, err, c.want)
		}
	}
}

// Where each size divides the next, Idle gives up the fewest bytes that suffice.
func TestIdleGivesUpTheFewest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := New(Config{})
		var sizes []int64
		all := int64(0)
		for i := range rapid.IntRange(0, 9).Draw(t, "segments") {
			bytes := mib << (2 * rapid.IntRange(0, 3).Draw(t, "class"))
			h.Add(SegmentID(i+1), int64(bytes), "", i%2 == 0)
			sizes = append(sizes, int64(bytes))
			all += int64(bytes)
		}
		want := rapid.Int64Range(1, 300*mib).Draw(t, "want")
		best := all
		for set := range 1 << len(sizes) {
			sum := int64(0)
			for i, b := range sizes {
				if set>>i&1 == 1 {
					sum += b
				}
			}
			if sum >= want && sum < best {
				best = sum
			}
		}
		got := int64(0)
		seen := map[SegmentID]bool{}
		for _, id := range h.Idle(want) {
			if seen[id] {
				t.Fatalf("segment %d is named twice", id)
			}
			seen[id] = true
			got += sizes[id-1]
		}
		if got != best {
			t.Fatalf("gives up %d bytes for %d, %d would do", got, want, best)
		}
	})
}

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
