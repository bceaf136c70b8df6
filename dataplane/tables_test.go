package dataplane

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/isobar-project/isobar/fdwire"
	"github.com/isobar-project/isobar/schemas"
)

func someTensors(n int) []schemas.Tensor {
	out := make([]schemas.Tensor, n)
	for i := range out {
		out[i] = schemas.Tensor{Name: fmt.Sprintf("layers.%d.weight", i), DType: "BF16", Shape: []int64{2816, 2816}, Segment: i / 135, Offset: int64(i) << 20, SizeBytes: 2816 * 2816 * 2}
	}
	return out
}

// Every part fits a message beside the most segments, and together they are the tensors.
func TestTablesAreTheTensors(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var tensors []schemas.Tensor
		shape := rapid.SliceOfN(rapid.Int64(), 1, 5)
		for range rapid.IntRange(1, 60).Draw(t, "n") {
			name := strings.Repeat("n", rapid.OneOf(rapid.IntRange(0, 100), rapid.IntRange(0, tableBytes/10)).Draw(t, "name"))
			tensors = append(tensors, schemas.Tensor{Name: name, DType: "F32", Shape: shape.Draw(t, "shape"), Segment: rapid.Int().Draw(t, "segment"), Offset: rapid.Int64().Draw(t, "offset"), SizeBytes: rapid.Int64().Draw(t, "bytes")})
		}
		var kept tables
		parts, err := kept.packed(tensors)
		if err != nil {
			t.Fatal(err)
		}
		var got []schemas.Tensor
		for _, p := range parts {
			if len(p) > tableBytes {
				t.Errorf("a part of %d bytes, at most %d", len(p), tableBytes)
			}
			var some []schemas.Tensor
			if err := fdwire.Decode(p, &some); err != nil {
				t.Fatal(err)
			}
			got = append(got, some...)
		}
		if !reflect.DeepEqual(got, tensors) {
			t.Errorf("%d tensors became %d others", len(tensors), len(got))
		}
	})
	if _, err := pack([]schemas.Tensor{{Name: strings.Repeat("n", tableBytes)}}); err == nil {
		t.Error("a name that fits no message was packed")
	}
}

// A list is packed once as long as it is among the latest; no other is taken for it.
func TestTablesAreKept(t *testing.T) {
	var kept tables
	of := func(tensors []schemas.Tensor) *byte {
		t.Helper()
		parts, err := kept.packed(tensors)
		if err != nil {
			t.Fatal(err)
		}
		return &parts[0][0]
	}
	var lists [][]schemas.Tensor
	var first []*byte
	for range maxTables {
		lists = append(lists, someTensors(2))
		first = append(first, of(lists[len(lists)-1]))
	}
	for i, l := range lists {
		if of(l) != first[i] {
			t.Errorf("list %d was packed again", i)
		}
	}
	if of(lists[0][:1]) == first[0] { // one more: the list that was asked for longest ago goes
		t.Error("a part of a list was taken for the list")
	}
	if of(lists[1]) != first[1] {
		t.Error("a list that was asked for went")
	}
	if of(lists[0]) == first[0] || len(kept.kept) != maxTables {
		t.Errorf("%d lists are kept", len(kept.kept))
	}
}

// What everybody who attaches waits for: the messages of a model with 540 tensors.
func BenchmarkSplit(b *testing.B) {
	m := &Mapping{AllocationID: "a", Kind: "cuda_vmm", Segments: make([]Segment, 4), Tensors: someTensors(540)}
	for _, kept := range []bool{false, true} {
		b.Run(fmt.Sprintf("kept=%v", kept), func(b *testing.B) {
			b.ReportAllocs()
			var all tables
			for b.Loop() {
				if !kept {
					all = tables{}
				}
				if _, err := split(1, m, &all); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
