package conform

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// schema is one JSON Schema with its definitions. It knows the words that the contract's schemas
// use; any other is a fault, so that none is passed over.
type schema struct{ root object }

// parseSchema reads a schema.
func parseSchema(text string) (*schema, error) {
	v, err := decodeJSON([]byte(text))
	if err != nil {
		return nil, err
	}
	o, ok := v.(object)
	if !ok {
		return nil, fmt.Errorf("the schema %.60q is no object", text)
	}
	return &schema{o}, nil
}

// fault says what of a value is not as the schema has it; "" for nothing.
func (s *schema) fault(path string, v any) string { return s.check(s.root, path, v) }

// annotations say nothing of a value.
var annotations = []string{"$schema", "$id", "$defs", "title", "description", "default", "deprecated"}

func (s *schema) check(o object, path string, v any) string {
	for word, arg := range o {
		if slices.Contains(annotations, word) {
			continue
		}
		if why := s.word(o, word, arg, path, v); why != "" {
			return why
		}
	}
	return ""
}

// word holds a value to one word of a schema.
func (s *schema) word(o object, word string, arg any, path string, v any) string {
	fail := func() string { return fmt.Sprintf("%s is %v, and the schema says %s %v", path, v, word, arg) }
	ok := true
	switch word {
	case "$ref":
		name, _ := strings.CutPrefix(fmt.Sprint(arg), "#/$defs/")
		defs, _ := s.root["$defs"].(object)
		def, there := defs[name].(object)
		if !there {
			return fmt.Sprintf("%s: the schema refers to %v, which it lacks", path, arg)
		}
		return s.check(def, path, v)
	case "anyOf", "oneOf", "allOf":
		return s.combined(word, arg, path, v)
	case "not":
		ok = s.check(arg.(object), path, v) != ""
	case "type":
		ok = slices.ContainsFunc(words(arg), func(t string) bool { return isOf(t, v) })
	case "enum":
		l, _ := arg.([]any)
		ok = slices.ContainsFunc(l, func(x any) bool { return reflect.DeepEqual(x, v) })
	case "const":
		ok = reflect.DeepEqual(arg, v)
	case "properties", "required", "additionalProperties":
		return s.members(o, word, arg, path, v)
	case "items", "maxItems":
		l, is := v.([]any)
		if word == "maxItems" {
			ok = !is || int64(len(l)) <= arg.(int64)
			break
		}
		for i, x := range l {
			if why := s.check(arg.(object), fmt.Sprintf("%s.%d", path, i), x); why != "" {
				return why
			}
		}
	default:
		known := false
		if ok, known = scalar(word, arg, v); !known {
			return fmt.Sprintf("%s: the schema has the word %s, which is not known", path, word)
		}
	}
	if !ok {
		return fail()
	}
	return ""
}

// combined is of words that have several schemas.
func (s *schema) combined(word string, arg any, path string, v any) string {
	forms, _ := arg.([]any)
	fits, last := 0, ""
	for _, f := range forms {
		if why := s.check(f.(object), path, v); why == "" {
			fits++
		} else {
			last = why
		}
	}
	switch {
	case word == "anyOf" && fits > 0, word == "oneOf" && fits == 1, word == "allOf" && fits == len(forms):
		return ""
	}
	return fmt.Sprintf("%s fits %d of the %d forms of %s; %s", path, fits, len(forms), word, last)
}

// members is of words about an object's members.
func (s *schema) members(o object, word string, arg any, path string, v any) string {
	m, is := v.(object)
	if !is {
		return ""
	}
	known, _ := o["properties"].(object)
	switch word {
	case "required":
		for _, name := range words(arg) {
			if _, there := m[name]; !there {
				return fmt.Sprintf("%s has no %s", path, name)
			}
		}
	case "properties":
		for name, form := range known {
			if x, there := m[name]; there {
				if why := s.check(form.(object), path+"."+name, x); why != "" {
					return why
				}
			}
		}
	case "additionalProperties":
		for name, x := range m {
			if _, there := known[name]; there {
				continue
			}
			form, isSchema := arg.(object)
			if !isSchema && arg != true {
				return fmt.Sprintf("%s has %s, which the schema lacks", path, name)
			}
			if why := s.check(form, path+"."+name, x); why != "" {
				return why
			}
		}
	}
	return ""
}

// scalar is of words about one text or number; known is false for a word that is none.
func scalar(word string, arg, v any) (ok, known bool) {
	text, isText := v.(string)
	n, isNumber := number(v)
	bound, _ := number(arg)
	switch word {
	case "format":
		if arg != "date-time" {
			return false, false
		}
		_, err := time.Parse(time.RFC3339Nano, text)
		return !isText || err == nil, true
	case "pattern":
		r, err := regexp.Compile(fmt.Sprint(arg))
		return !isText || err == nil && r.MatchString(text), true
	case "minLength":
		return !isText || float64(utf8.RuneCountInString(text)) >= bound, true
	case "maxLength":
		return !isText || float64(utf8.RuneCountInString(text)) <= bound, true
	case "minimum":
		return !isNumber || n >= bound, true
	case "maximum":
		return !isNumber || n <= bound, true
	case "exclusiveMinimum":
		return !isNumber || n > bound, true
	}
	return false, false
}

func number(v any) (float64, bool) {
	switch x := v.(type) {
	case int64:
		return float64(x), true
	case float64:
		return x, true
	}
	return 0, false
}

// words are a text, or a list of them.
func words(v any) []string {
	if s, ok := v.(string); ok {
		return []string{s}
	}
	l, _ := v.([]any)
	out := make([]string, 0, len(l))
	for _, x := range l {
		out = append(out, fmt.Sprint(x))
	}
	return out
}

// isOf reports whether a value is of a type of JSON Schema. A number without a fraction is an
// integer, however it was written.
func isOf(t string, v any) bool {
	n, isNumber := number(v)
	switch v.(type) {
	case nil:
		return t == "null"
	case bool:
		return t == "boolean"
	case string:
		return t == "string"
	case []any:
		return t == "array"
	case object:
		return t == "object"
	}
	return isNumber && (t == "number" || t == "integer" && n == float64(int64(n)))
}
