package fdwire

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/vmihailenco/msgpack/v5"
)

// Packet is an encoded message with its length in front, ready to send. It may be
// sent more than once and on several connections, but not changed.
type Packet []byte

// Encode makes a packet of a struct. Field names are those of the `json` tags.
func Encode(v any) (Packet, error) {
	p, err := encode(v, headerBytes)
	if err != nil {
		return nil, err
	}
	n := len(p) - headerBytes
	if n > MaxFrameBytes {
		return nil, fmt.Errorf("encode %T: %w: %d bytes", v, ErrTooLong, n)
	}
	binary.BigEndian.PutUint32(p, uint32(n))
	return p, nil
}

// Part is a field of a message that is encoded already, or not decoded yet.
type Part = msgpack.RawMessage

// EncodePart makes a field of messages to come.
func EncodePart(v any) (Part, error) { return encode(v, 0) }

// encode leaves so many bytes free in front.
func encode(v any, front int) ([]byte, error) {
	var buf bytes.Buffer
	buf.Write(make([]byte, front))
	enc := msgpack.GetEncoder()
	defer msgpack.PutEncoder(enc)
	enc.Reset(&buf)
	enc.SetCustomStructTag("json")
	enc.UseCompactInts(true)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	return buf.Bytes(), nil
}

// Header is what every message begins with, in any order of keys.
type Header struct {
	Type string `json:"type"`
	ID   uint64 `json:"id"`
}

// Decode reads a body, which a Guard has seen, into the struct that v points to.
// Fields unknown to it are ignored.
func Decode(body []byte, v any) error { return decode(body, v, false) }

// DecodeStrict is Decode, but a field unknown to v is an error that names it.
func DecodeStrict(body []byte, v any) error { return decode(body, v, true) }

func decode(body []byte, v any, strict bool) error {
	dec := msgpack.GetDecoder()
	defer msgpack.PutDecoder(dec)
	dec.Reset(bytes.NewReader(body))
	dec.SetCustomStructTag("json")
	dec.DisallowUnknownFields(strict)
	if err := dec.Decode(v); err != nil {
		return fmt.Errorf("decode %T: %w", v, err)
	}
	return nil
}
