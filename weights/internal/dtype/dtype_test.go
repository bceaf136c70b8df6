package dtype

import (
	"errors"
	"math"
	"testing"
)

func TestBytes(t *testing.T) {
	for _, c := range []struct {
		name  string
		shape []int64
		want  int64
		err   error
	}{
		{"F32", nil, 4, nil},
		{"F32", []int64{2, 3}, 24, nil},
		{"F32", []int64{0, 3}, 0, nil},
		{"F4", []int64{2}, 1, nil},
		{"F4", []int64{3}, 0, ErrPartial},
		{"F6_E2M3", []int64{4}, 3, nil},
		{"F6_E2M3", []int64{5}, 0, ErrPartial},
		{"U8", []int64{math.MaxInt64}, 0, ErrOverflow}, // eight bits each no longer fit
		{"U8", []int64{1 << 40, 1 << 40, 0}, 0, ErrOverflow},
		{"U8", []int64{-1}, 0, ErrOverflow},
		{"GGUF_Q4_K", []int64{3, 512}, 3 * 2 * 144, nil},
		{"GGUF_Q4_K", []int64{512, 3}, 0, ErrRow},
		{"GGUF_Q8_0", []int64{33}, 0, ErrRow},
		{"GGUF_Q8_0", nil, 0, ErrRow},
		{"GGUF_MXFP4", []int64{64}, 34, nil},
	} {
		typ, ok := ByName(c.name)
		if !ok {
			t.Fatalf("%s is unknown", c.name)
		}
		got, err := typ.Bytes(c.shape)
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s %v = %d, %v; want %d, %v", c.name, c.shape, got, err, c.want, c.err)
		}
	}
}

func TestPlainGGUFTypesAgreeWithSafetensors(t *testing.T) {
	for _, id := range GGMLIDs() {
		typ, _ := GGML(id)
		back, ok := GGMLID(typ.Name)
		if !ok || back != id {
			t.Errorf("type %d (%s) is found again as %d, %v", id, typ.Name, back, ok)
		}
		plain, ok := Safetensors(typ.Name)
		if ok != (typ.Block == 1) || ok && plain != typ {
			t.Errorf("type %d: GGUF has %+v, safetensors %+v (%v)", id, typ, plain, ok)
		}
	}
}

func TestUnknownNames(t *testing.T) {
	for _, n := range []string{"", "f32", "Q4_K", "GGUF_F32"} {
		if _, ok := ByName(n); ok {
			t.Errorf("%q is known", n)
		}
	}
	for _, id := range []uint32{4, 5, 31, 36, 42, math.MaxUint32} {
		if _, ok := GGML(id); ok {
			t.Errorf("ggml type %d is known", id)
		}
	}
}
