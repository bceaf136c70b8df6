package main

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/isobar-project/isobar/schemas"
	"github.com/isobar-project/isobar/schemas/jsonschema"
)

// page is Markdown that grows.
type page struct{ strings.Builder }

func (p *page) line(format string, args ...any) { fmt.Fprintf(p, format+"\n", args...) }

// cell is text inside a table.
func cell(s string) string { return strings.ReplaceAll(strings.TrimSpace(s), "|", `\|`) }

// actionsPage describes every action, then every type that they name.
func actionsPage(w *words) []byte {
	var p page
	p.line("# Actions\n\n%s\n", notice)
	p.line("A command is a NATS request on `memory.<action>` (any node) or `memory.<action>.<node>` (that node); `memory.command` takes any")
	p.line("action by the envelope's `action`. The payload is the data below, bare or in the envelope `{\"request_id\", \"action\", \"data\"}`, in JSON or,")
	p.line("with the header `Content-Type: application/msgpack`, in MessagePack. The schemas are in [schema](schema), the errors in [errors.md](errors.md),")
	p.line("the subjects of everything in [asyncapi.yaml](asyncapi.yaml).\n")
	p.line("Every changing action also takes `wait_ms` (integer, default %d, at most %d: how many milliseconds to wait for the outcome) and", schemas.DefaultWaitMs, schemas.MaxWaitMs)
	p.line("`dry_run` (boolean, default false: answer with a [Plan](#plan) and change nothing). What is not done within `wait_ms` is answered with a")
	p.line("[Pending](#pending) alone. A finished reply has `status: completed` and, where it repeats the outcome of an earlier request of the same `request_id`,")
	p.line("`replayed: true`.\n")
	p.line("Sizes are bytes unless the name ends in `_mb` (1,048,576 bytes). Times are RFC 3339 in UTC. A string is at most %d bytes and a list at most %d items", schemas.MaxStringBytes, schemas.MaxListItems)
	p.line("where nothing else is said. Enumerations are taken in any letter case.\n")
	p.line("| action | what it does | changes | role |\n|---|---|---|---|")
	for _, s := range schemas.All() {
		p.line("| [%s](#%s) | %s | %s | %s |", s.Action, s.Action, cell(s.Summary), yes(s.Changing), s.Role)
	}
	types := map[string]reflect.Type{}
	for _, s := range schemas.All() {
		p.action(w, s, types)
	}
	p.types(w, types)
	return []byte(p.String())
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func (p *page) action(w *words, s *schemas.Spec, types map[string]reflect.Type) {
	p.line("\n## %s\n", s.Action)
	p.line("%s\n", sentence(w.Type(s.Request.Name()), s.Summary))
	p.line("- Subjects: `%s`, `%s`", schemas.CommandSubject(s.Action), schemas.NodeCommandSubject(s.Action, "<node>"))
	for _, a := range s.Aliases {
		p.line("- Also served as: `%s`, `%s`", schemas.CommandSubject(a), schemas.NodeCommandSubject(a, "<node>"))
	}
	p.line("- Role: %s, where roles are configured", s.Role)
	if s.Changing {
		p.line("- Changes state: takes `wait_ms` and `dry_run`, and is idempotent by `request_id`")
	} else {
		p.line("- Changes nothing")
	}
	if events := s.Events(); len(events) > 0 {
		p.line("- Events: `memory.events.%s`", strings.Join(events, "`, `memory.events."))
	}
	var codes []string
	for _, c := range s.Errors() {
		if answers(c) != everyAction {
			codes = append(codes, string(c))
		}
	}
	p.line("- Errors: %s, and [those of every action](errors.md)", strings.Join(codes, ", "))
	p.line("- Schemas: [request](schema/%s.json), [reply](schema/%s.json)\n", jsonschema.RequestName(s.Action), jsonschema.ReplyName(s.Action))
	if fields := jsonschema.Fields(s.Request); len(fields) == 0 {
		p.line("Request: no fields.\n")
	} else {
		p.line("| request field | type | default | limits | |\n|---|---|---|---|---|")
		for _, f := range fields {
			p.line("| `%s` | %s | %s | %s | %s |", f.Name, cell(typeLink(f, types)), defaultText(f), cell(limits(f)), cell(requestWords(w, f)))
		}
		p.line("")
	}
	p.line("| reply field | type | |\n|---|---|---|")
	for _, f := range jsonschema.Fields(s.Reply) {
		p.line("| `%s` | %s | %s |", f.Name, cell(typeLink(f, types)), cell(replyWords(w, f)))
	}
}

// sentence makes the first text that is there begin as a sentence does, and end as one.
func sentence(texts ...string) string {
	for _, t := range texts {
		if t = strings.TrimSpace(t); t != "" {
			return strings.TrimSuffix(strings.ToUpper(t[:1])+t[1:], ".") + "."
		}
	}
	return ""
}

// typeLink links the type that a field is made of to its own part, and notes the type.
func typeLink(f jsonschema.Field, types map[string]reflect.Type) string {
	if f.Struct == nil {
		return strings.ReplaceAll(f.Type, "/", ", ")
	}
	name := f.Struct.Name()
	types[name] = f.Struct
	return strings.Replace(f.Type, name, "["+name+"](#"+strings.ToLower(name)+")", 1)
}

func defaultText(f jsonschema.Field) string {
	rules := strings.Split(f.Check, ",")
	switch {
	case slices.Contains(rules, "required"):
		return "required"
	case f.Default != "":
		return "`" + f.Default + "`"
	}
	return ""
}

// limits says what the field's rules allow.
func limits(f jsonschema.Field) string {
	var out []string
	for rule := range strings.SplitSeq(f.Check, ",") {
		name, arg, _ := strings.Cut(rule, "=")
		switch name {
		case "positive":
			out = append(out, "greater than 0")
		case "pow2":
			out = append(out, "0 or a power of two")
		case "min":
			out = append(out, "at least "+arg)
		case "max":
			if arg == fmt.Sprint(schemas.MaxSizeBytes) {
				arg = "1 EiB"
			}
			out = append(out, "at most "+arg)
		case "bytes":
			out = append(out, "at most "+arg+" bytes long")
		case "items":
			out = append(out, "at most "+arg+" items")
		}
	}
	return strings.Join(out, ", ")
}

// unit is what a number is in, by its name, where its words do not say it.
func unit(f jsonschema.Field, words string) string {
	if f.Type != "integer" && f.Type != "number" {
		return ""
	}
	for _, u := range [][2]string{{"_bytes_per_second", "Bytes per second."}, {"_bytes_per_hour", "Bytes per hour."}, {"_bytes", "Bytes."},
		{"_memory", "Bytes."}, {"_mb", "Megabytes of 1,048,576 bytes."}, {"_ms", "Milliseconds."}, {"_seconds", "Seconds."}, {"_percentage", "Percent, 0 to 100."},
		{"_per_second", "Per second."}} {
		if strings.HasSuffix(f.Name, u[0]) {
			word, _, _ := strings.Cut(strings.ToLower(u[1]), ",")
			if strings.Contains(strings.ToLower(words), " "+strings.TrimSuffix(strings.Fields(word)[0], ".")) {
				return ""
			}
			return u[1]
		}
	}
	return ""
}

func joined(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), " ")
}

func requestWords(w *words, f jsonschema.Field) string {
	var forms []string
	if f.Alias != "" {
		forms = append(forms, "`"+f.Alias+"` is accepted for it.")
	}
	if f.Megabytes != "" {
		forms = append(forms, "Or `"+f.Megabytes+"`, in megabytes.")
	}
	text := sentence(w.Field(f.Owner, f.GoName))
	return joined(append([]string{text, unit(f, text)}, forms...)...)
}

func replyWords(w *words, f jsonschema.Field) string {
	may := ""
	if f.Optional {
		may = "May be absent."
	}
	text := sentence(w.Field(f.Owner, f.GoName))
	return joined(text, unit(f, text), may)
}

// types describes every type that was linked to, and what those link to.
func (p *page) types(w *words, types map[string]reflect.Type) {
	p.line("\n# Types")
	for _, t := range []reflect.Type{reflect.TypeFor[schemas.Pending](), reflect.TypeFor[schemas.Plan]()} {
		types[t.Name()] = t
	}
	for todo := true; todo; {
		before := len(types)
		for _, name := range names(types) {
			for _, f := range jsonschema.Fields(types[name]) {
				typeLink(f, types)
			}
		}
		todo = len(types) > before
	}
	for _, name := range names(types) {
		p.line("\n## %s\n\n%s\n", name, sentence(w.Type(name)))
		p.line("| field | type | |\n|---|---|---|")
		for _, f := range jsonschema.Fields(types[name]) {
			p.line("| `%s` | %s | %s |", f.Name, cell(typeLink(f, types)), cell(replyWords(w, f)))
		}
	}
}

func names(m map[string]reflect.Type) []string {
	var out []string
	for name := range m {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}
