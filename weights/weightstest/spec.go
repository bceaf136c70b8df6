package weightstest

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/isobar-project/isobar/weights/internal/dtype"
)

// Tensor is one tensor to write: type in the contract's spelling, shape row-major.
type Tensor struct {
	Name  string
	DType string
	Shape []int64
}

// Bytes is the tensor's size; an error if its type is unknown or does not fit its shape.
func (t Tensor) Bytes() (int64, error) {
	typ, ok := dtype.ByName(t.DType)
	if !ok {
		return 0, fmt.Errorf("tensor %q: unknown dtype %q", t.Name, t.DType)
	}
	n, err := typ.Bytes(t.Shape)
	if err != nil {
		return 0, fmt.Errorf("tensor %q of %s %v: %w", t.Name, t.DType, t.Shape, err)
	}
	return n, nil
}

// Spec is a model to write.
type Spec struct {
	Tensors  []Tensor
	Metadata map[string]string
	Seed     uint64
}

// Sized is a model whose weights are exactly total bytes, in the shape of a
// transformer: matrices of 4 MiB with a small vector after every few. total is a
// multiple of 2; a small one makes a single tensor.
func Sized(total int64, seed uint64) Spec {
	s := Spec{Seed: seed, Metadata: map[string]string{"format": "pt"}}
	const (
		width  = 1024
		matrix = 2048 * width * 2 // bytes of F16
		vector = width * 2
	)
	for layer := 0; total > 0; layer++ {
		add := func(name string, bytes int64, shape ...int64) {
			if total >= bytes {
				s.Tensors = append(s.Tensors, Tensor{fmt.Sprintf("layers.%d.%s", layer, name), "F16", shape})
				total -= bytes
			}
		}
		if total < 4*matrix {
			add("rest.weight", total/2*2, total/2)
			break
		}
		add("attention.weight", matrix, 2048, width)
		add("attention.bias", vector, width)
		add("mlp.up.weight", matrix, 2048, width)
		add("mlp.down.weight", matrix, width, 2048)
	}
	return s
}

// Fill writes the bytes of tensor i from byte off on into b.
func (s Spec) Fill(i int, off int64, b []byte) {
	base := mix(s.Seed ^ mix(uint64(i)+1))
	word := uint64(off) / 8
	if skip := int(off % 8); skip != 0 {
		var first [8]byte
		binary.LittleEndian.PutUint64(first[:], mix(base+word))
		b = b[copy(b, first[skip:]):]
		word++
	}
	for len(b) >= 8 {
		binary.LittleEndian.PutUint64(b, mix(base+word))
		b = b[8:]
		word++
	}
	if len(b) > 0 {
		var last [8]byte
		binary.LittleEndian.PutUint64(last[:], mix(base+word))
		copy(b, last[:])
	}
}

// Check compares b with the bytes of tensor i from byte off on.
func (s Spec) Check(i int, off int64, b []byte) error {
	want := make([]byte, min(len(b), 1<<20))
	for len(b) > 0 {
		part := want[:min(len(b), len(want))]
		s.Fill(i, off, part)
		if !bytes.Equal(part, b[:len(part)]) {
			for k := range part {
				if part[k] != b[k] {
					return fmt.Errorf("tensor %q differs at byte %d", s.Tensors[i].Name, off+int64(k))
				}
			}
		}
		b, off = b[len(part):], off+int64(len(part))
	}
	return nil
}

// Index finds a tensor by name, -1 if there is none.
func (s Spec) Index(name string) int {
	for i, t := range s.Tensors {
		if t.Name == name {
			return i
		}
	}
	return -1
}

// mix is the finalizer of splitmix64: a bijection whose values look random.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
