package conform

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	validator "github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/vmihailenco/msgpack/v5"
	"pgregory.net/rapid"

	"github.com/isobar-project/isobar/cmd/bus-test/internal/consumer"
	"github.com/isobar-project/isobar/cmd/bus-test/internal/embedded"
	"github.com/isobar-project/isobar/schemas"
	"github.com/isobar-project/isobar/schemas/jsonschema"
)

// blank is a world without a node: enough to say what would be checked.
func blank() *world {
	return &world{own: &embedded.Node{}, device: "gpu-0", ram: "ram-0", other: "ram-0", devices: []string{"gpu-0", "ram-0"}, modelPath: "m", node: "n",
		seen: &collector{faults: map[string]string{}}}
}

func TestEveryBuiltActionIsChecked(t *testing.T) {
	names := map[string]int{}
	perAction := map[string]int{}
	for _, c := range blank().checks() {
		names[c.name]++
		action, _, _ := strings.Cut(c.name, "/")
		perAction[action]++
	}
	for name, n := range names {
		if n > 1 {
			t.Errorf("%d checks are called %s", n, name)
		}
	}
	if len(names) < 1000 {
		t.Errorf("only %d checks", len(names))
	}
	for _, s := range schemas.All() {
		if n := perAction[string(s.Action)]; n < 40 {
			t.Errorf("%s has %d checks: give it a sample", s.Action, n)
		}
	}
}

func TestACheckFails(t *testing.T) {
	w := blank()
	if why := w.try(check{"bad", func() { fail("it is %d", 7) }}); why != "it is 7" {
		t.Errorf("%q", why)
	}
	if why := w.try(check{"good", func() {}}); why != "" {
		t.Errorf("%q", why)
	}
	defer func() {
		if recover() == nil {
			t.Error("a defect of a check was taken for a fault of the node")
		}
	}()
	w.try(check{"broken", func() { panic("a defect") }})
}

func TestOnly(t *testing.T) {
	for _, c := range []struct {
		only []string
		want bool
	}{{nil, true}, {[]string{"json/null"}, true}, {[]string{"x", "alloc"}, true}, {[]string{"msgpack"}, false}} {
		if got := chosen("allocate/json/null", c.only); got != c.want {
			t.Errorf("%q: %v", c.only, got)
		}
	}
}

// Our MessagePack and a library's agree, both ways.
func TestMessagePack(t *testing.T) {
	leaf := rapid.OneOf(rapid.Int64().AsAny(), rapid.Float64().AsAny(), rapid.Bool().AsAny(), rapid.String().AsAny(), rapid.Just[any](nil),
		rapid.SampledFrom([]any{strings.Repeat("x", 31), strings.Repeat("y", 32), strings.Repeat("z", 70_000), int64(-33), int64(128), math.Inf(1)}))
	var values func(depth int) *rapid.Generator[any]
	values = func(depth int) *rapid.Generator[any] {
		if depth == 0 {
			return leaf
		}
		inner := values(depth - 1)
		return rapid.OneOf(leaf, rapid.Map(rapid.SliceOfN(inner, 0, 20), func(l []any) any {
			if l == nil {
				return []any{}
			}
			return l
		}), rapid.Map(rapid.MapOfN(rapid.StringN(0, 40, -1), inner, 0, 20), func(m map[string]any) any { return m }))
	}
	rapid.Check(t, func(t *rapid.T) {
		v := values(2).Draw(t, "value")
		ours, err := encodeMsgPack(v)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := msgpack.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range [][]byte{ours, theirs} {
			back, err := decodeMsgPack(b)
			if err != nil || !alike(back, v) {
				t.Fatalf("%v came back as %v: %v", v, back, err)
			}
			for cut := range min(len(b), 200) {
				if _, err := decodeMsgPack(b[:cut]); err == nil {
					t.Fatalf("%d of %d bytes are a value", cut, len(b))
				}
			}
		}
	})
	for _, b := range [][]byte{{0xc1}, {0x80, 0x80}, {0x81, 0x01, 0x01}, {0xdd, 0xff, 0xff, 0xff, 0xff}, {0xcf, 0xff, 0, 0, 0, 0, 0, 0, 0}, bytes.Repeat([]byte{0x91}, 1000)} {
		if v, err := decodeMsgPack(b); err == nil {
			t.Errorf("%x is %v", b, v)
		}
	}
	if _, err := encodeMsgPack([]any{object{"a": struct{}{}}}); err == nil {
		t.Error("a struct has a MessagePack")
	}
}

// alike compares, NaN with itself too.
func alike(a, b any) bool { return reflect.DeepEqual(a, b) || fmt.Sprint(a) == fmt.Sprint(b) }

func TestMisfit(t *testing.T) {
	good := func() object {
		return object{"status": "completed", "success": true, "freed_bytes": int64(1), "confirmed": true, "zombie_bytes": int64(0),
			"available_memory_bytes": int64(1), "utilization_percentage": 0.5}
	}
	typ := reflect.TypeFor[schemas.DeallocateReply]()
	if s := misfit(typ, "r", good()); s != "" {
		t.Fatal(s)
	}
	for name, change := range map[string]func(object){
		"missing":    func(m object) { delete(m, "freed_bytes") },
		"unknown":    func(m object) { m["colour"] = "red" },
		"wrong kind": func(m object) { m["freed_bytes"] = 1.5 },
		"null":       func(m object) { m["confirmed"] = nil },
		"no word":    func(m object) { m["status"] = "finished" },
	} {
		m := good()
		if change(m); misfit(typ, "r", m) == "" {
			t.Errorf("%s fits: %v", name, m)
		}
	}
	if misfit(timeType, "at", "2026-01-02T03:04:05+01:00") == "" || misfit(reflect.TypeFor[[]string](), "l", []any{1}) == "" ||
		misfit(reflect.TypeFor[map[string]schemas.Model](), "m", object{"a": object{}}) == "" {
		t.Error("what does not fit fits")
	}
}

func TestHeadersOfErrors(t *testing.T) {
	header := func(code, text string) nats.Header {
		return nats.Header{"Nats-Service-Error-Code": {code}, "Nats-Service-Error": {text}}
	}
	a := answer{code: schemas.CodeBusy, message: "later"}
	if s := headerFault(header("429", "BUSY: later"), a, 429); s != "" {
		t.Error(s)
	}
	for name, s := range map[string]string{
		"status":      headerFault(header("429", "BUSY"), a, 500),
		"code header": headerFault(header("500", "BUSY"), a, 429),
		"text header": headerFault(header("429", "later"), a, 429),
		"no code":     headerFault(header("429", "BUSY"), answer{message: "later"}, 429),
	} {
		if s == "" {
			t.Errorf("%s: nothing is wrong", name)
		}
	}
}

func TestCollectorHoldsEventsToTheRules(t *testing.T) {
	boot := "b"
	take := func(c *collector, subject, id string, seq int, data string) {
		m := nats.NewMsg(subject)
		m.Header.Set("Nats-Msg-Id", id)
		m.Data = fmt.Appendf(nil, `{"event":"started","event_id":"e%d","sequence":%d,"boot_id":"%s","node":"n","timestamp":"2026-01-02T03:04:05Z","data":%s}`, seq, seq, boot, data)
		c.take(m)
	}
	fresh := func() *collector {
		return &collector{last: map[string]int64{}, boots: map[string]string{}, ids: map[string]bool{}, counts: map[string]int{}, faults: map[string]string{}, shapes: map[string]*schema{}}
	}
	c := fresh()
	take(c, "memory.events.node.n", "e1", 1, `{}`)
	take(c, "memory.events.node.n", "e2", 2, `{"reason":"x"}`)
	if len(c.faults) != 0 {
		t.Fatalf("%v", c.faults)
	}
	take(c, "memory.events.node.n", "e4", 4, `{}`)
	take(c, "memory.events.node.n", "other", 5, `{"colour":"red"}`)
	take(c, "memory.events.node.n", "e6", 6, `{"reason":"x","claim":"secret"}`)
	boot = "another"
	take(c, "memory.events.node.n", "e7", 7, `{}`)
	take(c, "memory.events.weather.n", "e7", 7, `{}`)
	for _, key := range []string{"node/sequence-without-gaps", "node/is-named-by-Nats-Msg-Id", "node/has-its-shape", "node/fits-its-published-schema", "node/carries-no-claim", "node/of-one-boot", "unknown/has-its-shape"} {
		if c.faults[key] == "" {
			t.Errorf("no fault %s in %v", key, c.faults)
		}
	}
}

func TestPatternsOfSeedsDiffer(t *testing.T) {
	a, b := pattern(1, 100_000), pattern(2, 100_000)
	if bytes.Equal(a, b) || consumer.Sum(a) == consumer.Sum(b) {
		t.Error("two seeds, one pattern")
	}
	part := make([]byte, 1000)
	consumer.Pattern(1, 50_001, part)
	if !bytes.Equal(part, a[50_001:51_001]) {
		t.Error("a part of a pattern is not that part")
	}
}

// Our reading of a schema and a library's agree on every published schema: on what a node
// answers, and on what is bent a little.
func TestSchemasAgreeWithALibrary(t *testing.T) {
	for _, spec := range schemas.All() {
		text := jsonschema.Reply(spec, nil).Compact()
		ours, err := parseSchema(text)
		if err != nil {
			t.Fatal(err)
		}
		doc, err := validator.UnmarshalJSON(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		c := validator.NewCompiler()
		c.AssertFormat()
		if err := c.AddResource("urn:x", doc); err != nil {
			t.Fatal(err)
		}
		theirs, err := c.Compile("urn:x")
		if err != nil {
			t.Fatal(err)
		}
		right := 0
		rapid.Check(t, func(t *rapid.T) {
			v := drawn{t, ours, rapid.Bool().Draw(t, "some of it bent")}.value(ours.root)
			b, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			mine, err := decodeJSON(b)
			if err != nil {
				t.Fatal(err)
			}
			other, err := validator.UnmarshalJSON(bytes.NewReader(b))
			if err != nil {
				t.Fatal(err)
			}
			why, refused := ours.fault("v", mine), theirs.Validate(other)
			if (why == "") != (refused == nil) {
				t.Fatalf("%s: we say %q, the library %v, of %s", spec.Action, why, refused, b)
			}
			if why == "" {
				right++
			}
		})
		if right == 0 {
			t.Errorf("%s: nothing that was tried fits", spec.Action)
		}
	}
	s, err := parseSchema(`{"colour":"red"}`)
	if err != nil || s.fault("v", "x") == "" {
		t.Error("an unknown word is passed over")
	}
}

// drawn draws values that fit a schema, or nearly.
type drawn struct {
	t    *rapid.T
	s    *schema
	bent bool
}

func (d drawn) value(o object) any {
	t := d.t
	if d.bent && rapid.IntRange(0, 30).Draw(t, "bend") == 0 {
		return rapid.SampledFrom([]any{nil, "x", "2026-01-02 03:04", -1, 1.5, true, []any{}, object{}, object{"colour": "red"}}).Draw(t, "bent")
	}
	if ref, ok := o["$ref"].(string); ok {
		return d.value(d.s.root["$defs"].(object)[strings.TrimPrefix(ref, "#/$defs/")].(object))
	}
	for _, word := range []string{"anyOf", "oneOf"} {
		if forms, ok := o[word].([]any); ok {
			return d.value(rapid.SampledFrom(forms).Draw(t, word).(object))
		}
	}
	if l, ok := o["enum"].([]any); ok {
		return rapid.SampledFrom(l).Draw(t, "enum")
	}
	switch rapid.SampledFrom(words(o["type"])).Draw(t, "type") {
	case "object":
		out := object{}
		required := words(o["required"])
		known, _ := o["properties"].(object)
		for _, name := range slices.Sorted(maps.Keys(known)) {
			if slices.Contains(required, name) || rapid.IntRange(0, 3).Draw(t, "there") == 0 {
				out[name] = d.value(known[name].(object))
			}
		}
		return out
	case "array":
		out := []any{}
		for range rapid.IntRange(0, 2).Draw(t, "items") {
			out = append(out, d.value(o["items"].(object)))
		}
		return out
	case "integer":
		return rapid.IntRange(0, 1000).Draw(t, "integer")
	case "number":
		return rapid.Float64Range(0, 100).Draw(t, "number")
	case "boolean":
		return rapid.Bool().Draw(t, "boolean")
	case "null":
		return nil
	}
	if o["format"] != nil {
		return rapid.SampledFrom([]any{"2026-01-02T03:04:05Z", "2026-01-02T03:04:05.5Z"}).Draw(t, "time")
	}
	return rapid.StringN(1, 8, -1).Draw(t, "text")
}
