package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/isobar-project/isobar/node"
)

// member is one field of a JSON object, in the object's order.
type member struct {
	name  string
	value any // []member, []any, string, json.Number, bool or nil
}

// writeReplyTable prints a reply for reading: its single values one a line, its lists
// of objects as tables. Sizes get units; columns without any value are left out. Where all there
// is are empty lists, that is said.
func writeReplyTable(w io.Writer, reply json.RawMessage, widest int) error {
	d := json.NewDecoder(bytes.NewReader(reply))
	d.UseNumber()
	v, err := orderedValue(d)
	if err != nil {
		return fmt.Errorf("the node's reply is not JSON: %w", err)
	}
	object, ok := v.([]member)
	if !ok {
		_, err := fmt.Fprintf(w, "%s\n", reply)
		return err
	}
	var out bytes.Buffer
	writeObject(&out, "", object, widest)
	if out.Len() == 0 { // an empty list is an answer, too
		empty := table{}
		for _, m := range flatten("", object) {
			if _, ok := m.value.([]any); ok {
				empty.row(m.name, "none")
			}
		}
		empty.write(&out)
	}
	_, err = w.Write(out.Bytes())
	return err
}

func writeObject(w *bytes.Buffer, title string, object []member, widest int) {
	values, lists := table{}, []member{}
	for _, m := range flatten("", object) {
		if items, ok := m.value.([]any); ok && holdsObjects(items) {
			lists = append(lists, m)
			continue
		}
		if text := cell(m.name, m.value); text != "" {
			values.row(m.name, text)
		}
	}
	if len(values.rows) > 0 {
		heading(w, title)
		values.write(w)
	}
	for _, l := range lists {
		heading(w, strings.TrimPrefix(title+" "+l.name, " "))
		rows := l.value.([]any)
		var inner []member
		columns := table{}
		names := []string{}
		flat := make([][]member, len(rows))
		for i, row := range rows {
			o, _ := row.([]member)
			for _, m := range flatten("", o) {
				if items, ok := m.value.([]any); ok && holdsObjects(items) {
					inner = append(inner, member{fmt.Sprintf("%s[%d] %s", l.name, i, m.name), m.value})
					continue
				}
				flat[i] = append(flat[i], m)
				if !slices.Contains(names, m.name) {
					names = append(names, m.name)
				}
			}
		}
		columns.head(names...)
		for _, row := range flat {
			cells := make([]string, len(names))
			for _, m := range row {
				cells[slices.Index(names, m.name)] = cell(m.name, m.value)
			}
			columns.row(cells...)
		}
		// A few long rows read better from top to bottom.
		if turned := columns.turned(); columns.width() > widest && turned.width() <= widest {
			turned.write(w)
		} else {
			columns.write(w)
		}
		for _, m := range inner {
			writeObject(w, title, []member{m}, widest)
		}
	}
}

func heading(w *bytes.Buffer, title string) {
	if w.Len() > 0 {
		w.WriteByte('\n')
	}
	if title != "" {
		w.WriteString(strings.ToUpper(strings.ReplaceAll(title, "_", " ")) + "\n")
	}
}

// flatten gives the fields of objects inside an object dotted names.
func flatten(prefix string, object []member) []member {
	var out []member
	for _, m := range object {
		if inner, ok := m.value.([]member); ok {
			out = append(out, flatten(prefix+m.name+".", inner)...)
			continue
		}
		out = append(out, member{prefix + m.name, m.value})
	}
	return out
}

func holdsObjects(items []any) bool {
	return slices.ContainsFunc(items, func(v any) bool { _, ok := v.([]member); return ok })
}

// cell is a value in a table: "" for what says nothing.
func cell(name string, v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case bool:
		if v {
			return "yes"
		}
		return "no"
	case json.Number:
		if n, err := v.Int64(); err == nil && isSize(name) {
			return node.HumanSize(n)
		}
		if f, err := v.Float64(); err == nil && strings.Contains(v.String(), ".") {
			return strconv.FormatFloat(math.Round(f*1000)/1000, 'f', -1, 64)
		}
		return v.String()
	case []any:
		var items []string
		for _, item := range v {
			items = append(items, cell(name, item))
		}
		return strings.Join(items, ", ")
	}
	return fmt.Sprint(v)
}

// orderedValue reads one JSON value and keeps the order of fields.
func orderedValue(d *json.Decoder) (any, error) {
	token, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch token {
	case json.Delim('{'):
		object := []member{}
		for d.More() {
			key, err := d.Token()
			if err != nil {
				return nil, err
			}
			v, err := orderedValue(d)
			if err != nil {
				return nil, err
			}
			object = append(object, member{key.(string), v})
		}
		_, err := d.Token()
		return object, err
	case json.Delim('['):
		items := []any{}
		for d.More() {
			v, err := orderedValue(d)
			if err != nil {
				return nil, err
			}
			items = append(items, v)
		}
		_, err := d.Token()
		return items, err
	}
	return token, nil
}
