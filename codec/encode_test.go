package codec

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/isobar-project/isobar/schemas"
)

// words are strings that are hard to write.
var words = []string{"", "ram-0", `a "quoted" \ thing`, "tab\tline\nbell\a", "<&>", "日本語 é 😀", "\u2028\u2029", "a\x00b", string(make([]byte, 40)),
	"a longer string, of more than thirty-one bytes, and so not a fixstr"}

// randomize fills v, with empty lists rather than nil ones.
func randomize(r *rand.Rand, v reflect.Value, depth int) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(words[r.IntN(len(words))])
	case reflect.Bool:
		v.SetBool(r.IntN(2) == 0)
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(r.Uint64()) >> r.IntN(64))
	case reflect.Uint64:
		v.SetUint(r.Uint64() >> (1 + r.IntN(63)))
	case reflect.Float64:
		v.SetFloat([]float64{0, 1, -1.5, 12.345, 1e21, 1e-7, math.MaxFloat64, 5e-324, float64(r.Int64()), r.Float64()}[r.IntN(10)])
	case reflect.Pointer:
		if r.IntN(3) > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			randomize(r, v.Elem(), depth)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), r.IntN(3), 3))
		for i := range v.Len() {
			randomize(r, v.Index(i), depth+1)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range r.IntN(3) {
			key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			randomize(r, key, depth)
			randomize(r, value, depth+1)
			v.SetMapIndex(key, value)
		}
	case reflect.Interface:
		if depth < 3 {
			v.Set(reflect.ValueOf([]any{"x", int64(7), 1.5, true, map[string]any{"k": []any{nil, "v"}}, []any{},
				schemas.Gap{From: 1, To: 2}, &schemas.Owner{Tenant: "t"}}[r.IntN(8)]))
		}
	case reflect.Struct:
		if v.Type() == timeType {
			v.Set(reflect.ValueOf(time.Unix(r.Int64N(4e9), r.Int64N(1e9)*int64(r.IntN(2))).UTC()))
			return
		}
		for i := range v.NumField() {
			randomize(r, v.Field(i), depth)
		}
	}
}

// wireTypes are the types that are written.
func wireTypes() []reflect.Type {
	all := []reflect.Type{reflect.TypeFor[schemas.Event](), reflect.TypeFor[schemas.Pending](), reflect.TypeFor[schemas.DryRunReply](),
		reflect.TypeFor[schemas.Segment](), reflect.TypeFor[schemas.AllocationBatch](), reflect.TypeFor[schemas.ModelEvent](),
		reflect.TypeFor[schemas.OptimizationEvent](), reflect.TypeFor[schemas.CommandEvent](), reflect.TypeFor[schemas.NodeEvent](),
		reflect.TypeFor[schemas.Heartbeat](), reflect.TypeFor[schemas.Pressure]()}
	for _, s := range schemas.All() {
		all = append(all, s.Request, s.Reply)
	}
	return all
}

func TestWritesWhatEncodingJSONWrites(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, typ := range wireTypes() {
		for range 15 {
			v := reflect.New(typ)
			randomize(r, v.Elem(), 0)
			theirs, err := json.Marshal(v.Interface())
			if err != nil {
				t.Fatal(err)
			}
			var want, got, packed any
			if err := json.Unmarshal(theirs, &want); err != nil {
				t.Fatal(err)
			}
			mine := Append(nil, JSON, v.Interface())
			if err := json.Unmarshal(mine, &got); err != nil {
				t.Fatalf("%s: %v: %s", typ, err, mine)
			}
			if !reflect.DeepEqual(want, got) {
				t.Fatalf("%s:\n%s\n%s", typ, theirs, mine)
			}
			// By value, the same bytes.
			if byValue := Append(nil, JSON, v.Elem().Interface()); !bytes.Equal(mine, byValue) {
				t.Fatalf("%s by value:\n%s\n%s", typ, byValue, mine)
			}
			// As MessagePack, read by another decoder, the same value.
			mp := Append(nil, MsgPack, v.Interface())
			if err := Guard(mp); err != nil {
				t.Fatalf("%s: %v", typ, err)
			}
			if err := msgpack.Unmarshal(mp, &packed); err != nil {
				t.Fatalf("%s: %v", typ, err)
			}
			if !reflect.DeepEqual(want, plainAny(packed)) {
				t.Fatalf("%s as MessagePack:\n%s\n%v", typ, theirs, packed)
			}
			// And back into the type, from both formats.
			for _, f := range []Format{JSON, MsgPack} {
				back := reflect.New(typ)
				if err := Unmarshal(Append(nil, f, v.Interface()), f, back.Interface()); err != nil {
					t.Fatalf("%s %s: %v", typ, f, err)
				}
				if again := Append(nil, JSON, back.Interface()); !sameJSON(mine, again) {
					t.Fatalf("%s %s:\n%s\n%s", typ, f, mine, again)
				}
			}
		}
	}
}

func sameJSON(a, b []byte) bool {
	var x, y any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && reflect.DeepEqual(x, y)
}

func TestWhatDiffersFromEncodingJSON(t *testing.T) {
	local := time.Date(2026, 1, 2, 3, 4, 5, 0, time.FixedZone("", 7200))
	for _, c := range []struct {
		v    any
		want string
	}{
		{schemas.ListDevicesReply{}, `{"devices":[]}`},
		{map[string]any(nil), `{}`},
		{struct {
			M map[string]int `json:"m"`
		}{}, `{"m":{}}`},
		{local, `"2026-01-02T01:04:05Z"`},
		{math.NaN(), `null`},
		{math.Inf(-1), `null`},
		{[]any{float32(1.5), uint8(7), int16(-3)}, `[1.5,7,-3]`},
		{"<a & b>", `"<a & b>"`},
		{"bad \xff byte", `"bad ` + "\uFFFD" + ` byte"`},
		{errors.New("went wrong"), `"went wrong"`},
		{schemas.Errorf(schemas.CodeBusy, "full"), `"BUSY: full"`},
		{2 * time.Second, `2000000000`},
		{complex(1, 2), `"(1+2i)"`},
		{math.Copysign(0, -1), `-0`},
		{schemas.DefragmentReply{Finished: schemas.Done()}.Efficiency, `null`},
	} {
		if got := Append(nil, JSON, c.v); string(got) != c.want {
			t.Errorf("%v: %s, want %s", c.v, got, c.want)
		}
		if err := Guard(Append(nil, MsgPack, c.v)); err != nil {
			t.Errorf("%v: %v", c.v, err)
		}
	}
}

func TestIntegersOfEverySize(t *testing.T) {
	for shift := range 64 {
		for _, n := range []int64{1 << shift, 1<<shift - 1, -1 << shift, -1<<shift - 1, -1<<shift + 1} {
			for _, f := range []Format{JSON, MsgPack} {
				b := Append(nil, f, n)
				var back int64
				if err := Unmarshal(b, f, &back); err != nil || back != n {
					t.Fatalf("%s: %d came back as %d, %v", f, n, back, err)
				}
				if f == MsgPack {
					if err := msgpack.Unmarshal(b, &back); err != nil || back != n {
						t.Fatalf("%d is %d to msgpack/v5, %v", n, back, err)
					}
				}
			}
		}
	}
}

func TestSizesOfContainersAndStrings(t *testing.T) {
	for _, n := range []int{0, 15, 16, 31, 32, 255, 256, 65535, 65536} {
		list, object, text := make([]any, n), make(map[string]any, n), string(bytes.Repeat([]byte{'x'}, n))
		for i := range n {
			list[i] = true
			object[time.Duration(i).String()] = true
		}
		for _, v := range []any{list, object, text} {
			b := Append(nil, MsgPack, v)
			var mine, theirs any
			if err := Unmarshal(b, MsgPack, &mine); err != nil || !reflect.DeepEqual(plainAny(mine), v) {
				t.Fatalf("%d: %v", n, err)
			}
			if err := msgpack.Unmarshal(b, &theirs); err != nil || !reflect.DeepEqual(plainAny(theirs), v) {
				t.Fatalf("%d: %v", n, err)
			}
		}
	}
}

func TestHotPathsDoNotAllocate(t *testing.T) {
	reply := Reply{RequestID: "r", Timestamp: time.Now(), Node: "n", Data: &schemas.AllocateReply{Handle: &schemas.Handle{}, AllocatedAt: time.Now()}}
	ev := &schemas.Event{Data: &schemas.AllocationBatch{Items: make([]schemas.AllocationItem, 3)}}
	packed := Append(nil, MsgPack, map[string]any{"a": []any{1, "x", nil}})
	text := []byte(`{"a":[1,"x",null]}`)
	buf := make([]byte, 0, 4096)
	for name, run := range map[string]func(){
		"reply in JSON":        func() { EncodeReply(buf, JSON, reply) },
		"reply in MessagePack": func() { EncodeReply(buf, MsgPack, reply) },
		"event":                func() { EncodeEvent(buf, ev) },
		"guard":                func() { _ = Guard(packed) },
		"guard of JSON":        func() { _ = GuardJSON(text) },
	} {
		if n := testing.AllocsPerRun(100, run); n > 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func TestUnmarshalRefusesWhatDoesNotFit(t *testing.T) {
	var small struct {
		N int8      `json:"n"`
		U uint8     `json:"u"`
		T time.Time `json:"t"`
		L []string  `json:"l"`
	}
	for _, in := range []string{`{"n":128}`, `{"n":1.5}`, `{"n":"1"}`, `{"u":-1}`, `{"u":256}`, `{"t":"today"}`, `{"t":7}`, `{"l":[7]}`, `{"l":{}}`, `[]`, `{`, ``} {
		if err := Unmarshal([]byte(in), JSON, &small); err == nil {
			t.Errorf("%s fits", in)
		}
	}
	if err := Unmarshal([]byte(`{"n":127,"new":{"x":[1]},"l":["a",null],"u":null}`), JSON, &small); err != nil || small.N != 127 || len(small.L) != 2 {
		t.Errorf("%+v, %v", small, err)
	}
	if err := Unmarshal([]byte(`{}`), JSON, small); err == nil {
		t.Error("a value was read into")
	}
}
