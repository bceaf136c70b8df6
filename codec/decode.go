package codec

import (
	"reflect"

	"github.com/isobar-project/isobar/schemas"
)

// decoding is one request's data on its way into a struct.
type decoding struct {
	r *reader
	// waitMs and dryRun are what every changing action takes beside its own fields.
	waitMs int64
	dryRun bool
}

func fieldErrorf(field, format string, args ...any) *schemas.Error {
	return schemas.Errorf(schemas.CodeInvalidRequest, format, args...).With("field", field)
}

// under puts the outer field's name before the one that an error names.
func under(outer string, err *schemas.Error) *schemas.Error {
	if inner, ok := err.Details["field"].(string); ok {
		err.Details["field"] = outer + "." + inner
		err.Message = outer + "." + err.Message
	}
	return err
}

// object reads the object that is next into v, a struct of the plan's type. top is
// true for the request's data itself.
func (d *decoding) object(p *plan, v reflect.Value, top bool) *schemas.Error {
	var seen, given uint64
	v.Set(p.defaults)
	r := d.r
	c := r.enter()
	for r.more(&c) {
		key := r.key()
		n, ok := p.names[string(key)]
		if !ok {
			if err := d.unknown(string(key), top); err != nil {
				return err
			}
			continue
		}
		if seen&n.bit != 0 {
			return fieldErrorf(string(key), "%s is given twice", key)
		}
		seen |= n.bit
		if r.kind() == kindNull {
			r.skip()
			continue
		}
		if n.field < 0 {
			if err := d.common(n.form); err != nil {
				return err
			}
			continue
		}
		f := &p.fields[n.field]
		if given&f.bit != 0 {
			return fieldErrorf(f.name, "%s is given in two forms", f.name)
		}
		was := given
		given |= f.bit
		absent, err := d.field(f, n.form, v)
		if err != nil {
			return err
		}
		if absent {
			given = was
		}
	}
	if given&p.required != p.required {
		for i := range p.fields {
			if f := &p.fields[i]; f.required && given&f.bit == 0 {
				return fieldErrorf(f.name, "%s is required", f.name)
			}
		}
	}
	return nil
}

// unknown complains about a name that the request has not. An empty `parameters`
// object, which older clients send with everything, is let through.
func (d *decoding) unknown(key string, top bool) *schemas.Error {
	if top && key == "parameters" && d.emptyParameters() {
		return nil
	}
	return fieldErrorf(clip(key), "%s is not a field of this request", printable(key))
}

func (d *decoding) emptyParameters() bool {
	r := d.r
	switch r.kind() {
	case kindNull:
		r.skip()
		return true
	case kindObject:
		c := r.enter()
		return !r.more(&c)
	}
	return false
}

// common reads a field that every changing action takes.
func (d *decoding) common(f form) *schemas.Error {
	if f == formDryRun {
		if absent, ok := d.emptyString(); absent {
			return nil
		} else if !ok || d.r.kind() != kindBool {
			return wrongType("dry_run", "true or false", d.r.kind())
		}
		d.dryRun = d.r.bool()
		return nil
	}
	if absent, ok := d.emptyString(); absent {
		return nil
	} else if !ok || d.r.kind() != kindNumber {
		return wrongType("wait_ms", "a whole number", d.r.kind())
	}
	n, bad := d.r.int()
	if bad != numberOK {
		return badNumber("wait_ms", bad)
	}
	if n < 0 || n > schemas.MaxWaitMs {
		return fieldErrorf("wait_ms", "wait_ms must be between 0 and %d", schemas.MaxWaitMs)
	}
	d.waitMs = n
	return nil
}

// emptyString consumes an empty string, which is as good as nothing where a field is
// optional. ok is false for another string.
func (d *decoding) emptyString() (absent, ok bool) {
	r := d.r
	if r.kind() != kindString {
		return false, true
	}
	at := r.at
	if !r.msgpack {
		if r.b[at+1] == '"' { // the guard saw a whole string
			r.skip()
			return true, true
		}
		return false, false
	}
	if s, _ := r.bytes(); len(s) == 0 {
		return true, true
	}
	r.at = at
	return false, false
}

// target is where the field's value goes; behind a pointer, which it makes.
func (f *fieldPlan) target(v reflect.Value) reflect.Value {
	t := v.Field(f.index)
	if f.pointer {
		t.Set(reflect.New(f.elem))
		t = t.Elem()
	}
	return t
}

// field reads the value that is next, which is not null, into its field. absent says
// that it was an empty string where nothing is needed.
func (d *decoding) field(f *fieldPlan, how form, v reflect.Value) (absent bool, err *schemas.Error) {
	r := d.r
	if !f.required {
		if absent, _ := d.emptyString(); absent {
			return true, nil
		}
	}
	k := r.kind()
	switch {
	case how == formMegabytes:
		err = d.megabytes(f, v)
	case f.shape == shapeString:
		if k != kindString {
			return false, wrongType(f.name, "a string", k)
		}
		var s string
		if s, err = d.text(f, f.name); err == nil {
			f.target(v).SetString(s)
		}
	case f.shape == shapeEnum:
		err = d.enum(f, v, k)
	case f.shape == shapeBool:
		if k != kindBool {
			return false, wrongType(f.name, "true or false", k)
		}
		f.target(v).SetBool(r.bool())
	case f.shape == shapeInt:
		if k != kindNumber {
			return false, wrongType(f.name, "a whole number", k)
		}
		n, bad := r.int()
		if bad != numberOK {
			return false, badNumber(f.name, bad)
		}
		if err = f.checkInt(n); err == nil {
			f.target(v).SetInt(n)
		}
	case f.shape == shapeFloat:
		if k != kindNumber {
			return false, wrongType(f.name, "a number", k)
		}
		x, bad := r.float()
		if bad != numberOK {
			return false, badNumber(f.name, bad)
		}
		if err = f.checkFloat(x); err == nil {
			f.target(v).SetFloat(x)
		}
	case f.shape == shapeStruct:
		err = d.structure(f, v, k)
	case f.shape == shapeStrings:
		err = d.strings(f, v, k)
	}
	return false, err
}

func (d *decoding) megabytes(f *fieldPlan, v reflect.Value) *schemas.Error {
	if k := d.r.kind(); k != kindNumber {
		return wrongType(f.name, "a number of megabytes", k)
	}
	mb, bad := d.r.float()
	if bad != numberOK {
		return badNumber(f.name, bad)
	}
	bytes, ok := schemas.BytesOfMegabytes(mb)
	if !ok {
		return fieldErrorf(f.name, "%s: %v megabytes is not a size", f.name, mb)
	}
	if err := f.checkInt(bytes); err != nil {
		return err
	}
	f.target(v).SetInt(bytes)
	return nil
}

func (d *decoding) enum(f *fieldPlan, v reflect.Value, k kind) *schemas.Error {
	if k == kindNumber && f.numbered {
		n, bad := d.r.int()
		if bad != numberOK {
			return badNumber(f.name, bad)
		}
		if n < 0 || n >= int64(len(f.enum)) {
			return fieldErrorf(f.name, "%s: %d is not between 0 and %d", f.name, n, len(f.enum)-1)
		}
		f.target(v).SetString(f.enum[n])
		return nil
	}
	if k != kindString {
		return wrongType(f.name, "a string", k)
	}
	s, _ := d.r.bytes()
	for _, name := range f.enum {
		if equalFold(s, name) {
			f.target(v).SetString(name)
			return nil
		}
	}
	return fieldErrorf(f.name, "%s: %s is none of %v", f.name, printable(string(s)), f.enum)
}

func (d *decoding) structure(f *fieldPlan, v reflect.Value, k kind) *schemas.Error {
	switch {
	case k == kindObject:
		if err := d.object(f.sub, f.target(v), false); err != nil {
			return under(f.name, err)
		}
		return nil
	case k == kindNumber && f.sub.scalar != "":
		inner := &f.sub.fields[f.sub.names[f.sub.scalar].field]
		if _, err := d.field(inner, formPlain, f.target(v)); err != nil {
			return under(f.name, err)
		}
		return nil
	}
	return wrongType(f.name, "an object", k)
}

func (d *decoding) strings(f *fieldPlan, v reflect.Value, k kind) *schemas.Error {
	if k != kindArray {
		return wrongType(f.name, "a list of strings", k)
	}
	var list []string
	c := d.r.enter()
	for d.r.more(&c) {
		if len(list) == f.maxItems {
			return fieldErrorf(f.name, "%s has more than %d items", f.name, f.maxItems)
		}
		if k := d.r.kind(); k != kindString {
			return wrongType(f.name, "a list of strings", k)
		}
		s, err := d.text(f, f.name)
		if err != nil {
			return err
		}
		if s == "" {
			return fieldErrorf(f.name, "%s holds an empty string", f.name)
		}
		list = append(list, s)
	}
	f.target(v).Set(reflect.ValueOf(list))
	return nil
}

// text reads a string that is next: UTF-8, within its length, without control
// characters, and not empty where it is required.
func (d *decoding) text(f *fieldPlan, name string) (string, *schemas.Error) {
	s, ok := d.r.bytes()
	if !ok {
		return "", fieldErrorf(name, "%s is not UTF-8", name)
	}
	if len(s) > f.maxBytes {
		return "", fieldErrorf(name, "%s is longer than %d bytes", name, f.maxBytes)
	}
	if len(s) == 0 && f.required {
		return "", fieldErrorf(name, "%s is required", name)
	}
	if hasControl(s) {
		return "", fieldErrorf(name, "%s holds a control character", name)
	}
	return string(s), nil
}

func (f *fieldPlan) checkInt(n int64) *schemas.Error {
	switch {
	case f.positive && n <= 0:
		return fieldErrorf(f.name, "%s must be greater than 0", f.name)
	case f.pow2 && (n < 0 || n&(n-1) != 0):
		return fieldErrorf(f.name, "%s must be 0 or a power of two", f.name)
	case f.hasMin && n < f.min:
		return fieldErrorf(f.name, "%s must be at least %d", f.name, f.min)
	case f.hasMax && n > f.max:
		return fieldErrorf(f.name, "%s must be at most %d", f.name, f.max)
	}
	return nil
}

func (f *fieldPlan) checkFloat(x float64) *schemas.Error {
	switch {
	case f.positive && x <= 0:
		return fieldErrorf(f.name, "%s must be greater than 0", f.name)
	case f.hasMin && x < float64(f.min):
		return fieldErrorf(f.name, "%s must be at least %d", f.name, f.min)
	case f.hasMax && x > float64(f.max):
		return fieldErrorf(f.name, "%s must be at most %d", f.name, f.max)
	}
	return nil
}

func wrongType(field, want string, got kind) *schemas.Error {
	return fieldErrorf(field, "%s must be %s, not %s", field, want, got)
}

func badNumber(field string, why numberError) *schemas.Error {
	if why == numberFraction {
		return fieldErrorf(field, "%s must be a whole number", field)
	}
	return fieldErrorf(field, "%s is beyond what a number can hold", field)
}

func hasControl(s []byte) bool {
	for _, c := range s {
		if c < ' ' || c == 0x7f {
			return true
		}
	}
	return false
}

// equalFold compares in any case of ASCII letters. name is ASCII.
func equalFold(s []byte, name string) bool {
	if len(s) != len(name) {
		return false
	}
	for i, c := range s {
		n := name[i]
		if c == n {
			continue
		}
		if c|0x20 != n|0x20 || c|0x20 < 'a' || c|0x20 > 'z' {
			return false
		}
	}
	return true
}
