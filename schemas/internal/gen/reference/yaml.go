package main

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/isobar-project/isobar/schemas/jsonschema"
)

// yaml writes a value of jsonschema's kinds in block style. Strings are quoted as JSON
// quotes them, which YAML reads; keys are bare where they are plain words.
func yaml(b *strings.Builder, v any, indent string) {
	switch v := v.(type) {
	case jsonschema.Object:
		for _, m := range v {
			b.WriteString(indent + key(m.Name) + ":")
			inner(b, m.Value, indent+"  ")
		}
	case []any:
		for _, item := range v {
			b.WriteString(indent + "-")
			inner(b, item, indent+"  ")
		}
	default:
		b.WriteString(indent + scalar(v) + "\n")
	}
}

// inner writes what follows a key or a dash: on the same line, or as a block below.
func inner(b *strings.Builder, v any, indent string) {
	switch x := v.(type) {
	case jsonschema.Object:
		if len(x) == 0 {
			b.WriteString(" {}\n")
			return
		}
	case []any:
		if len(x) == 0 {
			b.WriteString(" []\n")
			return
		}
	default:
		b.WriteString(" " + scalar(v) + "\n")
		return
	}
	b.WriteString("\n")
	yaml(b, v, indent)
}

func scalar(v any) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(fmt.Sprintf("reference: %T in a document", v))
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func key(s string) string {
	for _, c := range s {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_') {
			return scalar(s)
		}
	}
	return s
}
