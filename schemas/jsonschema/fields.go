package jsonschema

import (
	"reflect"
	"strings"

	"github.com/isobar-project/isobar/schemas"
)

// Field is one field of a request or reply, for people who read a page.
type Field struct {
	// Name is the wire name, Owner and GoName where it stands in package schemas.
	Name, Owner, GoName string
	// Type is in words: integer, string, list of Allocation, one of "a", "b".
	Type string
	// Struct is the named type that the field holds, or a list or map of; nil for none.
	Struct reflect.Type
	// Default is what an absent field means, as text; Check the rules of its tag.
	Default, Check string
	// Alias and Megabytes are its other forms.
	Alias, Megabytes string
	// Optional fields may be left out of a request; a reply may lack them.
	Optional bool
}

// Fields lists a struct's fields, those of embedded types as its own.
func Fields(t reflect.Type) []Field {
	var out []Field
	for _, f := range reflect.VisibleFields(t) {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" || name == "-" {
			continue
		}
		owner := t
		if len(f.Index) > 1 {
			owner = t.FieldByIndex(f.Index[:len(f.Index)-1]).Type
		}
		words, named := inWords(f.Type)
		out = append(out, Field{Name: name, Owner: owner.Name(), GoName: f.Name, Type: words, Struct: named,
			Default: f.Tag.Get("default"), Check: f.Tag.Get("check"), Alias: f.Tag.Get("alias"), Megabytes: f.Tag.Get("mb"),
			Optional: strings.Contains(options, "omitempty")})
	}
	return out
}

// inWords says what values a type has, and which named type it is made of.
func inWords(t reflect.Type) (words string, named reflect.Type) {
	if t == typeOfTime {
		return "time", nil
	}
	switch t.Kind() {
	case reflect.Pointer:
		return inWords(t.Elem())
	case reflect.Slice:
		words, named = inWords(t.Elem())
		return "list of " + words, named
	case reflect.Map:
		if t.Elem().Kind() == reflect.Interface {
			return "object", nil
		}
		words, named = inWords(t.Elem())
		return "map from strings to " + words, named
	case reflect.Struct:
		return t.Name(), t
	case reflect.String:
		if e, ok := reflect.Zero(t).Interface().(schemas.Enum); ok {
			return strings.Join(e.Names(), "/"), nil
		}
		return "string", nil
	case reflect.Bool:
		return "boolean", nil
	case reflect.Float64:
		return "number", nil
	case reflect.Interface:
		return "object", nil
	}
	return "integer", nil
}
