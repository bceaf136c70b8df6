// Package dtype knows the element types of model files and what they weigh.
//
// One table serves the readers of package weights and the writers of package
// weightstest, so that the two cannot drift apart. Names are those of the wire
// contract: the spelling of safetensors for plain types, "GGUF_" and ggml's own
// name for block types.
package dtype

import (
	"errors"
	"math"
	"math/bits"
)

// Type is how one element type is stored: Block elements of it take Bits bits.
// Plain types have a block of one element.
type Type struct {
	Name  string
	Block int64
	Bits  int64
}

// Errors of Bytes.
var (
	ErrOverflow = errors.New("shape overflows 64 bits")
	ErrPartial  = errors.New("elements do not fill whole bytes")
	ErrRow      = errors.New("row is not a whole number of blocks")
)

// Bytes is the size of a tensor of this type whose shape is given in row-major
// order (the innermost dimension last). A shape that overflows on the way is an
// error even if a later dimension is zero, as in the reference readers.
func (t Type) Bytes(shape []int64) (int64, error) {
	elements := int64(1)
	for _, d := range shape {
		var ok bool
		if elements, ok = mul(elements, d); !ok {
			return 0, ErrOverflow
		}
	}
	if t.Block > 1 {
		row := int64(1)
		if len(shape) > 0 {
			row = shape[len(shape)-1]
		}
		if row%t.Block != 0 {
			return 0, ErrRow
		}
	}
	total, ok := mul(elements/t.Block, t.Bits)
	if !ok {
		return 0, ErrOverflow
	}
	if total%8 != 0 {
		return 0, ErrPartial
	}
	return total / 8, nil
}

// mul multiplies two non-negative numbers and reports whether the product fits.
func mul(a, b int64) (int64, bool) {
	if a < 0 || b < 0 {
		return 0, false
	}
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	return int64(lo), hi == 0 && lo <= math.MaxInt64
}

// Safetensors finds a plain type by the name that a safetensors header uses.
func Safetensors(name string) (Type, bool) {
	b, ok := safetensorsBits[name]
	return Type{Name: name, Block: 1, Bits: b}, ok
}

// safetensorsBits are the element types of safetensors 0.8 and their bits.
var safetensorsBits = map[string]int64{
	"BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
	"U8": 8, "I8": 8,
	"F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
	"I16": 16, "U16": 16, "F16": 16, "BF16": 16,
	"I32": 32, "U32": 32, "F32": 32,
	"C64": 64, "F64": 64, "I64": 64, "U64": 64,
}
