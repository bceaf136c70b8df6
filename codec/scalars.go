package codec

import (
	"encoding/binary"
	"math"
	"strconv"
	"time"
	"unicode/utf8"
)

// How single values are written.

func (e *encoder) null(dst []byte) []byte {
	if e.f == JSON {
		return append(dst, "null"...)
	}
	return append(dst, 0xc0)
}

func (e *encoder) bool(dst []byte, v bool) []byte {
	switch {
	case e.f == JSON:
		return strconv.AppendBool(dst, v)
	case v:
		return append(dst, 0xc3)
	}
	return append(dst, 0xc2)
}

func (e *encoder) string(dst []byte, s string) []byte {
	if e.f == JSON {
		return appendJSONString(dst, s)
	}
	return appendMsgPackString(dst, s)
}

func (e *encoder) time(dst []byte, t time.Time) []byte {
	if e.f == JSON {
		dst = append(dst, '"')
		dst = e.rfc3339(dst, t)
		return append(dst, '"')
	}
	// An RFC 3339 time is at most 35 bytes long: longer than a fixstr can be.
	dst = append(dst, 0xd9, 0)
	start := len(dst)
	dst = e.rfc3339(dst, t)
	dst[start-1] = byte(len(dst) - start)
	return dst
}

// rfc3339 appends t in UTC as time.RFC3339Nano has it.
func (e *encoder) rfc3339(dst []byte, t time.Time) []byte {
	second := t.Unix()
	if second != e.second || e.prefix[0] == 0 {
		start := len(dst)
		dst = t.UTC().AppendFormat(dst, time.RFC3339Nano)
		if len(dst)-start <= len("2006-01-02T15:04:05.999999999Z") && dst[start+len(e.prefix)-3] == ':' { // a year of four digits
			e.second = second
			copy(e.prefix[:], dst[start:])
		}
		return dst
	}
	dst = append(dst, e.prefix[:]...)
	if n := t.Nanosecond(); n != 0 {
		width := 9
		for ; n%10 == 0; n /= 10 {
			width--
		}
		dst = append(dst, ".000000000"[:1+width]...)
		for i := len(dst) - 1; n > 0; i-- {
			dst[i] = byte('0' + n%10)
			n /= 10
		}
	}
	return append(dst, 'Z')
}

func (e *encoder) int(dst []byte, n int64) []byte {
	if e.f == JSON {
		return strconv.AppendInt(dst, n, 10)
	}
	switch {
	case n >= 0:
		return e.uint(dst, uint64(n))
	case n >= -32:
		return append(dst, byte(n))
	case n >= math.MinInt8:
		return append(dst, 0xd0, byte(n))
	case n >= math.MinInt16:
		return binary.BigEndian.AppendUint16(append(dst, 0xd1), uint16(n))
	case n >= math.MinInt32:
		return binary.BigEndian.AppendUint32(append(dst, 0xd2), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(dst, 0xd3), uint64(n))
}

func (e *encoder) uint(dst []byte, n uint64) []byte {
	if e.f == JSON {
		return strconv.AppendUint(dst, n, 10)
	}
	switch {
	case n <= 0x7f:
		return append(dst, byte(n))
	case n <= math.MaxUint8:
		return append(dst, 0xcc, byte(n))
	case n <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(dst, 0xcd), uint16(n))
	case n <= math.MaxUint32:
		return binary.BigEndian.AppendUint32(append(dst, 0xce), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(dst, 0xcf), n)
}

// float writes as encoding/json does: plain where that is short, else with an exponent.
func (e *encoder) float(dst []byte, x float64) []byte {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return e.null(dst)
	}
	if e.f == MsgPack {
		return binary.BigEndian.AppendUint64(append(dst, 0xcb), math.Float64bits(x))
	}
	if n := int64(x); float64(n) == x && n > -1<<53 && n < 1<<53 && (n != 0 || !math.Signbit(x)) {
		return strconv.AppendInt(dst, n, 10)
	}
	if abs := math.Abs(x); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		return strconv.AppendFloat(dst, x, 'e', -1, 64)
	}
	return strconv.AppendFloat(dst, x, 'f', -1, 64)
}

// plain[c] is true for a byte that stands for itself in a JSON string.
var plain = func() (t [256]bool) {
	for c := range t {
		t[c] = c >= ' ' && c < utf8.RuneSelf && c != '"' && c != '\\'
	}
	return t
}()

const hexDigits = "0123456789abcdef"

func appendJSONString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if plain[c] {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && n == 1 {
				dst = append(dst, s[start:i]...)
				dst = append(dst, "\uFFFD"...)
				start = i + 1
			}
			i += n
			continue
		}
		dst = append(dst, s[start:i]...)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
		i++
		start = i
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}

// appendMsgPackString writes a string, each byte that is not UTF-8 replaced as JSON does.
func appendMsgPackString(dst []byte, s string) []byte {
	if !utf8.ValidString(s) {
		s = string([]rune(s))
	}
	n := len(s)
	switch {
	case n <= 31:
		dst = append(dst, 0xa0|byte(n))
	case n <= math.MaxUint8:
		dst = append(dst, 0xd9, byte(n))
	case n <= math.MaxUint16:
		dst = append(dst, 0xda, byte(n>>8), byte(n))
	default:
		dst = binary.BigEndian.AppendUint32(append(dst, 0xdb), uint32(n))
	}
	return append(dst, s...)
}
