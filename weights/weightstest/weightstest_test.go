package weightstest

import (
	"bytes"
	"path/filepath"
	"testing"
)

func TestFillIsTheSameWhateverThePieces(t *testing.T) {
	s := Spec{Seed: 7}
	whole := make([]byte, 1000)
	s.Fill(3, 0, whole)
	for off := 0; off < 40; off++ {
		for n := 0; n < 40; n++ {
			piece := make([]byte, n)
			s.Fill(3, int64(off), piece)
			if !bytes.Equal(piece, whole[off:off+n]) {
				t.Fatalf("bytes %d+%d differ", off, n)
			}
		}
	}
	other := make([]byte, 1000)
	s.Fill(4, 0, other)
	if bytes.Equal(whole, other) {
		t.Fatal("two tensors have the same bytes")
	}
}

func TestCheckFindsTheByte(t *testing.T) {
	s := Spec{Seed: 7, Tensors: []Tensor{{Name: "a", DType: "U8", Shape: []int64{3 << 20}}}}
	b := make([]byte, 3<<20)
	s.Fill(0, 0, b)
	if err := s.Check(0, 0, b); err != nil {
		t.Fatal(err)
	}
	b[2<<20+5] ^= 1
	if err := s.Check(0, 0, b); err == nil || err.Error() != `tensor "a" differs at byte 2097157` {
		t.Fatalf("got %v", err)
	}
}

func TestSizedIsExact(t *testing.T) {
	for _, want := range []int64{2, 1 << 20, 220 << 20, 4 << 30} {
		var sum int64
		for _, x := range Sized(want, 1).Tensors {
			n, err := x.Bytes()
			if err != nil {
				t.Fatal(err)
			}
			sum += n
		}
		if sum != want {
			t.Errorf("Sized(%d) is %d bytes", want, sum)
		}
	}
}

func TestWritersRefuseWhatTheFormatCannotHold(t *testing.T) {
	for _, x := range []Tensor{{"a", "nonsense", nil}, {"a", "F4", []int64{3}}, {"a", "F8_E8M0", []int64{3}}} {
		if err := (Spec{Tensors: []Tensor{x}}).WriteGGUF(filepath.Join(t.TempDir(), "m.gguf")); err == nil {
			t.Errorf("%v was written", x)
		}
	}
}

func BenchmarkFill(b *testing.B) {
	buf := make([]byte, 1<<20)
	b.SetBytes(1 << 20)
	for range b.N {
		Spec{}.Fill(1, 0, buf)
	}
}
