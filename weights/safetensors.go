package weights

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/isobar-project/isobar/weights/internal/dtype"
)

// safetensorsPrefix is the header's length as 8 bytes, little-endian.
const safetensorsPrefix = 8

// parseSafetensors reads a header with the strictness of the reference library
// (tensors cover the data without hole or overlap, to the last byte) and more:
// no key may occur twice.
func parseSafetensors(f io.ReaderAt, path string, size int64, o Options) (*header, error) {
	if size < safetensorsPrefix {
		return nil, &FormatError{path, size, "too short for a model header"}
	}
	var prefix [safetensorsPrefix]byte
	if _, err := f.ReadAt(prefix[:], 0); err != nil {
		return nil, &ReadError{File: path, Err: bare(err)}
	}
	n := binary.LittleEndian.Uint64(prefix[:])
	if n > uint64(o.MaxHeaderBytes) {
		return nil, &FormatError{path, 0, fmt.Sprintf("header length %d is over the limit of %d (or this is no safetensors file)", n, o.MaxHeaderBytes)}
	}
	if int64(n) > size-safetensorsPrefix {
		return nil, &FormatError{path, 0, fmt.Sprintf("header length %d is more than the file holds", n)}
	}
	text, err := readText(f, path, safetensorsPrefix, int64(n))
	if err != nil {
		return nil, err
	}
	p := safetensorsParser{jsonText: jsonText{s: text}, max: o.MaxTensors, keys: make(map[string]struct{})}
	p.parse()
	if p.bad != nil {
		return nil, &FormatError{path, safetensorsPrefix + int64(p.pos), p.bad.Error()}
	}
	h := &header{
		format:   Safetensors,
		bytes:    safetensorsPrefix + int64(n),
		tensors:  p.tensors,
		metadata: p.metadata,
		digest:   sha256.Sum256([]byte(text)),
	}
	return h, h.placeSafetensors(path, size)
}

// placeSafetensors puts the tensors into the order of their bytes, checks that they
// cover the data exactly, and makes their offsets those of the file.
func (h *header) placeSafetensors(path string, size int64) error {
	slices.SortFunc(h.tensors, func(a, b Tensor) int {
		return cmp.Or(
			cmp.Compare(a.FileOffset, b.FileOffset),
			cmp.Compare(a.Bytes, b.Bytes),
			cmp.Compare(a.Name, b.Name))
	})
	next := int64(0)
	for i := range h.tensors {
		t := &h.tensors[i]
		if t.FileOffset != next {
			what := "overlaps the tensor before it"
			if t.FileOffset > next {
				what = "leaves a hole before it"
			}
			return &FormatError{path, h.bytes + next, fmt.Sprintf("tensor %q begins at %d, not at %d: %s", t.Name, t.FileOffset, next, what)}
		}
		if t.Bytes > size-h.bytes-next {
			return &FormatError{path, size, fmt.Sprintf("tensor %q reaches %d bytes beyond the end of the file", t.Name, t.Bytes-(size-h.bytes-next))}
		}
		t.FileOffset += h.bytes
		next += t.Bytes
	}
	if end := h.bytes + next; end != size {
		return &FormatError{path, end, fmt.Sprintf("%d bytes after the last tensor belong to none", size-end)}
	}
	return nil
}

type safetensorsParser struct {
	jsonText
	max      int
	keys     map[string]struct{}
	tensors  []Tensor
	metadata map[string]string
}

func (p *safetensorsParser) parse() {
	p.object(func(key string) {
		if _, twice := p.keys[key]; twice {
			p.fail("key %.100q occurs twice", key)
			return
		}
		p.keys[key] = struct{}{}
		if key == "__metadata__" {
			p.readMetadata()
			return
		}
		if err := checkName(key); err != nil {
			p.fail("%w", err)
			return
		}
		if len(p.tensors) == p.max {
			p.fail("more than %d tensors", p.max)
			return
		}
		p.readTensor(key)
	})
	p.end()
}

func (p *safetensorsParser) readMetadata() {
	if p.null() {
		return
	}
	p.metadata = make(map[string]string)
	p.object(func(key string) {
		if _, twice := p.metadata[key]; twice {
			p.fail("key %.100q of __metadata__ occurs twice", key)
			return
		}
		p.metadata[strings.Clone(key)] = strings.Clone(p.str())
	})
}

// readTensor reads one entry. Members that the format does not have yet are
// passed over, as in the reference.
func (p *safetensorsParser) readTensor(name string) {
	const (
		hasType = 1 << iota
		hasShape
		hasOffsets
		hasAll = hasType | hasShape | hasOffsets
	)
	t := Tensor{Shape: []int64{}}
	seen, end := 0, int64(0)
	member := func(bit int) bool {
		if seen&bit != 0 {
			p.fail("tensor %.100q: a member occurs twice", name)
		}
		seen |= bit
		return p.bad == nil
	}
	p.object(func(key string) {
		switch key {
		case "dtype":
			if member(hasType) {
				t.DType = p.str()
			}
		case "shape":
			if member(hasShape) {
				p.array(func(i int) {
					if i == maxRank {
						p.fail("tensor %.100q: more than %d dimensions", name, maxRank)
						return
					}
					t.Shape = append(t.Shape, p.integer())
				})
			}
		case "data_offsets":
			if member(hasOffsets) {
				t.FileOffset, end = p.offsets()
			}
		default:
			p.skip(0)
		}
	})
	if p.bad == nil && seen != hasAll {
		p.fail("tensor %.100q: dtype, shape or data_offsets is missing", name)
	}
	if p.bad != nil {
		return
	}
	if t.Bytes = end - t.FileOffset; t.Bytes < 0 {
		p.fail("tensor %.100q ends at %d before it begins at %d", name, end, t.FileOffset)
		return
	}
	typ, ok := dtype.Safetensors(t.DType)
	if !ok {
		p.fail("tensor %.100q: unknown dtype %.40q", name, t.DType)
		return
	}
	want, err := typ.Bytes(t.Shape)
	if err != nil {
		p.fail("tensor %.100q of %s %v: %w", name, t.DType, t.Shape, err)
		return
	}
	if want != t.Bytes {
		p.fail("tensor %.100q of %s %v needs %d bytes, its offsets give it %d", name, t.DType, t.Shape, want, t.Bytes)
		return
	}
	// A clone: else one name would keep the whole header in memory.
	t.Name, t.DType = strings.Clone(name), typ.Name
	p.tensors = append(p.tensors, t)
}

// offsets reads a pair [begin, end], counted from the end of the header.
func (p *safetensorsParser) offsets() (begin, end int64) {
	if p.take('[') {
		begin = p.integer()
	}
	if p.take(',') {
		end = p.integer()
	}
	p.take(']')
	return begin, end
}
