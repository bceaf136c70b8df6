package codec

import (
	"encoding/binary"
	"fmt"
)

// MaxDepth is how deep arrays and maps may lie in each other.
const MaxDepth = 32

// SyntaxError says why bytes are not one sound value.
type SyntaxError struct {
	// Offset is where, in bytes from the start.
	Offset int
	Reason string
}

// Error implements error.
func (e *SyntaxError) Error() string { return fmt.Sprintf("%s at byte %d", e.Reason, e.Offset) }

// Guard reports whether b is exactly one sound MessagePack value: every declared
// length fits the bytes that are left, arrays and maps are at most MaxDepth deep, map
// keys are strings, and nothing follows. It looks at structure alone, allocates
// nothing unless it fails, and must come before every MessagePack decoder: they
// believe declared lengths (five bytes can ask for 64 GiB) and recurse without bound.
func Guard(b []byte) error {
	// open[d] is how many values are still to come at depth d; in a map, keys count.
	var open [MaxDepth + 1]int
	var inMap [MaxDepth + 1]bool
	depth, at := 0, 0
	open[0] = 1
	for {
		for open[depth] == 0 {
			if depth == 0 {
				if at != len(b) {
					return &SyntaxError{at, "bytes follow the value"}
				}
				return nil
			}
			depth--
		}
		if at >= len(b) {
			return &SyntaxError{at, "the value is cut off"}
		}
		code := b[at]
		if inMap[depth] && open[depth]&1 == 0 && !isStr(code) {
			return &SyntaxError{at, "a map key is not a string"}
		}
		open[depth]--
		head, body, items, container, ok := mpHead(b[at:])
		if !ok {
			return &SyntaxError{at, "the value is cut off or uses a reserved code"}
		}
		left := len(b) - at - head
		// An item takes at least one byte.
		if body > left || items > left {
			return &SyntaxError{at, "a declared length is beyond the end"}
		}
		at += head + body
		if container {
			if depth == MaxDepth {
				return &SyntaxError{at, "nested too deep"}
			}
			depth++
			open[depth] = items
			inMap[depth] = isMap(code)
		}
	}
}

func isStr(code byte) bool { return code&0xe0 == 0xa0 || code >= 0xd9 && code <= 0xdb }

func isMap(code byte) bool { return code&0xf0 == 0x80 || code == 0xde || code == 0xdf }

// mpHead reads the head of the value at the start of b: the bytes of the head itself, the
// bytes of a scalar that follow it, and the values inside a container (in a map, keys and
// values). ok is false where the head is cut off or its code is reserved. Lengths are
// at most 2³² × 2, which an int holds.
func mpHead(b []byte) (head, body, items int, container, ok bool) {
	code := b[0]
	switch {
	case code <= 0x7f || code >= 0xe0: // fixint
		return 1, 0, 0, false, true
	case code <= 0x8f:
		return 1, 0, 2 * int(code&0x0f), true, true
	case code <= 0x9f:
		return 1, 0, int(code & 0x0f), true, true
	case code <= 0xbf:
		return 1, int(code & 0x1f), 0, false, true
	}
	var size int // bytes of the length field
	switch code {
	case 0xc0, 0xc2, 0xc3:
		return 1, 0, 0, false, true
	case 0xcc, 0xd0:
		return 1, 1, 0, false, true
	case 0xcd, 0xd1:
		return 1, 2, 0, false, true
	case 0xca, 0xce, 0xd2:
		return 1, 4, 0, false, true
	case 0xcb, 0xcf, 0xd3:
		return 1, 8, 0, false, true
	case 0xd4, 0xd5, 0xd6, 0xd7, 0xd8: // fixext: a type byte and 1, 2, 4, 8 or 16
		return 1, 1 + 1<<(code-0xd4), 0, false, true
	case 0xc4, 0xc7, 0xd9:
		size = 1
	case 0xc5, 0xc8, 0xda, 0xdc, 0xde:
		size = 2
	case 0xc6, 0xc9, 0xdb, 0xdd, 0xdf:
		size = 4
	default: // 0xc1
		return 0, 0, 0, false, false
	}
	if len(b) < 1+size {
		return 0, 0, 0, false, false
	}
	var n int
	switch size {
	case 1:
		n = int(b[1])
	case 2:
		n = int(binary.BigEndian.Uint16(b[1:]))
	case 4:
		n = int(binary.BigEndian.Uint32(b[1:]))
	}
	switch code {
	case 0xdc, 0xdd:
		return 1 + size, 0, n, true, true
	case 0xde, 0xdf:
		return 1 + size, 0, 2 * n, true, true
	case 0xc7, 0xc8, 0xc9: // ext: a type byte more
		n++
	}
	return 1 + size, n, 0, false, true
}
