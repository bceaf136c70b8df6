package tracing

import (
	"encoding/hex"
	"math/rand/v2"
)

// Parse reads a traceparent header: version, trace, parent and flags in hexadecimal. ok is
// false for what is none.
func Parse(header string) (trace [16]byte, parent [8]byte, sampled, ok bool) {
	// 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01; later versions may be longer.
	if len(header) < 55 || header[2] != '-' || header[35] != '-' || header[52] != '-' || header[:2] == "ff" ||
		len(header) > 55 && (header[:2] == "00" || header[55] != '-') {
		return trace, parent, false, false
	}
	var version, flags [1]byte
	for _, part := range []struct {
		to   []byte
		from string
	}{{version[:], header[:2]}, {trace[:], header[3:35]}, {parent[:], header[36:52]}, {flags[:], header[53:55]}} {
		for i := range len(part.from) {
			if c := part.from[i]; c >= 'A' && c <= 'F' {
				return trace, parent, false, false
			}
		}
		if _, err := hex.Decode(part.to, []byte(part.from)); err != nil {
			return trace, parent, false, false
		}
	}
	if trace == [16]byte{} || parent == [8]byte{} {
		return trace, parent, false, false
	}
	return trace, parent, flags[0]&1 != 0, true
}

// NewTrace makes the id of a trace, NewSpan that of a span. They must be unique, not secret.
func NewTrace() (id [16]byte) {
	put(id[:8])
	put(id[8:])
	return id
}

// NewSpan makes the id of a span.
func NewSpan() (id [8]byte) {
	put(id[:])
	return id
}

// put fills eight bytes, never with zeros alone.
func put(b []byte) {
	n := rand.Uint64() | 1
	for i := range b {
		b[i] = byte(n >> (8 * i))
	}
}
