package codec

import (
	"encoding/json"
	"reflect"
	"strings"
	"sync"
	"time"
	"unsafe"
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
	typ    reflect.Type
	size   uintptr // of a value in memory
	elem   *layout // of slice, map, pointer
	fields []fieldLayout
	byName map[string]int // wire name → index in fields
}

type fieldLayout struct {
	name      string
	index     []int   // more than one inside embedded structs
	offset    uintptr // in the outermost struct
	json      []byte  // `"name":`
	msgpack   []byte  // the encoded name
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
	l := &layout{typ: t, size: t.Size()}
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
		l.addFields(t, nil, 0, making)
	}
	return l
}

// addFields adds the fields of t, those of embedded structs in their place.
func (l *layout) addFields(t reflect.Type, path []int, base uintptr, making map[reflect.Type]*layout) {
	for i := range t.NumField() {
		sf := t.Field(i)
		index := append(append([]int(nil), path...), i)
		tag, options, _ := strings.Cut(sf.Tag.Get("json"), ",")
		if sf.Anonymous && tag == "" && sf.Type.Kind() == reflect.Struct {
			l.addFields(sf.Type, index, base+sf.Offset, making)
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
			offset:    base + sf.Offset,
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

// empty reports whether omitempty leaves the value at p out, as encoding/json defines it.
func (l *layout) empty(p unsafe.Pointer) bool {
	switch l.class {
	case classString:
		return len(*(*string)(p)) == 0
	case classSlice, classRaw:
		return (*sliceHeader)(p).n == 0
	case classBool:
		return !*(*bool)(p)
	case classInt:
		return l.int(p) == 0
	case classUint:
		return l.uint(p) == 0
	case classFloat:
		return l.float(p) == 0
	case classPointer:
		return *(*unsafe.Pointer)(p) == nil
	case classMap:
		return reflect.NewAt(l.typ, p).Elem().Len() == 0
	case classInterface:
		return reflect.NewAt(l.typ, p).Elem().IsNil()
	}
	return false
}

// sliceHeader is how Go lays out a slice.
type sliceHeader struct {
	data   unsafe.Pointer
	n, cap int
}

func (l *layout) int(p unsafe.Pointer) int64 {
	switch l.size {
	case 1:
		return int64(*(*int8)(p))
	case 2:
		return int64(*(*int16)(p))
	case 4:
		return int64(*(*int32)(p))
	}
	return *(*int64)(p)
}

func (l *layout) uint(p unsafe.Pointer) uint64 {
	switch l.size {
	case 1:
		return uint64(*(*uint8)(p))
	case 2:
		return uint64(*(*uint16)(p))
	case 4:
		return uint64(*(*uint32)(p))
	}
	return *(*uint64)(p)
}

func (l *layout) float(p unsafe.Pointer) float64 {
	if l.size == 4 {
		return float64(*(*float32)(p))
	}
	return *(*float64)(p)
}
