package conform

import (
	"bytes"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/isobar-project/isobar/schemas"
)

// payload is bytes that are no request.
type payload struct {
	name  string
	bytes []byte
}

func deep(open, end string, n int) []byte {
	return []byte(strings.Repeat(open, n) + strings.Repeat(end, n))
}

// hostile are payloads of a format. They are made when they are asked for: the program is also
// the vault of its nodes, which should be small.
func hostile(format string) []payload {
	if format == "json" {
		return []payload{
			{"a-list", []byte(`[1,2]`)}, {"a-number", []byte(`7`)}, {"half", []byte(`{"data":{"device_id":`)}, {"garbage", []byte{0xc1, 0xff, 0x00, 0x9f}},
			{"two-values", []byte(`{"data":{}}{}`)}, {"the-same-key-twice", []byte(`{"request_id":"a","request_id":"b","data":{}}`)},
			{"lists-50000-deep", deep(`[`, `]`, 50_000)}, {"objects-20000-deep", append([]byte(`{"data":`), append(deep(`{"a":`, `}`, 20_000), '}')...)},
			{"no-UTF-8", []byte("{\"data\":{\"device_id\":\"\xff\xfe\"}}")}, {"half-a-surrogate", []byte(`{"data":{"device_id":"\ud800"}}`)},
			{"data-a-list", []byte(`{"request_id":"x","data":[]}`)},
		}
	}
	return []payload{
		{"a-number", []byte{0x07}}, {"garbage", []byte{0xc1, 0xff}}, {"half-a-map", []byte{0x82, 0xa1, 'a'}}, {"two-values", []byte{0x80, 0x80}},
		{"a-map-of-4-Gi", []byte{0xdf, 0xff, 0xff, 0xff, 0xff}}, {"a-list-of-4-Gi", []byte{0xdd, 0xff, 0xff, 0xff, 0xff}},
		{"text-of-4-GiB", []byte{0xdb, 0xff, 0xff, 0xff, 0xff, 'a'}}, {"bytes-of-4-GiB", []byte{0xc6, 0xff, 0xff, 0xff, 0xff}},
		{"an-extension", []byte{0x81, 0xa4, 'd', 'a', 't', 'a', 0xc7, 0x04, 0x01, 1, 2, 3, 4}}, {"a-key-that-is-a-number", []byte{0x81, 0x01, 0x02}},
		{"lists-100000-deep", bytes.Repeat([]byte{0x91}, 100_000)}, {"maps-50000-deep", bytes.Repeat([]byte{0x81, 0xa1, 'a'}, 50_000)},
		{"JSON", []byte(`{"data":{}}`)},
	}
}

// payloads sends an action what is no request at all. Nothing may come of it but an error.
func (c caller) payloads(s sample) []check {
	subject := schemas.CommandSubject(s.action)
	var out []check
	add := func(name string, code schemas.Code, header nats.Header, b []byte) {
		out = append(out, check{string(s.action) + "/" + c.f.name + "/payload-" + name + " → " + string(code), func() {
			c.raw(subject, s.action, b, header).expect(code)
		}})
	}
	for _, p := range hostile(c.f.name) {
		add(p.name, schemas.CodeInvalidRequest, nil, p.bytes)
	}
	add("of-256-KiB-and-one", schemas.CodePayloadTooLarge, nil, bytes.Repeat([]byte(" "), schemas.MaxPayloadBytes+1))
	if c.f.name == "json" {
		// What names no format of ours is answered in the one that is the default.
		add("in-XML", schemas.CodeUnsupportedMediaType, nats.Header{"Content-Type": {"application/xml"}}, []byte("<a/>"))
		add("answered-in-XML", schemas.CodeUnsupportedMediaType, nats.Header{"Accept": {"application/xml"}}, []byte("{}"))
	}
	return out
}
