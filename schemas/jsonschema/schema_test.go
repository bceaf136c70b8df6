package jsonschema_test

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	validator "github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/isobar-project/isobar/schemas"
	"github.com/isobar-project/isobar/schemas/jsonschema"
)

// words are documentation for every field, so that descriptions are made too.
type words struct{}

func (words) Type(name string) string          { return "type " + name }
func (words) Field(owner, field string) string { return owner + "." + field }

// compile reads a schema as a validator does that knows nothing of ours.
func compile(t testing.TB, o jsonschema.Object) *validator.Schema {
	t.Helper()
	doc, err := validator.UnmarshalJSON(bytes.NewReader(o.Indented()))
	if err != nil {
		t.Fatal(err)
	}
	id, _ := o.Get("$id").(string)
	c := validator.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource(id, doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile(id)
	if err != nil {
		t.Fatalf("%s: %v", id, err)
	}
	return s
}

func takes(t testing.TB, s *validator.Schema, text string) error {
	t.Helper()
	v, err := validator.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return s.Validate(v)
}

func TestEverySchemaCompiles(t *testing.T) {
	ids := map[string]bool{}
	for _, docs := range []jsonschema.Docs{nil, words{}} {
		all := []jsonschema.Object{jsonschema.RequestEnvelope(), jsonschema.ReplyEnvelope()}
		for _, s := range schemas.All() {
			all = append(all, jsonschema.Request(s, docs), jsonschema.Reply(s, docs))
		}
		for _, e := range schemas.Events() {
			all = append(all, jsonschema.Event(e, docs))
		}
		clear(ids)
		for _, o := range all {
			compile(t, o)
			id, _ := o.Get("$id").(string)
			if ids[id] {
				t.Errorf("%s is there twice", id)
			}
			ids[id] = true
		}
	}
	if want := 2 + 2*len(schemas.All()) + len(schemas.Events()); len(ids) != want {
		t.Errorf("%d schemas, not %d", len(ids), want)
	}
}

func TestRequestSchemasSayWhatTheTagsSay(t *testing.T) {
	for _, c := range []struct {
		action schemas.Action
		good   []string
		bad    []string
	}{
		{schemas.ActionAllocate,
			[]string{`{"size_bytes":1}`, `{"size_bytes":1,"allocation_type":"VRAM","class":"state","alignment":4096,"wait_ms":0,"dry_run":true}`,
				`{"size_bytes":1152921504606846976,"memory_type":4}`},
			[]string{`{}`, `{"size_bytes":0}`, `{"size_bytes":-1}`, `{"size_bytes":1.5}`, `{"size_bytes":"1"}`, `{"size_bytes":1152921504606846977}`,
				`{"size_bytes":1,"colour":"red"}`, `{"size_bytes":1,"allocation_type":"RAM","memory_type":"RAM"}`, `{"size_bytes":1,"allocation_type":5}`,
				`{"size_bytes":1,"class":"violet"}`, `{"size_bytes":1,"alignment":-4}`, `{"size_bytes":1,"wait_ms":600001}`,
				`{"size_bytes":1,"purpose":"` + strings.Repeat("x", 257) + `"}`, `[]`}},
		{schemas.ActionSetLimits,
			[]string{`{"device_id":"gpu-0"}`, `{"device_id":"gpu-0","model_limit_mb":1.5,"thresholds":{"high":80,"critical":{"enter":95,"leave":90}}}`},
			[]string{`{"device_id":""}`, `{"device_id":"gpu-0","model_limit_mb":1,"model_limit_bytes":1}`, `{"device_id":"gpu-0","thresholds":{"high":0}}`,
				`{"device_id":"gpu-0","thresholds":{"high":{"leave":3}}}`, `{"device_id":"gpu-0","thresholds":{"low":3}}`}},
		{schemas.ActionRenew,
			[]string{`{"allocation_ids":["a"],"lease_seconds":1}`},
			[]string{`{"allocation_ids":[""],"lease_seconds":1}`, `{"allocation_ids":[1],"lease_seconds":1}`, `{"allocation_ids":"a","lease_seconds":1}`, `{"lease_seconds":0}`}},
		{schemas.ActionGetOperation, []string{`{"operation_id":"a","wait_ms":600000}`}, []string{`{"operation_id":"a","dry_run":true}`}},
		{schemas.ActionListDevices, []string{`{}`}, []string{`{"wait_ms":1}`, `null`}},
	} {
		spec, _ := schemas.Lookup(c.action)
		s := compile(t, jsonschema.Request(spec, nil))
		for _, text := range c.good {
			if err := takes(t, s, text); err != nil {
				t.Errorf("%s %s: %v", c.action, text, err)
			}
		}
		for _, text := range c.bad {
			if takes(t, s, text) == nil {
				t.Errorf("%s takes %s", c.action, text)
			}
		}
	}
}

func TestReplySchemas(t *testing.T) {
	spec, _ := schemas.Lookup(schemas.ActionDeallocate)
	s := compile(t, jsonschema.Reply(spec, words{}))
	done := `{"status":"completed","success":true,"freed_bytes":1,"confirmed":true,"zombie_bytes":0,"available_memory_bytes":1,"utilization_percentage":0.5`
	for text, good := range map[string]bool{
		done + `}`:                    true,
		done + `,"replayed":true}`:    true,
		done + `,"colour":"red"}`:     false,
		done + `,"operation_id":"a"}`: false,
		`{"status":"completed"}`:      false,
		`{"status":"queued","operation_id":"a","position":1,"estimated_ms":1,"reason":""}`:                 true,
		`{"plan":{"outcome":"granted","position":0,"evict":[],"reason":"","estimated_ms":0}}`:              true,
		`{"plan":{"outcome":"granted","position":0,"evict":[{"model":"m"}],"reason":"","estimated_ms":0}}`: false,
		`{"plan":{"outcome":"perhaps","position":0,"evict":[],"reason":"","estimated_ms":0}}`:              false,
	} {
		if err := takes(t, s, text); (err == nil) != good {
			t.Errorf("%s: %v", text, err)
		}
	}
	envelope := compile(t, jsonschema.ReplyEnvelope())
	head := `"request_id":"r","timestamp":"2026-01-02T03:04:05Z","node":"n"`
	for text, good := range map[string]bool{
		`{"success":true,` + head + `,"data":{}}`: true,
		`{"success":true,` + head + `}`:           false,
		`{"success":false,` + head + `,"error_code":"BUSY","error_message":"m","status_code":429}`:           true,
		`{"success":false,` + head + `,"error_code":"BUSY","error_message":"m","status_code":429,"data":{}}`: false,
		`{"success":false,` + head + `,"error_code":"SOMETHING","error_message":"m","status_code":429}`:      false,
		`{"success":true,"request_id":"r","timestamp":"2026-01-02T03:04:05+01:00","node":"n","data":{}}`:     false,
	} {
		if err := takes(t, envelope, text); (err == nil) != good {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestEventSchemas(t *testing.T) {
	e, ok := schemas.LookupEvent("memory.events.transfer.n-1")
	if !ok {
		t.Fatal("no group for transfers")
	}
	s := compile(t, jsonschema.Event(e, nil))
	head := `"event_id":"e","sequence":1,"boot_id":"b","node":"n-1","timestamp":"2026-01-02T03:04:05Z"`
	for text, good := range map[string]bool{
		`{"event":"gap",` + head + `,"data":{"from":1,"to":2}}`:       true,
		`{"event":"started",` + head + `,"data":{"from":1,"to":2}}`:   false,
		`{"event":"allocated",` + head + `,"data":{"from":1,"to":2}}`: false,
		`{"event":"gap",` + head + `,"data":{"from":1,"to":2},"x":1}`: false,
	} {
		if err := takes(t, s, text); (err == nil) != good {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestFieldsAreDescribedInTheirOwnersWords(t *testing.T) {
	spec, _ := schemas.Lookup(schemas.ActionGetStatus)
	text := jsonschema.Reply(spec, words{}).Compact()
	// health_score is a field of the embedded DeviceStatus.
	for _, want := range []string{"DeviceStatus.HealthScore", "GetStatusReply.Devices", "MemoryInfo.UsedMemory", "type MemoryInfo"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in the schema", want)
		}
	}
	if text := jsonschema.Reply(spec, nil).Compact(); strings.Contains(text, "description") {
		t.Error("a description out of nothing")
	}
}

func TestFieldListsNameEveryField(t *testing.T) {
	for _, s := range schemas.All() {
		for _, typ := range []reflect.Type{s.Request, s.Reply} {
			var want []string
			for _, f := range reflect.VisibleFields(typ) {
				if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" {
					want = append(want, name)
				}
			}
			var got []string
			for _, f := range jsonschema.Fields(typ) {
				got = append(got, f.Name)
				if f.Type == "" {
					t.Errorf("%s.%s has no type", typ, f.Name)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s: %v, not %v", typ, got, want)
			}
		}
	}
}

func ExampleRequest() {
	spec, _ := schemas.Lookup(schemas.ActionGetTransfer)
	fmt.Println(jsonschema.Request(spec, nil).Get("required"), jsonschema.Request(spec, nil).Get("$id"))
	// Output: [transfer_id] urn:isobar:memory:get_transfer.request
}
