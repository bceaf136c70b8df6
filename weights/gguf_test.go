package weights_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"testing"

	"github.com/isobar-project/isobar/weights"
)

// ggufText builds GGUF bytes piece by piece.
type ggufText []byte

func (g ggufText) u8(v uint8) ggufText   { return append(g, v) }
func (g ggufText) u32(v uint32) ggufText { return binary.LittleEndian.AppendUint32(g, v) }
func (g ggufText) u64(v uint64) ggufText { return binary.LittleEndian.AppendUint64(g, v) }
func (g ggufText) str(s string) ggufText { return append(g.u64(uint64(len(s))), s...) }
func (g ggufText) zero(n int) ggufText   { return append(g, make([]byte, n)...) }

// pad fills up to a multiple of n.
func (g ggufText) pad(n int) ggufText { return g.zero((n - len(g)%n) % n) }

func (g ggufText) info(name string, typ uint32, offset uint64, ne ...uint64) ggufText {
	g = g.str(name).u32(uint32(len(ne)))
	for _, d := range ne {
		g = g.u64(d)
	}
	return g.u32(typ).u64(offset)
}

func ggufHead(version uint32, tensors, pairs uint64) ggufText {
	return ggufText("GGUF").u32(version).u64(tensors).u64(pairs)
}

// soundGGUF has every kind of metadata value and tensors of two types.
func soundGGUF() ggufText {
	g := ggufHead(3, 3, 17)
	for i, v := range []struct {
		typ   uint32
		bytes ggufText
	}{
		{0, ggufText{200}}, {1, ggufText{200}}, {2, ggufText{0, 200}}, {3, ggufText{0, 200}},
		{4, ggufText(nil).u32(4e9)}, {5, ggufText(nil).u32(4e9)}, {6, ggufText(nil).u32(math.Float32bits(0.1))},
		{7, ggufText{1}}, {8, ggufText(nil).str("text")},
		{10, ggufText(nil).u64(1 << 63)}, {11, ggufText(nil).u64(1 << 63)}, {12, ggufText(nil).u64(math.Float64bits(0.1))},
		{9, ggufText(nil).u32(4).u64(2).u32(1).u32(2)},
		{9, ggufText(nil).u32(8).u64(2).str("a").str("")},
		{9, ggufText(nil).u32(9).u64(2).u32(0).u64(0).u32(8).u64(1).str("x")},
		{8, ggufText(nil).str(string(make([]byte, 5000)))},
	} {
		g = append(g.str(fmt.Sprintf("k%d", i)).u32(v.typ), v.bytes...)
	}
	g = g.str("general.alignment").u32(4).u32(64)
	g = g.info("a", 12, 0, 512, 3)    // Q4_K: 6 blocks of 144
	g = g.info("b", 30, 896, 5, 2, 1) // BF16
	g = g.info("c", 0, 960)           // a scalar
	return g.pad(64).zero(896 + 64 + 4)
}

func TestGGUFSound(t *testing.T) {
	for _, version := range []byte{2, 3} {
		content := soundGGUF()
		content[4] = version
		m, err := inspectBytes(t, content, weights.Options{})
		if err != nil {
			t.Fatal(err)
		}
		at := int64(len(content) - 964)
		want := []weights.Tensor{
			{Name: "a", DType: "GGUF_Q4_K", Shape: []int64{3, 512}, FileOffset: at, Bytes: 864},
			{Name: "b", DType: "BF16", Shape: []int64{1, 2, 5}, FileOffset: at + 896, Bytes: 20},
			{Name: "c", DType: "F32", Shape: nil, FileOffset: at + 960, Bytes: 4},
		}
		if got := fmt.Sprint(m.Tensors); got != fmt.Sprint(want) {
			t.Errorf("tensors %v, want %v", got, want)
		}
		if m.Format != weights.GGUF || m.Files[0].HeaderBytes != at {
			t.Errorf("format %s, header of %d bytes, want %d", m.Format, m.Files[0].HeaderBytes, at)
		}
		wantMeta := map[string]string{
			"k0": "200", "k1": "-56", "k2": "51200", "k3": "-14336", "k4": "4000000000", "k5": "-294967296", "k6": "0.1", "k7": "true", "k8": "text",
			"k9": "9223372036854775808", "k10": "-9223372036854775808", "k11": "0.1", "general.alignment": "64",
		}
		if fmt.Sprint(m.Metadata) != fmt.Sprint(wantMeta) {
			t.Errorf("metadata %v, want %v", m.Metadata, wantMeta)
		}
	}
}

func TestGGUFWithoutTensorsNeedsNoPadding(t *testing.T) {
	m, err := inspectBytes(t, ggufHead(3, 0, 1).str("k").u32(0).u8(1), weights.Options{})
	if err != nil || len(m.Tensors) != 0 {
		t.Fatalf("%v", err)
	}
	checkLayout(t, m, m.Layout(weights.LayoutOptions{}), weights.LayoutOptions{Granularity: 4096, Align: 256, SegmentBytes: 1 << 30, ChunkBytes: 8 << 20})
}

// ggufLies are files that must be refused, and why.
func ggufLies() map[string]ggufText {
	one := ggufHead(3, 1, 0)
	pair := ggufHead(3, 0, 1)
	nested := pair.str("k").u32(9)
	for range 6 {
		nested = nested.u32(9).u64(1)
	}
	return map[string]ggufText{
		"inside its header":                   ggufText("GGUF").u32(3).u64(0),
		"version 1":                           ggufHead(1, 0, 0),
		"version 4":                           ggufHead(4, 0, 0),
		"big-endian":                          ggufHead(3<<24, 0, 0),
		"tensors; at most":                    ggufHead(3, 1<<40, 0).zero(100),
		"65537 metadata entries; at most":     ggufHead(3, 0, 65537).zero(100),
		"4 tensors do not fit":                ggufHead(3, 4, 0).zero(91),
		"without a key":                       pair.str("").u32(0).u8(1).zero(9),
		"unknown type 13":                     pair.str("k").u32(13).zero(20),
		"array of the unknown type 77":        pair.str("k").u32(9).u32(77).u64(1).zero(20),
		"string of 18446744073709551615":      pair.u64(math.MaxUint64).zero(20),
		"string of 9223372036854775807 bytes": pair.str("k").u32(8).u64(math.MaxInt64).zero(20),
		"values in an array":                  pair.str("k").u32(9).u32(10).u64(math.MaxInt64 / 4).zero(20),
		"strings in an array":                 pair.str("k").u32(9).u32(8).u64(1 << 62).zero(20),
		"nested deeper":                       nested.zero(20),
		"boolean of value 2":                  pair.str("k").u32(7).u8(2).zero(9),
		"key \"k\" occurs twice":              ggufHead(3, 0, 2).str("k").u32(0).u8(1).str("k").u32(0).u8(1),
		"alignment is not a power of two":     pair.str("general.alignment").u32(4).u32(48),
		"type uint32 up to 1048576":           pair.str("general.alignment").u32(10).u64(64),
		"power of two of type":                pair.str("general.alignment").u32(4).u32(0),
		"uint32 up to":                        pair.str("general.alignment").u32(4).u32(1 << 30),
		"without a name":                      one.info("", 0, 0, 1).zero(64),
		"not UTF-8":                           one.info("\xff", 0, 0, 1).zero(64),
		"5 dimensions":                        one.info("a", 0, 0, 1, 1, 1, 1, 1).zero(64),
		"dimension 0 is negative":             one.info("a", 0, 0, 1<<63).zero(64),
		"overflows":                           one.info("a", 0, 0, 1<<40, 1<<40).zero(64),
		"unknown type 4":                      one.info("a", 4, 0, 32).zero(64),
		"unknown type 4294967295":             one.info("a", math.MaxUint32, 0, 32).zero(64),
		"whole number of blocks":              one.info("a", 12, 0, 255, 256).zero(1 << 16),
		"beyond the end of the file":          one.info("a", 0, 1<<40, 1).zero(64),
		"begins at 32 of the data":            one.info("a", 0, 32, 1).zero(128),
		"reaches 4 bytes beyond":              one.info("a", 0, 0, 16).pad(32).zero(60),
		"tensor \"a\" occurs twice":           ggufHead(3, 2, 0).info("a", 0, 0, 1).info("a", 0, 32, 1).zero(128),
		"begins at 4 of the data, not at 32":  ggufHead(3, 2, 0).info("a", 0, 0, 1).info("b", 0, 4, 1).zero(128),
		"one part of a split model":           pair.str("split.count").u32(2).u8(2).u8(0),
	}
}

func TestGGUFLies(t *testing.T) {
	for reason, content := range ggufLies() {
		refused(t, content, weights.Options{}, reason)
	}
	refused(t, ggufHead(0, 0, 0), weights.Options{}, "big-endian")
	refused(t, soundGGUF(), weights.Options{MaxHeaderBytes: 300}, "longer than the limit of 300")
	refused(t, soundGGUF(), weights.Options{MaxTensors: 2}, "3 tensors; at most 2")
}

func TestGGUFCutAnywhereIsRefused(t *testing.T) {
	whole := soundGGUF()
	for n := range len(whole) {
		if _, err := inspectBytes(t, whole[:n], weights.Options{}); err == nil {
			t.Fatalf("the first %d of %d bytes were taken for a model", n, len(whole))
		}
	}
}

func FuzzGGUF(f *testing.F) {
	f.Add([]byte(soundGGUF()))
	for _, content := range ggufLies() {
		f.Add([]byte(content))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		m, err := inspectBytes(t, append([]byte("GGUF"), content[min(4, len(content)):]...), weights.Options{})
		checkInspected(t, m, err, int64(max(4, len(content))))
	})
}
