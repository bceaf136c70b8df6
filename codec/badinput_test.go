package codec

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/isobar-project/isobar/schemas"
)

// minimal holds the smallest good data of every action that needs any.
var minimal = map[schemas.Action]string{
	"get_allocation":   `{"allocation_id":"a"}`,
	"allocate":         `{"size_bytes":1}`,
	"deallocate":       `{"allocation_id":"a"}`,
	"get_handle":       `{"allocation_id":"a"}`,
	"renew":            `{"allocation_ids":["a"],"lease_seconds":1}`,
	"clear":            `{"allocation_id":"a"}`,
	"copy":             `{"source_allocation_id":"a","target_allocation_id":"b"}`,
	"transfer":         `{"allocation_id":"a","target_device_id":"ram-0"}`,
	"get_transfer":     `{"transfer_id":"t"}`,
	"cancel_transfer":  `{"transfer_id":"t"}`,
	"get_operation":    `{"operation_id":"o"}`,
	"cancel_operation": `{"operation_id":"o"}`,
	"defragment":       `{"device_id":"ram-0"}`,
	"optimize":         `{"device_id":"ram-0"}`,
	"set_limits":       `{"device_id":"ram-0"}`,
	"load_model":       `{"name":"m"}`,
	"unload_model":     `{"name":"m"}`,
	"acquire_model":    `{"name":"m","lease_seconds":1}`,
	"release_model":    `{"reference_id":"r"}`,
	"cleanup":          `{"confirm":true}`,
}

// decodeAs reads data as that of an action, built or not.
func decodeAs(spec *schemas.Spec, data []byte, f Format) (Request, *schemas.Error) {
	req := Request{Action: spec.Action, Spec: spec}
	var env envelope
	if err := env.read(append(append(wrap(f), data...), closing(f)...), f); err != nil {
		return req, err
	}
	return req, req.decodeData(env.data, f)
}

// wrap and closing put data into an envelope.
func wrap(f Format) []byte {
	if f == MsgPack {
		return appendMsgPackString([]byte{0x81}, "data")
	}
	return []byte(`{"data":`)
}

func closing(f Format) []byte {
	if f == MsgPack {
		return nil
	}
	return []byte(`}`)
}

// with replaces or adds one member of the action's minimal data. value is JSON.
func with(a schemas.Action, field, value string) []byte {
	whole := map[string]json.RawMessage{}
	if m := minimal[a]; m != "" {
		if err := json.Unmarshal([]byte(m), &whole); err != nil {
			panic(err)
		}
	}
	if value == "" {
		delete(whole, field)
	} else {
		whole[field] = json.RawMessage(value)
	}
	return appendMembers(whole)
}

func appendMembers(m map[string]json.RawMessage) []byte {
	out := []byte{'{'}
	for name, value := range m {
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(appendJSONString(out, name), ':')
		out = append(out, value...)
	}
	return append(out, '}')
}

// tryBoth gives JSON data to the decoder in both formats and demands the same outcome.
// Numbers that MessagePack cannot hold are given as JSON alone.
func tryBoth(t *testing.T, spec *schemas.Spec, data []byte) *schemas.Error {
	t.Helper()
	_, err := decodeAs(spec, data, JSON)
	if !strings.Contains(string(data), "1e400") {
		_, mpErr := decodeAs(spec, Append(nil, MsgPack, json.RawMessage(data)), MsgPack)
		if (err == nil) != (mpErr == nil) || err != nil && (err.Code != mpErr.Code || !reflect.DeepEqual(err.Details, mpErr.Details)) {
			t.Errorf("%s %s: JSON says %v, MessagePack %v", spec.Action, data, err, mpErr)
		}
	}
	return err
}

func wantField(t *testing.T, spec *schemas.Spec, data []byte, err *schemas.Error, field string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s %s was accepted", spec.Action, data)
		return
	}
	if err.Code != schemas.CodeInvalidRequest || err.Status != 400 || err.Details["field"] != field {
		t.Errorf("%s %s: %v %v, want %s to be named", spec.Action, data, err, err.Details, field)
	}
}

func TestBadInputToEveryFieldOfEveryAction(t *testing.T) {
	tried := 0
	for _, spec := range schemas.All() {
		p := planOf(spec.Request, spec.Changing)
		if err := tryBoth(t, spec, with(spec.Action, "", "")); err != nil {
			t.Fatalf("%s: the minimal request: %v", spec.Action, err)
		}
		data := with(spec.Action, "no_such_field", `1`)
		wantField(t, spec, data, tryBoth(t, spec, data), "no_such_field")
		for wire, n := range p.names {
			named := wire
			var bad []string
			required := false
			if n.field < 0 {
				bad = []string{`[]`, `{}`, `"x"`, `1.5`, `-1`}
			} else {
				f := &p.fields[n.field]
				named, required = f.name, f.required
				bad = badValues(f, n.form)
			}
			for _, value := range bad {
				data := with(spec.Action, wire, value)
				wantField(t, spec, data, tryBoth(t, spec, data), named)
				tried++
			}
			// Absent, null and, where nothing is needed, empty are the same.
			for _, nothing := range []string{"", `null`, `""`} {
				data := with(spec.Action, wire, nothing)
				err := tryBoth(t, spec, data)
				tried++
				if required {
					wantField(t, spec, data, err, named)
				} else if err != nil && !strings.Contains(minimal[spec.Action], `"`+wire+`"`) {
					t.Errorf("%s %s: %v", spec.Action, data, err)
				}
			}
		}
	}
	if tried < 1500 {
		t.Errorf("only %d requests were tried", tried)
	}
}

// badValues are JSON values that the field must refuse.
func badValues(f *fieldPlan, how form) []string {
	long := `"` + strings.Repeat("x", 5000) + `"`
	switch {
	case how == formMegabytes:
		return []string{`"x"`, `true`, `[]`, `{}`, `-0.001`, `1e400`, `1e300`, `8796093022208`}
	case f.shape == shapeString:
		return []string{`7`, `1.5`, `true`, `[]`, `{}`, long, `"a\u0000b"`, `"a\nb"`}
	case f.shape == shapeEnum && f.numbered:
		return []string{`5`, `-1`, `1.5`, `true`, `[]`, `{}`, `"no such"`, long}
	case f.shape == shapeEnum:
		return []string{`0`, `true`, `[]`, `{}`, `"no such"`, long}
	case f.shape == shapeBool:
		return []string{`0`, `1`, `"true"`, `[]`, `{}`}
	case f.shape == shapeInt:
		bad := []string{`"1"`, `true`, `[]`, `{}`, `1.5`, `1.0`, `1e2`, `1e400`, `9223372036854775808`, `18446744073709551616`,
			`-9223372036854775809`, `-9223372036854775808`, `123456789012345678901234567890`}
		if f.positive {
			bad = append(bad, `0`)
		}
		if f.pow2 {
			bad = append(bad, `3`, `-1`, `4194304`)
		}
		if f.hasMin {
			bad = append(bad, fmt.Sprint(f.min-1))
		}
		if f.hasMax {
			bad = append(bad, fmt.Sprint(f.max+1))
		}
		return bad
	case f.shape == shapeFloat:
		return []string{`"1"`, `true`, `[]`, `{}`, `1e400`, `-0.5`, `100.5`, `1e300`}
	case f.shape == shapeStruct:
		return []string{`"x"`, `true`, `[]`, `1`}
	}
	return []string{`"x"`, `true`, `1`, `{}`, `[1]`, `[null]`, `[""]`, `["a",[]]`, `[` + long + `]`,
		`[` + strings.TrimSuffix(strings.Repeat(`"a",`, schemas.MaxListItems+1), ",") + `]`}
}

func TestNumbersThatOnlyMessagePackCanHold(t *testing.T) {
	allocate, _ := schemas.Lookup(schemas.ActionAllocate)
	limits, _ := schemas.Lookup(schemas.ActionSetLimits)
	for name, value := range map[string][]byte{
		"uint64":    {0xcf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		"2^63":      {0xcf, 0x80, 0, 0, 0, 0, 0, 0, 0},
		"float32 1": {0xca, 0x3f, 0x80, 0, 0},
		"float64 1": {0xcb, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0},
		"min int64": {0xd3, 0x80, 0, 0, 0, 0, 0, 0, 0},
		"binary":    {0xc4, 1, 'x'},
		"extension": {0xd4, 1, 'x'},
		"timestamp": {0xd6, 0xff, 0, 0, 0, 0},
	} {
		data := append(appendMsgPackString([]byte{0x81}, "size_bytes"), value...)
		_, err := decodeAs(allocate, data, MsgPack)
		if err == nil || err.Details["field"] != "size_bytes" {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, x := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		data := appendMsgPackString([]byte{0x82}, "device_id")
		data = appendMsgPackString(data, "ram-0")
		data = append(appendMsgPackString(data, "model_limit_mb"), 0xcb)
		bits := math.Float64bits(x)
		for shift := 56; shift >= 0; shift -= 8 {
			data = append(data, byte(bits>>shift))
		}
		if _, err := decodeAs(limits, data, MsgPack); err == nil || err.Details["field"] != "model_limit_bytes" {
			t.Errorf("%v: %v", x, err)
		}
	}
}

func TestEveryRequestTypeHasASoundPlan(t *testing.T) {
	for _, spec := range schemas.All() {
		p := planOf(spec.Request, spec.Changing)
		if _, ok := p.names["dry_run"]; ok != spec.Changing {
			t.Errorf("%s takes dry_run: %v", spec.Action, ok)
		}
		for i := range p.fields {
			f := &p.fields[i]
			if f.shape != shapeEnum || !f.fallback.IsValid() {
				continue
			}
			if !strings.Contains(fmt.Sprint(f.enum), f.fallback.String()) {
				t.Errorf("%s.%s: the default %s is none of %v", spec.Action, f.name, f.fallback, f.enum)
			}
		}
	}
}
