package conform

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/isobar-project/isobar/schemas"
	"github.com/isobar-project/isobar/schemas/jsonschema"
)

var timeType = reflect.TypeFor[time.Time]()

// fits wants a reply's data to be what the contract says of its action, as a type and as its
// published schema: for a changing action also a plan, or what is said of one that goes on. An
// error must be one that the action is said to answer.
func (c caller) fits(a schemas.Action, got answer) {
	spec, ok := schemas.Lookup(a)
	if !ok {
		return
	}
	if !got.ok {
		if !slices.Contains(spec.Errors(), got.code) {
			fail("%s answers %s, which the reference does not say of it", spec.Action, got)
		}
		return
	}
	data := got.data
	t := spec.Reply
	if spec.Changing {
		switch {
		case data["plan"] != nil:
			t = reflect.TypeFor[schemas.DryRunReply]()
		case data["status"] == "queued" || data["status"] == "running" && data["operation_id"] != nil:
			t = reflect.TypeFor[schemas.Pending]()
		}
	}
	if s := misfit(t, string(a), data); s != "" {
		fail("%s", s)
	}
	if s := c.replySchema(spec).fault(string(a), data); s != "" {
		fail("%s", s)
	}
}

// replySchema is what the node shows of an action's replies, where discovery is held to it.
func (w *world) replySchema(spec *schemas.Spec) *schema {
	if s := w.shapes[spec.Action]; s != nil {
		return s
	}
	s, err := parseSchema(jsonschema.Reply(spec, nil).Compact())
	if err != nil {
		fail("the schema of %s: %v", spec.Action, err)
	}
	w.shapes[spec.Action] = s
	return s
}

// misfit says what of a value is not as a type of package schemas has it; "" for nothing.
func misfit(t reflect.Type, path string, v any) string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	ok := false
	switch t.Kind() {
	case reflect.Struct:
		if t == timeType {
			s, _ := v.(string)
			at, err := time.Parse(time.RFC3339Nano, s)
			ok = err == nil && strings.HasSuffix(s, "Z") && at.Year() > 2000
			break
		}
		return misfitObject(t, path, v)
	case reflect.Slice:
		l, isList := v.([]any)
		for i, e := range l {
			if s := misfit(t.Elem(), fmt.Sprintf("%s.%d", path, i), e); s != "" {
				return s
			}
		}
		ok = isList
	case reflect.Map:
		m, isMap := v.(object)
		for k, e := range m {
			if t.Elem().Kind() == reflect.Interface {
				break
			}
			if s := misfit(t.Elem(), path+"."+k, e); s != "" {
				return s
			}
		}
		ok = isMap
	case reflect.String:
		s, isString := v.(string)
		e, isEnum := reflect.Zero(t).Interface().(schemas.Enum)
		ok = isString && (!isEnum || slices.Contains(e.Names(), s))
	case reflect.Bool:
		_, ok = v.(bool)
	case reflect.Float64:
		_, ok = v.(float64)
		_, whole := v.(int64)
		ok = ok || whole
	case reflect.Interface:
		_, ok = v.(object)
	default:
		_, ok = v.(int64)
	}
	if !ok {
		return fmt.Sprintf("%s is %T %v, not %s", path, v, v, t)
	}
	return ""
}

func misfitObject(t reflect.Type, path string, v any) string {
	m, ok := v.(object)
	if !ok {
		return fmt.Sprintf("%s is %T, not an object", path, v)
	}
	known := map[string]bool{}
	for _, f := range jsonschema.Fields(t) {
		known[f.Name] = true
		x, there := m[f.Name]
		sf, _ := t.FieldByName(f.GoName)
		switch {
		case !there && f.Optional, there && x == nil && sf.Type.Kind() == reflect.Pointer && !f.Optional:
			continue
		case !there:
			return fmt.Sprintf("%s has no %s", path, f.Name)
		}
		if s := misfit(sf.Type, path+"."+f.Name, x); s != "" {
			return s
		}
	}
	for name := range m {
		if !known[name] {
			return fmt.Sprintf("%s has %s, which the contract lacks", path, name)
		}
	}
	return ""
}
