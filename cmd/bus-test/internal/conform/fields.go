package conform

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/isobar-project/isobar/schemas"
	"github.com/isobar-project/isobar/schemas/jsonschema"
)

// value is a value of a field, and what it is called in a check's name.
type value struct {
	name string
	v    any
}

// fields tries bad values of every field of an action.
func (c caller) fields(s sample) []check {
	spec, _ := schemas.Lookup(s.action)
	var out []check
	prefix := string(s.action) + "/" + c.f.name + "/"
	bad := func(name string, data object, fields ...string) {
		out = append(out, check{prefix + name + " → INVALID_REQUEST", func() {
			c.ask(s.action, data).expect(schemas.CodeInvalidRequest).names(fields...)
		}})
	}
	bad("unknown-field", with(s.data, "colour", "red"), "colour")
	for _, f := range jsonschema.Fields(spec.Request) {
		rules := strings.Split(f.Check, ",")
		sf, _ := spec.Request.FieldByName(f.GoName)
		names := []string{f.Name}
		if slices.Contains(rules, "required") {
			bad("missing-"+f.Name, with(s.data, f.Name, nil), f.Name)
			bad(f.Name+"-null", with(s.data, f.Name, null{}), f.Name)
		} else if _, given := s.data[f.Name]; !given {
			out = append(out, check{prefix + f.Name + "-null → as if absent", func() {
				c.ask(s.action, with(s.data, f.Name, null{})).expect(s.answer)
			}})
		}
		if f.Alias != "" {
			names = append(names, f.Alias)
			good := sampleValue(sf.Type)
			bad(f.Name+"-and-"+f.Alias, with(with(s.data, f.Name, good), f.Alias, good), names...)
		}
		if f.Megabytes != "" {
			names = append(names, f.Megabytes)
			bad(f.Name+"-and-"+f.Megabytes, with(with(s.data, f.Name, 1), f.Megabytes, 1), names...)
			for _, v := range []value{{"negative", -0.5}, {"huge", 1e300}, {"text", "many"}} {
				bad(f.Megabytes+"-"+v.name, with(s.data, f.Megabytes, v.v), names...)
			}
		}
		for _, v := range wrong(sf.Type, f) {
			bad(f.Name+"-"+v.name, with(s.data, f.Name, v.v), names...)
		}
	}
	_, own := spec.Request.FieldByName("WaitMs")
	if spec.Changing {
		for _, v := range []value{{"negative", -1}, {"text", "soon"}, {"beyond-its-limit", schemas.MaxWaitMs + 1}, {"a-fraction", 1.5}, {"a-list", []any{}}} {
			if !own { // it was tried with the fields
				bad("wait_ms-"+v.name, with(s.data, "wait_ms", v.v), "wait_ms")
			}
		}
		bad("dry_run-text", with(s.data, "dry_run", "yes"), "dry_run")
		bad("dry_run-number", with(s.data, "dry_run", 1), "dry_run")
	} else {
		bad("dry_run", with(s.data, "dry_run", true), "dry_run")
	}
	for _, a := range s.absent {
		out = append(out, check{prefix + a.what + " → " + string(a.code), func() { c.ask(s.action, a.data).expect(a.code) }})
	}
	return out
}

// sampleValue is a value of an enumeration that is sound.
func sampleValue(t reflect.Type) any {
	switch x := reflect.Zero(t).Interface().(type) {
	case schemas.Enum:
		return x.Names()[1]
	case bool:
		return true
	}
	return "x"
}

// wrong are values that a field does not take.
func wrong(t reflect.Type, f jsonschema.Field) []value {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	w := []value{{"a-list-of-lists", []any{[]any{}}}}
	add := func(name string, v any) { w = append(w, value{name, v}) }
	limit := 0
	for rule := range strings.SplitSeq(f.Check, ",") {
		name, arg, _ := strings.Cut(rule, "=")
		n, _ := strconv.ParseInt(arg, 10, 64)
		switch name {
		case "positive":
			add("0", 0)
			add("negative", -1)
		case "min":
			add(fmt.Sprintf("below-%d", n), n-1)
		case "max":
			add(fmt.Sprintf("above-%d", n), n+1)
		case "pow2":
			add("no-power-of-two", 3)
			add("negative", -4096)
		case "bytes":
			limit = int(n)
		}
	}
	if limit == 0 {
		limit = schemas.MaxStringBytes
	}
	switch t.Kind() {
	case reflect.Int, reflect.Int64:
		add("text", "many")
		add("a-fraction", 1.5)
		add("an-object", object{"a": 1})
		add("a-boolean", true)
		add("beyond-int64", uint64(1)<<63)
		add("far-below", int64(-1)<<63)
		add("1e300", 1e300)
	case reflect.Float64:
		add("text", "many")
		add("a-boolean", true)
		add("1e300", 1e300)
	case reflect.String:
		add("an-object", object{"a": 1})
		add("a-boolean", false)
		if t == reflect.TypeFor[string]() {
			add("a-number", 12)
			add("a-control-character", "a\x00b")
			add(fmt.Sprintf("longer-than-%d", limit), strings.Repeat("x", limit+1))
		} else {
			add("no-such-word", "violet")
			add("a-fraction", 0.5)
		}
	case reflect.Bool:
		add("text", "true")
		add("a-number", 1)
	case reflect.Slice:
		add("text", "x")
		add("numbers", []any{1, 2})
		add("an-empty-string", []any{""})
	case reflect.Struct:
		add("text", "x")
		add("an-unknown-field", object{"colour": "red"})
	}
	return w
}
