package weights

import (
	"fmt"
	"math/bits"
	"strconv"
	"unicode/utf8"
)

const (
	// maxPairs bounds the metadata entries; published files have a few dozen.
	maxPairs = 1 << 16
	// maxKeyBytes is the format's own limit.
	maxKeyBytes = 1<<16 - 1
	// maxKeptBytes is the longest string that Model.Metadata keeps: vocabularies and
	// chat templates are the consumer's business.
	maxKeptBytes = 4 << 10
	// maxNesting of arrays; ggml itself knows no array of arrays.
	maxNesting = 4
)

// Value types of GGUF metadata.
const (
	ggufU8 = iota
	ggufI8
	ggufU16
	ggufI16
	ggufU32
	ggufI32
	ggufF32
	ggufBool
	ggufString
	ggufArray
	ggufU64
	ggufI64
	ggufF64
)

// fixedBytes is the size of a value type, 0 if its values vary or it is unknown.
func fixedBytes(typ uint32) int64 {
	switch typ {
	case ggufU8, ggufI8, ggufBool:
		return 1
	case ggufU16, ggufI16:
		return 2
	case ggufU32, ggufI32, ggufF32:
		return 4
	case ggufU64, ggufI64, ggufF64:
		return 8
	}
	return 0
}

// pair reads one metadata entry, keeps it if it is small, and heeds those that
// change how the file is read.
func (p *ggufParser) pair() {
	key := p.str(maxKeyBytes)
	if p.bad != nil {
		return
	}
	if key == "" {
		p.fail("metadata entry without a key")
		return
	}
	if _, twice := p.keys[key]; twice {
		p.fail("metadata key %.100q occurs twice", key)
		return
	}
	p.keys[key] = struct{}{}
	typ := p.u32()
	switch typ {
	case ggufArray:
		p.skipArray(0)
	case ggufString:
		if s, whole := p.text(maxKeptBytes); whole && utf8.ValidString(s) {
			p.keep(key, s)
		}
	default:
		n := fixedBytes(typ)
		if p.bad == nil && n == 0 {
			p.fail("metadata key %.100q has the unknown type %d", key, typ)
			return
		}
		raw := p.uint(n)
		if p.bad != nil {
			return
		}
		if typ == ggufBool && raw > 1 {
			p.fail("metadata key %.100q is a boolean of value %d", key, raw)
			return
		}
		p.keep(key, scalarText(typ, raw))
		p.heed(key, typ, raw)
	}
}

func (p *ggufParser) keep(key, value string) {
	if p.bad == nil && utf8.ValidString(key) {
		p.metadata[key] = value
	}
}

// heed acts on the keys that say where tensors are.
func (p *ggufParser) heed(key string, typ uint32, raw uint64) {
	switch key {
	case "general.alignment":
		if typ != ggufU32 || bits.OnesCount64(raw) != 1 || raw > ggufMaxAlignment {
			p.fail("general.alignment is not a power of two of type uint32 up to %d", ggufMaxAlignment)
			return
		}
		p.alignment = int64(raw)
	case "split.no":
		p.split.no = raw
	case "split.count":
		p.split.count = raw
	case "split.tensors.count":
		p.split.tensors = raw
	}
}

// skipArray passes over an array's type, length and values.
func (p *ggufParser) skipArray(depth int) {
	typ := p.u32()
	switch n := fixedBytes(typ); {
	case p.bad != nil:
	case n > 0:
		p.skip(p.count(p.left()/n, n, "values in an array") * n)
	case typ == ggufString:
		for range p.count(p.left()/8, 8, "strings in an array") {
			p.skip(p.length(p.left()))
			if p.bad != nil {
				return
			}
		}
	case typ == ggufArray && depth < maxNesting:
		for range p.count(p.left()/12, 12, "arrays in an array") {
			p.skipArray(depth + 1)
			if p.bad != nil {
				return
			}
		}
	case typ == ggufArray:
		p.fail("arrays nested deeper than %d", maxNesting)
	default:
		p.fail("array of the unknown type %d", typ)
	}
}

// scalarText writes a number or boolean the way people read it.
func scalarText(typ uint32, raw uint64) string {
	switch typ {
	case ggufI8:
		return strconv.FormatInt(int64(int8(raw)), 10)
	case ggufI16:
		return strconv.FormatInt(int64(int16(raw)), 10)
	case ggufI32:
		return strconv.FormatInt(int64(int32(raw)), 10)
	case ggufI64:
		return strconv.FormatInt(int64(raw), 10)
	case ggufF32:
		return strconv.FormatFloat(float64(f32(raw)), 'g', -1, 32)
	case ggufF64:
		return strconv.FormatFloat(f64(raw), 'g', -1, 64)
	case ggufBool:
		return fmt.Sprint(raw == 1)
	}
	return strconv.FormatUint(raw, 10)
}
