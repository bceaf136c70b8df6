package codec

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"
	"unsafe"
)

// encoder appends values in one format.
type encoder struct {
	f Format
	// digest leaves wait_ms out of structs.
	digest bool
	// second and prefix are the last whole second that was written, in Unix time and as text
	// without its zone: the times of one answer lie close together.
	second int64
	prefix [len("2006-01-02T15:04:05")]byte
}

// Append appends v to dst in the format. A pointer spares a copy of what it points to.
// A json.RawMessage must hold one JSON value; it is written as that value in either
// format.
func Append(dst []byte, f Format, v any) []byte {
	e := encoder{f: f}
	return e.append(dst, v)
}

func (e *encoder) append(dst []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return e.null(dst)
	case string:
		return e.string(dst, v)
	case bool:
		return e.bool(dst, v)
	case int:
		return e.int(dst, int64(v))
	case int64:
		return e.int(dst, v)
	case uint64:
		return e.uint(dst, v)
	case float64:
		return e.float(dst, v)
	case time.Time:
		return e.time(dst, v)
	case json.RawMessage:
		return e.raw(dst, v)
	case map[string]any:
		dst, fix := e.openObject(dst, len(v))
		for i, key := range slices.Sorted(maps.Keys(v)) {
			dst = e.key(dst, key, i)
			dst = e.append(dst, v[key])
		}
		return e.closeObject(dst, fix, len(v))
	case []any:
		dst = e.openArray(dst, len(v))
		for i := range v {
			dst = e.comma(dst, i)
			dst = e.append(dst, v[i])
		}
		return e.closeArray(dst)
	case error:
		return e.string(dst, v.Error())
	}
	rv := reflect.ValueOf(v)
	l := layoutOf(rv.Type())
	if l.class == classPointer {
		if rv.IsNil() {
			return e.null(dst)
		}
		return e.value(dst, l.elem, rv.UnsafePointer())
	}
	return e.value(dst, l, addressOf(rv))
}

// addressOf is where v is, or where a copy of it is.
func addressOf(v reflect.Value) unsafe.Pointer {
	if v.CanAddr() {
		return v.Addr().UnsafePointer()
	}
	at := reflect.New(v.Type())
	at.Elem().Set(v)
	return at.UnsafePointer()
}

// value appends the value at p, which is of the layout's type. Reading by address costs a
// third of reading by reflection, and most of an answer's time goes here.
func (e *encoder) value(dst []byte, l *layout, p unsafe.Pointer) []byte {
	switch l.class {
	case classString:
		return e.string(dst, *(*string)(p))
	case classInt:
		return e.int(dst, l.int(p))
	case classBool:
		return e.bool(dst, *(*bool)(p))
	case classFloat:
		return e.float(dst, l.float(p))
	case classUint:
		return e.uint(dst, l.uint(p))
	case classTime:
		return e.time(dst, *(*time.Time)(p))
	case classStruct:
		dst, fix := e.openObject(dst, len(l.fields))
		dst, n := e.fields(dst, l, p)
		return e.closeObject(dst, fix, n)
	case classSlice:
		s := (*sliceHeader)(p)
		dst = e.openArray(dst, s.n)
		for i := range s.n {
			dst = e.comma(dst, i)
			dst = e.value(dst, l.elem, unsafe.Add(s.data, uintptr(i)*l.elem.size))
		}
		return e.closeArray(dst)
	case classMap:
		return e.mapping(dst, l, reflect.NewAt(l.typ, p).Elem())
	case classPointer:
		to := *(*unsafe.Pointer)(p)
		if to == nil {
			return e.null(dst)
		}
		return e.value(dst, l.elem, to)
	case classInterface:
		v := reflect.NewAt(l.typ, p).Elem()
		if v.IsNil() {
			return e.null(dst)
		}
		return e.append(dst, v.Interface())
	case classRaw:
		return e.raw(dst, *(*[]byte)(p))
	}
	return e.string(dst, fmt.Sprint(reflect.NewAt(l.typ, p).Elem().Interface()))
}

// fields appends the members of the struct at p and says how many there are.
func (e *encoder) fields(dst []byte, l *layout, p unsafe.Pointer) ([]byte, int) {
	n := 0
	for i := range l.fields {
		f := &l.fields[i]
		at := unsafe.Add(p, f.offset)
		if f.omitEmpty && f.layout.empty(at) || e.digest && f.waitMs {
			continue
		}
		if e.f == JSON {
			if n > 0 {
				dst = append(dst, ',')
			}
			dst = append(dst, f.json...)
		} else {
			dst = append(dst, f.msgpack...)
		}
		n++
		dst = e.value(dst, f.layout, at)
	}
	return dst, n
}

func (e *encoder) mapping(dst []byte, l *layout, v reflect.Value) []byte {
	keys := v.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int {
		switch as, bs := a.String(), b.String(); {
		case as < bs:
			return -1
		case as > bs:
			return 1
		}
		return 0
	})
	dst, fix := e.openObject(dst, len(keys))
	for i, key := range keys {
		dst = e.key(dst, key.String(), i)
		dst = e.value(dst, l.elem, addressOf(v.MapIndex(key)))
	}
	return e.closeObject(dst, fix, len(keys))
}

// openObject begins an object of at most the given number of members. fix is for closeObject.
func (e *encoder) openObject(dst []byte, atMost int) (_ []byte, fix int) {
	if e.f == JSON {
		return append(dst, '{'), 0
	}
	fix = len(dst)
	switch {
	case atMost <= 15:
		return append(dst, 0x80), fix
	case atMost <= 0xffff:
		return append(dst, 0xde, 0, 0), fix
	}
	return append(dst, 0xdf, 0, 0, 0, 0), fix
}

// closeObject ends an object that came to n members.
func (e *encoder) closeObject(dst []byte, fix, n int) []byte {
	if e.f == JSON {
		return append(dst, '}')
	}
	switch dst[fix] {
	case 0x80:
		dst[fix] |= byte(n)
	case 0xde:
		dst[fix+1], dst[fix+2] = byte(n>>8), byte(n)
	default:
		dst[fix+1], dst[fix+2], dst[fix+3], dst[fix+4] = byte(n>>24), byte(n>>16), byte(n>>8), byte(n)
	}
	return dst
}

func (e *encoder) key(dst []byte, key string, i int) []byte {
	if e.f == JSON {
		dst = e.comma(dst, i)
		return append(appendJSONString(dst, key), ':')
	}
	return appendMsgPackString(dst, key)
}

func (e *encoder) openArray(dst []byte, n int) []byte {
	if e.f == JSON {
		return append(dst, '[')
	}
	switch {
	case n <= 15:
		return append(dst, 0x90|byte(n))
	case n <= 0xffff:
		return append(dst, 0xdc, byte(n>>8), byte(n))
	}
	return append(dst, 0xdd, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
}

func (e *encoder) closeArray(dst []byte) []byte {
	if e.f == JSON {
		return append(dst, ']')
	}
	return dst
}

// comma separates item i of a list or object from the one before it.
func (e *encoder) comma(dst []byte, i int) []byte {
	if e.f == JSON && i > 0 {
		return append(dst, ',')
	}
	return dst
}
