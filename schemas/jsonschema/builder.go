package jsonschema

import (
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/isobar-project/isobar/schemas"
)

var (
	typeOfPending = reflect.TypeFor[schemas.Pending]()
	typeOfDryRun  = reflect.TypeFor[schemas.DryRunReply]()
	typeOfGap     = reflect.TypeFor[schemas.Gap]()
	typeOfEvent   = reflect.TypeFor[schemas.Event]()
	typeOfTime    = reflect.TypeFor[time.Time]()
)

// builder makes one schema and gathers the types that it names.
type builder struct {
	docs Docs
	// request says that the checks in the tags hold: they are the decoder's.
	request bool
	defs    map[string]Object
}

func newBuilder(docs Docs, request bool) *builder {
	return &builder{docs: docs, request: request, defs: map[string]Object{}}
}

// whole puts the head before a schema and the named types after it.
func (b *builder) whole(name, title string, o Object) Object {
	out := append(Object{{"$schema", Dialect}, {"$id", ID(name)}, {"title", title}}, o...)
	if len(b.defs) == 0 {
		return out
	}
	var defs Object
	for name, def := range b.defs {
		defs = append(defs, Member{name, def})
	}
	slices.SortFunc(defs, func(x, y Member) int { return strings.Compare(x.Name, y.Name) })
	return append(out, Member{"$defs", defs})
}

// named is a reference to a struct type, which it describes under $defs.
func (b *builder) named(t reflect.Type) Object {
	if _, done := b.defs[t.Name()]; !done {
		b.defs[t.Name()] = nil // a type that holds itself ends here
		b.defs[t.Name()] = b.object(t)
	}
	return Object{{"$ref", "#/$defs/" + t.Name()}}
}

// object describes a struct. The fields of embedded types are its own.
func (b *builder) object(t reflect.Type) Object {
	var properties Object
	var required, exclusive []any
	for _, f := range reflect.VisibleFields(t) {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" || name == "-" {
			continue
		}
		value := b.value(f.Type)
		switch {
		case b.request:
			value = checked(value, f)
		case f.Type.Kind() == reflect.Pointer && !strings.Contains(options, "omitempty"):
			value = orNull(value)
		}
		owner := t
		if len(f.Index) > 1 {
			owner = t.FieldByIndex(f.Index[:len(f.Index)-1]).Type
		}
		properties = append(properties, Member{name, b.described(value, owner.Name(), f)})
		needed := !strings.Contains(options, "omitempty")
		if b.request {
			needed = slices.Contains(strings.Split(f.Tag.Get("check"), ","), "required")
		}
		if needed {
			required = append(required, name)
		}
		if alias := f.Tag.Get("alias"); alias != "" {
			older := without(value, "default")
			properties = append(properties, Member{alias, append(older, Member{"deprecated", true}, Member{"description", "An older name of " + name + "."})})
			exclusive = append(exclusive, both(name, alias))
		}
		if mb := f.Tag.Get("mb"); mb != "" {
			properties = append(properties, Member{mb, Object{{"type", "number"}, {"minimum", 0},
				{"description", name + " in megabytes of 1,048,576 bytes; may be a fraction, rounded up."}}})
			exclusive = append(exclusive, both(name, mb))
		}
	}
	o := Object{{"type", "object"}}
	if b.docs != nil {
		if text := b.docs.Type(t.Name()); text != "" {
			o = append(o, Member{"description", text})
		}
	}
	o = append(o, Member{"properties", properties})
	if len(required) > 0 {
		o = append(o, Member{"required", required})
	}
	if len(exclusive) > 0 {
		o = append(o, Member{"allOf", exclusive})
	}
	return append(o, Member{"additionalProperties", false})
}

// both refuses two forms of one field.
func both(a, b string) Object {
	return Object{{"not", Object{{"required", []any{a, b}}}}}
}

func without(o Object, name string) Object {
	return slices.DeleteFunc(slices.Clone(o), func(m Member) bool { return m.Name == name })
}

// withCommon adds what every changing action takes beside its own fields.
func withCommon(o Object) Object {
	own, _ := o.Get("properties").(Object)
	more := slices.Clone(own)
	if own.Get("wait_ms") == nil {
		more = append(more, Member{"wait_ms", Object{{"type", "integer"}, {"default", schemas.DefaultWaitMs}, {"minimum", 0}, {"maximum", schemas.MaxWaitMs},
			{"description", "How long to wait for the outcome, in milliseconds; what is not done by then is answered as queued or running."}}})
	}
	more = append(more, Member{"dry_run", Object{{"type", "boolean"}, {"default", false}, {"description", "Answer with what would be done, and change nothing."}}})
	out := slices.Clone(o)
	for i := range out {
		if out[i].Name == "properties" {
			out[i].Value = more
		}
	}
	return out
}

// orNull allows null as well: for what a reply always names and may not know.
func orNull(o Object) Object {
	if kind, ok := o.Get("type").(string); ok {
		return append(Object{{"type", []any{kind, "null"}}}, without(o, "type")...)
	}
	return Object{{"anyOf", []any{o, Object{{"type", "null"}}}}}
}

func timestamp() Object {
	return Object{{"type", "string"}, {"format", "date-time"}, {"pattern", "Z$"}}
}

// value describes a Go type.
func (b *builder) value(t reflect.Type) Object {
	switch {
	case t.Kind() == reflect.Pointer:
		return b.value(t.Elem())
	case t == typeOfTime:
		return timestamp()
	}
	switch t.Kind() {
	case reflect.String:
		e, ok := reflect.Zero(t).Interface().(schemas.Enum)
		if !ok {
			return Object{{"type", "string"}}
		}
		var names []any
		for _, n := range e.Names() {
			names = append(names, n)
		}
		if _, numbered := e.(schemas.NumberedEnum); numbered && b.request {
			return Object{{"anyOf", []any{Object{{"enum", names}}, Object{{"type", "integer"}, {"minimum", 0}, {"maximum", len(names) - 1}}}}}
		}
		return Object{{"type", "string"}, {"enum", names}}
	case reflect.Bool:
		return Object{{"type", "boolean"}}
	case reflect.Int, reflect.Int64, reflect.Uint64:
		return Object{{"type", "integer"}}
	case reflect.Float64:
		return Object{{"type", "number"}}
	case reflect.Slice:
		return Object{{"type", "array"}, {"items", b.value(t.Elem())}}
	case reflect.Map:
		if t.Elem().Kind() == reflect.Interface {
			return Object{{"type", "object"}}
		}
		return Object{{"type", "object"}, {"additionalProperties", b.value(t.Elem())}}
	case reflect.Interface:
		return Object{{"type", "object"}}
	case reflect.Struct:
		ref := b.named(t)
		if s, ok := reflect.Zero(t).Interface().(interface{ ScalarField() string }); ok && b.request {
			f, _ := t.FieldByName(schemas.Pascal(s.ScalarField()))
			return Object{{"anyOf", []any{checked(b.value(f.Type), f), ref}}}
		}
		return ref
	}
	panic("jsonschema: " + t.String() + " cannot be described")
}

// checked adds what a request field's tags demand.
func checked(o Object, f reflect.StructField) Object {
	o = slices.Clone(o)
	add := func(name string, value any) { o = append(o, Member{name, value}) }
	list, limits := f.Type, map[string]int64{}
	if list.Kind() == reflect.Pointer {
		list = list.Elem()
	}
	needed := false
	for rule := range strings.SplitSeq(f.Tag.Get("check"), ",") {
		name, arg, _ := strings.Cut(rule, "=")
		n, _ := strconv.ParseInt(arg, 10, 64)
		switch name {
		case "required":
			needed = true
		case "positive":
			add("exclusiveMinimum", 0)
		case "pow2":
			add("minimum", 0)
		case "min":
			add("minimum", n)
		case "max":
			add("maximum", n)
		default:
			limits[name] = n
		}
	}
	limit := func(name string, fallback int64) int64 {
		if n, ok := limits[name]; ok {
			return n
		}
		return fallback
	}
	switch {
	case list.Kind() == reflect.Slice:
		items, _ := o.Get("items").(Object)
		items = append(slices.Clone(items), Member{"minLength", 1}, Member{"maxLength", limit("bytes", schemas.MaxStringBytes)})
		o = append(without(o, "items"), Member{"items", items}, Member{"maxItems", limit("items", schemas.MaxListItems)})
	case list == reflect.TypeFor[string]():
		if needed {
			add("minLength", 1)
		}
		add("maxLength", limit("bytes", schemas.MaxStringBytes))
	}
	if def := f.Tag.Get("default"); def != "" {
		add("default", defaultValue(list, def))
	}
	return o
}

func defaultValue(t reflect.Type, text string) any {
	switch t.Kind() {
	case reflect.String:
		return text
	case reflect.Bool:
		return text == "true"
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		panic("jsonschema: the default " + text)
	}
	return f
}

// described adds the field's words: what it is, and what a schema cannot say.
func (b *builder) described(o Object, owner string, f reflect.StructField) Object {
	if b.docs == nil {
		return o
	}
	var words []string
	if text := b.docs.Field(owner, f.Name); text != "" {
		words = append(words, text)
	}
	if b.request && slices.Contains(strings.Split(f.Tag.Get("check"), ","), "pow2") {
		words = append(words, "0 or a power of two.")
	}
	if len(words) == 0 {
		return o
	}
	return append(slices.Clone(o), Member{"description", strings.Join(words, " ")})
}
