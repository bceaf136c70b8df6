package weights

import (
	"fmt"
	"math"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// maxJSONDepth bounds the nesting of values that are skipped; sound headers need 3.
const maxJSONDepth = 64

// jsonText walks over a JSON text that is already known to be UTF-8 and knows at
// which byte it stands, so that errors can say where. It is strict: no duplicate
// or missing commas, no lone surrogates, integers as plain digits. It allocates
// only for strings with escapes.
type jsonText struct {
	s   string
	pos int
	bad error // first fault, set once; every later call answers zero values
}

// fail notes a fault at the current byte.
func (j *jsonText) fail(format string, args ...any) {
	if j.bad == nil {
		j.bad = fmt.Errorf(format, args...)
	}
}

func (j *jsonText) space() {
	for j.pos < len(j.s) {
		switch j.s[j.pos] {
		case ' ', '\t', '\n', '\r':
			j.pos++
		default:
			return
		}
	}
}

// peek is the next byte that is no white space, 0 at the end.
func (j *jsonText) peek() byte {
	j.space()
	if j.bad != nil || j.pos == len(j.s) {
		return 0
	}
	return j.s[j.pos]
}

// take consumes one punctuation byte.
func (j *jsonText) take(c byte) bool {
	if got := j.peek(); got != c || j.bad != nil {
		j.fail("%s where %q is due", describeByte(got), c)
		return false
	}
	j.pos++
	return true
}

func describeByte(c byte) string {
	if c == 0 {
		return "end of text"
	}
	return fmt.Sprintf("%q", c)
}

// end demands that nothing but white space is left.
func (j *jsonText) end() {
	if c := j.peek(); j.bad == nil && (c != 0 || j.pos < len(j.s)) {
		j.fail("%s after the end of the value", describeByte(c))
	}
}

// object calls member once for each key, which must consume the value.
func (j *jsonText) object(member func(key string)) {
	if !j.take('{') {
		return
	}
	if j.peek() == '}' {
		j.pos++
		return
	}
	for j.bad == nil {
		key := j.str()
		if !j.take(':') {
			return
		}
		member(key)
		if j.peek() == '}' {
			j.pos++
			return
		}
		j.take(',')
	}
}

// array calls element once for each value, which it must consume.
func (j *jsonText) array(element func(i int)) {
	if !j.take('[') {
		return
	}
	if j.peek() == ']' {
		j.pos++
		return
	}
	for i := 0; j.bad == nil; i++ {
		element(i)
		if j.peek() == ']' {
			j.pos++
			return
		}
		j.take(',')
	}
}

// integer reads a non-negative integer of at most 63 bits.
func (j *jsonText) integer() int64 {
	j.peek()
	start := j.pos
	var n int64
	for ; j.pos < len(j.s) && '0' <= j.s[j.pos] && j.s[j.pos] <= '9'; j.pos++ {
		d := int64(j.s[j.pos] - '0')
		if n > (math.MaxInt64-d)/10 {
			j.fail("number does not fit 63 bits")
			return 0
		}
		n = n*10 + d
	}
	digits := j.pos - start
	switch {
	case j.bad != nil:
		return 0
	case digits == 0:
		j.fail("%s where a non-negative integer is due", describeByte(j.peek()))
	case digits > 1 && j.s[start] == '0':
		j.fail("number with a leading zero")
	case j.pos < len(j.s) && strings.IndexByte(".eE", j.s[j.pos]) >= 0:
		j.fail("number is not an integer")
	}
	return n
}

// str reads a string.
func (j *jsonText) str() string {
	if !j.take('"') {
		return ""
	}
	start := j.pos
	for ; j.pos < len(j.s); j.pos++ {
		switch c := j.s[j.pos]; {
		case c == '"':
			j.pos++
			return j.s[start : j.pos-1]
		case c == '\\':
			return j.escaped(start)
		case c < 0x20:
			j.fail("control character in a string")
			return ""
		}
	}
	j.fail("string without an end")
	return ""
}

// escaped reads on from the first backslash of a string that began at start.
func (j *jsonText) escaped(start int) string {
	var b strings.Builder
	b.WriteString(j.s[start:j.pos])
	for j.pos < len(j.s) {
		c := j.s[j.pos]
		j.pos++
		switch {
		case c == '"':
			return b.String()
		case c < 0x20:
			j.fail("control character in a string")
			return ""
		case c != '\\':
			b.WriteByte(c)
		default:
			r, ok := j.escape()
			if !ok {
				j.fail("unknown or broken escape in a string")
				return ""
			}
			b.WriteRune(r)
		}
	}
	j.fail("string without an end")
	return ""
}

// escape reads what follows a backslash.
func (j *jsonText) escape() (rune, bool) {
	if j.pos == len(j.s) {
		return 0, false
	}
	c := j.s[j.pos]
	j.pos++
	if i := strings.IndexByte(`"\/bfnrt`, c); i >= 0 {
		return rune("\"\\/\b\f\n\r\t"[i]), true
	}
	if c != 'u' {
		return 0, false
	}
	r, ok := j.hex4()
	if !ok || !utf16.IsSurrogate(r) {
		return r, ok
	}
	if !strings.HasPrefix(j.s[j.pos:], `\u`) {
		return 0, false
	}
	j.pos += 2
	low, ok := j.hex4()
	r = utf16.DecodeRune(r, low)
	return r, ok && r != utf8.RuneError
}

func (j *jsonText) hex4() (rune, bool) {
	if len(j.s)-j.pos < 4 {
		return 0, false
	}
	var r rune
	for _, c := range []byte(j.s[j.pos : j.pos+4]) {
		switch {
		case '0' <= c && c <= '9':
			r = r<<4 | rune(c-'0')
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			r = r<<4 | rune(c|0x20-'a'+10)
		default:
			return 0, false
		}
	}
	j.pos += 4
	return r, true
}

// null consumes a null if that is what comes.
func (j *jsonText) null() bool {
	if j.peek() == 'n' && strings.HasPrefix(j.s[j.pos:], "null") {
		j.pos += 4
		return true
	}
	return false
}

// skip passes over any value.
func (j *jsonText) skip(depth int) {
	if depth > maxJSONDepth {
		j.fail("nested deeper than %d", maxJSONDepth)
		return
	}
	switch c := j.peek(); {
	case j.bad != nil:
	case c == '{':
		j.object(func(string) { j.skip(depth + 1) })
	case c == '[':
		j.array(func(int) { j.skip(depth + 1) })
	case c == '"':
		j.str()
	default:
		j.scalar()
	}
}

// scalar passes over a number, a boolean or null.
func (j *jsonText) scalar() {
	for _, word := range []string{"null", "true", "false"} {
		if strings.HasPrefix(j.s[j.pos:], word) {
			j.pos += len(word)
			return
		}
	}
	start := j.pos
	j.digitsAfter("-")
	if j.pos < len(j.s) && j.s[j.pos] == '.' {
		j.pos++
		j.digitsAfter("")
	}
	if j.pos < len(j.s) && j.s[j.pos]|0x20 == 'e' {
		j.pos++
		j.digitsAfter("+-")
	}
	if j.pos == start {
		j.fail("%s where a value is due", describeByte(j.peek()))
	}
}

// digitsAfter passes over an optional sign out of signs and at least one digit.
func (j *jsonText) digitsAfter(signs string) {
	if j.pos < len(j.s) && strings.IndexByte(signs, j.s[j.pos]) >= 0 {
		j.pos++
	}
	start := j.pos
	for j.pos < len(j.s) && '0' <= j.s[j.pos] && j.s[j.pos] <= '9' {
		j.pos++
	}
	if j.pos == start {
		j.fail("%s where a digit is due", describeByte(j.peek()))
	}
}
