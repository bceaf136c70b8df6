package codec

import (
	"bytes"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// kind is what the next value of a reader is.
type kind uint8

const (
	kindNull kind = iota
	kindBool
	kindNumber
	kindString
	kindArray
	kindObject
	kindOther // binary or extension
)

// String words the kind for an error message.
func (k kind) String() string {
	return [...]string{"null", "a boolean", "a number", "a string", "a list", "an object", "binary data"}[k]
}

// numberError says why a number does not fit its field.
type numberError uint8

const (
	numberOK numberError = iota
	numberFraction
	numberRange
)

// reader walks over one guarded value of either format. Because the guard has seen
// every byte, its methods cannot fail on structure; a caller asks kind first and reads
// what is there.
type reader struct {
	b       []byte
	at      int
	msgpack bool
	scratch []byte // for keys with escapes
}

// container is where a reader is in an array or object.
type container struct {
	left  int // MessagePack: items or pairs still to come
	first bool
}

// kind looks at the next value without consuming it.
func (r *reader) kind() kind {
	if r.msgpack {
		return mpKind(r.b[r.at])
	}
	r.space()
	switch r.b[r.at] {
	case '{':
		return kindObject
	case '[':
		return kindArray
	case '"':
		return kindString
	case 't', 'f':
		return kindBool
	case 'n':
		return kindNull
	}
	return kindNumber
}

func (r *reader) space() {
	for r.at < len(r.b) && r.b[r.at] <= ' ' {
		r.at++
	}
}

// enter goes into the array or object that is next.
func (r *reader) enter() container {
	if r.msgpack {
		head, _, items, _, _ := mpHead(r.b[r.at:])
		if isMap(r.b[r.at]) {
			items /= 2
		}
		r.at += head
		return container{left: items}
	}
	r.at++
	return container{first: true}
}

// more reports whether the container has another item, and goes to it, or else leaves the container.
func (r *reader) more(c *container) bool {
	if r.msgpack {
		c.left--
		return c.left >= 0
	}
	r.space()
	switch r.b[r.at] {
	case '}', ']':
		r.at++
		return false
	}
	if !c.first {
		r.at++ // the comma
		r.space()
	}
	c.first = false
	return true
}

// key reads a key of an object. The bytes are good until the next call.
func (r *reader) key() []byte {
	if r.msgpack {
		return r.mpBytes()
	}
	raw, escaped := r.rawString()
	r.space()
	r.at++ // the colon
	if escaped {
		r.scratch = unescape(r.scratch[:0], raw)
		return r.scratch
	}
	return raw
}

// rawString consumes a JSON string and returns what lies between its quotes.
func (r *reader) rawString() (raw []byte, escaped bool) {
	r.at++
	start := r.at
	if end := bytes.IndexByte(r.b[start:], '"'); bytes.IndexByte(r.b[start:start+end], '\\') < 0 {
		r.at = start + end + 1
		return r.b[start : start+end], false
	}
	for {
		switch r.b[r.at] {
		case '"':
			r.at++
			return r.b[start : r.at-1], escaped
		case '\\':
			escaped = true
			r.at++
		}
		r.at++
	}
}

// bytes reads a string. The bytes are good until the next call. ok is false where a
// MessagePack string is not UTF-8.
func (r *reader) bytes() (s []byte, ok bool) {
	if r.msgpack {
		s = r.mpBytes()
		return s, utf8.Valid(s)
	}
	raw, escaped := r.rawString()
	if escaped {
		r.scratch = unescape(r.scratch[:0], raw)
		return r.scratch, true
	}
	return raw, true
}

func (r *reader) bool() bool {
	c := r.b[r.at]
	switch {
	case r.msgpack:
		r.at++
		return c == 0xc3
	case c == 't':
		r.at += 4
		return true
	}
	r.at += 5
	return false
}

// number consumes a JSON number and returns its bytes.
func (r *reader) number() []byte {
	start := r.at
	for r.at < len(r.b) {
		switch c := r.b[r.at]; {
		case '0' <= c && c <= '9', c == '-', c == '+', c == '.', c == 'e', c == 'E':
			r.at++
			continue
		}
		break
	}
	return r.b[start:r.at]
}

// int reads a number that must be whole and fit int64.
func (r *reader) int() (int64, numberError) {
	if r.msgpack {
		return r.mpInt()
	}
	text := r.number()
	digits, negative := text, false
	if digits[0] == '-' {
		digits, negative = digits[1:], true
	}
	var n uint64
	for i, c := range digits {
		if c < '0' || c > '9' {
			return 0, numberFraction
		}
		if i >= 19 {
			// 20 digits and more are beyond int64, unless they turn out to be no whole number.
			for _, c := range digits[i:] {
				if c < '0' || c > '9' {
					return 0, numberFraction
				}
			}
			return 0, numberRange
		}
		n = n*10 + uint64(c-'0')
	}
	switch {
	case negative && n <= 1<<63:
		return -int64(n), numberOK
	case !negative && n < 1<<63:
		return int64(n), numberOK
	}
	return 0, numberRange
}

// float reads a finite number.
func (r *reader) float() (float64, numberError) {
	if r.msgpack {
		return r.mpFloat()
	}
	f, err := strconv.ParseFloat(string(r.number()), 64)
	if err != nil {
		return 0, numberRange
	}
	return f, numberOK
}

// skip goes over the next value.
func (r *reader) skip() {
	if r.msgpack {
		for pending := 1; pending > 0; pending-- {
			head, body, items, _, _ := mpHead(r.b[r.at:])
			r.at += head + body
			pending += items
		}
		return
	}
	depth := 0
	for {
		r.space()
		switch r.b[r.at] {
		case '"':
			r.rawString()
		case '{', '[':
			depth++
			r.at++
			continue
		case '}', ']':
			depth--
			r.at++
		case ',', ':':
			r.at++
			continue
		case 't', 'n':
			r.at += 4
		case 'f':
			r.at += 5
		default:
			r.number()
		}
		if depth == 0 {
			return
		}
	}
}

// unescape appends a guarded JSON string without its escapes.
func unescape(dst, raw []byte) []byte {
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		if c != '\\' {
			dst = append(dst, c)
			continue
		}
		i++
		switch raw[i] {
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		case 'u':
			char, _ := hex4(raw[i+1:])
			i += 4
			if utf16.IsSurrogate(char) {
				low, _ := hex4(raw[i+3:])
				char = utf16.DecodeRune(char, low)
				i += 6
			}
			dst = utf8.AppendRune(dst, char)
		default:
			dst = append(dst, raw[i])
		}
	}
	return dst
}
