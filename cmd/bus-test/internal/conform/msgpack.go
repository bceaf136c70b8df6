package conform

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
)

// A MessagePack of our own, so that the node's is not measured by itself. It has the kinds
// that the contract uses.

// object is a decoded map: its values are nil, bool, int64, float64, string, []any and object.
type object = map[string]any

func encodeMsgPack(v any) ([]byte, error) { return appendMsgPack(nil, v) }

func appendMsgPack(b []byte, v any) ([]byte, error) {
	switch x := v.(type) {
	case nil, null:
		return append(b, 0xc0), nil
	case bool:
		if x {
			return append(b, 0xc3), nil
		}
		return append(b, 0xc2), nil
	case int:
		return appendInt(b, int64(x)), nil
	case int64:
		return appendInt(b, x), nil
	case uint64:
		return binary.BigEndian.AppendUint64(append(b, 0xcf), x), nil
	case float64:
		return binary.BigEndian.AppendUint64(append(b, 0xcb), math.Float64bits(x)), nil
	case string:
		return append(appendHead(b, len(x), 0xa0, 32, 0xd9), x...), nil
	case []any:
		b = appendHead(b, len(x), 0x90, 16, 0xdb)
		for _, e := range x {
			var err error
			if b, err = appendMsgPack(b, e); err != nil {
				return nil, err
			}
		}
		return b, nil
	case object:
		b = appendHead(b, len(x), 0x80, 16, 0xdd)
		keys := make([]string, 0, len(x))
		for k := range x {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for _, k := range keys {
			var err error
			b = append(appendHead(b, len(k), 0xa0, 32, 0xd9), k...)
			if b, err = appendMsgPack(b, x[k]); err != nil {
				return nil, err
			}
		}
		return b, nil
	}
	return nil, fmt.Errorf("no MessagePack of %T", v)
}

func appendInt(b []byte, n int64) []byte {
	if n >= 0 && n < 128 || n < 0 && n >= -32 {
		return append(b, byte(n))
	}
	return binary.BigEndian.AppendUint64(append(b, 0xd3), uint64(n))
}

// appendHead writes a length: in the short code below short, else in 16 or 32 bits, whose
// codes follow base (for strings the code of 8 bits is base itself).
func appendHead(b []byte, n int, code byte, short int, base byte) []byte {
	switch {
	case n < short:
		return append(b, code|byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, base+1), uint16(n))
	}
	return binary.BigEndian.AppendUint32(append(b, base+2), uint32(n))
}

var errCut = errors.New("MessagePack that is cut off")

// decodeMsgPack reads exactly one value.
func decodeMsgPack(b []byte) (any, error) {
	v, rest, err := readMsgPack(b, 0)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%d bytes after the value", len(rest))
	}
	return v, err
}

func readMsgPack(b []byte, depth int) (any, []byte, error) {
	if len(b) == 0 || depth > 64 {
		return nil, nil, errCut
	}
	code, b := b[0], b[1:]
	switch {
	case code <= 0x7f:
		return int64(code), b, nil
	case code >= 0xe0:
		return int64(int8(code)), b, nil
	case code <= 0x8f:
		return readMap(b, int(code&0x0f), depth)
	case code <= 0x9f:
		return readList(b, int(code&0x0f), depth)
	case code <= 0xbf:
		return readText(b, int(code&0x1f))
	}
	switch code {
	case 0xc0:
		return nil, b, nil
	case 0xc2, 0xc3:
		return code == 0xc3, b, nil
	case 0xca:
		n, b, err := readUint(b, 4)
		return float64(math.Float32frombits(uint32(n))), b, err
	case 0xcb:
		n, b, err := readUint(b, 8)
		return math.Float64frombits(n), b, err
	case 0xcc, 0xcd, 0xce, 0xcf:
		n, b, err := readUint(b, 1<<(code-0xcc))
		if n > math.MaxInt64 {
			err = fmt.Errorf("the number %d is beyond int64", n)
		}
		return int64(n), b, err
	case 0xd0, 0xd1, 0xd2, 0xd3:
		size := 1 << (code - 0xd0)
		n, b, err := readUint(b, size)
		shift := 64 - 8*size
		return int64(n<<shift) >> shift, b, err
	case 0xd9, 0xda, 0xdb:
		n, b, err := readUint(b, 1<<(code-0xd9))
		if err != nil {
			return nil, nil, err
		}
		return readText(b, int(n))
	case 0xdc, 0xdd, 0xde, 0xdf:
		n, b, err := readUint(b, 2<<(code&1))
		if err != nil {
			return nil, nil, err
		}
		if code >= 0xde {
			return readMap(b, int(n), depth)
		}
		return readList(b, int(n), depth)
	}
	return nil, nil, fmt.Errorf("MessagePack code %#x, which the contract does not use", code)
}

func readUint(b []byte, size int) (uint64, []byte, error) {
	if len(b) < size {
		return 0, nil, errCut
	}
	var n uint64
	for _, c := range b[:size] {
		n = n<<8 | uint64(c)
	}
	return n, b[size:], nil
}

func readText(b []byte, n int) (any, []byte, error) {
	if n > len(b) {
		return nil, nil, errCut
	}
	return string(b[:n]), b[n:], nil
}

func readList(b []byte, n, depth int) (any, []byte, error) {
	if n > len(b) {
		return nil, nil, errCut
	}
	list := make([]any, n)
	for i := range list {
		var err error
		if list[i], b, err = readMsgPack(b, depth+1); err != nil {
			return nil, nil, err
		}
	}
	return list, b, nil
}

func readMap(b []byte, n, depth int) (any, []byte, error) {
	if n > len(b) {
		return nil, nil, errCut
	}
	m := make(object, n)
	for range n {
		k, rest, err := readMsgPack(b, depth+1)
		if err != nil {
			return nil, nil, err
		}
		key, ok := k.(string)
		if !ok {
			return nil, nil, fmt.Errorf("the key %v", k)
		}
		if m[key], b, err = readMsgPack(rest, depth+1); err != nil {
			return nil, nil, err
		}
	}
	return m, b, nil
}
