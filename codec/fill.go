package codec

import (
	"encoding/json"
	"fmt"
	"reflect"
	"time"
)

// Reading for clients: names that a type has not are ignored, so that an old client
// can talk to a new node, and a null leaves what it meets as it is.

// Unmarshal reads one value of either format into out, a non-nil pointer, by the json
// tags. Times are RFC 3339 strings in both formats; into an empty interface whole
// numbers go as int64, others as float64.
func Unmarshal(b []byte, f Format, out any) error {
	v := reflect.ValueOf(out)
	if v.Kind() != reflect.Pointer || v.IsNil() {
		return fmt.Errorf("codec: cannot read into %T", out)
	}
	guard := GuardJSON
	if f == MsgPack {
		guard = Guard
	}
	if err := guard(b); err != nil {
		return fmt.Errorf("codec: not sound %s: %w", f, err)
	}
	r := reader{b: b, msgpack: f == MsgPack}
	if err := fill(&r, layoutOf(v.Type().Elem()), v.Elem()); err != nil {
		return fmt.Errorf("codec: %w", err)
	}
	return nil
}

func mismatch(k kind, v reflect.Value) error { return fmt.Errorf("%s cannot be a %s", k, v.Type()) }

// fill reads the value that is next into v.
func fill(r *reader, l *layout, v reflect.Value) error {
	k := r.kind()
	if k == kindNull && l.class != classRaw {
		r.skip()
		return nil
	}
	switch {
	case l.class == classPointer:
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		return fill(r, l.elem, v.Elem())
	case l.class == classString && k == kindString:
		s, _ := r.bytes()
		v.SetString(string(s))
	case l.class == classBool && k == kindBool:
		v.SetBool(r.bool())
	case l.class == classFloat && k == kindNumber:
		x, bad := r.float()
		if bad != numberOK {
			return mismatch(k, v)
		}
		v.SetFloat(x)
	case (l.class == classInt || l.class == classUint) && k == kindNumber:
		return fillInt(r, l, v)
	case l.class == classTime && k == kindString:
		s, _ := r.bytes()
		t, err := time.Parse(time.RFC3339Nano, string(s))
		if err != nil {
			return err
		}
		v.Set(reflect.ValueOf(t.UTC()))
	case l.class == classRaw:
		e := encoder{f: JSON}
		v.SetBytes(e.transcode(nil, r))
	case l.class == classStruct && k == kindObject:
		return fillStruct(r, l, v)
	case l.class == classSlice && k == kindArray:
		return fillSlice(r, l, v)
	case l.class == classMap && k == kindObject:
		return fillMap(r, l, v)
	case l.class == classInterface && !v.IsNil() && v.Elem().Kind() == reflect.Pointer && !v.Elem().IsNil():
		// As in encoding/json: what an interface points to is filled in place.
		return fill(r, layoutOf(v.Elem().Type()), v.Elem())
	case l.class == classInterface && v.NumMethod() == 0:
		if value := readAny(r); value != nil {
			v.Set(reflect.ValueOf(value))
		}
	default:
		return mismatch(k, v)
	}
	return nil
}

func fillInt(r *reader, l *layout, v reflect.Value) error {
	n, bad := r.int()
	if bad != numberOK {
		return mismatch(kindNumber, v)
	}
	if l.class == classUint {
		if n < 0 || v.OverflowUint(uint64(n)) {
			return mismatch(kindNumber, v)
		}
		v.SetUint(uint64(n))
		return nil
	}
	if v.OverflowInt(n) {
		return mismatch(kindNumber, v)
	}
	v.SetInt(n)
	return nil
}

func fillStruct(r *reader, l *layout, v reflect.Value) error {
	c := r.enter()
	for r.more(&c) {
		i, ok := l.byName[string(r.key())]
		if !ok {
			r.kind() // goes over space
			r.skip()
			continue
		}
		f := &l.fields[i]
		if err := fill(r, f.layout, f.field(v)); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return nil
}

func fillSlice(r *reader, l *layout, v reflect.Value) error {
	v.Set(reflect.MakeSlice(v.Type(), 0, 0))
	c := r.enter()
	for i := 0; r.more(&c); i++ {
		if i == v.Cap() {
			v.Grow(1)
		}
		v.SetLen(i + 1)
		v.Index(i).SetZero()
		if err := fill(r, l.elem, v.Index(i)); err != nil {
			return fmt.Errorf("[%d]: %w", i, err)
		}
	}
	return nil
}

func fillMap(r *reader, l *layout, v reflect.Value) error {
	if v.IsNil() {
		v.Set(reflect.MakeMap(v.Type()))
	}
	elem := v.Type().Elem()
	c := r.enter()
	for r.more(&c) {
		key := reflect.ValueOf(string(r.key())).Convert(v.Type().Key())
		value := reflect.New(elem).Elem()
		if err := fill(r, l.elem, value); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		v.SetMapIndex(key, value)
	}
	return nil
}

// readAny reads whatever is next.
func readAny(r *reader) any {
	switch r.kind() {
	case kindBool:
		return r.bool()
	case kindString:
		s, _ := r.bytes()
		return string(s)
	case kindNumber:
		start := r.at
		if n, bad := r.int(); bad == numberOK {
			return n
		}
		r.at = start
		if x, bad := r.float(); bad == numberOK {
			return x
		}
		// Beyond what a number can hold: as it is written.
		if r.msgpack {
			return nil
		}
		return json.Number(r.b[start:r.at])
	case kindArray:
		list := []any{}
		c := r.enter()
		for r.more(&c) {
			list = append(list, readAny(r))
		}
		return list
	case kindObject:
		object := map[string]any{}
		c := r.enter()
		for r.more(&c) {
			key := string(r.key())
			object[key] = readAny(r)
		}
		return object
	}
	r.skip() // null, binary, extension
	return nil
}
