package weights_test

import (
	"cmp"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/isobar-project/isobar/weights"
)

type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

// checkLayout is what must hold of every layout. o has all fields set.
func checkLayout(t fataler, m *weights.Model, l *weights.Layout, o weights.LayoutOptions) {
	t.Helper()
	if len(l.Placed) != len(m.Tensors) {
		t.Fatalf("%d of %d tensors are placed", len(l.Placed), len(m.Tensors))
	}
	alone := make(map[int]int) // tensors in a segment
	for i, p := range l.Placed {
		x := m.Tensors[i]
		if p.Tensor != i || p.Offset%o.Align != 0 {
			t.Fatalf("tensor %d is placed as %+v", i, p)
		}
		if p.Offset < 0 || p.Offset+x.Bytes > l.Segments[p.Segment].Used {
			t.Fatalf("tensor %d of %d bytes at %+v leaves its segment %+v", i, x.Bytes, p, l.Segments[p.Segment])
		}
		if x.Bytes > 0 {
			alone[p.Segment]++
		}
	}
	waste := int64(0)
	for i, s := range l.Segments {
		if s.Bytes%o.Granularity != 0 || s.Bytes < s.Used || s.Bytes <= 0 || s.Bytes-s.Used >= o.Granularity && m.TotalBytes > 0 {
			t.Fatalf("segment %d is %+v", i, s)
		}
		if s.Bytes > max(o.SegmentBytes, o.Granularity) && alone[i] > 1 {
			t.Fatalf("segment %d of %d bytes has %d tensors", i, s.Bytes, alone[i])
		}
		waste += s.Used
	}
	if waste -= m.TotalBytes; waste < 0 || waste > int64(len(m.Tensors))*o.Align {
		t.Fatalf("%d bytes wasted on %d tensors", waste, len(m.Tensors))
	}
	checkReads(t, m, l, o)
}

// checkReads demands that reads are disjoint and bring every byte of every tensor
// from where it is in the file.
func checkReads(t fataler, m *weights.Model, l *weights.Layout, o weights.LayoutOptions) {
	t.Helper()
	reads := slices.Clone(l.Reads)
	slices.SortFunc(reads, func(a, b weights.Read) int {
		return cmp.Or(cmp.Compare(a.Segment, b.Segment), cmp.Compare(a.Offset, b.Offset))
	})
	var sum int64
	for i, r := range reads {
		sum += r.Bytes
		if r.Bytes <= 0 || r.Bytes > o.ChunkBytes || r.Offset < 0 || r.Offset+r.Bytes > l.Segments[r.Segment].Used {
			t.Fatalf("read %+v", r)
		}
		if i > 0 && reads[i-1].Segment == r.Segment && reads[i-1].Offset+reads[i-1].Bytes > r.Offset {
			t.Fatalf("reads %+v and %+v overlap", reads[i-1], r)
		}
	}
	if sum != l.ReadBytes || sum < m.TotalBytes {
		t.Fatalf("reads bring %d bytes, ReadBytes is %d, the model has %d", sum, l.ReadBytes, m.TotalBytes)
	}
	for i, p := range l.Placed {
		x := m.Tensors[i]
		at, _ := slices.BinarySearchFunc(reads, p, func(r weights.Read, p weights.Placed) int {
			if r.Segment == p.Segment && r.Offset <= p.Offset && p.Offset < r.Offset+r.Bytes {
				return 0
			}
			return cmp.Or(cmp.Compare(r.Segment, p.Segment), cmp.Compare(r.Offset, p.Offset))
		})
		for off := int64(0); off < x.Bytes; at++ {
			if at == len(reads) {
				t.Fatalf("tensor %d has no read from byte %d on", i, off)
			}
			r := reads[at]
			into := p.Offset + off - r.Offset
			if r.Segment != p.Segment || into < 0 || into >= r.Bytes || r.File != x.File || r.FileOffset+into != x.FileOffset+off {
				t.Fatalf("byte %d of tensor %d (%+v at %+v) is brought by %+v", off, i, x, p, r)
			}
			off += r.Bytes - into
		}
	}
}

// drawModel makes a model's description without files.
func drawModel(t *rapid.T) *weights.Model {
	m := &weights.Model{}
	for file := range rapid.IntRange(1, 3).Draw(t, "files") {
		at := rapid.Int64Range(8, 1000).Draw(t, "header")
		pad := rapid.SampledFrom([]int64{1, 32, 4096}).Draw(t, "pad")
		for range rapid.IntRange(0, 12).Draw(t, "tensors") {
			at = (at + pad - 1) / pad * pad
			n := rapid.OneOf(rapid.Int64Range(0, 600), rapid.Int64Range(0, 5<<20), rapid.Map(rapid.Int64Range(0, 64), func(k int64) int64 { return k << 16 })).Draw(t, "bytes")
			m.Tensors = append(m.Tensors, weights.Tensor{Name: fmt.Sprint(len(m.Tensors)), File: file, FileOffset: at, Bytes: n})
			m.TotalBytes += n
			at += n
		}
	}
	return m
}

func TestLayoutProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawModel(t)
		o := weights.LayoutOptions{
			Granularity:  rapid.SampledFrom([]int64{4096, 65536, 2 << 20}).Draw(t, "granularity"),
			Align:        rapid.SampledFrom([]int64{1, 64, 256, 4096}).Draw(t, "align"),
			ChunkBytes:   rapid.SampledFrom([]int64{4096, 1 << 20}).Draw(t, "chunk"),
			SegmentBytes: rapid.SampledFrom([]int64{1, 1 << 20, 4<<20 + 5, 1 << 30}).Draw(t, "segment"),
		}
		checkLayout(t, m, m.Layout(o), o)
	})
}

func model(bytes ...int64) *weights.Model {
	m := &weights.Model{}
	at := int64(100)
	for i, n := range bytes {
		m.Tensors = append(m.Tensors, weights.Tensor{Name: fmt.Sprint(i), FileOffset: at, Bytes: n})
		at += n
		m.TotalBytes += n
	}
	return m
}

func TestLayoutKeepsFileRunsTogether(t *testing.T) {
	// Sizes that are multiples of Align: the file's spacing survives, one run in all.
	l := model(1<<20, 256, 512, 3<<20).Layout(weights.LayoutOptions{})
	if len(l.Reads) != 1 || l.Reads[0] != (weights.Read{FileOffset: 100, Bytes: 4<<20 + 768}) {
		t.Errorf("reads %+v", l.Reads)
	}
	// An odd size breaks the run once.
	l = model(1<<20, 255, 512, 3<<20).Layout(weights.LayoutOptions{})
	if len(l.Reads) != 2 || l.Reads[1].Offset != 1<<20+256 || l.Reads[1].FileOffset != 100+1<<20+255 {
		t.Errorf("reads %+v", l.Reads)
	}
}

func TestLayoutSegments(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		tensors []int64
		want    []int64
	}{
		{nil, []int64{2 * mib}},
		{[]int64{0, 0}, []int64{2 * mib}},
		{[]int64{1}, []int64{2 * mib}},
		{[]int64{5 * mib, 5 * mib, 5 * mib}, []int64{10 * mib, 6 * mib}},
		{[]int64{mib, 40 * mib, mib}, []int64{2 * mib, 40 * mib, 2 * mib}}, // larger than a segment: alone
		{[]int64{12 * mib, 0, 4}, []int64{12 * mib, 2 * mib}},
	} {
		l := model(c.tensors...).Layout(weights.LayoutOptions{SegmentBytes: 13 * mib, Granularity: 2 * mib})
		var got []int64
		for _, s := range l.Segments {
			got = append(got, s.Bytes)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%v: segments %v, want %v", c.tensors, got, c.want)
		}
	}
}

// A large model has few segments, which are not too large to move.
func TestLayoutOfLargeModels(t *testing.T) {
	const gib = 1 << 30
	for _, c := range []struct {
		tensors, bytes int64
		segments       int
	}{{8, gib / 2, 4}, {32, gib / 2, 16}, {40, gib, 20}, {100, gib, 25}, {3, 5 * gib, 3}} {
		l := model(slices.Repeat([]int64{c.bytes}, int(c.tensors))...).Layout(weights.LayoutOptions{})
		if len(l.Segments) != c.segments {
			t.Errorf("%d tensors of %d bytes: %d segments, want %d", c.tensors, c.bytes, len(l.Segments), c.segments)
		}
	}
}

func TestLayoutChunksEndAtMultiples(t *testing.T) {
	l := model(100, 20<<20).Layout(weights.LayoutOptions{})
	var ends []int64
	for _, r := range l.Reads[1 : len(l.Reads)-1] {
		ends = append(ends, r.Offset+r.Bytes)
	}
	if !slices.Equal(ends, []int64{8 << 20, 16 << 20}) {
		t.Errorf("chunks end at %v", ends)
	}
}

func TestLayoutPanicsOnNonsense(t *testing.T) {
	for _, o := range []weights.LayoutOptions{{Granularity: 3}, {Align: -1}, {ChunkBytes: 100}, {Align: 8192}, {SegmentBytes: -1}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%+v was accepted", o)
				}
			}()
			model(1).Layout(o)
		}()
	}
}
