package main

import (
	"fmt"
	"io"
	"reflect"
	"strings"

	"github.com/isobar-project/isobar/node"
	"github.com/isobar-project/isobar/schemas"
)

// listActions writes every action in a line.
func listActions(w io.Writer) {
	t := table{}
	t.head("ACTION", "WHAT IT DOES")
	for _, s := range schemas.All() {
		t.row(string(s.Action), s.Summary)
	}
	t.write(w)
	fmt.Fprintln(w, "\n`isobar call ACTION --describe` lists the fields of one.")
}

// describeAction writes the fields of a request.
func describeAction(w io.Writer, s *schemas.Spec) {
	fmt.Fprintf(w, "%s: %s\n", s.Action, s.Summary)
	fields := requestFields(s)
	if len(fields) == 0 {
		fmt.Fprintln(w, "It has no fields.")
		return
	}
	fmt.Fprintln(w)
	t := table{}
	t.head("FIELD", "VALUE", "DEFAULT", "")
	for _, f := range fields {
		value, standard, note := f.describe()
		t.row(f.name, value, standard, note)
	}
	t.write(w)
}

func (f field) describe() (value, standard, note string) {
	value = kindOf(f.typ, f.name)
	standard = f.tag.Get("default")
	var notes []string
	for rule := range strings.SplitSeq(f.tag.Get("check"), ",") {
		name, limit, _ := strings.Cut(rule, "=")
		switch name {
		case "required":
			standard = "required"
		case "pow2":
			notes = append(notes, "a power of two")
		case "positive":
			notes = append(notes, "more than 0")
		case "min":
			notes = append(notes, "from "+limit)
		case "max":
			var n int64
			if _, err := fmt.Sscan(limit, &n); err == nil && isSize(f.name) {
				limit = node.ExactSize(n)
			}
			notes = append(notes, "at most "+limit)
		}
	}
	if f.of != "" {
		notes = append(notes, "another form of "+f.of)
	}
	return value, standard, strings.Join(notes, ", ")
}

func kindOf(t reflect.Type, name string) string {
	switch {
	case t.Implements(enumType):
		return strings.Join(reflect.New(t).Elem().Interface().(schemas.Enum).Names(), "|")
	case t.Implements(scalarFieldType):
		return "number"
	case t.Kind() == reflect.Slice:
		return kindOf(t.Elem(), name) + ",…"
	case t.Kind() == reflect.Struct:
		return "object"
	case t.Kind() == reflect.Bool:
		return "true|false"
	case isSize(name) && t.Kind() != reflect.Float64:
		return "size"
	case strings.HasSuffix(name, "_seconds"):
		return "seconds, or 90s"
	case strings.HasSuffix(name, "_ms"):
		return "milliseconds, or 90s"
	case t.Kind() == reflect.String:
		return "text"
	}
	return "number"
}
