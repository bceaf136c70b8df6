package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/isobar-project/isobar/node"
	"github.com/isobar-project/isobar/schemas"
)

// requestData makes the data of a request out of a JSON object (may be "") and of
// key=value pairs, which win. The request type of the action says how a value reads;
// whether it is allowed is for the node to say.
func requestData(spec *schemas.Spec, object string, pairs []string) (map[string]any, error) {
	data := map[string]any{}
	if object != "" {
		v, err := decodeJSON(object)
		if err != nil {
			return nil, usage("--json: %v", err)
		}
		given, ok := v.(map[string]any)
		if !ok && v != nil {
			return nil, usage("--json: %s is not an object", object)
		}
		maps.Copy(data, given)
	}
	fields := requestFields(spec)
	seen := map[string]bool{}
	for _, pair := range pairs {
		key, text, ok := strings.Cut(pair, "=")
		if !ok {
			return nil, usage("%q is not key=value: `isobar call %s --describe` lists the fields", pair, spec.Action)
		}
		literal := strings.HasSuffix(key, ":")
		key = strings.TrimSuffix(key, ":")
		if seen[key] {
			return nil, usage("%s is given twice", key)
		}
		seen[key] = true
		f, ok := findField(fields, key)
		if !ok {
			return nil, unknownField(spec, fields, key)
		}
		value, err := f.read(text, literal)
		if err != nil {
			return nil, usage("%s: %v", key, err)
		}
		if err := put(data, strings.Split(key, "."), value); err != nil {
			return nil, err
		}
	}
	return data, nil
}

// decodeJSON reads one JSON value; whole numbers stay whole.
func decodeJSON(text string) (any, error) {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, fmt.Errorf("%q is not the JSON that is wanted: %w", text, err)
	}
	if d.More() {
		return nil, fmt.Errorf("%q has more than one value", text)
	}
	return numbers(v)
}

// numbers turns every json.Number into an int64 or a float64.
func numbers(v any) (any, error) {
	var err error
	switch v := v.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n, nil
		}
		return v.Float64()
	case []any:
		for i := range v {
			if v[i], err = numbers(v[i]); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		for k := range v {
			if v[k], err = numbers(v[k]); err != nil {
				return nil, err
			}
		}
	}
	return v, nil
}

// put sets a value inside nested objects.
func put(data map[string]any, path []string, value any) error {
	for _, name := range path[:len(path)-1] {
		inner, ok := data[name].(map[string]any)
		if !ok {
			if data[name] != nil {
				return usage("%s is given both as a value and by its fields", name)
			}
			inner = map[string]any{}
			data[name] = inner
		}
		data = inner
	}
	last := path[len(path)-1]
	if _, ok := data[last].(map[string]any); ok {
		if _, ok := value.(map[string]any); !ok {
			return usage("%s is given both as a value and by its fields", last)
		}
	}
	data[last] = value
	return nil
}

// field is one field of a request as a person may write it. A nested one has a dotted name.
type field struct {
	name string
	typ  reflect.Type
	tag  reflect.StructTag
	// of is the field that this is another name or unit for.
	of string
}

var (
	scalarFieldType = reflect.TypeFor[interface{ ScalarField() string }]()
	enumType        = reflect.TypeFor[schemas.Enum]()
)

// requestFields lists the fields of an action's request, with other names, with those
// of nested objects, and with what every changing action takes.
func requestFields(spec *schemas.Spec) []field {
	fields := structFields(spec.Request, "")
	if spec.Changing {
		fields = append(fields,
			field{name: "wait_ms", typ: reflect.TypeFor[int64](), tag: `default:"2000"`},
			field{name: "dry_run", typ: reflect.TypeFor[bool]()})
	}
	return fields
}

func structFields(t reflect.Type, prefix string) []field {
	var out []field
	for i := range t.NumField() {
		sf := t.Field(i)
		name, _, _ := strings.Cut(sf.Tag.Get("json"), ",")
		if name == "" || name == "-" {
			continue
		}
		typ := sf.Type
		if typ.Kind() == reflect.Pointer {
			typ = typ.Elem()
		}
		f := field{name: prefix + name, typ: typ, tag: sf.Tag}
		if typ.Kind() == reflect.Struct && !typ.Implements(scalarFieldType) {
			out = append(out, f)
			out = append(out, structFields(typ, f.name+".")...)
			continue
		}
		out = append(out, f)
		if typ.Kind() == reflect.Struct {
			out = append(out, structFields(typ, f.name+".")...)
		}
		if alias := sf.Tag.Get("alias"); alias != "" {
			out = append(out, field{name: prefix + alias, typ: typ, of: f.name})
		}
		if mb := sf.Tag.Get("mb"); mb != "" {
			out = append(out, field{name: prefix + mb, typ: reflect.TypeFor[float64](), of: f.name})
		}
	}
	return out
}

func findField(fields []field, name string) (field, bool) {
	i := slices.IndexFunc(fields, func(f field) bool { return f.name == name })
	if i < 0 {
		return field{}, false
	}
	return fields[i], true
}

func unknownField(spec *schemas.Spec, fields []field, key string) error {
	var names []string
	for _, f := range fields {
		names = append(names, f.name)
	}
	if best, ok := node.Nearest(key, names); ok {
		return usage("%s has no field %q: did you mean %s?", spec.Action, key, best)
	}
	if len(names) == 0 {
		return usage("%s has no fields, and so no %q", spec.Action, key)
	}
	return usage("%s has no field %q: choose from %s", spec.Action, key, strings.Join(names, ", "))
}

// read takes a value as written; literal ones (key:=…) are JSON.
func (f field) read(text string, literal bool) (any, error) {
	if literal {
		return decodeJSON(text)
	}
	return readAs(f.typ, f.name, text)
}

func readAs(t reflect.Type, name, text string) (any, error) {
	switch {
	case t.Kind() == reflect.Struct && t.Implements(scalarFieldType):
		return readFloat(text) // a bare number stands for the object
	case t.Kind() == reflect.Struct:
		return nil, fmt.Errorf("it has fields of its own: write %s.FIELD=VALUE, or %s:=JSON", name, name)
	case t.Kind() == reflect.Slice:
		items := []any{}
		for item := range strings.SplitSeq(text, ",") {
			if item = strings.TrimSpace(item); item == "" {
				continue
			}
			v, err := readAs(t.Elem(), name, item)
			if err != nil {
				return nil, err
			}
			items = append(items, v)
		}
		return items, nil
	case t.Kind() == reflect.Bool:
		return readBool(text)
	case t.Kind() == reflect.Float64:
		return readFloat(text)
	case t.Kind() == reflect.Int, t.Kind() == reflect.Int64:
		return readInt(name, text)
	}
	return text, nil
}

func readBool(text string) (bool, error) {
	switch strings.ToLower(text) {
	case "true", "yes", "on", "1":
		return true, nil
	case "false", "no", "off", "0":
		return false, nil
	}
	return false, fmt.Errorf("%q is neither true nor false", text)
}

func readFloat(text string) (float64, error) {
	n, err := strconv.ParseFloat(strings.TrimSuffix(strings.ReplaceAll(text, "_", ""), "%"), 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not a number", text)
	}
	return n, nil
}

// readInt takes a whole number; in fields that are sizes or times also with a unit.
func readInt(name, text string) (int64, error) {
	if n, err := strconv.ParseInt(strings.ReplaceAll(text, "_", ""), 10, 64); err == nil {
		return n, nil
	}
	unit := time.Duration(0)
	switch {
	case isSize(name):
		return node.ParseSize(text)
	case strings.HasSuffix(name, "_seconds"):
		unit = time.Second
	case strings.HasSuffix(name, "_ms"):
		unit = time.Millisecond
	default:
		return 0, fmt.Errorf("%q is not a whole number", text)
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("%q is neither a number of %s nor a duration such as 90s", text, strings.TrimPrefix(unit.String(), "1"))
	}
	if d%unit != 0 {
		return 0, fmt.Errorf("%s is not a whole number of %s", text, strings.TrimPrefix(unit.String(), "1"))
	}
	return int64(d / unit), nil
}

// otherSizes are bytes although their names do not end so.
var otherSizes = []string{"alignment", "offset", "source_offset", "target_offset", "min_memory_to_free", "max_bytes_to_move",
	"total_memory", "physical_memory", "used_memory", "available_memory", "free_memory", "reserved_memory", "revoking_memory",
	"zombie_memory", "foreign_memory", "pooled_memory", "reclaimable_memory", "model_memory", "peak_memory", "memory_freed"}

// isSize tells whether a field of the contract holds bytes.
func isSize(name string) bool {
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		name = name[i+1:]
	}
	return name == "bytes" || strings.HasSuffix(name, "_bytes") || slices.Contains(otherSizes, name)
}
