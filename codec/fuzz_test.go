package codec

import (
	"encoding/json"
	"math"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/isobar-project/isobar/schemas"
)

// spread adds the seeds of every fuzzer over MessagePack.
func spread(f *testing.F) {
	for _, seed := range [][]byte{
		{}, {0x80}, {0xc0}, {0xc1}, {0xdd, 0xff, 0xff, 0xff, 0xff}, {0xdf, 0xff, 0xff, 0xff, 0xff}, {0x81, 0xa1, 'a', 0x91, 0x01},
		{0x81, 0x01, 0x01}, {0xd6, 0xff, 0, 0, 0, 1}, {0xc7, 0x0c, 0xff}, {0x80, 0x80}, {0xcb, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0},
		[]byte(strings.Repeat("\x91", 100)), []byte(strings.Repeat("\x81\xa1a", 40)),
		Append(nil, MsgPack, map[string]any{"request_id": "r", "data": map[string]any{"size_bytes": 1 << 40, "purpose": strings.Repeat("p", 300)}}),
	} {
		f.Add(seed)
	}
}

// FuzzGuard holds the guard against msgpack/v5: what it lets through, that decoder reads
// whole, without a panic and at a cost in proportion to the input.
func FuzzGuard(f *testing.F) {
	spread(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		if Guard(b) != nil {
			return
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		var v any
		err := msgpack.Unmarshal(b, &v)
		runtime.ReadMemStats(&after)
		if cost := after.TotalAlloc - before.TotalAlloc; cost > 1<<20+1000*uint64(len(b)) {
			t.Errorf("%d bytes were allocated for %d", cost, len(b))
		}
		r := reader{b: b, msgpack: true}
		mine := readAny(&r)
		if r.at != len(b) {
			t.Errorf("the reader stopped at %d of %d", r.at, len(b))
		}
		// Extensions are read by neither; everything else must be the same.
		if err == nil && comparable(v) && !reflect.DeepEqual(plainAny(v), plainAny(mine)) {
			t.Errorf("msgpack/v5 reads %#v, the reader %#v", v, mine)
		}
		r = reader{b: b, msgpack: true}
		r.skip()
		if r.at != len(b) {
			t.Errorf("skip stopped at %d of %d", r.at, len(b))
		}
		e := encoder{f: JSON}
		if out := e.transcode(nil, &reader{b: b, msgpack: true}); !json.Valid(out) {
			t.Errorf("transcoded to %s", out)
		}
	})
}

// comparable reports whether a value decoded by msgpack/v5 holds only what the reader
// reads too: no binary, no extension, no number that JSON lacks, no key twice (which
// cannot be seen here but is harmless: both keep the last).
func comparable(v any) bool {
	switch v := v.(type) {
	case nil, bool, string, int8, int16, int32, int64, uint8, uint16, uint32:
		return true
	case uint64:
		return v < 1<<63
	case float32:
		return !math.IsNaN(float64(v)) && !math.IsInf(float64(v), 0)
	case float64:
		return !math.IsNaN(v) && !math.IsInf(v, 0)
	case []any:
		for _, inner := range v {
			if !comparable(inner) {
				return false
			}
		}
		return true
	case map[string]any:
		for _, inner := range v {
			if !comparable(inner) {
				return false
			}
		}
		return true
	}
	return false
}

// plainAny turns numbers into float64 and nil lists and maps into empty ones.
func plainAny(v any) any {
	switch v := v.(type) {
	case map[string]any:
		m := make(map[string]any, len(v))
		for key, inner := range v {
			m[key] = plainAny(inner)
		}
		return m
	case []any:
		list := make([]any, len(v))
		for i := range v {
			list[i] = plainAny(v[i])
		}
		return list
	}
	rv := reflect.ValueOf(v)
	switch {
	case !rv.IsValid():
		return nil
	case rv.CanInt():
		return float64(rv.Int())
	case rv.CanUint():
		return float64(rv.Uint())
	case rv.CanFloat():
		return rv.Float()
	}
	return v
}

// FuzzGuardJSON holds the guard and the reader against encoding/json.
func FuzzGuardJSON(f *testing.F) {
	for _, seed := range []string{
		``, `{}`, `[]`, `null`, `-0`, `1e400`, `0.5e-3`, `01`, `1.`, `"\ud83d\ude00"`, `"\ud800"`, `"\u00"`, "\"\xff\"", `{"a":{"b":[1,"x",true,null]}}`,
		`{"a":1,"a":2}`, `{"a":1,}`, ` { "a" : [ ] } `, strings.Repeat("[", 40) + strings.Repeat("]", 40), `{} {}`, `"a` + "\n" + `"`, `123456789012345678901`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		err := GuardJSON(b)
		valid := json.Valid(b)
		if err == nil && !valid {
			t.Fatalf("%q passes", b)
		}
		if err != nil {
			if valid && !stricter(b, err) {
				t.Fatalf("%q is refused: %v", b, err)
			}
			return
		}
		r := reader{b: b}
		mine := readAny(&r)
		if r.space(); r.at != len(b) {
			t.Errorf("the reader stopped at %d of %d", r.at, len(b))
		}
		r = reader{b: b}
		r.kind()
		if r.skip(); len(trimSpace(b[r.at:])) != 0 {
			t.Errorf("skip stopped at %d of %d", r.at, len(b))
		}
		var theirs any
		if json.Unmarshal(b, &theirs) != nil {
			return // a number beyond float64
		}
		if !reflect.DeepEqual(theirs, plainAny(mine)) {
			t.Errorf("encoding/json reads %#v, the reader %#v", theirs, mine)
		}
		var there any
		packed := Append(nil, MsgPack, json.RawMessage(b))
		if err := Guard(packed); err != nil {
			t.Fatalf("%q as MessagePack: %v", b, err)
		}
		if err := Unmarshal(packed, MsgPack, &there); err != nil || !reflect.DeepEqual(theirs, plainAny(there)) {
			t.Errorf("%#v came back from MessagePack as %#v, %v", theirs, there, err)
		}
	})
}

// stricter reports whether the guard may refuse what encoding/json takes: depth, and
// strings that are no text.
func stricter(b []byte, err error) bool {
	why := err.(*SyntaxError).Reason
	return why == "nested too deep" || why == "half a character in an escape" || why == "a string is not UTF-8" && !utf8.Valid(b)
}

// FuzzDecodeRequest gives any bytes to any action. What is accepted must be stable: its
// data, written in either format and read again, is the same request.
func FuzzDecodeRequest(f *testing.F) {
	for i, spec := range schemas.All() {
		data := minimal[spec.Action]
		if data == "" {
			data = `{}`
		}
		f.Add(uint8(i), []byte(data), false)
		f.Add(uint8(i), []byte(`{"request_id":"r","action":"memory.`+string(spec.Action)+`","data":`+data+`}`), false)
		f.Add(uint8(i), Append(nil, MsgPack, json.RawMessage(data)), true)
	}
	f.Add(uint8(4), []byte(`{"data":{"size_bytes":1,"memory_type":"ram","wait_ms":7,"dry_run":true,"parameters":{}}}`), false)
	f.Add(uint8(18), []byte(`{"device_id":"d","thresholds":{"moderate":70,"high":{"enter":80,"leave":75}},"model_limit_mb":0.5}`), false)
	f.Fuzz(func(t *testing.T, which uint8, payload []byte, packed bool) {
		spec := schemas.All()[int(which)%len(schemas.All())]
		format := JSON
		if packed {
			format = MsgPack
		}
		if req, err := DecodeRequest(payload, format, spec.Action); req.RequestID == "" {
			t.Fatalf("%+v, %v", req, err)
		}
		req, err := decodeAs(spec, payload, format)
		if err != nil {
			if err.Status != err.Code.Status() || err.Message == "" || !utf8.ValidString(err.Message) {
				t.Fatalf("%+v", err)
			}
			return
		}
		for _, f := range []Format{JSON, MsgPack} {
			call := Call{Data: req.Data, DryRun: req.DryRun}
			if spec.Changing {
				call.Wait = &req.Wait
			}
			if planOf(spec.Request, spec.Changing).wait >= 0 {
				call.Wait = nil
			}
			again := Append(nil, f, nil)
			again, callErr := (&encoder{f: f}).callData(again[:0], call)
			if callErr != nil {
				t.Fatal(callErr)
			}
			second, err := decodeAs(spec, again, f)
			if err != nil {
				t.Fatalf("%s: %q came from %q and is refused: %v", f, again, payload, err)
			}
			if second.Digest() != req.Digest() || !reflect.DeepEqual(second.Data, req.Data) || second.Wait != req.Wait || second.DryRun != req.DryRun {
				t.Fatalf("%s: %+v came back as %+v", f, req, second)
			}
		}
	})
}
