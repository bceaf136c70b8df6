package codec

import (
	"encoding/binary"
	"math"
)

// The MessagePack half of reader.

func mpKind(code byte) kind {
	switch {
	case code <= 0x7f || code >= 0xe0:
		return kindNumber
	case code <= 0x8f:
		return kindObject
	case code <= 0x9f:
		return kindArray
	case code <= 0xbf:
		return kindString
	}
	switch code {
	case 0xc0:
		return kindNull
	case 0xc2, 0xc3:
		return kindBool
	case 0xca, 0xcb, 0xcc, 0xcd, 0xce, 0xcf, 0xd0, 0xd1, 0xd2, 0xd3:
		return kindNumber
	case 0xd9, 0xda, 0xdb:
		return kindString
	case 0xdc, 0xdd:
		return kindArray
	case 0xde, 0xdf:
		return kindObject
	}
	return kindOther
}

// mpBytes consumes a string.
func (r *reader) mpBytes() []byte {
	head, body, _, _, _ := mpHead(r.b[r.at:])
	start := r.at + head
	r.at = start + body
	return r.b[start:r.at]
}

func (r *reader) mpInt() (int64, numberError) {
	code := r.b[r.at]
	if code <= 0x7f || code >= 0xe0 {
		r.at++
		return int64(int8(code)), numberOK
	}
	body := r.mpBytes()
	switch code {
	case 0xca, 0xcb:
		return 0, numberFraction
	case 0xcc:
		return int64(body[0]), numberOK
	case 0xcd:
		return int64(binary.BigEndian.Uint16(body)), numberOK
	case 0xce:
		return int64(binary.BigEndian.Uint32(body)), numberOK
	case 0xcf:
		n := binary.BigEndian.Uint64(body)
		if n >= 1<<63 {
			return 0, numberRange
		}
		return int64(n), numberOK
	case 0xd0:
		return int64(int8(body[0])), numberOK
	case 0xd1:
		return int64(int16(binary.BigEndian.Uint16(body))), numberOK
	case 0xd2:
		return int64(int32(binary.BigEndian.Uint32(body))), numberOK
	}
	return int64(binary.BigEndian.Uint64(body)), numberOK
}

func (r *reader) mpFloat() (float64, numberError) {
	var f float64
	switch r.b[r.at] {
	case 0xca:
		f = float64(math.Float32frombits(binary.BigEndian.Uint32(r.mpBytes())))
	case 0xcb:
		f = math.Float64frombits(binary.BigEndian.Uint64(r.mpBytes()))
	case 0xcf:
		return float64(binary.BigEndian.Uint64(r.mpBytes())), numberOK
	default:
		n, _ := r.mpInt()
		return float64(n), numberOK
	}
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return 0, numberRange
	}
	return f, numberOK
}
