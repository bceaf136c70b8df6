package codec

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"sync"

	"github.com/isobar-project/isobar/schemas"
)

// A plan is what a request type's tags say, read once. Tags that make no sense panic
// when the plan is made; a test makes the plan of every request.

// form is how a wire name gives its field.
type form uint8

const (
	formPlain form = iota
	formMegabytes
	formWait
	formDryRun
)

// name is one wire name: a field's own, its older one, or its megabyte twin.
type name struct {
	field int
	form  form
	bit   uint64 // this name's bit among the names seen
}

// shape is what a value must be.
type shape uint8

const (
	shapeString shape = iota
	shapeEnum
	shapeBool
	shapeInt
	shapeFloat
	shapeStruct
	shapeStrings
)

type plan struct {
	names  map[string]name
	fields []fieldPlan
	// required are the bits of the fields that must be given.
	required uint64
	// defaults is a value with nothing given. What its pointers point to is shared by all
	// requests, and never written.
	defaults reflect.Value
	// scalar is the name of the field that a bare number stands for, or empty.
	scalar string
	// wait is the index of the type's own wait_ms, or -1.
	wait int
}

type fieldPlan struct {
	name     string
	index    int
	bit      uint64
	shape    shape
	pointer  bool
	elem     reflect.Type // behind the pointer
	required bool
	fallback reflect.Value // the default, already of the field's type; or invalid
	sub      *plan         // of shapeStruct

	enum     []string // of shapeEnum
	numbered bool

	positive, pow2 bool
	hasMin, hasMax bool
	min, max       int64
	maxBytes       int
	maxItems       int
}

// plans are kept by reflect.Type, apart for changing actions.
var readingPlans, changingPlans sync.Map

// planOf returns the plan of a request type. Changing actions' requests also take
// wait_ms, unless they have it as a field, and dry_run.
func planOf(t reflect.Type, changing bool) *plan {
	kept := &readingPlans
	if changing {
		kept = &changingPlans
	}
	if p, ok := kept.Load(t); ok {
		return p.(*plan)
	}
	p := makePlan(t)
	if changing {
		if p.wait < 0 {
			p.addName("wait_ms", name{field: -1, form: formWait})
		}
		p.addName("dry_run", name{field: -1, form: formDryRun})
	}
	made, _ := kept.LoadOrStore(t, p)
	return made.(*plan)
}

func (p *plan) addName(s string, n name) {
	if _, twice := p.names[s]; twice || len(p.names) == 64 {
		panic("codec: a name twice, or more than 64 names: " + s)
	}
	n.bit = 1 << len(p.names)
	p.names[s] = n
}

func makePlan(t reflect.Type) *plan {
	p := &plan{names: map[string]name{}, wait: -1}
	if s, ok := reflect.Zero(t).Interface().(interface{ ScalarField() string }); ok {
		p.scalar = s.ScalarField()
	}
	for i := range t.NumField() {
		f := makeField(t.Field(i), i)
		f.bit = 1 << i
		if f.name == "wait_ms" {
			p.wait = i
		}
		p.addName(f.name, name{field: i})
		if alias := t.Field(i).Tag.Get("alias"); alias != "" {
			p.addName(alias, name{field: i})
		}
		if mb := t.Field(i).Tag.Get("mb"); mb != "" {
			p.addName(mb, name{field: i, form: formMegabytes})
		}
		if f.required {
			p.required |= f.bit
		}
		p.fields = append(p.fields, f)
	}
	p.defaults = reflect.New(t).Elem()
	for i := range p.fields {
		if f := &p.fields[i]; f.fallback.IsValid() {
			f.target(p.defaults).Set(f.fallback)
		}
	}
	return p
}

func makeField(sf reflect.StructField, index int) fieldPlan {
	tag, _, _ := strings.Cut(sf.Tag.Get("json"), ",")
	f := fieldPlan{name: tag, index: index, elem: sf.Type, maxBytes: schemas.MaxStringBytes, maxItems: schemas.MaxListItems}
	if sf.Type.Kind() == reflect.Pointer {
		f.pointer, f.elem = true, sf.Type.Elem()
	}
	zero := reflect.Zero(f.elem).Interface()
	switch f.elem.Kind() {
	case reflect.String:
		f.shape = shapeString
		if e, ok := zero.(schemas.Enum); ok {
			f.shape, f.enum = shapeEnum, e.Names()
			_, f.numbered = zero.(schemas.NumberedEnum)
		}
	case reflect.Bool:
		f.shape = shapeBool
	case reflect.Int, reflect.Int64:
		f.shape = shapeInt
	case reflect.Float64:
		f.shape = shapeFloat
	case reflect.Struct:
		f.shape, f.sub = shapeStruct, makePlan(f.elem)
	case reflect.Slice:
		if f.elem.Elem().Kind() != reflect.String {
			panic("codec: only lists of strings: " + sf.Name)
		}
		f.shape = shapeStrings
	default:
		panic("codec: no request field can be a " + sf.Type.String())
	}
	f.readChecks(sf.Tag.Get("check"))
	if def := sf.Tag.Get("default"); def != "" {
		f.fallback = f.parseDefault(def)
	}
	return f
}

func (f *fieldPlan) readChecks(tag string) {
	if tag == "" {
		return
	}
	for rule := range strings.SplitSeq(tag, ",") {
		rule, arg, _ := strings.Cut(rule, "=")
		n, _ := strconv.ParseInt(arg, 10, 64)
		switch rule {
		case "required":
			f.required = true
		case "positive":
			f.positive = true
		case "pow2":
			f.pow2 = true
		case "min":
			f.hasMin, f.min = true, n
		case "max":
			f.hasMax, f.max = true, n
		case "bytes":
			f.maxBytes = int(n)
		case "items":
			f.maxItems = int(n)
		default:
			panic("codec: unknown rule " + rule)
		}
	}
}

func (f *fieldPlan) parseDefault(s string) reflect.Value {
	v := reflect.New(f.elem).Elem()
	var err error
	switch f.shape {
	case shapeString, shapeEnum:
		v.SetString(s)
	case shapeBool:
		var b bool
		b, err = strconv.ParseBool(s)
		v.SetBool(b)
	case shapeInt:
		var n int64
		n, err = strconv.ParseInt(s, 10, 64)
		v.SetInt(n)
	case shapeFloat:
		var x float64
		x, err = strconv.ParseFloat(s, 64)
		v.SetFloat(x)
	default:
		err = fmt.Errorf("no default for a %s", f.elem)
	}
	if err != nil {
		panic("codec: default of " + f.name + ": " + err.Error())
	}
	return v
}
