package jsonschema

import (
	"bytes"
	"encoding/json"
)

// Object is a JSON object whose members keep their order.
type Object []Member

// Member is one name and value of an Object. A value is what encoding/json takes, an
// Object, or a []any of them.
type Member struct {
	Name  string
	Value any
}

// Get returns the value of a name, nil if there is none.
func (o Object) Get(name string) any {
	for _, m := range o {
		if m.Name == name {
			return m.Value
		}
	}
	return nil
}

// MarshalJSON implements json.Marshaler. An empty Object is {}.
func (o Object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		name, err := plain(m.Name)
		if err != nil {
			return nil, err
		}
		value, err := plain(m.Value)
		if err != nil {
			return nil, err
		}
		b.Write(name)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// plain encodes without escaping what only HTML minds.
func plain(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// Compact is the schema as one line of JSON.
func (o Object) Compact() string {
	text, err := o.MarshalJSON()
	if err != nil {
		panic(err) // only strings, numbers and Objects are ever put in
	}
	return string(text)
}

// Indented is the schema as a file.
func (o Object) Indented() []byte {
	var b bytes.Buffer
	if err := json.Indent(&b, []byte(o.Compact()), "", "  "); err != nil {
		panic(err) // Compact makes sound JSON
	}
	b.WriteByte('\n')
	return b.Bytes()
}
