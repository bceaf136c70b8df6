package weights

import (
	"fmt"
	"io"
	"math"

	"github.com/isobar-project/isobar/weights/internal/dtype"
)

const (
	ggufMagic = "GGUF"
	// ggufAlignment is what tensors are aligned to where general.alignment is absent.
	ggufAlignment = 32
	// ggufMaxAlignment bounds general.alignment: more would only be padding.
	ggufMaxAlignment = 1 << 20
	// ggufMaxRank is ggml's.
	ggufMaxRank = 4
	// Smallest possible sizes of an entry: a length, a type and a value; a name
	// length, a rank, a type and an offset. They turn a lying count into an error
	// before anything is allocated for it.
	ggufMinPair   = 8 + 1 + 4 + 1
	ggufMinTensor = 8 + 1 + 4 + 4 + 8
)

// parseGGUF reads a header of version 2 or 3, with the strictness of ggml: little
// endian, no key or tensor twice, every tensor where the sizes of those before it
// put it. It also demands that the file holds every tensor's bytes. Bytes after the
// last tensor are padding.
func parseGGUF(f io.ReaderAt, path string, size int64, o Options) (*header, error) {
	c := newGGUFCursor(f, path, min(size, o.MaxHeaderBytes), size > o.MaxHeaderBytes)
	p := ggufParser{ggufCursor: c, size: size, alignment: ggufAlignment, metadata: make(map[string]string), keys: make(map[string]struct{})}
	tensors, pairs := p.preamble(o)
	for range pairs {
		p.pair()
		if p.bad != nil {
			return nil, p.bad
		}
	}
	p.infos(tensors)
	if p.bad != nil {
		return nil, p.bad
	}
	h := &header{format: GGUF, bytes: p.pos, tensors: p.tensors, metadata: p.metadata, digest: c.digest(), split: p.split}
	return h, h.placeGGUF(path, size, p.alignment)
}

// placeGGUF checks that each tensor lies where ggml expects it and inside the file,
// and makes its offset that of the file.
func (h *header) placeGGUF(path string, size, alignment int64) error {
	data := h.bytes
	if len(h.tensors) > 0 {
		data = roundUp(h.bytes, alignment)
	}
	next := int64(0)
	for i := range h.tensors {
		t := &h.tensors[i]
		if t.FileOffset != next {
			return &FormatError{path, h.bytes, fmt.Sprintf("tensor %q begins at %d of the data, not at %d", t.Name, t.FileOffset, next)}
		}
		if room := size - data - next; t.Bytes > room {
			return &FormatError{path, size, fmt.Sprintf("tensor %q reaches %d bytes beyond the end of the file", t.Name, t.Bytes-room)}
		}
		t.FileOffset += data
		next = roundUp(next+t.Bytes, alignment) // no overflow: both fit the file, the alignment is small
	}
	h.bytes = data
	return nil
}

type ggufParser struct {
	*ggufCursor
	size      int64
	alignment int64
	keys      map[string]struct{}
	metadata  map[string]string
	tensors   []Tensor
	split     split
}

// preamble reads magic, version and the two counts.
func (p *ggufParser) preamble(o Options) (tensors, pairs int64) {
	var magic [4]byte
	p.read(magic[:])
	version := p.u32()
	switch {
	case p.bad != nil:
	case version == 1:
		p.fail("GGUF version 1; only 2 and 3 are readable")
	case version&0xffff == 0:
		p.fail("big-endian GGUF")
	case version < 1 || version > 3:
		p.fail("GGUF version %d; only 2 and 3 are readable", version)
	}
	tensors = p.count(int64(o.MaxTensors), ggufMinTensor, "tensors")
	pairs = p.count(maxPairs, ggufMinPair, "metadata entries")
	return tensors, pairs
}

// infos reads the tensors' entries.
func (p *ggufParser) infos(n int64) {
	if p.bad != nil {
		return
	}
	names := make(map[string]struct{}, n)
	p.tensors = make([]Tensor, 0, n)
	for range n {
		t := p.info()
		if p.bad != nil {
			return
		}
		if _, twice := names[t.Name]; twice {
			p.fail("tensor %.100q occurs twice", t.Name)
			return
		}
		names[t.Name] = struct{}{}
		p.tensors = append(p.tensors, t)
	}
}

func (p *ggufParser) info() Tensor {
	t := Tensor{Name: p.str(maxNameBytes)}
	if p.bad != nil {
		return t
	}
	if err := checkName(t.Name); err != nil {
		p.fail("%v", err)
		return t
	}
	rank := p.u32()
	if rank > ggufMaxRank {
		p.fail("tensor %.100q: %d dimensions; at most %d", t.Name, rank, ggufMaxRank)
		return t
	}
	// The file stores the innermost dimension first.
	t.Shape = make([]int64, rank)
	for i := range t.Shape {
		d := p.u64()
		if d > math.MaxInt64 {
			p.fail("tensor %.100q: dimension %d is negative or too large", t.Name, i)
			return t
		}
		t.Shape[len(t.Shape)-1-i] = int64(d)
	}
	id := p.u32()
	typ, known := dtype.GGML(id)
	if p.bad == nil && !known {
		p.fail("tensor %.100q: unknown type %d", t.Name, id)
	}
	offset := p.u64()
	if p.bad != nil {
		return t
	}
	if offset > uint64(p.size) {
		p.fail("tensor %.100q begins at %d, beyond the end of the file", t.Name, offset)
		return t
	}
	t.DType, t.FileOffset = typ.Name, int64(offset)
	var err error
	if t.Bytes, err = typ.Bytes(t.Shape); err != nil {
		p.fail("tensor %.100q of %s %v: %v", t.Name, t.DType, t.Shape, err)
	}
	return t
}
