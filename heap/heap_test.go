package heap

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

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
