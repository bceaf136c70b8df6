package codec

import (
	"encoding/json"
	"reflect"
	"strings"
	"sync"
	"time"
)

// A layout is how a Go type is written, read once from its json tags.

// class is what kind of writing a type takes.
type class uint8

const (
	classOther class = iota // written as its fmt.Sprint
	classString
	classBool
	classInt
	classUint
	classFloat
	classTime
	classRaw // json.RawMessage
	classStruct
	classSlice
	classMap // with string keys
	classPointer
	classInterface
)

type layout struct {
	class  class
	elem   *layout // of slice, map, pointer
	fields []fieldLayout
	byName map[string]int // wire name → index in fields
}

type fieldLayout struct {
	name      string
	index     []int  // more than one inside embedded structs
	json      []byte // `"name":`
	msgpack   []byte // the encoded name
	omitEmpty bool
	waitMs    bool // left out of a digest
	layout    *layout
}

var layouts sync.Map // reflect.Type → *layout

var (
	timeType = reflect.TypeFor[time.Time]()
	rawType  = reflect.TypeFor[json.RawMessage]()
)

func layoutOf(t reflect.Type) *layout {
	if l, ok := layouts.Load(t); ok {
		return l.(*layout)
	}
	// Types may contain themselves, so building goes through a private map; only the
	// complete layout is shared.
	l := makeLayout(t, map[reflect.Type]*layout{})
	made, _ := layouts.LoadOrStore(t, l)
	return made.(*layout)
}

func makeLayout(t reflect.Type, making map[reflect.Type]*layout) *layout {
	if l := making[t]; l != nil {
		return l
	}
	l := &layout{}
	making[t] = l
	switch {
	case t == timeType:
		l.class = classTime
		return l
	case t == rawType:
		l.class = classRaw
		return l
	}
	switch t.Kind() {
	case reflect.String:
		l.class = classString
	case reflect.Bool:
		l.class = classBool
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		l.class = classInt
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		l.class = classUint
	case reflect.Float32, reflect.Float64:
		l.class = classFloat
	case reflect.Slice:
		l.class, l.elem = classSlice, makeLayout(t.Elem(), making)
	case reflect.Map:
		if t.Key().Kind() == reflect.String {
			l.class, l.elem = classMap, makeLayout(t.Elem(), making)
		}
	case reflect.Pointer:
		l.class, l.elem = classPointer, makeLayout(t.Elem(), making)
	case reflect.Interface:
		l.class = classInterface
	case reflect.Struct:
		l.class, l.byName = classStruct, map[string]int{}
		l.addFields(t, nil, making)
	}
	return l
}

// addFields adds the fields of t, those of embedded structs in their place.
func (l *layout) addFields(t reflect.Type, path []int, making map[reflect.Type]*layout) {
	for i := range t.NumField() {
		sf := t.Field(i)
		index := append(append([]int(nil), path...), i)
		tag, options, _ := strings.Cut(sf.Tag.Get("json"), ",")
		if sf.Anonymous && tag == "" && sf.Type.Kind() == reflect.Struct {
			l.addFields(sf.Type, index, making)
			continue
		}
		if tag == "-" || !sf.IsExported() {
			continue
		}
		if tag == "" {
			tag = sf.Name
		}
		if _, twice := l.byName[tag]; twice {
			panic("codec: " + t.String() + " has two fields called " + tag)
		}
		l.byName[tag] = len(l.fields)
		l.fields = append(l.fields, fieldLayout{
			name:      tag,
			index:     index,
			json:      append(appendJSONString(nil, tag), ':'),
			msgpack:   appendMsgPackString(nil, tag),
			omitEmpty: options == "omitempty",
			waitMs:    tag == "wait_ms",
			layout:    makeLayout(sf.Type, making),
		})
	}
}

// field finds the value of f in the struct v.
func (f *fieldLayout) field(v reflect.Value) reflect.Value {
	v = v.Field(f.index[0])
	for _, i := range f.index[1:] {
		v = v.Field(i)
	}
	return v
}

// empty reports whether omitempty leaves v out, as encoding/json defines it.
func (l *layout) empty(v reflect.Value) bool {
	switch l.class {
	case classString, classSlice, classMap, classRaw:
		return v.Len() == 0
	case classBool:
		return !v.Bool()
	case classInt:
		return v.Int() == 0
	case classUint:
		return v.Uint() == 0
	case classFloat:
		return v.Float() == 0
	case classPointer, classInterface:
		return v.IsNil()
	}
	return false
}
